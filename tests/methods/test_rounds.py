"""Asking the assistant again where a rationale was rejected, and training it on its own."""

from typing import Any

import pytest

from bridge_jax.config import RationalesConfig, RunConfig
from bridge_jax.methods import bridge, rationales, rounds
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import RATIONALES
from bridge_jax.methods.rationales import COMPLETIONS, RETRIES, SAMPLES
from bridge_jax.methods.rounds import ALL, ROUNDS
from bridge_jax.runs import Run
from tests.launch import tiny_run
from tests.methods import one_stage

# Rows of their own device have the same log-probabilities to the bit, whatever else is written.
ALL_DEVICES = True  # See conftest.py.

SETTINGS = ("data.pool=4", "generation.max_new_tokens=6", "rationales.show_gold=false")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("rounds"))


def opened(path, workdir, *settings):
    """Returns a run whose assistant wrote right, wrong, wrong and no answer."""
    job = Run(tiny_run.settings(path, *SETTINGS, *settings), workdir)
    answers = [job.inputs.pool[0].answer, "-1", "-2", None]
    rows = [
        one_stage.written(example, answer=answer, rationale=f"First {i}.")
        for i, (example, answer) in enumerate(zip(job.inputs.pool, answers))
    ]
    one_stage.folder_of(job, COMPLETIONS).write_rows("completions.jsonl", rows)
    return job


def test_only_what_was_rejected_is_asked_again(path, tmp_path, monkeypatch):
    job, asked = opened(path, tmp_path, "rationales.retries=3"), one_stage.asked(monkeypatch)
    one_stage.run_alone(job, RETRIES, by=None)
    again = [example for example in job.inputs.pool[1:] for _ in range(3)]
    assert [example.id for example, _ in asked] == [example.id for example in again]
    reading = job.inputs.rendering("assistant")
    prompts = [reading.prompt(example, "reason") for example in again]
    requests: list[Any] = [request for _, request in asked]
    assert [request.prompt for request in requests] == prompts
    assert [request.stream for request in requests] == list(range(3, 12))


def test_retries_are_sampled(path, tmp_path):
    job = opened(path, tmp_path, "rationales.retries=4", "rationales.retry_temperature=1.5")
    rows = one_stage.run_alone(job, RETRIES, by=None).rows("completions.jsonl")
    said = [{r["completion"] for r in rows if r["id"] == e.id} for e in job.inputs.pool]
    assert [len(texts) > 1 for texts in said] == [False, True, True, True]


def test_nothing_is_asked_again_where_all_are_kept(path, tmp_path):
    job = opened(path, tmp_path, "rationales.retries=3")
    rows = [one_stage.written(example) for example in job.inputs.pool]
    one_stage.folder_of(job, COMPLETIONS).write_rows("completions.jsonl", rows)
    assert one_stage.run_alone(job, RETRIES, by=None).rows("completions.jsonl") == []


def test_the_first_retry_that_is_right_is_taken(path, tmp_path):
    job = opened(path, tmp_path, "rationales.retries=3")
    pool = job.inputs.pool
    again = [
        one_stage.written(pool[1], answer="-5", rationale="Wrong."),
        one_stage.written(pool[1], ended=False, rationale="Cut."),
        one_stage.written(pool[1], rationale="Right."),
        *(one_stage.written(pool[2], answer="-6", rationale="Wrong again.") for _ in range(3)),
        one_stage.written(pool[3], rationale="Right at once."),
        one_stage.written(pool[3], rationale="Right twice."),
        one_stage.written(pool[3], answer="-7", rationale="Wrong."),
    ]
    one_stage.folder_of(job, RETRIES).write_rows("completions.jsonl", again)
    rows = one_stage.run_alone(job, RATIONALES).rows("rationales.jsonl")
    assert [(row["rationale"], row["kept"], row.get("retry")) for row in rows] == [
        ("First 0.", True, None),
        ("Right.", True, 3),
        ("First 2.", False, None),
        ("Right at once.", True, 1),
    ]
    assert [row["correct"] for row in rows] == [True, True, False, True]


def test_a_round_trains_on_the_teachers_rationales_and_on_its_own(path, tmp_path, monkeypatch):
    job = opened(path, tmp_path, "rationales.rounds=1")
    pool, taught = job.inputs.pool, one_stage.taught(monkeypatch)
    judged = [
        one_stage.judged(pool[0], rationale="Mine."),
        one_stage.judged(pool[1], rationale="Wrong.", kept=False),
        one_stage.judged(pool[2], rationale="Mine, and taught."),
        one_stage.judged(pool[3], rationale="Wrong.", kept=False),
    ]
    names, assistant = ROUNDS[0]
    one_stage.folder_of(job, names.rationales).write_rows("rationales.jsonl", judged)
    said = [one_stage.annotation(pool[2])]
    one_stage.folder_of(job, ANNOTATIONS).write_rows("annotations.jsonl", said)
    one_stage.run_alone(job, assistant)
    decode = job.inputs.model("assistant").tokenizer.decode
    assert [decode(s.rationale) for s in taught["assistant"]] == ["Mine.", "As taught."]
    reads = one_stage.stage_of(job, assistant).reads
    assert reads["before"] == rationales.ASSISTANT.name
    assert one_stage.stage_of(job, COMPLETIONS).reads["by"] == assistant.name


