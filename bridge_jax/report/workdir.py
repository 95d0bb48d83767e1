"""Reads the results in a run's workdir; any of them may be missing.

The table of the run's method (`methods.table`) lists the stages, their titles and their files.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from bridge_jax import methods
from bridge_jax.errors import UserError
from bridge_jax.methods import budget_tests, data_facts
from bridge_jax.methods.annotations import ANNOTATIONS, Annotation, Bill
from bridge_jax.methods.apprenticeship import SCORES, SELECTION, Score, SelectionRecord
from bridge_jax.methods.budget_rollouts import Rollout
from bridge_jax.methods.budget_tests import Tested
from bridge_jax.methods.data_facts import DataFacts
from bridge_jax.methods.evaluation import STUDENT_DEV, Prediction
from bridge_jax.methods.filtering import (
    COMPLETED,
    RATIONALES,
    THRESHOLD,
    Judged,
    Threshold,
    WrittenRationale,
)
from bridge_jax.methods.held_out import HELD_OUT, HeldOutAnswer
from bridge_jax.methods.inputs import CACHE
from bridge_jax.methods.reinforcement import REINFORCED
from bridge_jax.methods.shortening import ASKED, WRITTEN, Chain
from bridge_jax.pipeline import provenance, storage
from bridge_jax.pipeline.artifacts import Artifact, Manifest, Sizes, Step
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.storage import Folder

Json = dict[str, Any]
_HINT = "run the command of this workdir again, which repairs or rebuilds it"


@dataclasses.dataclass(frozen=True)
class RunArtifacts:
    """The artifacts of one run; a part that was not run is empty or None.

    Attributes:
      path: the workdir.
      config: the RunConfig as JSON values.
      made_with: the code, libraries and machine when the run was last started
        (`pipeline.provenance`).
      data: how much of its data was read, left out or cut; None for a run of an earlier version.
      table: the stages that its method may have, in the order of reports.
      manifests: finished stage -> its manifest.
      is_done: whether all stages of its config are finished.
      scores: one row per pool question.
      embeddings: float32 [N, D], in the order of `scores`.
      held_out: the teacher's answers to test questions.
      selection: the pool questions that were selected for the teacher.
      annotations: the teacher's answers to them.
      spend: the teacher's bill.
      rationales: the assistant's rationales for the pool.
      threshold: the threshold that was chosen to filter them.
      written_tokens: the tokens of all its completions, including those that were not used and
        those of rounds.
      predictions: name of a measured model -> rows on the test questions.
      dev_answers: the trained student's answers to the dev split.
      replies: budget control -> rows on the test questions, at each budget.
      chains: the reasoning that was shortened to budgets.
      rollouts: the replies that reinforcement learning learned from.
      curves: training stage -> rows of losses by step.
      parameters: training stage -> the sizes of the trained and the frozen part.
    """

    path: Path
    config: Json
    made_with: dict[str, str]
    data: DataFacts | None
    table: Mapping[str, Artifact]
    manifests: dict[str, Manifest]
    is_done: bool
    scores: list[Score]
    embeddings: np.ndarray | None
    held_out: list[HeldOutAnswer]
    selection: SelectionRecord | None
    annotations: list[Annotation]
    spend: Bill | None
    rationales: list[Judged]
    threshold: Threshold | None
    written_tokens: int
    predictions: dict[str, list[Prediction]]
    dev_answers: list[Prediction]
    replies: dict[str, list[Tested]]
    chains: list[Chain]
    rollouts: list[Rollout]
    curves: dict[str, list[Step]]
    parameters: dict[str, Sizes]

    @property
    def method(self) -> str | None:
        """The name of its method; None if unknown."""
        return self.config.get("method")


def load(path: Path, hashes: Hashes | None = None) -> RunArtifacts:
    """Reads the artifacts under `path`.

    Args:
      path: the workdir.
      hashes: the hashes of files that were read before; by default the run's own.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"--workdir={path}: no such folder; pass the workdir of a run")
    config, current = read_json(path / "config.json"), read_json(path / storage.CURRENT)
    made_with = config.pop(provenance.FIELD, {})
    if not (config or current):
        raise UserError(f"--workdir={path}: holds no run; pass the folder that launch.run wrote")
    table = methods.table(config.get("method"))
    hashes = hashes or Hashes(path / CACHE / "hashes.json")
    manifests = _finished(path, table, current, hashes)
    folders = {name: Folder(path / name, table[name]) for name in manifests}
    # A stage's bill includes what earlier stages paid.
    bills = [_content(folders, row.name, Bill) for row in table.values() if row.work == "ask"]
    paid = [bill for bill in bills if bill]
    predictions, curves, parameters = {}, {}, {}
    for name, folder in folders.items():
        if folder.artifact.work == "train":
            curves[name] = _content(folders, name, Step)
            parameters[name] = _content(folders, name, Sizes)
        elif folder.artifact.work == "evaluate" and folder.artifact.measured:
            predictions[folder.artifact.measured.name] = _content(folders, name, Prediction)
    return RunArtifacts(
        path=path,
        config=config,
        made_with=made_with,
        data=cast(DataFacts, read_json(path / data_facts.FILE)) or None,
        table=table,
        manifests=manifests,
        is_done=bool(current) and current.keys() <= manifests.keys(),
        scores=_content(folders, SCORES.name, Score) or [],
        embeddings=_content(folders, SCORES.name, np.ndarray),
        held_out=_content(folders, HELD_OUT.name, HeldOutAnswer) or [],
        selection=_content(folders, SELECTION.name, SelectionRecord),
        annotations=_content(folders, ANNOTATIONS.name, Annotation) or [],
        spend=max(reversed(paid), key=lambda bill: (bill["queries"], bill["usd"]), default=None),
        threshold=_content(folders, THRESHOLD.name, Threshold),
        rationales=_content(folders, RATIONALES.name, Judged) or [],
        written_tokens=sum(
            row["tokens"]
            for name, folder in folders.items()
            if COMPLETED in folder.artifact.files
            for row in _content(folders, name, WrittenRationale) or []
        ),
        predictions={name: rows for name, rows in predictions.items() if rows},
        dev_answers=_content(folders, STUDENT_DEV.name, Prediction) or [],
        replies={
            control: rows
            for control, artifact in budget_tests.OF_CONTROL.items()
            if (rows := _content(folders, artifact.name, Tested))
        },
        chains=_content(folders, ASKED.name, Chain) or _content(folders, WRITTEN.name, Chain) or [],
        rollouts=_content(folders, REINFORCED.name, Rollout) or [],
        curves={name: rows for name, rows in curves.items() if rows},
        parameters={name: sizes for name, sizes in parameters.items() if sizes},
    )


