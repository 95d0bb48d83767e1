"""A stage reads its parameters and the inputs that it names, and nothing else, while it runs."""

import dataclasses
import json
import shutil
import sys
import typing
from typing import Annotated

import pytest
from rich.console import Console

from bridge_jax.config import DataConfig, TeacherConfig
from bridge_jax.config.fields import Unkeyed
from bridge_jax.methods import inputs
from bridge_jax.pipeline.storage import Folder
from bridge_jax.runs import Run
from tests.launch import tiny_run

pytestmark = pytest.mark.slow  # A whole run, with every stage.

LABELS = ("late", "lost")
_opened: list[str] = []
_records = False


def _hook(event, arguments):
    if _records and event == "open" and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_hook)  # It cannot be taken away again.


class Seen:
    """Parameters, or the folder of a result, that note which attributes are read."""

    def __init__(self, value):
        self.__dict__ |= {"value": value, "seen": set()}

    def __getattr__(self, name):
        self.seen.add(name)
        return getattr(self.value, name)


@dataclasses.dataclass
class Recorded:
    """One stage: its parameters, what it was given, and the files that were opened."""

    stage: object
    params: Seen
    given: dict[str, object]
    opened: list[str]
    out: Folder


def write_rows(path):
    splits = ["train"] * 16 + ["dev"] * 2 + ["test"] * 4
    rows = [
        {"id": f"r{i}", "question": f"Where is order {i}?", "answer": LABELS[i % 2], "split": split}
        | {"rationale": f"Order {i} left.\nAnswer: {LABELS[i % 2]}"}
        for i, split in enumerate(splits)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Every stage of a run that has all of them but the pseudo-labels."""
    home = tmp_path_factory.mktemp("reads")
    config = tiny_run.settings(tiny_run.write_config(home))
    for role in ("assistant", "student"):
        shutil.copytree(home / "checkpoint", home / role)
    data = DataConfig(
        "jsonl",
        str(write_rows(home / "rows.jsonl")),
        kind="label",
        choices=LABELS,
        instruction="Late or lost?",
        rationale="rationale",
    )
    config = dataclasses.replace(
        config, data=data, teacher=TeacherConfig(kind="replay"), compare=("direct", "labels")
    )
    config = tiny_run.override(
        config,
        f"assistant.checkpoint={home / 'assistant'}",
        f"student.checkpoint={home / 'student'}",
        "selection.strategy=badge",
        "rationales.filter=consistency",
        "rationales.min_mean_logprob=-99",
        "rationales.min_step_logprob=-99",
        "rationales.min_agreement=0",
        "rationales.samples=2",
        "logits.weight=0.5",
        "budget.queries=4",
        "max_prompt_tokens=144",
    )
    job, found = Run(config, home / "run"), {}
    job.stages = [dataclasses.replace(s, run=_recording(s, found)) for s in job.stages]
    job.run(Console(quiet=True))
    return home, found


def _recording(stage, found):
    def run(params, out, **given):
        global _records
        params = Seen(params)
        given = {n: Seen(v) if isinstance(v, Folder) else v for n, v in given.items()}
        _opened.clear()
        _records = True
        try:
            stage.run(params, out, **given)
        finally:
            _records = False
            found[stage.name] = Recorded(stage, params, given, list(_opened), out)

    return run


def test_all_stages_were_recorded(recorded):
    assert len(recorded[1]) == 21
    assert any(each.opened for each in recorded[1].values())


def test_a_stage_opens_the_files_of_what_it_names_and_no_others(recorded):
    home, found = recorded
    for name, each in found.items():
        allowed = [str(each.out.path)]
        allowed += [str(v.value.path) for v in each.given.values() if isinstance(v, Seen)]
        reads = set(each.stage.reads.values())
        for role, models in (
            ("assistant", {inputs.ASSISTANT, inputs.TO_ASSISTANT}),
            ("student", {inputs.STUDENT, inputs.TO_STUDENT, inputs.COUNT}),
        ):
            if reads & models:
                allowed.append(str(home / role))
        if reads & {inputs.TO_ASSISTANT, inputs.TO_STUDENT}:  # Rendered prompts are cached.
            allowed.append(str(home / "run" / "cache" / "prompts"))
        if inputs.WORKDIR in reads:
            allowed += [str(home / "run" / file) for file in ("ledger.sqlite", "account.json")]
        ours = [path for path in each.opened if path.startswith(str(home))]
        stray = [path for path in ours if not path.startswith(tuple(allowed))]
        assert stray == [], name


def test_a_stage_reads_every_parameter_that_is_in_its_key(recorded):
    for name, each in recorded[1].items():
        params = each.params.value
        hints = typing.get_type_hints(type(params), include_extras=True)
        keyed = {
            field.name for field in dataclasses.fields(params) if not _unkeyed(hints[field.name])
        }
        # Another of these for the record of the run, or for a decision that was made before.
        assert keyed - each.params.seen <= NOT_READ.get(name, set()), name


NOT_READ = {"apprenticeship/annotations": {"server"}}  # A recorded teacher has none.


def test_a_stage_reads_every_result_that_it_names(recorded):
    for name, each in recorded[1].items():
        for argument, value in each.given.items():
            if isinstance(value, Seen):
                assert value.seen & {"rows", "record", "array", "path"}, (name, argument)


def test_results_are_as_declared(recorded):
    for name, each in recorded[1].items():
        declared = {file.name for file in each.stage.artifact.files}
        assert {path.name for path in each.out.path.iterdir()} - {"manifest.json"} == declared, name


def _unkeyed(hint):
    if typing.get_origin(hint) is not Annotated:
        return False
    return any(isinstance(rule, Unkeyed) for rule in typing.get_args(hint)[1:])
