"""Defines a study: many runs that answer one question.

A study is a Python file with `get_study() -> Study`. Runs that differ in the seed alone are one
point of a figure. Every point is compared with the reference variant's point at the same x,
question by question and seed by seed.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from bridge_jax.config import RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.config.io import Change
from bridge_jax.data import sources
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import require, validate
from bridge_jax.study import LEDGER

Point = tuple[str, float | None]  # A variant at an x: runs that differ in the seed alone.


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
      variant: the name, in figures, of what is compared.
      config: the run's config, including its seed.
      x: the run's value on the study's axis; None if the run does not depend on it.
    """

    variant: str
    config: RunConfig
    x: float | None = None

    @property
    def point(self) -> Point:
        """The variant and x."""
        return self.variant, self.x

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        variant = re.sub(r"[^\w.+]+", "-", self.variant).strip("-")
        x = "" if self.x is None else f"-{self.x:g}"
        return f"{variant}{x}-seed{self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs that answer a question.

    Attributes:
      name: a short name.
      question: the title of its page.
      runs: the runs, in the order in which they are started.
      reference: the variant that the others are compared with.
      axis: the label of x in figures, with its unit; empty if no run has an x.
    """

    name: str
    question: str
    runs: tuple[StudyRun, ...]
    reference: str
    axis: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields from which results are computed, as JSON values."""
        return {
            "name": self.name,
            "question": self.question,
            "reference": self.reference,
            "axis": self.axis,
            "runs": [
                {
                    "folder": run.folder,
                    "variant": run.variant,
                    "x": run.x,
                    "seed": run.config.seed,
                    "config": config_key(config_io.to_json(run.config)),
                }
                for run in self.runs
            ],
        }


def config_key(config: dict[str, Any]) -> str:
    """Returns a hash of a run's config (JSON values) that ignores the location of the ledger."""
    return config_io.digest({**config, "budget": {**config.get("budget", {}), "ledger": ""}})


def load(path: str | Path, changes: Iterable[str | Change] = ()) -> Study:
    """Loads and checks the study of a Python file, with the changes applied to each run."""
    found = config_io.load(path, "get_study")
    if not isinstance(found, Study):
        raise UserError(f"{path}: get_study() returns a {type(found).__name__}, not a Study")
    return override(found, changes)


def override(study: Study, changes: Iterable[str | Change], has_data: bool = True) -> Study:
    """Applies the changes to each run of a study and checks the result (`check`)."""
    listed = list(changes)
    return check(_map(study, lambda config: config_io.override(config, listed)), has_data)


def in_folder(study: Study, workdir: Path) -> Study:
    """Returns the study with one ledger for all runs that name none: no answer is paid twice."""
    ledger = str((workdir / LEDGER).absolute())

    def share(config: RunConfig) -> RunConfig:
        budget = dataclasses.replace(config.budget, ledger=config.budget.ledger or ledger)
        return dataclasses.replace(config, budget=budget)

    return _map(study, share)


def _map(study: Study, change: Callable[[RunConfig], RunConfig]) -> Study:
    runs = tuple(dataclasses.replace(run, config=change(run.config)) for run in study.runs)
    return dataclasses.replace(study, runs=runs)


def check(study: Study, has_data: bool = True) -> Study:
    """Runs the checks that need no data, and returns `study`; `has_data=False` if there is none.

    Raises:
      UserError: there are no runs, two runs are the same, the reference is not one of the variants,
        a point has no seed in common with it, an x is not finite or has no axis, or a run's config
        is invalid.
    """
    where = f"study {study.name!r}"
    require(bool(study.runs), f"{where} has no runs")
    for run in study.runs:
        kind = type(run.config).__name__
        is_config = isinstance(run.config, RunConfig)
        require(is_config, f"{where}: the config of {run.variant!r} is a {kind}, not a RunConfig")
        finite = run.x is None or math.isfinite(run.x)
        require(finite, f"{where}: {run.variant!r} has x={run.x}, not a finite number")
    twice = [name for name, n in Counter(run.folder for run in study.runs).items() if n > 1]
    require(
        not twice,
        f"{where}: several runs are {twice[:1]}; give each its own variant, x or seed",
    )
    known: dict[str, StudyRun] = {}
    seeds: dict[Point, set[int]] = {}
    for run in study.runs:
        named = f"{where}, run {run.folder}"
        has_axis = run.x is None or bool(study.axis)
        require(has_axis, f"{named} has x={run.x}, but axis is empty")
        try:
            validate(run.config, has_data)
        except UserError as error:
            raise UserError(f"{named}: {error}") from None
        unnamed = config_io.to_json(dataclasses.replace(run.config, name=""))
        other = known.setdefault(config_io.digest(unnamed), run)
        require(other is run, f"{named} has the same config as {other.folder}")
        seeds.setdefault(run.point, set()).add(run.config.seed)
    variants = dict.fromkeys(run.variant for run in study.runs)
    require(
        study.reference in variants,
        f"{where}: reference={study.reference!r} is not one of its variants: {', '.join(variants)}",
    )
    for point in seeds:
        against = compared_with(point, study.reference, seeds)
        require(
            against is None or bool(seeds[point] & seeds[against]),
            f"{where}: {point[0]!r} at x={point[1]} has no seed in common with the reference",
        )
    return study


def compared_with(point: Point, reference: str, points: Collection[Point]) -> Point | None:
    """Returns the reference's point at the same x, else its point without x, else None."""
    return next((p for p in ((reference, point[1]), (reference, None)) if p in points), None)


def check_tests(study: Study) -> None:
    """Checks that all runs of one seed are tested on the same questions.

    Raises:
      UserError: they are not, or the data cannot be read.
    """
    tests: dict[str, str] = {}  # data and seed -> the test questions
    first: dict[int, tuple[str, str]] = {}
    for run in study.runs:
        config = run.config
        key = config_io.digest([config_io.to_json(config.data), config.seed])
        if key not in tests:
            examples = sources.load(config.data, config.seed).test
            tests[key] = config_io.digest([[e.id, e.question, e.answer] for e in examples])
        test = f"{tests[key]} {config.evaluation.teacher_test}"
        folder, questions = first.setdefault(config.seed, (run.folder, test))
        require(
            questions == test,
            f"study {study.name!r}: {folder} and {run.folder} are tested on different questions; "
            "give their configs the same test set",
        )
