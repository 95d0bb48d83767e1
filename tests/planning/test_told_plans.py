"""The plan of a run whose models are told the task, or that reads instructions from a file."""

import dataclasses
import json

import jax
import pytest

from bridge_jax.config import RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.methods.checks import validate
from bridge_jax.parallel import chips
from bridge_jax.planning import plan
from bridge_jax.planning.workload import expected, list_work, opened
from tests.launch import tiny_run

INSTRUCTION = "Which {team} has to handle this ticket?"
LABELS = {
    "billing": "invoices, {charges}, refunds",
    "sign in": "passwords and locked accounts",
    "shipping": "late or lost parcels",
}
TRAININGS = RunConfig().trainings()


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the config of a tiny run about six tickets, with assignments."""
    folder = tmp_path_factory.mktemp("tickets")
    splits, labels = ["train"] * 4 + ["dev", "test"], list(LABELS)
    rows = [
        {"id": f"t{i}", "question": f"Ticket {i}?", "answer": labels[i % 3], "split": split}
        for i, split in enumerate(splits)
    ]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        *("data.source=jsonl", f"data.path={folder}/tickets.jsonl", "data.kind=label"),
        *(f"data.choices={','.join(LABELS)}", "data.pool=0", "data.dev=0", "data.test=0"),
        *("max_prompt_tokens=300", "teacher.kind=openai", "teacher.model=big-1"),
        *("selection.size=2", "budget.usd=1", "instruct.examples=4"),
        *(f"{name}.row_tokens=320" for name in TRAININGS),
    ]
    base = tiny_run.settings(tiny_run.write_config(folder), *settings)
    told = dataclasses.replace(base.data, instruction=INSTRUCTION, label_descriptions=LABELS)

    def make(*assignments, is_told=True):
        config = dataclasses.replace(base, data=told) if is_told else base
        return validate(config_io.override(config, assignments))

    return make


def test_the_plan_counts_the_task(make):
    (stages, told), (_, bare) = opened(make()), opened(make(is_told=False))
    student = told.inputs.model("student").tokenizer
    said = student.encode(told.pool[0].task.instruction)
    for stage in ("apprenticeship/scores", "tutoring/completions", "evaluation/student"):
        (more,), (less,) = (list_work(stages, lengths, {stage}) for lengths in (told, bare))
        assert more.width > less.width + len(said)  # type: ignore
    more = expected(stages, told).input_tokens - expected(stages, bare).input_tokens
    assert more > 2 * len(said)


def test_runs_that_are_told_otherwise_ask_the_teacher_something_else(make):
    """A study counts what its runs can share: at most one request for each question of a pool."""
    few_stages = ("method=direct", "selection.strategy=random", "instruct.examples=0")
    whole = (*few_stages, "selection.size=4", "budget.queries=4")
    asked = [make(*whole), make(*whole, "data.instruction=Another.")]
    devices = jax.devices()
    chip = chips.local(devices[0])
    alone, both = (plan.plan_study(runs, devices, chip) for runs in (asked[:1], asked))
    assert (alone.teacher["queries"], both.teacher["queries"]) == (4, 8)


def test_runs_of_other_seeds_ask_no_question_of_a_file_twice(make):
    few_stages = ("method=direct", "selection.strategy=random", "instruct.examples=0")
    asked = [make(*few_stages, "selection.size=3", f"seed={seed}") for seed in range(2)]
    found = plan.plan_study(asked, jax.devices(), chips.CHIPS["v5e"])
    assert (found.teacher["queries"], found.teacher_alone["queries"]) == (4, 6)


def test_the_plan_counts_the_instructions_of_a_file(make, tmp_path):
    path = tmp_path / "dolly.jsonl"
    rows = [
        {"id": f"dolly-{i}", "question": f"Name {i} things.", "answer": "Thing. " * (1 + i)}
        for i in range(12)
    ]
    others = {"rationale": None, "split": "train", "category": "brainstorming"}
    path.write_text("".join(json.dumps(row | others) + "\n" for row in rows))
    settings = ("instruct.source=jsonl", f"instruct.path={path}", "instruct.train.batch_rows=1")
    (few,), (more,) = (
        list_work(*opened(make(*settings, f"instruct.examples={n}")), {"tutoring/instruct"})
        for n in (1, 10)
    )
    assert (few.steps, few.role) == (2, "student")
    assert more.steps > few.steps
