"""A study: many runs that answer one question, as configs over configs.

A study is a Python file with `get_study() -> Study`. A cell is a run; cells that differ in the seed
alone are one point of a figure, and every point is compared with the reference variant's at the
same x, question by question and seed by seed.
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
from bridge_jax.data import sources
from bridge_jax.errors import UserError, require
from bridge_jax.methods.checks import validate
from bridge_jax.study.names import LEDGER

Point = tuple[str, float | None]  # A variant at an x: cells that differ in the seed alone.


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
      variant: what is compared, in the words of the figures.
      config: of the run; the cell's seed is the config's.
      x: where the run lies on the study's axis; None where it does not depend on it.
    """

    variant: str
    config: RunConfig
    x: float | None = None

    @property
    def folder(self) -> str:
        """The name of the run's folder."""
        variant = re.sub(r"[^\w.+]+", "-", self.variant).strip("-")
        x = () if self.x is None else (f"{self.x:g}",)
        return "-".join((variant, *x, f"seed{self.config.seed}"))


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs that answer a question.

    Attributes:
      name: of the study; short.
      question: the title of its page.
      cells: the runs, in the order in which they are begun.
      reference: the variant that the others are compared with.
      axis: what x is, with its unit, as a figure says it; empty where no cell has an x.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    reference: str
    axis: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns what the results need to know of the study, as JSON values."""
        return {
            "name": self.name,
            "question": self.question,
            "reference": self.reference,
            "axis": self.axis,
            "cells": [
                {
                    "folder": cell.folder,
                    "variant": cell.variant,
                    "x": cell.x,
                    "seed": cell.config.seed,
                    "config": config_key(config_io.to_json(cell.config)),
                }
                for cell in self.cells
            ],
        }


def config_key(config: dict[str, Any]) -> str:
    """Returns what identifies a run's config (JSON values), wherever the study's folder lies."""
    return config_io.digest({**config, "budget": {**config.get("budget", {}), "ledger": ""}})


def load(path: str | Path, assignments: Iterable[str] = ()) -> Study:
    """Returns the study of a Python file, with the overrides applied to each run, checked."""
    found = config_io.load(path, "get_study")
    if not isinstance(found, Study):
        raise UserError(f"{path}: get_study() returns a {type(found).__name__}, not a Study")
    return override(found, assignments)


def override(study: Study, assignments: Iterable[str]) -> Study:
    """Returns the study with the overrides applied to each of its runs, checked."""
    changes = list(assignments)
    return check(_map(study, lambda config: config_io.override(config, changes)))


def in_folder(study: Study, workdir: Path) -> Study:
    """Returns the study with one ledger for all of its runs, so that no answer is paid twice."""
    ledger = str((workdir / LEDGER).absolute())

    def share(config: RunConfig) -> RunConfig:
        budget = dataclasses.replace(config.budget, ledger=config.budget.ledger or ledger)
        return dataclasses.replace(config, budget=budget)

    return _map(study, share)


def check(study: Study) -> Study:
    """Returns `study` after the checks that need no data.

    Raises:
      UserError: two cells are the same, the reference is none of the variants, a point has no seed
        in common with it, an x has no axis, or a run's config cannot work.
    """
    cells, where = study.cells, f"study {study.name!r}"
    require(bool(cells), f"{where} has no cells")
    for cell in cells:
        require(
            isinstance(cell.config, RunConfig),
            f"{where}: the config of {cell.variant!r} is a {type(cell.config).__name__}",
        )
        require(
            cell.x is None or math.isfinite(cell.x), f"{where}: {cell.variant!r} has x={cell.x}"
        )
    twice = [name for name, n in Counter(cell.folder for cell in cells).items() if n > 1]
    require(
        not twice,
        f"{where}: several cells are {twice[:1]}; each needs a variant, x or seed of its own",
    )
    known: dict[str, Cell] = {}
    for cell in cells:
        with_name = f"{where}, cell {cell.folder}"
        require(
            cell.x is None or bool(study.axis), f"{with_name} has x={cell.x}, but axis is empty"
        )
        try:
            validate(cell.config)
        except UserError as error:
            raise UserError(f"{with_name}: {error}") from None
        unnamed = config_io.to_json(dataclasses.replace(cell.config, name=""))
        other = known.setdefault(config_io.digest(unnamed), cell)
        require(other is cell, f"{with_name} has the config of {other.folder}")
    variants = dict.fromkeys(cell.variant for cell in cells)
    require(
        study.reference in variants,
        f"{where}: reference={study.reference!r} is none of its variants: {', '.join(variants)}",
    )
    seeds: dict[Point, set[int]] = {}
    for cell in cells:
        seeds.setdefault((cell.variant, cell.x), set()).add(cell.config.seed)
    for point in seeds:
        other = compared_with(point, study.reference, seeds)
        require(
            other is None or bool(seeds[point] & seeds[other]),
            f"{where}: {point[0]!r} at x={point[1]} has no seed in common with the reference",
        )
    return study


def compared_with(point: Point, reference: str, points: Collection[Point]) -> Point | None:
    """Returns the reference's point at the same x, or its only one if it does not depend on x."""
    return next((p for p in ((reference, point[1]), (reference, None)) if p in points), None)


def check_tests(study: Study) -> None:
    """Finds cells of one seed that are tested on different questions.

    Raises:
      UserError: there are some, or the data cannot be read.
    """
    asked: dict[str, str] = {}
    first: dict[int, tuple[str, str]] = {}
    for cell in study.cells:
        config = cell.config
        key = config_io.digest([config_io.to_json(config.data), config.seed])
        if key not in asked:
            test = sources.load(config.data, config.seed).test
            asked[key] = config_io.digest([[e.id, e.question, e.answer] for e in test])
        folder, questions = first.setdefault(config.seed, (cell.folder, asked[key]))
        require(
            questions == asked[key],
            f"study {study.name!r}: {folder} and {cell.folder} are tested on different questions; "
            "give their configs the same test set",
        )


def _map(study: Study, change: Callable[[RunConfig], RunConfig]) -> Study:
    cells = tuple(dataclasses.replace(c, config=change(c.config)) for c in study.cells)
    return dataclasses.replace(study, cells=cells)
