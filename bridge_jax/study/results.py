"""From the finished runs of a study to the numbers of `study.json`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bridge_jax import methods
from bridge_jax.evaluation.gaps import GAPS
from bridge_jax.ledger.accounts import read_bill
from bridge_jax.ledger.prices import in_usd
from bridge_jax.report.workdir import Row
from bridge_jax.study import advisor, cells
from bridge_jax.study.cells import Finished
from bridge_jax.study.names import LEDGER
from bridge_jax.study.resampling import Resampling, estimate
from bridge_jax.study.study import Point, compared_with

COSTS = ("usd", "tokens")

_Runs = Mapping[int, Finished]  # by seed


class Measured(NamedTuple):
    """The accuracy of one role at one point, or a difference of two.

    Attributes:
      values: by seed.
      drawn: f64[R] by seed, the same in each replicate of the bootstrap.
    """

    values: dict[int, float]
    drawn: dict[int, np.ndarray]

    def minus(self, other: "Measured") -> "Measured":
        """Returns the difference on the seeds that both have."""
        seeds = [seed for seed in self.values if seed in other.values]
        return Measured(
            {seed: self.values[seed] - other.values[seed] for seed in seeds},
            {seed: self.drawn[seed] - other.drawn[seed] for seed in seeds},
        )

    def estimate(self, resampling: Resampling) -> Row | None:
        """Returns the mean over seeds and its intervals; None without a seed."""
        if not self.values:
            return None
        return estimate(self.values, resampling.over_seeds(self.drawn))


def compute(folder: Path) -> Row:
    """Returns the results of the study in `folder`, as far as its runs are done.

    Returns:
      `name`, `question`, `axis`, `reference`; `measure`: what `accuracy` is, "accuracy" or, of free
      texts, "ROUGE-L"; `cells`: `total`, `done` and the folders that are
      `missing`; `points` by variant and x (`_point`); `frontier`: for `usd` and `tokens` the
      indices of the points that no other beats at the same cost or less; `bill`: what was really
      paid; `seconds`: of work, `shared` as it was and `alone` as if each run had done it all;
      `advice`: variant -> `advisor.advise`, where x is a budget.

    Raises:
      UserError: there is no study, or a file in it is damaged.
    """
    study = cells.read_study(folder)
    variants = list(dict.fromkeys(cell["variant"] for cell in study["cells"]))
    found: dict[Point, dict[int, Finished]] = {}
    for run in cells.finished(folder, study):
        found.setdefault(run.point, {})[run.seed] = run
    by_point = dict(
        sorted(found.items(), key=lambda item: (variants.index(item[0][0]), item[0][1] or 0))
    )
    resampling = Resampling()
    measured = {point: _measure(runs, resampling) for point, runs in by_point.items()}
    points = []
    for point, runs in by_point.items():
        other = compared_with(point, study["reference"], by_point)
        against = measured[other].get("student") if other and other != point else None
        points.append(_point(point, runs, measured[point], against, resampling))
    done = [run for runs in by_point.values() for run in runs.values()]
    known = {(*run.point, run.seed) for run in done}
    missing = [
        c["folder"] for c in study["cells"] if (c["variant"], c["x"], c["seed"]) not in known
    ]
    return {
        **{key: study[key] for key in ("name", "question", "axis", "reference")},
        "measure": "ROUGE-L" if any("score" in run.report for run in done) else "accuracy",
        "cells": {"total": len(study["cells"]), "done": len(done), "missing": missing},
        "points": points,
        "frontier": {cost: efficient(points, cost) for cost in COSTS},
        "bill": _bill(folder / LEDGER),
        "seconds": _seconds(done),
        "advice": _advice(points, measured, resampling),
    }


def efficient(points: Sequence[Row], cost: str) -> list[int]:
    """Returns the indices of the points on the Pareto frontier of student accuracy and `cost`."""
    at = {
        i: (point["cost"][cost], point["accuracy"]["student"]["mean"])
        for i, point in enumerate(points)
        if "student" in point["accuracy"]
    }

    def beats(other: tuple[float, float], one: tuple[float, float]) -> bool:
        return other[0] <= one[0] and other[1] >= one[1] and other != one

    return [i for i, one in at.items() if not any(beats(other, one) for other in at.values())]


def _measure(runs: _Runs, resampling: Resampling) -> dict[str, Measured]:
    """Returns the accuracy of each role that was measured at a point."""
    found = {role: Measured({}, {}) for role in methods.measured()}
    for seed, run in runs.items():
        for role, value in run.measured.items():
            found[role].values[seed] = value
            found[role].drawn[seed] = resampling.accuracy(run.questions[role], run.right[role])
    return {role: measured for role, measured in found.items() if measured.values}


def _point(
    point: Point,
    runs: _Runs,
    measured: Mapping[str, Measured],
    against: Measured | None,
    resampling: Resampling,
) -> Row:
    """Returns a point: means over its seeds, each with its interval (`resampling.estimate`).

    `accuracy` and `compliance` by role; `gaps`; `difference` of the student to the reference's on
    the same seeds (None for the reference itself); `cost`: `usd`, `queries`, `teacher_tokens`,
    `trained_tokens`, `written_tokens`, and `tokens` of all these; `failures`: name -> seeds;
    `questions`, in the test; `teacher_on_annotations`: it was not asked these.
    """
    gaps = {
        name: measured[a].minus(measured[b]).estimate(resampling)
        for name, a, b, _, in_study in GAPS
        if in_study and a in measured and b in measured
    }
    difference = None
    if against and "student" in measured:
        difference = measured["student"].minus(against).estimate(resampling)
    return {
        "variant": point[0],
        "x": point[1],
        "seeds": sorted(runs),
        "accuracy": {role: part.estimate(resampling) for role, part in measured.items()},
        "compliance": {
            role: float(np.mean([runs[seed].report["compliance"][role] for seed in part.values]))
            for role, part in measured.items()
        },
        "difference": difference,
        "gaps": {name: gap for name, gap in gaps.items() if gap},
        "cost": _cost(runs),
        "failures": _failures(runs),
        "questions": max(run.report["n_test"] for run in runs.values()),
        "teacher_on_annotations": any(
            run.report.get("teacher_measured_on") == "annotations" for run in runs.values()
        ),
    }


def _cost(runs: _Runs) -> dict[str, float]:
    names = next(iter(runs.values())).cost
    mean = {name: float(np.mean([run.cost[name] for run in runs.values()])) for name in names}
    teacher = mean.pop("input_tokens") + mean.pop("output_tokens")
    tokens = teacher + mean["trained_tokens"] + mean["written_tokens"]
    return {**mean, "teacher_tokens": teacher, "tokens": tokens}


def _failures(runs: _Runs) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for seed in sorted(runs):
        for name in runs[seed].report["failures"]:
            found.setdefault(name, []).append(seed)
    return found


def _bill(ledger: Path) -> Row:
    """Returns what all runs of the study paid together, and what may have been billed besides."""
    entries = read_bill(ledger).entries if ledger.is_file() else []
    open_ = ("unknown", "reserved", "job")
    paid = [entry for entry in entries if entry.outcome not in open_]
    rest = [entry for entry in entries if entry.outcome in open_]
    return {
        "queries": len(paid),
        "input_tokens": sum(entry.input_tokens for entry in paid),
        "output_tokens": sum(entry.output_tokens for entry in paid),
        "usd": in_usd(sum(entry.nanodollars for entry in paid)),
        "unsettled": {"queries": len(rest), "usd": in_usd(sum(e.nanodollars for e in rest))},
    }


def _seconds(runs: Sequence[Finished]) -> dict[str, float]:
    stages = {(name, *stage) for run in runs for name, stage in run.stages.items()}
    alone = math.fsum(seconds for run in runs for _, seconds in run.stages.values())
    return {"shared": math.fsum(seconds for _, _, seconds in stages), "alone": alone}


def _advice(
    points: Sequence[Row], measured: Mapping[Point, Mapping[str, Measured]], resampling: Resampling
) -> dict[str, Row]:
    """Returns the advice for each variant whose x is a budget: more queries at each larger x."""
    advice = {}
    for variant in dict.fromkeys(point["variant"] for point in points):
        scaled = [
            p
            for p in points  # by x
            if p["variant"] == variant and p["x"] is not None and "student" in p["accuracy"]
        ]
        budgets = [point["cost"]["queries"] for point in scaled]
        if len(budgets) < 2 or budgets != sorted(set(budgets)):
            continue
        students = [measured[variant, point["x"]]["student"] for point in scaled]
        drawn = np.stack([resampling.over_seeds(student.drawn) for student in students], 1)
        means = [point["accuracy"]["student"]["mean"] for point in scaled]
        pilot = advisor.Pilot(np.array(budgets), np.array(means), drawn)
        advice[variant] = advisor.advise(pilot)
    return advice
