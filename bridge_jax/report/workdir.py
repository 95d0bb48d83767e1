"""Reads the results in a run's workdir; any of them may be missing.

Which stages there may be, what they are called and what their files hold comes from the table of
the run's method (`methods.table`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from bridge_jax import methods
from bridge_jax.errors import UserError
from bridge_jax.methods.annotations import Annotation, Bill
from bridge_jax.methods.apprenticeship import SCORES, SELECTION, Score, SelectionRecord
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.inputs import CACHE
from bridge_jax.methods.rationales import RATIONALES, Judged
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.artifacts import Artifact, File, Manifest, Sizes, Step
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.storage import Folder

Row = dict[str, Any]
T = TypeVar("T")
_WAY_OUT = "run the command of this workdir again, which mends it or makes it again"


@dataclasses.dataclass(frozen=True)
class Run:
    """The artifacts of one run; what was not run is empty or None.

    Attributes:
      path: the workdir.
      config: the RunConfig as JSON values.
      table: the stages that its method may have, in the order of reports.
      is_done: whether all stages of its config are finished.
      scores: one row per pool question.
      embeddings: float32 [N, D], in the order of `scores`.
      selection: which questions the teacher was asked.
      annotations: the teacher's answers.
      spend: what was paid for them.
      rationales: what the assistant wrote for the pool.
      predictions: name of a measured model -> rows on the test questions.
      curves: training stage -> rows of losses by step.
      parameters: training stage -> how much of the model was trained.
      manifests: finished stage -> its manifest.
    """

    path: Path
    config: Row
    table: Mapping[str, Artifact]
    is_done: bool
    scores: list[Score]
    embeddings: np.ndarray | None
    selection: SelectionRecord | None
    annotations: list[Annotation]
    spend: Bill | None
    rationales: list[Judged]
    predictions: dict[str, list[Prediction]]
    curves: dict[str, list[Step]]
    parameters: dict[str, Sizes]
    manifests: dict[str, Manifest]

    @property
    def method(self) -> str | None:
        """The name of its method, if that is known."""
        return self.config.get("method")


def load(path: Path, hashes: Hashes | None = None) -> Run:
    """Returns the artifacts under `path`.

    Args:
      path: the workdir.
      hashes: of the files that were read before; by default what the run itself has remembered.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"--workdir={path}: no such folder; pass the workdir of a run")
    config, current = _json(path / "config.json"), _json(path / storage.CURRENT)
    if not (config or current):
        raise UserError(f"--workdir={path}: holds no run; pass the folder that launch.run wrote")
    table = methods.table(config.get("method"))
    left = _Left(path, table, current, hashes or Hashes(path / CACHE / "hashes.json"))
    trainings = [row.name for row in table.values() if row.work == "train"]
    tested = {
        row.measured.name: row for row in table.values() if row.work == "evaluate" and row.measured
    }
    asking = next((row.name for row in table.values() if row.work == "ask"), "")
    return Run(
        path=path,
        config=config,
        table=table,
        is_done=bool(current) and current.keys() <= left.manifests.keys(),
        scores=left.rows(SCORES.name, Score),
        embeddings=left.array(SCORES.name),
        selection=left.record(SELECTION.name, SelectionRecord),
        annotations=left.rows(asking, Annotation),
        spend=left.record(asking, Bill),
        rationales=left.rows(RATIONALES.name, Judged),
        predictions=_present(
            {name: left.rows(row.name, Prediction) for name, row in tested.items()}
        ),
        curves=_present({stage: left.rows(stage, Step) for stage in trainings}),
        parameters=_present({stage: left.record(stage, Sizes) for stage in trainings}),
        manifests=left.manifests,
    )


class _Left:
    """The finished stages of a run, whose files are what they were when they were written.

    A stage that the last config does not have, or has with another key, is not of the run: a
    workdir that was used with several configs holds stages of the earlier ones.

    Args:
      path: the workdir.
      table: the stages that there may be.
      current: stage -> the key of its folder.
      hashes: of files.

    Attributes:
      manifests: of the finished stages.

    Raises:
      UserError: a file is damaged.
    """

    def __init__(
        self, path: Path, table: Mapping[str, Artifact], current: Mapping[str, str], hashes: Hashes
    ):
        self.manifests: dict[str, Manifest] = {}
        self._folders: dict[str, Folder] = {}
        for name, artifact in table.items():
            place = path / name
            if name not in current or not (place / storage.MANIFEST).exists():
                continue
            found = storage.manifest(place)
            if found is None:
                raise UserError(f"{place / storage.MANIFEST}: damaged; {_WAY_OUT}")
            if found["key"] != current[name]:
                continue
            # Nothing here reads parameters, and a copy of a workdir may do without.
            if wrong := storage.damage(place, found, hashes, params=False):
                raise UserError(f"{place}: {next(iter(wrong.values()))}; {_WAY_OUT}")
            self.manifests[name] = found
            self._folders[name] = Folder(place, artifact)

    def rows(self, stage: str, row: type[T]) -> list[T]:
        """Returns the rows of a type that a stage has left; none if it is not finished."""
        file = self._file(stage, row)
        return cast(list[T], self._folders[stage].rows(file.name)) if file else []

    def record(self, stage: str, row: type[T]) -> T | None:
        """Returns the record of a type that a stage has left."""
        file = self._file(stage, row)
        return cast(T, self._folders[stage].record(file.name)) if file else None

    def array(self, stage: str) -> np.ndarray | None:
        """Returns the array that a stage has left, which stays on the disk until it is used."""
        if stage not in self._folders:
            return None
        folder = self._folders[stage]
        (file,) = (each for each in folder.artifact.files if each.kind == "array")
        return np.load(folder.path / file.name, mmap_mode="r", allow_pickle=False)

    def _file(self, stage: str, row: Any) -> File | None:
        if stage not in self._folders:
            return None
        files = self._folders[stage].artifact.files
        return next((file for file in files if file.row is row), None)


def _present(parts: Mapping[str, T | None]) -> dict[str, T]:
    return {name: part for name, part in parts.items() if part}


def _json(path: Path) -> Row:
    """Returns a JSON object; {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_WAY_OUT}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, since it holds no JSON object; {_WAY_OUT}")
    return value
