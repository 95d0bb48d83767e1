"""Selecting in parts: what the teacher is asked next follows from drafts."""

import json

import pytest

from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.methods import rationales, selection_parts, teacher
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.apprenticeship import SELECTION, WARMUP
from bridge_jax.methods.checks import validate
from bridge_jax.methods.rationales import ASSISTANT
from bridge_jax.methods.selection_parts import ANNOTATED, PARTS, counts
from bridge_jax.planning.workload import Lengths, expected
from bridge_jax.runs import Run
from tests.launch import tiny_run
from tests.methods import one_stage

SETTINGS = (
    "data.pool=8",
    "selection.size=6",
    "selection.parts=2",
    "selection.drafts=3",
    "selection.strategy=random",
    "generation.max_new_tokens=6",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("selection_parts"))


def opened(path, workdir, *settings):
    """Returns a run that has selected, and asked about, three of eight examples."""
    job = Run(tiny_run.settings(path, *SETTINGS, *settings), workdir)
    pool, part = job.inputs.pool, PARTS[0]
    record = {"strategy": "random", "size": 3, "clusters": None}
    record |= {"ids": [e.id for e in pool[:3]], "set_aside": [pool[3].id]}
    one_stage.folder_of(job, part.selection).write_record("selection.json", record)
    said = [
        one_stage.annotation(pool[0], rationale="one two three"),
        one_stage.annotation(pool[1], rationale="four five six"),
        one_stage.annotation(pool[2], rationale="seven eight nine", kept=False),
    ]
    one_stage.folder_of(job, part.annotations).write_rows("annotations.jsonl", said)
    return job


def write_drafts(job, *rows):
    drafts = one_stage.folder_of(job, PARTS[0].drafts)
    drafts.write_rows("completions.jsonl", rows)


def chosen(job):
    return one_stage.run_alone(job, SELECTION).record("selection.json")


def test_parts_are_as_equal_as_possible(path):
    def sizes(*changed):
        return counts(override(tiny_run.settings(path), changed))

    assert sizes("selection.parts=3") == [4, 3, 3]
    assert sizes() == [10]
    assert sizes("selection.size=9", "selection.parts=4") == [3, 2, 2, 2]


def test_each_part_is_asked_before_the_next_is_chosen(path):
    config = override(tiny_run.settings(path), ["selection.parts=3", "warmup.fraction=0"])
    plan = selection_parts.selection_stages(config) + selection_parts.stages(config)
    first, second, *_ = PARTS
    assert [stage.name for stage in plan] == [
        "apprenticeship/scores",
        *(artifact.name for artifact in (*first, *second)),
        SELECTION.name,
        ANNOTATIONS.name,
    ]
    reads = {stage.name: stage.reads for stage in plan}
    assert reads[second.selection.name]["chosen"] == first.selection.name
    assert reads[SELECTION.name]["drafted"] == second.drafts.name
    work = {stage.name: stage.workload.count for stage in plan if stage.workload}
    assert [work[part.annotations.name] for part in (first, second)] == [4, 3]
    assert work[ANNOTATIONS.name] == 3
    assert [work[part.assistant.name] for part in (first, second)] == [4, 7]
    assert [work[part.drafts.name] for part in (first, second)] == [60, 60]


@pytest.mark.parametrize("labelled", ["true", "false"])
def test_random_questions_are_not_scored(path, labelled):
    changed = ["selection.strategy=random", f"data.labelled={labelled}"]
    plan = selection_parts.selection_stages(override(tiny_run.settings(path), changed))
    assert [stage.name for stage in plan] == [SELECTION.name]


def test_the_assistant_of_a_part_goes_on_from_the_one_before(path):
    def starts(*changed):
        config = override(tiny_run.settings(path), ["selection.parts=3", *changed])
        plan = [*selection_parts.stages(config), rationales.assistant_stage(config, ("reason",))]
        reads = {stage.name: stage.reads.get("warmed") for stage in plan}
        return [reads[a.name] for a in (PARTS[0].assistant, PARTS[1].assistant, ASSISTANT)]

    first = PARTS[0].assistant.name
    assert starts("warmup.fraction=0.5") == [WARMUP.name, first, WARMUP.name]
    assert starts("warmup.fraction=0") == [None, first, None]


def test_drafts_are_of_questions_that_are_left(path, tmp_path, monkeypatch):
    job, asked = opened(path, tmp_path), one_stage.asked(monkeypatch)
    one_stage.run_alone(job, PARTS[0].drafts, by=None)
    left = job.inputs.pool[4:]
    assert [example.id for example, _ in asked] == [example.id for example in left]
    reading = job.inputs.rendering("assistant")
    assert [ids for _, ids in asked] == [reading.prompt(e, "reason") for e in left]


def test_drafts_are_drawn_by_the_seed(path, tmp_path, monkeypatch):
    asked = one_stage.asked(monkeypatch)

    def drawn(seed):
        asked.clear()
        job = opened(path, tmp_path, "selection.drafts=1", f"seed={seed}")
        one_stage.run_alone(job, PARTS[0].drafts, by=None)
        place = {example.id: i for i, example in enumerate(job.inputs.pool)}
        return [place[example.id] for example, _ in asked]

    found = [drawn(seed) for seed in range(6)]
    assert all(len(places) == 3 and places == sorted(places) for places in found)
    assert {place for places in found for place in places} == {4, 5, 6, 7}
    assert drawn(0) == found[0]


