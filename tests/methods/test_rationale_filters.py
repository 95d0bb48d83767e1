"""Which rationales the student learns from, and what it learns where one was rejected."""

import pytest

from bridge_jax.config import RationalesConfig
from bridge_jax.phases import plan, rationales, tutoring
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows, write_rows
from bridge_jax.planning import workload
from bridge_jax.tasks.example import Example
from tests.launch import tiny_run

EXAMPLE = Example("e", "How much?", "7.50", "numeric")
SURE = {
    "rationale": "Thus.",
    "answer": "7.5",
    "ended": True,
    "mean_logprob": -0.2,
    "min_step_logprob": -0.9,
    "agreement": 0.25,
}


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
    found = rationales.why_rejected(SURE | change, EXAMPLE, RationalesConfig(filter_))
    assert found == reason


@pytest.mark.parametrize("filter_", ["none", "confidence", "consistency"])
def test_the_gold_answer_is_not_read_without_the_gold_filter(filter_):
    example = Unread("e", "How much?", "7.50", "numeric")
    assert rationales.why_rejected(SURE, example, RationalesConfig(filter_)) is None
    with pytest.raises(AssertionError, match="was read"):
        rationales.why_rejected(SURE, example, RationalesConfig("gold"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A workdir where the assistant wrote for four examples: right, wrong, wrong and no answer."""
    folder = tmp_path_factory.mktemp("written")
    path = tiny_run.write_config(folder)
    run = Run(tiny_run.settings(path, "data.pool=4"), folder / "run")
    answers = [run.splits.pool[0].answer, "-1", "-2", None]
    completions = [
        SURE | {"id": e.id, "rationale": f"Thus {i}.", "answer": answer}
        for i, (e, answer) in enumerate(zip(run.splits.pool, answers))
    ]
    # The teacher was asked about the third, and about the last without success.
    annotations = [
        {"id": run.splits.pool[2].id, "rationale": "As taught.", "kept": True},
        {"id": run.splits.pool[3].id, "rationale": "", "kept": False},
    ]
    for stage in ("tutoring/completions", "tutoring/rationales", "apprenticeship/annotations"):
        (folder / "run" / stage).mkdir(parents=True)
    write_rows(folder / "run/tutoring/completions/completions.jsonl", completions)
    write_rows(folder / "run/apprenticeship/annotations/annotations.jsonl", annotations)
    return lambda *settings: Run(tiny_run.settings(path, "data.pool=4", *settings), folder / "run")


@pytest.mark.parametrize(
    ("filter_", "lessons"),
    [
        ("gold", [("Thus 0.", "gold"), ("", "gold"), ("As taught.", "gold"), ("", "gold")]),
        ("none", [("Thus 0.", "gold"), ("Thus 1.", "-1"), ("As taught.", "gold"), None]),
    ],
)
def test_what_the_student_learns(written, monkeypatch, filter_, lessons):
    run, seen = written(f"rationales.filter={filter_}"), []
    monkeypatch.setattr(Run, "trainable", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda *given: seen.extend(given[4]))
    rationales.judge(run, run.workdir / "tutoring/rationales")
    tutoring.student(run, run.workdir)

    decode = run.tokenizer("student").decode
    expected = []
    for example, lesson in zip(run.splits.pool, lessons):
        if lesson:
            text, answer = lesson
            answer = example.answer if answer == "gold" else answer
            expected.append((text, f"\nAnswer: {answer}" if text else f"Answer: {answer}"))
    assert [(decode(s.rationale), decode(s.answer)) for s in seen] == expected
    rows = read_rows(run.workdir / "tutoring/rationales/rationales.jsonl")
    wrong = "the answer is not the gold one" if filter_ == "gold" else None
    assert [row["reason"] for row in rows] == [None, wrong, wrong, "no answer that parses"]
    assert [row["kept"] for row in rows] == [row["reason"] is None for row in rows]


def test_agreement_is_the_share_of_the_students_samples_with_the_same_answer(written):
    run = written("rationales.filter=consistency", "rationales.min_agreement=0.5")
    gold = run.splits.pool[0].answer
    said = {0: [gold, gold, "5", None], 1: ["-1", None, None, "5"], 2: ["-2", "-2"], 3: [None] * 4}
    folder = run.workdir / "tutoring/samples"
    folder.mkdir(exist_ok=True)
    rows = [
        {"id": example.id, "answer": answer}
        for i, example in enumerate(run.splits.pool)
        for answer in said[i]
    ]
    write_rows(folder / "samples.jsonl", rows)
    rationales.judge(run, run.workdir / "tutoring/rationales")
    found = read_rows(run.workdir / "tutoring/rationales/rationales.jsonl")
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
    run = written(*settings, "instruct.examples=0", "generation.max_new_tokens=6")
    (run.workdir / "samples").mkdir()
    monkeypatch.setattr(rationales, "answer_of", lambda text, example: text)
    rationales.sample(run, run.workdir / "samples")
    rows = read_rows(run.workdir / "samples/samples.jsonl")
    texts = {e.id: [row["answer"] for row in rows if row["id"] == e.id] for e in run.splits.pool}
    assert [len(said) for said in texts.values()] == [3] * 6
    # A student that samples says different things.
    assert all(len(set(said)) > 1 for said in texts.values())


def test_consistency_adds_a_stage_that_knows_no_gold_answer_and_no_assistant(written):
    run = written("rationales.filter=consistency")
    stages = {stage.name: stage for stage in plan.stages(run.config)}
    assert stages["tutoring/samples"].after == ("tutoring/instruct",)
    assert stages["tutoring/rationales"].after == ("tutoring/completions", "tutoring/samples")
    assert "tutoring/samples" not in [s.name for s in plan.stages(written().config)]
    works = {work.stage: work for work in workload.workloads(run)}
    # 4 questions, 4 samples each, 8 prompts at a time.
    assert works["tutoring/samples"].steps == 2
