"""From the finished runs of a study to the numbers of `study.json`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bridge_jax.studies import advisor, cells
from bridge_jax.studies.cells import Finished
from bridge_jax.studies.resampling import Resampling, estimate
from bridge_jax.studies.study import LEDGER, Point, compared_with
from bridge_jax.studies.workdir import ROLES, Row
from bridge_jax.teachers import statement
from bridge_jax.teachers.prices import in_usd

# The first role's accuracy minus the second's: one large gap, and the two that it is cut into.
GAPS = {
    "teacher_assistant": ("teacher", "assistant"),
    "assistant_student": ("assistant", "student"),
    "teacher_student": ("teacher", "student"),
}
COSTS = ("usd", "tokens")

_Runs = Mapping[int, Finished]  # by seed
_Replicates = Mapping[int, np.ndarray]  # f64[R] by seed


def compute(folder: Path) -> Row:
    """Returns the results of the study in `folder`, as far as its runs are done.

    Returns:
      `name`, `question`, `axis`, `reference`; `cells`: `total`, `done` and the folders that are
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
    replicates = {
        point: {seed: _by_role(run, resampling) for seed, run in runs.items()}
        for point, runs in by_point.items()
    }
    points = [
        _point(point, runs, replicates, by_point, study["reference"], resampling)
        for point, runs in by_point.items()
    ]
    done = [run for runs in by_point.values() for run in runs.values()]
    known = {(*run.point, run.seed) for run in done}
    missing = [
        c["folder"] for c in study["cells"] if (c["variant"], c["x"], c["seed"]) not in known
    ]
    return {
        **{key: study[key] for key in ("name", "question", "axis", "reference")},
        "cells": {"total": len(study["cells"]), "done": len(done), "missing": missing},
        "points": points,
        "frontier": {cost: efficient(points, cost) for cost in COSTS},
        "bill": _bill(folder / LEDGER),
        "seconds": _seconds(done),
        "advice": _advice(points, replicates, resampling),
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


def _by_role(run: Finished, resampling: Resampling) -> dict[str, np.ndarray]:
    return {
        role: resampling.accuracy(run.questions[role], correct)
        for role, correct in run.correct.items()
    }


def _point(
    point: Point,
    runs: _Runs,
    replicates: Mapping[Point, Mapping[int, dict[str, np.ndarray]]],
    by_point: Mapping[Point, _Runs],
    reference: str,
    resampling: Resampling,
) -> Row:
    """Returns a point: means over its seeds, each with its interval (`resampling.estimate`).

    `accuracy` and `compliance` by role; `gaps`; `difference` of the student to the reference's on
    the same seeds (None for the reference itself); `cost`: `usd`, `queries`, `teacher_tokens`,
    `trained_tokens`, `written_tokens`, and `tokens` of all these; `failures`: name -> seeds;
    `questions`, in the test; `teacher_on_annotations`: it was not asked these.
    """
    here = replicates[point]

    def measured(seeds: Iterable[int], values: Mapping[int, float], drawn: _Replicates) -> Row:
        kept = list(seeds)
        over = resampling.over_seeds({seed: drawn[seed] for seed in kept})
        return estimate({seed: values[seed] for seed in kept}, over)

    accuracy = {role: {s: r.report["accuracy"][role] for s, r in runs.items()
                       if role in r.report["accuracy"]} for role in ROLES}  # fmt: skip
    accuracy = {role: values for role, values in accuracy.items() if values}
    gaps = {}
    for name, (a, b) in GAPS.items():
        both = accuracy.get(a, {}).keys() & accuracy.get(b, {}).keys()
        if both:
            values = {seed: accuracy[a][seed] - accuracy[b][seed] for seed in both}
            gaps[name] = measured(both, values, {s: here[s][a] - here[s][b] for s in both})
    other = compared_with(point, reference, by_point)
    difference = None
    if other is not None and other != point:
        there = {s: r.report["accuracy"].get("student") for s, r in by_point[other].items()}
        both = [s for s in accuracy.get("student", {}) if there.get(s) is not None]
        if both:
            values = {s: accuracy["student"][s] - there[s] for s in both}
            drawn = {s: here[s]["student"] - replicates[other][s]["student"] for s in both}
            difference = measured(both, values, drawn)
    return {
        "variant": point[0],
        "x": point[1],
        "seeds": sorted(runs),
        "accuracy": {
            role: measured(values, values, {s: here[s][role] for s in values})
            for role, values in accuracy.items()
        },
        "compliance": {
            role: float(np.mean([runs[seed].report["compliance"][role] for seed in values]))
            for role, values in accuracy.items()
        },
        "difference": difference,
        "gaps": gaps,
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
    entries = statement.read(ledger).entries if ledger.is_file() else []
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
    points: Sequence[Row],
    replicates: Mapping[Point, Mapping[int, dict[str, np.ndarray]]],
    resampling: Resampling,
) -> dict[str, Row]:
    """Returns the advice for each variant whose x is a budget: more queries at each larger x."""
    advice = {}
    for variant in dict.fromkeys(point["variant"] for point in points):
        scaled = sorted(
            (p for p in points
             if p["variant"] == variant and p["x"] is not None and "student" in p["accuracy"]),
            key=lambda p: p["x"],
        )  # fmt: skip
        budgets = [point["cost"]["queries"] for point in scaled]
        if len(budgets) < 2 or budgets != sorted(set(budgets)):
            continue
        drawn = []
        for point in scaled:
            at = replicates[(variant, point["x"])]
            seeds = [seed for seed in at if "student" in at[seed]]
            drawn.append(resampling.over_seeds({seed: at[seed]["student"] for seed in seeds}))
        means = [point["accuracy"]["student"]["mean"] for point in scaled]
        pilot = advisor.Pilot(np.array(budgets), np.array(means), np.stack(drawn, 1))
        advice[variant] = advisor.advise(pilot)
    return advice
