"""What a run has left in its workdir, read into memory. Every part may be missing."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.errors import UserError

Row = dict[str, Any]
# What a run writes again, or mends, when it goes on.
_MENDED = ("config.json", "stages.json", "manifest.json", "annotations.jsonl", "spend.json")

ROLES = (
    "teacher",
    "assistant_base",
    "assistant",
    "student_base",
    "student_instruct",
    "student_direct",
    "student",
)
TRAINING_STAGES = (
    "apprenticeship/warmup",
    "apprenticeship/assistant",
    "tutoring/instruct",
    "tutoring/student",
    "baselines/direct",
)
STAGES = (
    "apprenticeship/warmup",
    "apprenticeship/guesses",
    "apprenticeship/scores",
    "apprenticeship/gradients",
    "apprenticeship/selection",
    "apprenticeship/annotations",
    "apprenticeship/assistant",
    "tutoring/instruct",
    "tutoring/completions",
    "tutoring/samples",
    "tutoring/rationales",
    "tutoring/logits",
    "tutoring/student",
    "baselines/direct",
    *(f"evaluation/{role}" for role in ROLES),
)


@dataclasses.dataclass(frozen=True)
class Run:
    """The artifacts of one run; what was not run is empty or None.

    Attributes:
      path: the workdir.
      config: the RunConfig as JSON values.
      scores: one row per pool question: `id`, `domain`, `nll`, `entropy`, `margin`.
      embeddings: float32 [N, D], in the order of `scores`.
      selection: `strategy`, `size`, `ids`, `clusters`, `set_aside`.
      annotations: the teacher's answers.
      spend: what `Ledger.bill` returned.
      rationales: what the assistant wrote for the pool.
      predictions: role -> prediction rows on the test questions.
      curves: training stage -> rows of losses by step.
      parameters: training stage -> `trained` and `frozen`, each `parameters` and `bytes`.
      manifests: stage folder -> its manifest, in the order of the pipeline.
    """

    path: Path
    config: Row
    scores: list[Row]
    embeddings: np.ndarray | None
    selection: Row | None
    annotations: list[Row]
    spend: Row | None
    rationales: list[Row]
    predictions: dict[str, list[Row]]
    curves: dict[str, list[Row]]
    parameters: dict[str, Row]
    manifests: dict[str, Row]


def load(path: Path) -> Run:
    """Returns the artifacts under `path`.

    Raises:
      UserError: there is no such folder, it holds no run, or a file in it is damaged.
    """
    if not path.is_dir():
        raise UserError(f"--workdir={path}: no such folder; pass the workdir of a run")
    current = functools.partial(_current, path, _json(path / "stages.json"))
    scores = current("apprenticeship/scores")
    annotations = current("apprenticeship/annotations")
    run = Run(
        path=path,
        config=_json(path / "config.json") or {},
        scores=_jsonl(scores / "scores.jsonl"),
        embeddings=_array(scores / "embeddings.npy"),
        selection=_json(current("apprenticeship/selection") / "selection.json"),
        annotations=_jsonl(annotations / "annotations.jsonl"),
        spend=_json(annotations / "spend.json"),
        rationales=_jsonl(current("tutoring/rationales") / "rationales.jsonl"),
        predictions=_present(
            {role: _jsonl(current(f"evaluation/{role}") / "predictions.jsonl") for role in ROLES}
        ),
        curves=_present(
            {stage: _jsonl(current(stage) / "metrics.jsonl") for stage in TRAINING_STAGES}
        ),
        parameters={
            stage: sizes
            for stage in TRAINING_STAGES
            if (sizes := _json(current(stage) / "parameters.json"))
        },
        manifests=_manifests(path, current),
    )
    if run.embeddings is not None and len(run.embeddings) != len(run.scores):
        raise UserError(
            f"{scores}: {len(run.embeddings)} embeddings for "
            f"{len(run.scores)} scores; delete the folder to score the pool again"
        )
    chosen = (run.selection or {}).get("ids")
    asked = [row.get("id") for row in run.annotations]
    if chosen and asked and asked != chosen:
        raise UserError(
            f"{annotations / 'annotations.jsonl'}: {len(asked)} rows, which are not those of the "
            f"{len(chosen)} selected examples; {_way_out(annotations / 'annotations.jsonl')}"
        )
    if not any((run.config, run.scores, run.annotations, run.predictions, run.manifests)):
        raise UserError(f"--workdir={path}: holds no run; pass the folder that launch.run wrote")
    return run


def _current(path: Path, fingerprints: Row | None, stage: str) -> Path:
    """Returns the folder of `stage`, or one that does not exist if it is of another config.

    A workdir that was used with several configs holds stages of the earlier ones; `stages.json`
    says what the last config expects. Without that file every folder counts.
    """
    manifest = _json(path / stage / "manifest.json") or {}
    stale = fingerprints is not None and manifest.get("key") != fingerprints.get(stage, "")
    return path / "of-another-config" if stale else path / stage


def _present(parts: dict[str, list[Row]]) -> dict[str, list[Row]]:
    return {name: rows for name, rows in parts.items() if rows}


def _json(path: Path) -> Row | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); {_way_out(path)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: damaged, since it holds no JSON object; {_way_out(path)}")
    return value


def _jsonl(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    # Not splitlines(): a question may hold U+2028, which JSON leaves unescaped.
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged ({error}); {_way_out(path)}") from None
    # Without a manifest a run is still writing, or was killed while it did. (A curve that lacks its
    # last point is no reason to train again.)
    is_whole = (path.parent / "manifest.json").is_file() and path.name != "metrics.jsonl"
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not is_whole:
                break
            raise UserError(
                f"{path}: row {number} is not JSON ({error}); {_way_out(path)}"
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is no JSON object; {_way_out(path)}")
        rows.append(row)
    return rows


def _way_out(path: Path) -> str:
    if path.name in _MENDED:
        return "run the command of this workdir again, which mends it"
    return f"delete the folder {path.parent.resolve()} and run the command of this workdir again"


def _array(path: Path) -> np.ndarray | None:
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None


def _manifests(path: Path, current: Callable[[str], Path]) -> dict[str, Row]:
    found = {}
    for file in path.glob("*/*/manifest.json"):
        name = file.parent.relative_to(path).as_posix()
        manifest = _json(current(name) / "manifest.json") or {}
        if "seconds" in manifest:
            found[name] = manifest
    order = {stage: i for i, stage in enumerate(STAGES)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))
