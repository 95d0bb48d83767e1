"""A run of which a test runs single stages, on files that it has written for them to read."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge_jax import methods
from bridge_jax.data.example import Example
from bridge_jax.methods import (
    apprenticeship,
    baselines,
    budget_tests,
    budgeted,
    evaluation,
    input_checks,
    rationales,
    rounds,
    tutoring,
)
from bridge_jax.methods.annotations import Annotation
from bridge_jax.methods.filtering import Judged, WrittenRationale
from bridge_jax.pipeline import files, storage
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.runs import Run
from bridge_jax.text.prompts import TrainingSequence


def stage_of(job: Run, artifact: Artifact) -> Stage:
    """Returns a stage of a run."""
    return next(stage for stage in job.stages if stage.name == artifact.name)


def folder_of(job: Run, artifact: Artifact) -> Folder:
    """Returns the folder in the workdir where tests write the files of a stage."""
    path = job.workdir / artifact.name
    path.mkdir(parents=True, exist_ok=True)
    return Folder(path, artifact)


def run_alone(job: Run, artifact: Artifact, **given: Any) -> Folder:
    """Runs one stage on what lies in the workdir; `given` stands for what it would read."""
    stage, table = stage_of(job, artifact), methods.table()
    out, opened = folder_of(job, artifact), dict(given)
    for argument, name in stage.reads.items():
        if argument in opened:
            continue
        if name in table:
            opened[argument] = Folder(job.workdir / name, table[name])
        else:
            opened[argument] = job.inputs.table[name].open()
    stage.run(stage.params, out, **opened)
    return out


def pretend(job: Run, artifact: Artifact, key: str = "") -> None:
    """Writes the manifest of a finished stage, by default under the key that the run looks for."""
    key = key or job.deep[artifact.name]
    record = {"stage": artifact.name, "key": key, "shallow": key, "content": "", "files": {}}
    record |= {"seconds": 1.0, "restarts": 0, "compilations": 0, "spans": {}, "made_with": {}}
    folder = job.workdir / storage.STAGES / artifact.name / key
    folder.mkdir(parents=True)
    files.write_json(folder / storage.MANIFEST, record)


def check(job: Run) -> None:
    """Makes the checks of a run that need its data and models."""
    input_checks.check_inputs(job.config, job.stages, job.inputs)


def differing(one: Run, other: Run) -> set[str]:
    """Returns the stages that both runs have, under different keys."""
    return {name for name in one.deep.keys() & other.deep if one.deep[name] != other.deep[name]}


def taught(patch: pytest.MonkeyPatch) -> dict[str, list[TrainingSequence]]:
    """Lets nothing be trained; returns the sequences of each training, by its name."""
    seen: dict[str, list[TrainingSequence]] = {}

    def fit(out: Folder, name: str, model: Any, sequences: Any, how: Any, *_: Any) -> None:
        seen[name] = list(sequences)

    patch.setattr(RoleModel, "trainable", lambda *_: None)
    for module in (apprenticeship, baselines, budgeted, rationales, rounds, tutoring):
        patch.setattr(module, "fit", fit)
    return seen


class Asked(list[tuple[Example, list[int]]]):
    """The examples and prompts that a model was to write for.

    Attributes:
      to_row: of the last stage that was to write.
    """

    to_row: Callable[..., dict[str, Any]]


def asked(patch: pytest.MonkeyPatch) -> Asked:
    """Lets nothing be written; returns the prompts of all stages that would."""
    seen = Asked()

    def write_completions(
        out: Folder, file: str, name: str, engine: Any, examples: Any, prompts: Any, to_row: Any
    ) -> None:
        seen.extend(zip(examples, prompts, strict=True))
        seen.to_row = to_row

    def load(model: RoleModel, *_: Any) -> Any:
        return SimpleNamespace(tokenizer=model.tokenizer, engine=lambda *_: None)

    patch.setattr(RoleModel, "load", load)
    for module in (apprenticeship, budget_tests, evaluation, rationales):
        patch.setattr(module, "write_completions", write_completions)
    return seen


def annotation(example: Example, **changed: Any) -> Annotation:
    """Returns a row of what the teacher said, by default rightly."""
    row: Annotation = {
        "id": example.id,
        "question": example.question,
        "rationale": "As taught.",
        "answer": example.answer,
        "gold": example.answer,
        "kept": True,
    }
    return Annotation(**row | changed)


def written(example: Example, **changed: Any) -> WrittenRationale:
    """Returns a row of what the assistant wrote, by default rightly and sure of it."""
    row: WrittenRationale = {
        "id": example.id,
        "domain": example.domain,
        "question": example.question,
        "completion": f"Thus.\nAnswer: {example.answer}",
        "rationale": "Thus.",
        "answer": example.answer,
        "ended": True,
        "mean_logprob": -0.2,
        "min_step_logprob": -0.9,
        "tokens": 5,
        "shown_gold": False,
    }
    return WrittenRationale(**row | changed)


def judged(example: Example, **changed: Any) -> Judged:
    """Returns a row of what the assistant wrote, by default kept."""
    return Judged(**written(example) | {"gold": example.answer, "kept": True} | changed)
