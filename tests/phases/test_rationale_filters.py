"""Which rationales the student learns from, and what it learns where one was rejected."""

import pytest

from bridge_jax.config import RationalesConfig
from bridge_jax.phases import rationales, tutoring
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import read_rows, write_rows
from bridge_jax.tasks.example import Example
from tests.launch import tiny_run

EXAMPLE = Example("e", "How much?", "7.50", "numeric")
SURE = {
    "rationale": "Thus.",
    "answer": "7.5",
    "ended": True,
    "mean_logprob": -0.2,
    "min_step_logprob": -0.9,
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
        ("none", {"answer": None}, "no answer that parses"),
        ("none", {"rationale": " "}, "no rationale"),
        ("none", {"ended": False}, "cut off at generation.max_new_tokens"),
    ],
)
def test_why_a_rationale_is_rejected(filter_, change, reason):
    found = rationales.why_rejected(SURE | change, EXAMPLE, RationalesConfig(filter_))
    assert found == reason


@pytest.mark.parametrize("filter_", ["none", "confidence"])
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