@pytest.mark.parametrize(("filter_", "answer"), [("gold", "gold"), ("none", "-1")])
def test_a_round_learns_the_answers_that_the_filter_stands_for(
    path, tmp_path, monkeypatch, filter_, answer
):
    settings = ("rationales.rounds=1", f"rationales.filter={filter_}", "rationales.show_gold=true")
    job = opened(path, tmp_path, *settings)
    pool, taught = job.inputs.pool, one_stage.taught(monkeypatch)
    names, assistant = ROUNDS[0]
    judged = [one_stage.judged(pool[0], rationale="Mine.", answer="-1")]
    one_stage.folder_of(job, names.rationales).write_rows("rationales.jsonl", judged)
    said = [one_stage.annotation(pool[2])]
    one_stage.folder_of(job, ANNOTATIONS).write_rows("annotations.jsonl", said)
    one_stage.run_alone(job, assistant)
    reading = job.inputs.rendering("assistant")
    learned = pool[0].answer if answer == "gold" else answer
    # An assistant that is shown gold answers learns to reason and, after those, to explain.
    own = [reading.sequence(pool[0], "Mine.", learned, mode) for mode in ("reason", "explain")]
    taught_too = [
        reading.sequence(pool[2], "As taught.", mode=mode) for mode in ("reason", "explain")
    ]
    expected = [own[0], taught_too[0], *(own[1:] if filter_ == "gold" else []), taught_too[1]]
    assert taught["assistant"] == expected


def test_a_round_over_a_pool_without_labels_compares_with_none(path, tmp_path, monkeypatch):
    def compared(*_):
        raise AssertionError("a gold answer was read")

    settings = ("data.labelled=false", "rationales.filter=none", "teacher.keep_wrong=true")
    settings += ("selection.difficulty=entropy",)
    job = opened(path, tmp_path, "rationales.rounds=1", *settings)
    taught = one_stage.taught(monkeypatch)
    monkeypatch.setattr(rounds, "is_correct", compared)
    names, assistant = ROUNDS[0]
    pool = job.inputs.pool
    judged = [one_stage.judged(pool[0], rationale="Mine.", answer="-1")]
    one_stage.folder_of(job, names.rationales).write_rows("rationales.jsonl", judged)
    said = [one_stage.annotation(pool[2], answer="-2")]
    one_stage.folder_of(job, ANNOTATIONS).write_rows("annotations.jsonl", said)
    one_stage.run_alone(job, assistant)
    decode = job.inputs.model("assistant").tokenizer.decode
    assert [decode(s.answer).strip() for s in taught["assistant"]] == ["Answer: -1", "Answer: -2"]


def test_a_round_without_rationales_of_its_own_is_told(path, tmp_path, monkeypatch, caplog):
    job = opened(path, tmp_path, "rationales.rounds=1")
    one_stage.taught(monkeypatch)
    names, assistant = ROUNDS[0]
    pool = job.inputs.pool
    judged = [one_stage.judged(pool[0], kept=False), one_stage.judged(pool[2])]
    one_stage.folder_of(job, names.rationales).write_rows("rationales.jsonl", judged)
    said = [one_stage.annotation(pool[2])]
    one_stage.folder_of(job, ANNOTATIONS).write_rows("annotations.jsonl", said)
    one_stage.run_alone(job, assistant)
    assert "none of the assistant's own rationales was kept" in caplog.text


def test_agreement_filters_retries_too(path, tmp_path):
    settings = ("rationales.retries=1", "rationales.filter=consistency")
    job = opened(path, tmp_path, *settings, "rationales.min_agreement=0.5")
    pool = job.inputs.pool
    said = {0: ["0"], 1: ["-5", "-5"], 2: ["-6", None, None], 3: [None]}
    samples = [
        rationales.StudentSample(id=pool[i].id, answer=answer)
        for i, answers in said.items()
        for answer in answers
    ]
    one_stage.folder_of(job, SAMPLES).write_rows("samples.jsonl", samples)
    again = [
        one_stage.written(pool[1], answer="-5", rationale="Agreed."),
        one_stage.written(pool[2], answer="-6", rationale="Not agreed."),
    ]
    one_stage.folder_of(job, RETRIES).write_rows("completions.jsonl", again)
    rows = one_stage.run_alone(job, RATIONALES).rows("rationales.jsonl")
    assert [row["rationale"] for row in rows[1:3]] == ["Agreed.", "First 2."]
    assert rows[1]["agreement"] == 1.0


def test_retries_have_random_numbers_of_their_own(path, tmp_path):
    settings = ("generation.temperature=1.5", "rationales.retry_temperature=1.5")
    job = opened(path, tmp_path, "rationales.retries=1", *settings)
    one_stage.run_alone(job, COMPLETIONS, by=None)
    first = one_stage.folder_of(job, COMPLETIONS).rows("completions.jsonl")
    again = one_stage.run_alone(job, RETRIES, by=None).rows("completions.jsonl")
    texts = {row["id"]: row["completion"] for row in first}
    assert all(row["completion"] != texts[row["id"]] for row in again)
    # Those of an example are the same, whatever else is rejected.
    kept = next(row["id"] for row in again)
    pool = job.inputs.pool.by_id
    rows = [r if r["id"] == kept else one_stage.written(pool[r["id"]]) for r in first]
    one_stage.folder_of(job, COMPLETIONS).write_rows("completions.jsonl", rows)
    (job.workdir / RETRIES.name / "completions.jsonl").unlink()  # Or it would go on with it.
    alone = one_stage.run_alone(job, RETRIES, by=None).rows("completions.jsonl")
    assert alone == [row for row in again if row["id"] == kept]


def test_the_defaults_add_no_stage():
    names = {stage.name for stage in bridge.stages(RunConfig())}
    added = {RETRIES.name, *(artifact.name for artifact in ALL)}
    assert not names & added
    chosen = RunConfig(rationales=RationalesConfig(retries=1, rounds=3))
    assert added <= {stage.name for stage in bridge.stages(chosen)}