def read_json(path: Path) -> Json:
    """Returns a JSON object; {} if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_HINT}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged: not a JSON object; {_HINT}")
    return value


def _finished(
    path: Path, table: Mapping[str, Artifact], current: Mapping[str, str], hashes: Hashes
) -> dict[str, Manifest]:
    """Returns the manifests of the finished stages, after checking their files.

    A workdir that was used with several configs also holds stages of the earlier ones: those that
    the last config does not have, or has with another key. They are left out.
    """
    found = {}
    for name in table:
        place = path / name
        if name not in current or not (place / storage.MANIFEST).exists():
            continue
        manifest = storage.manifest(place)
        if manifest is None:
            raise UserError(f"{place / storage.MANIFEST}: damaged; {_HINT}")
        if manifest["key"] != current[name]:
            continue
        # Reports read no parameters, and a copy of a workdir may have none.
        if wrong := storage.damage(place, manifest, hashes, params=False):
            raise UserError(f"{place}: {next(iter(wrong.values()))}; {_HINT}")
        found[name] = manifest
    return found


def _content(folders: Mapping[str, Folder], stage: str, row: Any) -> Any:
    """Returns the rows, record or array (`np.ndarray`) of a finished stage, or None."""
    if stage not in folders:
        return None
    folder = folders[stage]
    for file in folder.artifact.files:
        if file.kind == "array" and row is np.ndarray:  # It stays on the disk until it is used.
            return np.load(folder.path / file.name, mmap_mode="r", allow_pickle=False)
        if file.row is row:
            return folder.rows(file.name) if file.kind == "rows" else folder.record(file.name)
    return None
