"""Test questions whose answers are bought: what is asked, kept, left out, and measured with."""

import json

import pytest
from fake_vendor import KEY, FakeVendor

from bridge_jax import methods
from bridge_jax.config import (
    BudgetConfig,
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
from bridge_jax.methods import checks, evaluation, held_out
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.filtering import RATIONALES
from bridge_jax.methods.held_out import HELD_OUT
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.storage import Folder
from bridge_jax.planning import workload
from bridge_jax.runs import Run
from tests.methods import one_stage

LABELS = ("late", "lost")


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def vendor():
    with FakeVendor() as vendor:
        vendor.answer = truth
        yield vendor


def truth(prompt):
    return LABELS[int(prompt.split()[-1].strip("?")) % 2]


def write(path, answered=(), pool=12, test=6, **more):
    """Writes tickets without answers, but for the test questions of some numbers."""
    splits = ["train"] * pool + ["dev"] * 2 + ["test"] * test
    with path.open("w") as file:
        for number, split in enumerate(splits):
            row = {"id": f"r{number}", "question": f"Where is {number}?", "split": split, **more}
            if number in answered:
                row["answer"] = LABELS[number % 2]
            file.write(json.dumps(row) + "\n")
    return str(path)


@pytest.fixture
def make(checkpoint, tmp_path, vendor):
    def make(*settings, answered=(), workdir="run"):
        data = DataConfig(
            "jsonl",
            write(tmp_path / f"{len(answered)}.jsonl", answered),
            kind="label",
            choices=LABELS,
            instruction="Late or lost?",
            labelled=False,
        )
        teacher = TeacherConfig(
            "openai", "big-1", f"{vendor.url}/v1", timeout=5, keep_wrong=True, samples=1
        )
        config = RunConfig(
            data=data,
            budget=BudgetConfig(queries=9),
            teacher=teacher,
            selection=SelectionConfig(strategy="diversity", difficulty="entropy"),
            rationales=RationalesConfig(filter="confidence"),
            assistant=ModelConfig(str(checkpoint)),
            student=ModelConfig(str(checkpoint)),
            warmup=WarmupConfig(fraction=0.0),
            evaluation=EvaluationConfig(teacher_test=4),
        )
        return Run(override(config, settings), tmp_path / workdir)

    return make


def bought(job):
    return one_stage.run_alone(job, HELD_OUT)


def test_the_teacher_answers_a_draw_of_the_test(make, vendor):
    job = make()
    found = bought(job).rows("answers.jsonl")
    assert len(found) == len(vendor.bills) == 4
    # In the order of the test, and those of a smaller draw are among them.
    numbers = [int(row["id"][1:]) for row in found]
    assert numbers == sorted(numbers) and set(numbers) <= set(range(14, 20))
    smaller = held_out.drawn(
        one_stage.stage_of(make("evaluation.teacher_test=2"), HELD_OUT).params, job.inputs.test
    )
    assert {example.id for example in smaller} < {row["id"] for row in found}
    assert [row["answer"] for row in found] == [LABELS[number % 2] for number in numbers]
    bill = json.loads((job.workdir / HELD_OUT.name / "spend.json").read_text())
    assert bill["queries"] == 4
    assert bill["usd"] == pytest.approx(
        sum(1.25e-6 * b.input_tokens + 10e-6 * b.output_tokens for b in vendor.bills), abs=1e-8
    )


def test_nothing_is_paid_twice_after_a_kill(make, vendor, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    job = make()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_rows", die)
        with pytest.raises(KeyboardInterrupt):
            bought(job)
    assert len(vendor.bills) == 4
    assert [row["reason"] for row in bought(job).rows("answers.jsonl")] == [None] * 4
    assert len(vendor.bills) == 4
    # Nor where one more is asked, or settings of what is learned change.
    for settings in (["evaluation.teacher_test=5"], ["teacher.min_rationale_tokens=9"]):
        bought(make(*settings))
    assert len(vendor.bills) == 5


def test_what_cannot_be_read_is_left_out_and_told(make, vendor, caplog):
    job = make()
    asked = held_out.drawn(one_stage.stage_of(job, HELD_OUT).params, job.inputs.test)
    no_idea, refused = asked[1], asked[2]
    vendor.answer = lambda prompt: "who knows" if no_idea.question in prompt else truth(prompt)
    vendor.script = {refused.question: ["refusal"]}
    folder = bought(job)
    found = {row["id"]: row for row in folder.rows("answers.jsonl")}
    assert found[no_idea.id]["reason"] == "no answer that parses"
    assert found[refused.id]["reason"] == "refused"
    assert "test questions: 2 of 4 have no answer from the teacher and are left out" in caplog.text
    measured_on = held_out.with_answers(job.inputs.test, folder)
    assert [example.id for example in measured_on] == [asked[0].id, asked[3].id]
    assert measured_on[0].gold == found[asked[0].id]["answer"]
    # An answer without a rationale will do: there is nothing to learn from it.
    assert all(row["answer"] for row in found.values() if row["reason"] is None)


def test_a_test_without_any_answer_measures_nothing(make, vendor):
    job = make()
    vendor.answer = lambda prompt: "who knows"
    folder = bought(job)
    message = r"none of the teacher's 4 replies .* \(4 x no answer that parses\)"
    with pytest.raises(UserError, match=message):
        held_out.with_answers(job.inputs.test, folder)


def test_answers_that_are_given_stay_beside_bought_ones(make):
    job = make("evaluation.teacher_test=2", answered=(14, 15, 16))
    folder = bought(job)
    asked = {row["id"] for row in folder.rows("answers.jsonl")}
    assert len(asked) == 2 and asked <= {"r17", "r18", "r19"}
    measured_on = held_out.with_answers(job.inputs.test, folder)
    assert {example.id for example in measured_on} == {"r14", "r15", "r16", *asked}
    assert held_out.with_answers(job.inputs.test, None) == list(job.inputs.test[:3])
    said = " ".join(job.notes())
    assert "of 3 test questions without an answer, 2 are sent to the teacher" in said


def test_every_model_is_measured_on_the_bought_answers(make, monkeypatch):
    job = make("evaluation.assistant_examples=3")
    folder = bought(job)
    expected = [row["id"] for row in folder.rows("answers.jsonl")]
    for artifact in (evaluation.STUDENT, evaluation.ASSISTANT):
        assert HELD_OUT.name in one_stage.stage_of(job, artifact).reads.values()
    seen = one_stage.asked(monkeypatch)
    one_stage.run_alone(job, evaluation.STUDENT_BASE, made=None)
    assert [example.id for example, _ in seen] == expected
    reading, test = job.inputs.rendering("student"), job.inputs.test
    places = [test.by_id[example.id] for example, _ in seen]
    assert [ids for _, ids in seen] == [reading.prompt(example, "reason") for example in places]
    assert [example.gold for example, _ in seen] == [
        row["answer"] for row in folder.rows("answers.jsonl")
    ]
    seen.clear()
    one_stage.run_alone(job, evaluation.ASSISTANT_BASE)
    assert [example.id for example, _ in seen] == expected[:3]


def test_the_budget_pays_for_selection_and_test(make):
    assert selected_count(make().config) == 5
    assert selected_count(make("teacher.samples=2").config) == 2
    message = (
        r"budget\.queries=9 does not cover 6 examples at teacher\.samples=1 requests each and 4 "
        r"of test and dev \(evaluation\.teacher_test, evaluation\.teacher_dev\); lower selec"
    )
    with pytest.raises(UserError, match=message):
        make("selection.size=6")
    with pytest.raises(UserError, match=r"evaluation\.teacher_test"):
        make("budget.queries=4")
    # Who learns from no teacher pays for the test alone.
    labels = ["method=labels", "data.labelled=true", "budget.queries=3"]
    with pytest.raises(UserError, match=r"budget\.queries=3 does not cover"):
        make(*labels)
    assert methods.teacher_stages(make(*labels, "evaluation.teacher_test=3").stages)


def test_a_quote_counts_the_test_where_nothing_else_is_asked(make):
    labels = ["method=labels", "data.labelled=true", "teacher.max_output_tokens=400"]
    ((_, quote),) = make(*labels, "evaluation.teacher_test=3", answered=range(14)).quotes().items()
    assert (quote.model, quote.queries) == ("big-1", 3)
    # Each costs 400 tokens of output at 10 dollars a million, and under 800 of input at 1.25.
    assert 3 * 400 * 10_000 < quote.nanodollars < 3 * (400 * 10_000 + 800 * 1250)
    # With annotations as well, only the caps are known.
    ((_, both),) = make().quotes().items()
    assert both == ("big-1", 9, int(make().config.budget.usd * 1e9))


def test_caps_are_checked_for_both_before_anything_is_trained(make, vendor):
    job = make("budget.usd=0.02", "teacher.max_output_tokens=400")
    note = job._check_teacher()
    # Nine requests of at most 400 tokens, at 10 dollars a million: 0.036 dollars.
    assert "guarantees only 4 of 9 requests to the teacher" in note
    assert not vendor.bills


def test_the_plan_counts_both(make):
    config = make().config
    stages, lengths = workload.opened(config)
    spending = workload.expected(stages, lengths)
    assert spending.queries == 9
    assert (lengths.test_size, lengths.pool_size) == (4, 12)
    test = next(stage for stage in stages if stage.name == "evaluation/student")
    assert lengths.examples(test.workload) == 4


@pytest.mark.parametrize(
    ("settings", "answered", "message"),
    [
        (
            ["evaluation.teacher_test=0"],
            (),
            r"6 of 6 test questions have no answer .*'r14'.*test_path.*teacher_test=6\)",
        ),
        (["evaluation.teacher_test=0"], range(15, 20), r"1 of 6 test questions have no answer"),
        ([], range(14, 20), r"all 6 test questions have an answer already; set it to 0"),
        (["evaluation.teacher_test=4"], (14, 15, 16), r"=4 exceeds the 3 test questions without"),
        (
            ["student_training.dev_every=1", "student_training.row_tokens=400"],
            (),
            r"student_training\.dev_every=1: 2 of 2 dev questions have no answer",
        ),
        (
            ["warmup.fraction=0.5"],
            (),
            r"asks for 6 examples with an answer, but the pool has none; .*warmup\.fraction=0$",
        ),
        (
            ["warmup.fraction=0.5"],
            (1, 2, 3),
            r"asks for 6 examples .* only 3; lower it to at most 0\.25, or",
        ),
        (["teacher.kind=replay"], (), "no example in the pool has a recorded rationale"),
    ],
)
def test_what_has_no_answer_is_found_before_anything_is_paid(
    make, vendor, settings, answered, message
):
    job = make("assistant_training.row_tokens=400", "student_training.row_tokens=400", *settings,
               answered=answered)  # fmt: skip
    with pytest.raises(UserError, match=message):
        one_stage.check(job)
    assert not vendor.bills


def test_who_has_no_labels_reads_all_settings_in_one_message(make):
    settings = ["rationales.filter=gold", "teacher.keep_wrong=false", "selection.difficulty=nll"]
    with pytest.raises(UserError) as error:
        make(*settings)
    for said in ("use none, confidence", "teacher.keep_wrong=true", "use entropy"):
        assert said in str(error.value)
    with pytest.raises(UserError, match=r"warmup\.fraction=0: method=self has no teacher"):
        make("method=self")


def test_without_a_warm_up_the_assistant_scores_as_downloaded(make):
    names = [stage.name for stage in make().stages]
    assert "apprenticeship/warmup" not in names
    assert names.index(HELD_OUT.name) < names.index(ANNOTATIONS.name)
    for stage in make().stages:
        assert "warmed" not in stage.reads
    assert (
        "warmed"
        in one_stage.stage_of(
            make("warmup.fraction=0.1"), methods.table()["apprenticeship/scores"]
        ).reads
    )


def test_another_test_is_bought_anew_and_trains_nothing(make, tmp_path):
    before = make()
    other = write(tmp_path / "other.jsonl", test=7)
    changed = one_stage.differing(before, make(f"data.path={other}"))
    tests = {s.name for s in before.stages if s.artifact.work == "evaluate"}
    assert changed == {HELD_OUT.name, *tests}


def test_the_teachers_answers_are_the_labels_of_the_selected(make, vendor):
    job = make()
    pool = job.inputs.pool
    no_idea = pool[1].question
    vendor.answer = lambda prompt: "who knows" if no_idea in prompt else truth(prompt)
    chosen = one_stage.folder_of(job, methods.table()["apprenticeship/selection"])
    record = {"strategy": "random", "size": 3, "ids": ["r0", "r1", "r2"]}
    chosen.write_record("selection.json", record | {"clusters": None, "set_aside": []})
    folder = one_stage.run_alone(job, ANNOTATIONS)
    rows = folder.rows("annotations.jsonl")
    assert [(row["gold"], row["correct"]) for row in rows] == [(None, None)] * 3
    assert [row["kept"] for row in rows] == [True, False, True]
    assert rows[1]["reason"] == "no answer that parses"
    kept = kept_annotations(folder, pool, labelled=False)
    assert [(example.id, answer) for example, _, answer in kept] == [("r0", "late"), ("r2", "late")]


@pytest.mark.parametrize("chosen_by", ["confidence", "consistency"])
def test_pseudo_labels_are_filtered_without_gold(make, chosen_by):
    job = make(f"rationales.filter={chosen_by}")
    pool, table = job.inputs.pool, methods.table()
    rows = [
        one_stage.written(pool[0], answer="late"),
        one_stage.written(pool[1], answer="lost", mean_logprob=-0.9),
        one_stage.written(pool[2], answer="lost"),
    ]
    completed = one_stage.folder_of(job, table["tutoring/completions"])
    completed.write_rows("completions.jsonl", rows)
    given = {}
    if chosen_by == "consistency":
        sampled = one_stage.folder_of(job, table["tutoring/samples"])
        said = [("r0", "late"), ("r0", "lost"), ("r2", "late"), ("r2", "late")]
        sampled.write_rows("samples.jsonl", [{"id": i, "answer": a} for i, a in said])
        given["sampled"] = sampled
    judged = one_stage.run_alone(job, RATIONALES, **given).rows("rationales.jsonl")
    assert [(row["gold"], row["correct"]) for row in judged] == [(None, None)] * 3
    reasons = [None, "mean_logprob below -0.5", None]
    if chosen_by == "consistency":
        reasons[2] = "agreement below 0.25"
    assert [row["reason"] for row in judged] == reasons


def test_a_bad_config_is_found_without_data():
    config = override(RunConfig(), ["evaluation.teacher_test=25"])
    with pytest.raises(UserError, match="25 of test and dev"):
        checks.validate(config)
