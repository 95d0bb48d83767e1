"""The threshold of confidence: which is chosen on the dev split, and what it does to the pool."""

import json

import pytest

from bridge_jax import methods
from bridge_jax.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    RationalesConfig,
    RunConfig,
    SelectionConfig,
    TeacherConfig,
    WarmupConfig,
)
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.methods.filtering import RATIONALES, THRESHOLD
from bridge_jax.methods.held_out import HELD_OUT_DEV
from bridge_jax.methods.thresholds import DEV_COMPLETIONS, lowest
from bridge_jax.pipeline.stages import Stage
from bridge_jax.runs import Run
from tests.methods import one_stage

LABELS = ("late", "lost")


@pytest.mark.parametrize(
    ("answered", "least_right", "found"),
    [
        # By falling confidence: right, wrong, right, wrong; shares 1, 1/2, 2/3, 1/2.
        ([(-0.1, True), (-0.2, False), (-0.3, True), (-0.4, False)], 0.6, (-0.3, 3, 2)),
        ([(-0.4, False), (-0.3, True), (-0.1, True), (-0.2, False)], 0.7, (-0.1, 1, 1)),
        ([(-0.1, True), (-0.2, False), (-0.3, True), (-0.4, False)], 0.5, (-0.4, 4, 2)),
        # No threshold divides equal ones: the best is both, and half right.
        ([(-0.2, True), (-0.2, False), (-0.3, False)], 0.9, (-0.2, 2, 1)),
        # None is enough: of equally good ones, the lowest.
        ([(-0.1, False), (-0.2, False)], 0.9, (-0.2, 2, 0)),
        ([], 0.9, (None, 0, 0)),
    ],
)
def test_it_is_the_lowest_with_which_enough_are_right(answered, least_right, found):
    assert lowest(answered, least_right) == found


@pytest.fixture
def make(checkpoint, tmp_path):
    def make(*settings, answered=True):
        path = tmp_path / f"{answered}.jsonl"
        splits = ["train"] * 6 + ["dev"] * 5 + ["test"] * 2
        with path.open("w") as file:
            for number, split in enumerate(splits):
                row = {"id": f"r{number}", "question": f"Where is {number}?", "split": split}
                if split == "test" or (split == "dev" and answered):
                    row["answer"] = LABELS[number % 2]
                file.write(json.dumps(row) + "\n")
        config = RunConfig(
            data=DataConfig("jsonl", str(path), kind="label", choices=LABELS, labelled=False),
            teacher=TeacherConfig("openai", "big-1", free=True, keep_wrong=True),
            selection=SelectionConfig(size=2, strategy="diversity", difficulty="entropy"),
            rationales=RationalesConfig(filter="confidence", least_right=0.75),
            assistant=ModelConfig(str(checkpoint)),
            student=ModelConfig(str(checkpoint)),
            warmup=WarmupConfig(fraction=0.0),
            evaluation=EvaluationConfig(),
        )
        prices = ("teacher.usd_per_million_input=0", "teacher.usd_per_million_output=0")
        lengths = ("assistant_training.row_tokens=400", "student_training.row_tokens=400")
        return Run(override(config, (*prices, *lengths, *settings)), tmp_path / "run")

    return make


def choose(job, *said):
    """Chooses on rows of (number of the dev question, answer, log-probability)."""
    dev = job.inputs.dev.by_id
    rows = [one_stage.written(dev[f"r{n}"], answer=a, mean_logprob=p) for n, a, p in said]
    one_stage.folder_of(job, DEV_COMPLETIONS).write_rows("completions.jsonl", rows)
    return one_stage.run_alone(job, THRESHOLD).record("threshold.json")


# The gold answers of 6 to 10 are late, lost, late, lost, late.
SAID = (
    (6, "late", -0.1),
    (7, "lost", -0.7),
    (8, "late", -0.8),
    (9, "late", -0.9),
    (10, None, -0.2),
)


def test_a_threshold_is_chosen_recorded_and_used(make):
    job = make()
    expected = {"min_mean_logprob": -0.9, "least_right": 0.75, "asked": 5, "kept": 4, "right": 3}
    assert choose(job, *SAID) == expected
    rows = [
        one_stage.written(e, answer="late", mean_logprob=p)
        for e, p in zip(job.inputs.pool, (-0.89, -0.91))
    ]
    one_stage.folder_of(job, methods.table()["tutoring/completions"]).write_rows(
        "completions.jsonl", rows
    )
    judged = one_stage.run_alone(job, RATIONALES).rows("rationales.jsonl")
    assert [row["reason"] for row in judged] == [None, "mean_logprob below -0.9"]


def test_one_that_no_threshold_reaches_is_told(make, caplog):
    found = choose(make("rationales.least_right=0.9"), *((n, "late", -0.1) for n in range(6, 11)))
    assert (found["min_mean_logprob"], found["kept"], found["right"]) == (-0.1, 5, 3)
    assert "no threshold keeps that share" in caplog.text
    found = choose(make("rationales.min_mean_logprob=-0.4"), (6, None, -0.1))
    assert found["min_mean_logprob"] == -0.4 and found["kept"] == 0
    assert "is used as set" in caplog.text


def test_bought_answers_of_dev_choose_it(make):
    job = make("evaluation.teacher_dev=3", answered=False)
    bought = one_stage.folder_of(job, HELD_OUT_DEV)
    said = {"r6": "late", "r7": "late", "r9": None}
    bought.write_rows(
        "answers.jsonl",
        [
            {"id": i, "question": "", "rationale": "", "answer": a, "reason": None}
            for i, a in said.items()
        ],
    )
    # Of the two with an answer, the teacher agrees with the surer one.
    found = choose(job, *SAID)
    assert found == {
        "min_mean_logprob": -0.1,
        "least_right": 0.75,
        "asked": 2,
        "kept": 1,
        "right": 1,
    }


def test_the_assistant_is_asked_about_dev_as_about_the_pool(make, monkeypatch):
    job = make()
    seen = one_stage.asked(monkeypatch)
    one_stage.run_alone(job, DEV_COMPLETIONS, by=None)
    reading, dev = job.inputs.rendering("assistant"), job.inputs.dev
    assert [(e, ids) for e, ids in seen] == [(e, reading.prompt(e, "reason")) for e in dev]
    stage: Stage = one_stage.stage_of(job, DEV_COMPLETIONS)
    pool = one_stage.stage_of(job, methods.table()["tutoring/completions"])
    assert (stage.params, stage.reads["by"]) == (pool.params, pool.reads["by"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], r"none of its 5 questions has an answer: .*evaluation\.teacher_dev"),
        (["evaluation.teacher_dev=6"], r"teacher_dev=6 exceeds the 5 dev questions"),
    ],
)
def test_dev_questions_without_an_answer_are_found_first(make, settings, message):
    job = make(*settings, answered=False)
    one_stage.check(make())
    with pytest.raises(UserError, match=message):
        one_stage.check(job)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rationales.filter=none"], r"rationales\.filter=none; set it to 0"),
        (["method=direct"], "has no assistant that writes"),
        (["rationales.rounds=1"], r"set rationales\.rounds=0"),
        (["data.labelled=true", "teacher.keep_wrong=true"], r"rationales\.show_gold=false"),
        (["rationales.least_right=0", "evaluation.teacher_dev=1"], "only rationales.least_right"),
        (["rationales.least_right=1.5"], "0 to 1"),
    ],
)
def test_what_it_does_not_go_with(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(*settings)