def test_wrong_drafts_that_say_something_new_come_first(path, tmp_path):
    job = opened(path, tmp_path)
    pool = job.inputs.pool
    write_drafts(
        job,
        one_stage.written(pool[4], rationale="a b c d e f g h"),  # New and right.
        one_stage.written(pool[5], rationale="one two three", answer="-1"),  # Known.
        one_stage.written(pool[6], rationale="seven eight nine", answer="-1"),  # Not kept: new.
        one_stage.written(pool[7], rationale="four five six", answer=None),  # Known.
    )
    found = chosen(job)
    assert found["ids"] == [pool[i].id for i in (0, 1, 2, 6, 5, 7)]
    assert (found["size"], found["strategy"]) == (6, "random")


def test_right_drafts_are_taken_where_too_few_are_wrong(path, tmp_path):
    job = opened(path, tmp_path)
    pool = job.inputs.pool
    write_drafts(
        job,
        one_stage.written(pool[4], rationale="one two three"),
        one_stage.written(pool[5], rationale="x y z", answer="-1"),
        one_stage.written(pool[6], rationale="x y z"),  # Said by the one before.
        one_stage.written(pool[7], rationale="a b c"),
    )
    assert chosen(job)["ids"][3:] == [pool[5].id, pool[7].id, pool[4].id]


def test_without_labels_no_draft_is_right(path, tmp_path, monkeypatch):
    def compared(*_):
        raise AssertionError("a gold answer was read")

    settings = ("data.labelled=false", "rationales.filter=none", "teacher.keep_wrong=true")
    job = opened(path, tmp_path, *settings)
    monkeypatch.setattr(selection_parts, "is_correct", compared)
    pool = job.inputs.pool
    write_drafts(
        job,
        one_stage.written(pool[4], rationale="one two three"),
        one_stage.written(pool[5], rationale="x y z"),
        one_stage.written(pool[6], rationale="a b c d e f g h i j"),
        one_stage.written(pool[7], rationale="four five six", answer="-1"),
    )
    assert chosen(job)["ids"][3:] == [pool[6].id, pool[5].id, pool[4].id]


@pytest.mark.parametrize("settings", [("selection.parts=7",), ("selection.parts=0",)])
def test_the_number_of_parts_is_limited(path, settings):
    with pytest.raises(UserError, match=r"selection\.parts="):
        validate(override(tiny_run.settings(path), settings))


def test_a_part_has_examples_to_train_on(path):
    settings = ["selection.size=8", "selection.parts=3"]
    said = r"selection\.parts=3: 8 examples are selected, but each part requires at least 3"
    with pytest.raises(UserError, match=said):
        validate(override(tiny_run.settings(path), settings))


@pytest.mark.slow
def test_a_whole_run_pays_each_answer_once(path, tmp_path):
    settings = ("selection.parts=3", "selection.drafts=2", "rationales.show_gold=false")
    report = tiny_run.finish_here(tiny_run.settings(path, *settings), tmp_path)
    ids = [
        json.loads((tmp_path / artifact.name / "selection.json").read_text())["ids"]
        for artifact in (PARTS[0].selection, PARTS[1].selection, SELECTION)
    ]
    assert [len(part) for part in ids] == [4, 7, 10]
    assert ids[2][:7] == ids[1] and ids[1][:4] == ids[0] and len(set(ids[2])) == 10
    assert report["spend"]["queries"] == 10


API = (
    "selection.parts=3",
    "teacher.kind=openai",
    "teacher.model=gpt-x",
    "teacher.usd_per_million_input=1",
    "teacher.usd_per_million_output=1",
    "teacher.retries=2",
    "budget.queries=12",
    "selection.size=10",
)


def test_retries_are_left_to_the_last_part(path, tmp_path):
    job = Run(tiny_run.settings(path, *API), tmp_path)
    parts = [one_stage.stage_of(job, artifact).params for artifact in ANNOTATED if artifact.name in
             {stage.name for stage in job.stages}]  # fmt: skip
    assert [params.teacher.retries for params in parts] == [0, 0, 2]


def test_a_quote_is_of_all_parts_together(path, tmp_path):
    (whole,) = Run(tiny_run.settings(path, *API, "selection.parts=1"), tmp_path).quotes().values()
    (parts,) = Run(tiny_run.settings(path, *API), tmp_path).quotes().values()
    assert parts == whole and parts.queries == 12
    (two,) = Run(tiny_run.settings(path, *API), tmp_path, phase="selection").quotes().values()
    assert two.queries == 7 and two.nanodollars < whole.nanodollars


def test_the_plan_pays_each_answer_once(path, tmp_path):
    def planned(parts):
        job = Run(tiny_run.settings(path, *API, f"selection.parts={parts}"), tmp_path)
        return expected(job.stages, Lengths(job.config, job.stages, job.inputs))

    assert planned(3).queries == planned(1).queries == 10
    assert planned(3).usd == pytest.approx(planned(1).usd, rel=0.1)
    assert planned(3).usd <= planned(3).usd_high <= 0.05


def test_drafts_are_planned_up_to_the_pool(path, tmp_path):
    job = Run(tiny_run.settings(path, "selection.parts=3", "selection.drafts=99"), tmp_path)
    workload = one_stage.stage_of(job, PARTS[0].drafts).workload
    assert Lengths(job.config, job.stages, job.inputs).examples(workload) == 24


def test_a_run_that_goes_on_counts_what_is_left(path, tmp_path, monkeypatch):
    planned = []

    def check_budget(plans, *_):
        planned.append([plan.count for plan in plans])
        return ""

    monkeypatch.setattr(teacher, "check_budget", check_budget)
    monkeypatch.setattr(teacher, "check_key", lambda _: None)
    job = Run(tiny_run.settings(path, *API), tmp_path)
    one_stage.pretend(job, PARTS[0].annotations)
    for phase in ("all", "selection"):
        Run(tiny_run.settings(path, *API), tmp_path, phase=phase)._check_teacher()
    assert planned == [[6], [3]]
