"""Which rationales the student learns from, and what it learns where one was rejected."""

import pytest

from bridge_jax.config import RationalesConfig
from bridge_jax.data.example import Example
from bridge_jax.methods import filtering, rationales
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import RATIONALES
from bridge_jax.methods.rationales import COMPLETIONS, SAMPLES
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.runs import Run
from tests.launch import tiny_run
from tests.methods import one_stage

EXAMPLE = Example("e", "How much?", "7.50", "numeric")
SURE = one_stage.written(EXAMPLE, answer="7.5") | {"agreement": 0.25}


class Unread(Example):
    """An example whose gold answer must not be read."""

    @property
    def answer(self):
        raise AssertionError("the gold answer was read")

    @answer.setter
    def answer(self, value):
        pass


@pytest.mark.parametrize(
    ("filter_", "change", "reason"),
    [
        ("gold", {}, None),
        ("gold", {"answer": "8"}, "the answer is not the gold one"),
        ("gold", {"mean_logprob": -9.0, "min_step_logprob": -9.0}, None),
        ("none", {"answer": "8", "mean_logprob": -9.0, "min_step_logprob": -9.0}, None),
        ("confidence", {"answer": "8"}, None),
        ("confidence", {"mean_logprob": -0.5}, None),
        ("confidence", {"mean_logprob": -0.51}, "mean_logprob below -0.5"),
        ("confidence", {"min_step_logprob": -1.01}, "min_step_logprob below -1.0"),
        ("consistency", {"answer": "8"}, None),
        ("consistency", {"agreement": 0.2}, "agreement below 0.25"),
        ("consistency", {"mean_logprob": -0.51}, "mean_logprob below -0.5"),
        ("none", {"answer": None}, "no answer that parses"),
        ("none", {"rationale": " "}, "no rationale"),
        ("none", {"ended": False}, "cut off at generation.max_new_tokens"),
    ],
)
def test_why_a_rationale_is_rejected(filter_, change, reason):
    found = filtering.why_rejected(SURE | change, EXAMPLE, RationalesConfig(filter_))
    assert found == reason


@pytest.mark.parametrize("filter_", ["none", "confidence", "consistency"])
def test_the_gold_answer_is_not_read_without_the_gold_filter(filter_):
    example = Unread("e", "How much?", "7.50", "numeric")
    assert filtering.why_rejected(SURE, example, RationalesConfig(filter_)) is None
    with pytest.raises(AssertionError, match="was read"):
        filtering.why_rejected(SURE, example, RationalesConfig("gold"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A workdir where the assistant wrote for four examples: right, wrong, wrong and no answer."""
    folder = tmp_path_factory.mktemp("written")
    path = tiny_run.write_config(folder)

    def make(*settings):
        return Run(tiny_run.settings(path, "data.pool=4", *settings), folder / "run")

    job = make()
    answers = [job.inputs.pool[0].answer, "-1", "-2", None]
    completions = [
        one_stage.written(example, rationale=f"Thus {i}.", answer=answer)
        for i, (example, answer) in enumerate(zip(job.inputs.pool, answers))
    ]
    # The teacher was asked about the third, and about the last without success.
    annotations = [
        one_stage.annotation(job.inputs.pool[2]),
        one_stage.annotation(job.inputs.pool[3], rationale="", answer=None, kept=False),
    ]
    one_stage.folder_of(job, COMPLETIONS).write_rows("completions.jsonl", completions)
    one_stage.folder_of(job, ANNOTATIONS).write_rows("annotations.jsonl", annotations)
    return make


@pytest.mark.parametrize(
    ("filter_", "targets"),
    [
        ("gold", [("Thus 0.", "gold"), ("", "gold"), ("As taught.", "gold"), ("", "gold")]),
        ("none", [("Thus 0.", "gold"), ("Thus 1.", "-1"), ("As taught.", "gold"), None]),
    ],
)
def test_what_the_student_learns(written, monkeypatch, filter_, targets):
    job, taught = written(f"rationales.filter={filter_}"), one_stage.taught(monkeypatch)
    rows = one_stage.run_alone(job, RATIONALES).rows("rationales.jsonl")
    one_stage.run_alone(job, STUDENT)

    decode = job.inputs.model("student").tokenizer.decode
    expected = []
    for example, target in zip(job.inputs.pool, targets):
        if target:
            text, answer = target
            answer = example.answer if answer == "gold" else answer
            expected.append((text, f"\nAnswer: {answer}" if text else f"Answer: {answer}"))
    assert [(decode(s.rationale), decode(s.answer)) for s in taught["student"]] == expected
    wrong = "the answer is not the gold one" if filter_ == "gold" else None
    assert [row["reason"] for row in rows] == [None, wrong, wrong, "no answer that parses"]
    assert [row["kept"] for row in rows] == [row["reason"] is None for row in rows]


def test_agreement_is_the_share_of_the_students_samples_with_the_same_answer(written):
    job = written("rationales.filter=consistency", "rationales.min_agreement=0.5")
    gold = job.inputs.pool[0].answer
    said = {0: [gold, gold, "5", None], 1: ["-1", None, None, "5"], 2: ["-2", "-2"], 3: [None] * 4}
    rows = [
        rationales.StudentSample(id=example.id, answer=answer)
        for i, example in enumerate(job.inputs.pool)
        for answer in said[i]
    ]
    one_stage.folder_of(job, SAMPLES).write_rows("samples.jsonl", rows)
    found = one_stage.run_alone(job, RATIONALES).rows("rationales.jsonl")
    # To say nothing is not to agree: the last rationale has no answer.
    assert [row["agreement"] for row in found] == [0.5, 0.25, 1.0, 0.0]
    assert [row["reason"] for row in found] == [
        None,
        "agreement below 0.5",
        None,
        "no answer that parses",
    ]


def test_the_instructed_student_samples_each_question_several_times(written, monkeypatch):
    settings = ("rationales.filter=consistency", "rationales.samples=3", "data.pool=6")
    job = written(*settings, "instruct.examples=0", "generation.max_new_tokens=6")
    monkeypatch.setattr(rationales, "answer_of", lambda text, example: text)
    out = one_stage.folder_of(job, SAMPLES)
    (out.path / "samples.jsonl").unlink(missing_ok=True)
    rows = one_stage.run_alone(job, SAMPLES).rows("samples.jsonl")
    texts = {e.id: [row["answer"] for row in rows if row["id"] == e.id] for e in job.inputs.pool}
    assert [len(said) for said in texts.values()] == [3] * 6
    # A student that samples says different things.
    assert all(len(set(said)) > 1 for said in texts.values())


def test_consistency_adds_a_stage_that_knows_no_gold_answer_and_no_assistant(written):
    job = written("rationales.filter=consistency")
    stages = {stage.name: stage for stage in job.stages}

    def after(name):
        return set(stages[name].reads.values()) & stages.keys()

    assert after("tutoring/samples") == {"tutoring/instruct"}
    assert after("tutoring/rationales") == {"tutoring/completions", "tutoring/samples"}
    reads = set(stages["tutoring/samples"].reads.values())
    assert reads & job.inputs.table.keys() == {"data/pool", "models/student", "rendering/student"}
    assert "tutoring/samples" not in [stage.name for stage in written().stages]
