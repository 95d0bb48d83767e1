"""Computes the numbers of `study.json` from the finished runs of a study."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bridge_jax import methods
from bridge_jax.errors import UserError
from bridge_jax.evaluation.intervals import Resampling, estimate
from bridge_jax.evaluation.metrics import GAPS
from bridge_jax.ledger.accounts import read_bill
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods.annotations import Annotation
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.inputs import CACHE
from bridge_jax.pipeline import provenance, storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.report import summary, workdir
from bridge_jax.report.workdir import Json
from bridge_jax.study import LEDGER, RUNS, RUNS_FILE, advisor
from bridge_jax.study.study import Point, compared_with, config_key

COSTS = ("usd", "tokens")


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """The numbers of one finished run.

    Attributes:
      report: the content of `report.json`.
      scores: role -> (its accuracy, or for free texts the mean ROUGE-L; f64[R], the same score in
        each replicate of the bootstrap).
      cost: `usd`, `queries`, `input_tokens`, `output_tokens`, counted in full whether this run paid
        or another run on the same ledger; `trained_tokens` in all trainings; `written_tokens` in
        all completions of the assistant.
      stages: stage -> (its key, seconds).
    """

    report: Json
    scores: dict[str, tuple[float, np.ndarray]]
    cost: dict[str, float]
    stages: dict[str, tuple[str, float]]


# Seed -> (value, f64[R] over the replicates), for one role's score or the difference of two.
SeedScores = dict[int, tuple[float, np.ndarray]]
_Runs = Mapping[int, FinishedRun]  # by seed
_Scores = Mapping[str, SeedScores]  # by role


def read_study(folder: Path) -> Json:
    """Reads the study of a folder, as `Study.to_json` returned it.

    Raises:
      UserError: there is no study, or its file is damaged.
    """
    study = workdir.read_json(folder / RUNS_FILE)
    if not study:
        raise UserError(f"--workdir={folder}: holds no study; launch.study writes one")
    if not isinstance(study.get("runs"), list):
        raise UserError(
            f"{folder / RUNS_FILE}: damaged: no runs in it; run launch.study again to rewrite it"
        )
    return study


def compute(folder: Path) -> Json:
    """Computes the results of the study in `folder` from the runs that are done.

    Returns:
      `name`, `question`, `axis`, `reference`: as in the study; `measure`: what `accuracy` holds,
      "accuracy" or, for free texts, "ROUGE-L"; `runs`: how many there are in `total` and how many
      are `done`, and the folders of those `missing`; `points`: sorted by variant and x (`_point`);
      `frontier`: for `usd` and `tokens`, the indices of the points that no other beats at the same
      cost or less; `bill`: the actual bill; `seconds`: of work, `shared` as it was and `alone` if
      each run had executed all its stages; `advice`: variant -> `advisor.advise`, if its queries
      rise with x; `levels`: the mean accuracy of the `constant` answer and of a second student that
      learned from `labels` alone, if runs have them; `made_with`: the code, libraries and machines
      of the runs (`pipeline.provenance`).

    Raises:
      UserError: there is no study, or a file in it is damaged.
    """
    study, resampling = read_study(folder), Resampling()
    hashes = Hashes(folder / CACHE / "hashes.json")
    found: dict[Point, dict[int, FinishedRun]] = {}
    missing = []
    for planned in study["runs"]:
        path, run = folder / RUNS / planned["folder"], None
        if (path / storage.CURRENT).is_file():  # A run writes this file last when it starts.
            run = workdir.load(path, hashes)
        if run and run.is_done and config_key(run.config) == planned["config"]:
            point = planned["variant"], planned["x"]
            found.setdefault(point, {})[planned["seed"]] = _finished(run, resampling)
        else:
            missing.append(planned["folder"])
    variants = list(dict.fromkeys(planned["variant"] for planned in study["runs"]))
    by_point = dict(
        sorted(found.items(), key=lambda item: (variants.index(item[0][0]), item[0][1] or 0))
    )
    scores = {point: _scores(runs) for point, runs in by_point.items()}
    points = []
    for point, runs in by_point.items():
        other = compared_with(point, study["reference"], by_point)
        against = scores[other].get("student") if other and other != point else None
        points.append(_point(point, runs, scores[point], against, resampling))
    done = [run for runs in by_point.values() for run in runs.values()]
    return {
        **{key: study[key] for key in ("name", "question", "axis", "reference")},
        "measure": "ROUGE-L" if any("score" in run.report for run in done) else "accuracy",
        "runs": {"total": len(study["runs"]), "done": len(done), "missing": missing},
        "points": points,
        "frontier": {cost: efficient(points, cost) for cost in COSTS},
        "bill": _bill(folder / LEDGER),
        "seconds": _seconds(done),
        "advice": _advice(points, scores, resampling),
        "levels": _levels(points),
        "made_with": provenance.merged(run.report["made_with"] for run in done),
    }


def _levels(points: Sequence[Json]) -> dict[str, float]:
    """Returns the accuracies to compare students with: means over the points that have them."""
    constant = [point["constant"] for point in points if point["constant"] is not None]
    students = [point["accuracy"].get("student_labels") for point in points]
    labels = [student["mean"] for student in students if student]
    found = {"constant": constant, "labels": labels}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _finished(run: workdir.RunArtifacts, resampling: Resampling) -> FinishedRun:
    report = summary.summarise(run)
    test = [_key(row) for row in max(run.predictions.values(), key=len, default=[])]
    scores = {}
    for role, value in report.get("score", report["accuracy"]).items():
        if role in run.predictions:
            rows, questions = run.predictions[role], test
        else:  # A teacher that was not asked the test questions.
            rows = [row for row in run.annotations if row["correct"] is not None]
            questions = [_key(row) for row in rows]
        right = {_key(row): float(row.get("score", row["correct"] or 0)) for row in rows}
        scores[role] = value, resampling.accuracy(questions, right)
    spend: Mapping[str, Json] = run.spend or {}  # type: ignore[assignment]
    others = spend.get("of_others", {})
    kinds = ("usd", "queries", "input_tokens", "output_tokens")
    cost = {kind: spend.get(kind, 0) + others.get(kind, 0) for kind in kinds}
    cost["usd"] = round(cost["usd"], 9)  # To the nanodollar: the same sum, whichever run paid.
    steps = [row for rows in run.curves.values() for row in rows]
    trained = sum(row["step_seconds"] * row["tokens_per_second"] for row in steps)
    cost["trained_tokens"] = round(trained)
    cost["written_tokens"] = run.written_tokens
    stages = {name: (made["key"], made["seconds"]) for name, made in run.manifests.items()}
    return FinishedRun(report, scores, cost, stages)


def _key(row: Prediction | Annotation) -> str:
    return f"{row['id']} {row['question']}"


def _scores(runs: _Runs) -> _Scores:
    """Returns the score of each role that was measured at a point."""
    found = {
        role: {seed: run.scores[role] for seed, run in runs.items() if role in run.scores}
        for role in methods.measured()
    }
    return {role: by_seed for role, by_seed in found.items() if by_seed}


def _estimate(by_seed: SeedScores, resampling: Resampling) -> Json:
    replicates = resampling.over_seeds({seed: drawn for seed, (_, drawn) in by_seed.items()})
    return estimate({seed: value for seed, (value, _) in by_seed.items()}, replicates)


def _difference(one: SeedScores, other: SeedScores, resampling: Resampling) -> Json | None:
    """Estimates the difference on the seeds that both have; None if there are none."""
    shared = {
        seed: (value - other[seed][0], drawn - other[seed][1])
        for seed, (value, drawn) in one.items()
        if seed in other
    }
    return _estimate(shared, resampling) if shared else None


def _point(
    point: Point, runs: _Runs, scores: _Scores, against: SeedScores | None, resampling: Resampling
) -> Json:
    """Returns a point: means over its seeds.

    With intervals (`intervals.estimate`): `accuracy` by role; `gaps`; `difference`, the student
    minus the reference's student on the same seeds (None for the reference itself). Means alone:
    `compliance` by role; `cost`: `usd`, `queries`, `teacher_tokens`, `trained_tokens`,
    `written_tokens`, and `tokens`, the sum of the three kinds; `constant`: the accuracy of the
    constant answer, None if a seed lacks it. Also `failures`: name -> seeds; `questions`: the size
    of the test; `teacher_on_annotations`: whether the teacher's accuracy is that of its
    annotations, not of the test questions; `against_teacher`: whether gold answers of the test are
    the teacher's.
    """
    gaps = {
        name: _difference(scores[a], scores[b], resampling)
        for name, a, b, _, in_study in GAPS
        if in_study and a in scores and b in scores
    }
    difference = None
    if against and "student" in scores:
        difference = _difference(scores["student"], against, resampling)
    reports = {seed: runs[seed].report for seed in sorted(runs)}
    constant = [
        report["constant"]["accuracy"] for report in reports.values() if "constant" in report
    ]
    failures: dict[str, list[int]] = {}
    for seed, report in reports.items():
        for name in report["failures"]:
            failures.setdefault(name, []).append(seed)
    return {
        "variant": point[0],
        "x": point[1],
        "seeds": sorted(runs),
        "accuracy": {role: _estimate(by_seed, resampling) for role, by_seed in scores.items()},
        "compliance": {
            role: float(np.mean([reports[seed]["compliance"][role] for seed in by_seed]))
            for role, by_seed in scores.items()
        },
        "difference": difference,
        "gaps": {name: gap for name, gap in gaps.items() if gap},
        "cost": _mean_cost(runs),
        "failures": failures,
        "questions": max(report["n_test"] for report in reports.values()),
        "constant": float(np.mean(constant)) if len(constant) == len(reports) else None,
        "teacher_on_annotations": any(
            report.get("teacher_measured_on") == "annotations" for report in reports.values()
        ),
        "against_teacher": any("held_out" in report for report in reports.values()),
    }


def _mean_cost(runs: _Runs) -> dict[str, float]:
    names = next(iter(runs.values())).cost
    mean = {name: float(np.mean([run.cost[name] for run in runs.values()])) for name in names}
    teacher = mean.pop("input_tokens") + mean.pop("output_tokens")
    tokens = teacher + mean["trained_tokens"] + mean["written_tokens"]
    return {**mean, "teacher_tokens": teacher, "tokens": tokens}


def efficient(points: Sequence[Json], cost: str) -> list[int]:
    """Returns the indices of the points on the Pareto frontier of student accuracy and `cost`."""
    at = {
        i: (point["cost"][cost], point["accuracy"]["student"]["mean"])
        for i, point in enumerate(points)
        if "student" in point["accuracy"]
    }
    return [
        i
        for i, one in at.items()
        if not any(x <= one[0] and y >= one[1] and (x, y) != one for x, y in at.values())
    ]


def _bill(ledger: Path) -> Json:
    """Returns the bill of all runs; `unsettled` is what may have been billed in addition."""
    entries = read_bill(ledger).entries if ledger.is_file() else []
    unsettled = ("unknown", "reserved", "job")
    paid = [entry for entry in entries if entry.outcome not in unsettled]
    rest = [entry for entry in entries if entry.outcome in unsettled]
    return {
        "queries": len(paid),
        "input_tokens": sum(entry.input_tokens for entry in paid),
        "output_tokens": sum(entry.output_tokens for entry in paid),
        "usd": in_usd(sum(entry.nanodollars for entry in paid)),
        "unsettled": {"queries": len(rest), "usd": in_usd(sum(e.nanodollars for e in rest))},
    }


def _seconds(runs: Sequence[FinishedRun]) -> dict[str, float]:
    stages = {(name, *stage) for run in runs for name, stage in run.stages.items()}
    alone = math.fsum(seconds for run in runs for _, seconds in run.stages.values())
    return {"shared": math.fsum(seconds for _, _, seconds in stages), "alone": alone}


def _advice(
    points: Sequence[Json], scores: Mapping[Point, _Scores], resampling: Resampling
) -> dict[str, Json]:
    """Returns the advice for each variant whose number of queries rises with x."""
    by_variant: dict[str, list[Json]] = {}
    for point in points:  # sorted by x
        mine = by_variant.setdefault(point["variant"], [])
        if point["x"] is not None and "student" in point["accuracy"]:
            mine.append(point)
    advice = {}
    for variant, mine in by_variant.items():
        budgets = [point["cost"]["queries"] for point in mine]
        if len(budgets) < 2 or budgets != sorted(set(budgets)):
            continue
        students = [scores[variant, point["x"]]["student"] for point in mine]
        drawn = [
            resampling.over_seeds({seed: part for seed, (_, part) in student.items()})
            for student in students
        ]
        means = [point["accuracy"]["student"]["mean"] for point in mine]
        advice[variant] = advisor.advise(np.array(budgets), np.array(means), np.stack(drawn, 1))
    return advice
