"""A recorded teacher without a rationale that would be kept is found before anything is trained."""

import json

import pytest

from bridge_jax.errors import UserError
from bridge_jax.runs import Run
from tests.launch import tiny_run
from tests.methods import one_stage

SETTINGS = ("teacher.kind=replay", "data.source=jsonl", "data.kind=numeric")


def started(folder, texts, *settings):
    """Returns a run on rows with these rationales, whose answers are their numbers."""
    path = folder / "rows.jsonl"
    rows = [
        {
            "question": f"{split} {i}?",
            "answer": str(i),
            "split": split,
            "rationale": text,
            "said": str(i),
        }
        for split in ("train", "dev", "test")
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = (*SETTINGS, f"data.path={path}", "data.rationale=rationale", "budget.queries=2")
    return Run(tiny_run.settings(tiny_run.write_config(folder), *given, *settings), folder)


@pytest.mark.parametrize(
    "text",
    [
        "So it is 1.\nAnswer: 1",
        '{"rationale": "So it is 1.", "answer": "1"}',
        "<think>Hm.</think>So it is 1.\nAnswer: 1",
    ],
)
def test_one_that_would_be_kept_is_enough(tmp_path, text):
    one_stage.check(started(tmp_path, ["Wrong.\nAnswer: 7", text, "No answer."]))


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        (["Hm.", "Well."], (), "teacher_answer:COLUMN; or train on them with the gold answers"),
        (["It is 7.\nAnswer: 7"] * 2, (), "not the gold one.*relax the settings"),
        (["Hm.", "Well."], ("data.rationale=long",), "rationale 'long'; set data.rationale to rat"),
    ],
)
def test_none_is_told(tmp_path, texts, settings, message):
    with pytest.raises(UserError, match=message):
        one_stage.check(started(tmp_path, texts, *settings))


@pytest.mark.parametrize("cure", ["data.columns=teacher_answer:said", "teacher.keep_wrong=true"])
def test_the_ways_out_are_ways_out(tmp_path, cure):
    one_stage.check(started(tmp_path, ["Hm.", "Well."], cure))
