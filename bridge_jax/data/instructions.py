"""Generic instructions of a file or a dataset, for the student's warm-up.

A row has a `question` and an `answer`, found by these names or by what `instruct.columns` maps them
to; a `context` that the question needs, if it has that column; and a `split`, if it has that: rows
of dev and test are not read. Without a file, a program makes them (`tasks.practice.instructions`).
"""

from typing import NamedTuple

import numpy as np

from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.data.bad_rows import BadRowError, BadRows, BadRowsError
from bridge_jax.data.columns import Columns, Row
from bridge_jax.data.sources import SPLITS, raw_rows


class Instruction(NamedTuple):
    """A question with its context, and the answer as it was written."""

    question: str
    answer: str


class Instructions(NamedTuple):
    """The instructions of a source.

    Attributes:
      rows: in random order: the first N are a random sample, and the first of a larger one.
      bad: rows that were left out on request.
    """

    rows: tuple[Instruction, ...]
    bad: BadRows


def read(config: InstructConfig, seed: int) -> Instructions:
    """Returns the instructions that `config.path` has for training, shuffled by `seed`.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is for training.
      UserError: the source cannot be read.
    """
    assert config.source != "generated"
    source = DataConfig(source=config.source, path=config.path, columns=config.columns)
    columns, bad = Columns(config.columns), BadRows()
    found, others = [], set()
    for row in raw_rows(source, "instruct"):
        bad.total += 1
        try:
            split = columns.text(row, "split", required=False)
            if split and SPLITS.get(split.lower()) != "pool":
                others.add(split)
                continue
            found.append(_instruction(columns, row))
        except BadRowError as error:
            bad.add(row.file, row.place, error)
    where = f"instruct.path={config.path}"
    if bad.rows and config.on_bad_row == "error":
        raise BadRowsError(
            f"{where}: {bad.summary()}\nmend them, map their columns with instruct.columns, or "
            "leave them out with instruct.on_bad_row=skip",
            bad,
        )
    if not found:
        beside = f", {len(bad.rows):,} bad rows ({bad.counts()})" if bad.rows else ""
        beside += f", and rows of split {', '.join(sorted(others))}" if others else ""
        raise BadRowsError(
            f"{where}: no instructions of split train{beside}; give some rows split=train, or none "
            "a split",
            bad,
        )
    order = np.random.default_rng(seed).permutation(len(found))
    return Instructions(tuple(found[i] for i in order), bad)


def _instruction(columns: Columns, row: Row) -> Instruction:
    question, answer = (columns.text(row, field) for field in ("question", "answer"))
    context = columns.text(row, "context", required=False)
    return Instruction(f"{question}\n\n{context}" if context else question, answer)
