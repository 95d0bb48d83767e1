"""Reads the finished runs of a study."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.methods.annotations import Annotation
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.inputs import CACHE
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.report import summary, workdir
from bridge_jax.report.workdir import Row
from bridge_jax.study.names import CELLS, RUNS
from bridge_jax.study.study import Point, config_key


@dataclasses.dataclass(frozen=True)
class Finished:
    """One run that is done.

    Attributes:
      point: its variant and x.
      seed: of the run.
      report: what `report.json` holds.
      questions: role -> ids and texts of the questions that it was measured on.
      measured: role -> its accuracy, or the mean ROUGE-L of its texts.
      right: role -> how right it was, by question: 0 or 1, or the ROUGE-L of a text.
      cost: `usd`, `queries`, `input_tokens`, `output_tokens` at full price: paid by this run, or by
        one that shares its ledger; `trained_tokens` in all trainings, `written_tokens` of the
        rationales.
      stages: stage -> (its key, seconds).
    """

    point: Point
    seed: int
    report: Row
    questions: dict[str, list[str]]
    measured: dict[str, float]
    right: dict[str, dict[str, float]]
    cost: dict[str, float]
    stages: dict[str, tuple[str, float]]


def read_study(folder: Path) -> Row:
    """Returns the study of a folder, as `Study.to_json` gave it.

    Raises:
      UserError: there is none.
    """
    path = folder / CELLS
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--workdir={folder}: holds no study; launch.study writes one") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); launch.study writes it again") from None
    if not isinstance(study, dict) or not isinstance(study.get("cells"), list):
        raise UserError(f"{path}: damaged, since it lists no cells; launch.study writes it again")
    return study


def finished(folder: Path, study: Row) -> Iterator[Finished]:
    """Yields the runs that are done, in the study's order; those of another config are not."""
    hashes = Hashes(folder / CACHE / "hashes.json")
    for cell in study["cells"]:
        path = folder / RUNS / cell["folder"]
        if not (path / storage.CURRENT).is_file():  # What a run that has begun writes last.
            continue
        run = workdir.load(path, hashes)
        if run.is_done and config_key(run.config) == cell["config"]:
            yield _finished(cell, run)


def _finished(cell: Row, run: workdir.Run) -> Finished:
    report = summary.summarise(run)
    rows = run.predictions
    test = [_key(row) for row in max(rows.values(), key=len, default=[])]
    questions = dict.fromkeys(rows, test)
    right = {role: {_key(row): _how_right(row) for row in found} for role, found in rows.items()}
    if "teacher" in report["accuracy"] and "teacher" not in rows:
        questions["teacher"] = [_key(row) for row in run.annotations]
        right["teacher"] = {_key(row): float(row["correct"]) for row in run.annotations}
    measured = report.get("score", report["accuracy"])
    return Finished(
        (cell["variant"], cell["x"]),
        cell["seed"],
        report,
        questions,
        measured,
        {role: right[role] for role in measured},
        _cost(run),
        {name: (m["key"], m["seconds"]) for name, m in run.manifests.items()},
    )


def _key(row: Prediction | Annotation) -> str:
    return f"{row['id']} {row['question']}"


def _how_right(row: Prediction) -> float:
    return row["score"] if "score" in row else float(row["correct"])


def _cost(run: workdir.Run) -> dict[str, float]:
    spend: Mapping[str, Any] = run.spend or {}
    others = spend.get("of_others", {})
    kinds = ("usd", "queries", "input_tokens", "output_tokens")
    trained = sum(
        row["step_seconds"] * row["tokens_per_second"]
        for rows in run.curves.values()
        for row in rows
    )
    return {
        **{kind: spend.get(kind, 0) + others.get(kind, 0) for kind in kinds},
        "trained_tokens": round(trained),
        "written_tokens": sum(row["tokens"] for row in run.rationales),
    }
