"""Generic instructions of a file or a dataset, for the student's warm-up.

A row has a `question` and an `answer`, found by these names or by what `instruct.columns` maps them
to; a `context` that the question needs, if it has that column; and a `split`, if it has that: rows
of dev and test are not read. Without a file, a program makes them (`tasks.practice.instructions`).
"""

from typing import NamedTuple

import numpy as np

from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.errors import UserError
from bridge_jax.tasks.rows import BadRowError, Reader, Row
from bridge_jax.tasks.sources import SPLITS, raw_rows

FIELDS = ("question", "answer", "context", "split")


class Instruction(NamedTuple):
    """A question with its context, and the answer as it was written."""

    question: str
    answer: str


class Instructions(NamedTuple):
    """What a source holds.

    Attributes:
      rows: in random order: the first N are a random sample, and the first of a larger one.
      skipped: bad rows that were left out on request.
    """

    rows: tuple[Instruction, ...]
    skipped: int


def read(config: InstructConfig, seed: int) -> Instructions:
    """Returns the instructions that `config.path` has for training, shuffled by `seed`.

    Raises:
      UserError: it cannot be read, a row is malformed (unless `on_bad_row="skip"`), or none is for
        training.
    """
    assert config.source != "generated"
    source = DataConfig(source=config.source, path=config.path, columns=config.columns)
    reader = Reader(source)
    found, skipped, others = [], 0, set()
    for row in raw_rows(source, "instruct"):
        try:
            split = reader.text(row, "split", required=False)
            if split and SPLITS.get(split) != "pool":
                others.add(split)
                continue
            found.append(_instruction(reader, row))
        except BadRowError as error:
            if config.on_bad_row == "error":
                raise UserError(
                    f"{row.where}: {error} (mend the row, map its columns with instruct.columns, "
                    "or pass instruct.on_bad_row=skip)"
                ) from None
            skipped += 1
    if not found:
        beside = f", {skipped} bad rows" if skipped else ""
        beside += f", and rows of split {', '.join(sorted(others))}" if others else ""
        raise UserError(
            f"instruct.path={config.path}: no instructions of split train{beside}; give some rows "
            "split=train, or none a split"
        )
    order = np.random.default_rng(seed).permutation(len(found))
    return Instructions(tuple(found[i] for i in order), skipped)


def _instruction(reader: Reader, row: Row) -> Instruction:
    question, answer = (reader.text(row, field) for field in ("question", "answer"))
    context = reader.text(row, "context", required=False)
    return Instruction(f"{question}\n\n{context}" if context else question, answer)
