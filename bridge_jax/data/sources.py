"""Reads the examples of a run, and the instructions of the student's warm-up.

Examples are generated practice tasks, the rows of a JSON Lines file, or a dataset of the hub.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.data import practice
from bridge_jax.data.conversion import RowReader
from bridge_jax.data.example import Example, Splits, check_labels, read_task
from bridge_jax.data.formats import read_dataset, read_jsonl
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Columns, Row, bad_value, names
from bridge_jax.errors import UserError

# Names of splits in other people's data, in lower case -> ours.
SPLITS = {
    **dict.fromkeys(("train", "training", "pool"), "pool"),
    **dict.fromkeys(("dev", "development", "validation", "valid", "val", "eval"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Fields of the config that practice tasks are made from.
PRACTICE = ("domains", "min_steps", "max_steps", "families", "label_share")


class Instruction(NamedTuple):
    """A question with its context, and the answer as the source has it."""

    question: str
    answer: str


class Instructions(NamedTuple):
    """The instructions of a source.

    Attributes:
      rows: in random order, so that the first N are a random sample of them.
      bad: rows that were left out because of `on_bad_row="skip"`.
    """

    rows: tuple[Instruction, ...]
    bad: BadRows


def load(config: DataConfig, seed: int) -> Splits:
    """Reads the examples that `config` names.

    Args:
      config: the source. For `jsonl` and `hf`, `pool`, `dev` and `test` are how many examples of
        each split are kept, the first in file order; 0 keeps all.
      seed: of practice tasks; the other sources do not depend on it.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is left.
      UserError: the data or the task cannot be read, answers can be read in two ways, or pool or
        test is empty.
    """
    _check(config)
    if config.source == "practice":
        settings = {name: getattr(config, name) for name in ("pool", "dev", "test", *PRACTICE)}
        splits = practice.generate(seed, **settings)
        for name in ("pool", "test"):
            if not getattr(splits, name):
                raise UserError(f"practice tasks: no examples for {name}; set data.{name} above 0")
        if config.kind == "text":
            splits = practice.open_ended(splits, config.min_rouge)
    else:
        splits = _collect(_raw_rows(config), config)
    return _told(splits, config)


def read_instructions(config: InstructConfig, seed: int) -> Instructions:
    """Returns the instructions of `config.path` for training, shuffled by `seed`.

    A row has a `question` and an `answer`, by these names or those in `instruct.columns`. It may
    have a `context`, which is appended to the question, and a `split`: rows of dev and test are
    left out.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is for training.
      UserError: the source cannot be read.
    """
    assert config.source != "generated"
    source = DataConfig(source=config.source, path=config.path, columns=config.columns)
    columns, bad = Columns(config.columns), BadRows()
    found, others = [], set()
    for row in _raw_rows(source, "instruct"):
        bad.total += 1
        try:
            split = columns.text(row, "split", required=False)
            if split and SPLITS.get(split.lower()) != "pool":
                others.add(split)
                continue
            question, answer = columns.text(row, "question"), columns.text(row, "answer")
            if context := columns.text(row, "context", required=False):
                question = f"{question}\n\n{context}"
            found.append(Instruction(question, answer))
        except BadRowError as error:
            bad.add(row, error)
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


def _raw_rows(config: DataConfig, part: str = "data") -> Iterator[Row]:
    """Yields the rows of a file or a dataset; `part` of the run's config names it in messages."""
    if config.source == "jsonl":
        return read_jsonl(config.path, part)
    return read_dataset(config, part)


def _check(config: DataConfig) -> None:
    """Raises a UserError for settings that have no effect or cannot work together."""
    for theirs, ours in config.splits.items():
        if ours.lower() not in SPLITS:
            raise UserError(
                f"data.splits={theirs}:{ours}: name one of our splits, train, dev or test"
            )
    for name in ("config", "revision"):
        if getattr(config, name) and config.source != "hf":
            raise UserError(
                f"data.{name}={getattr(config, name)} is of data.source=hf, not {config.source}"
            )
    if config.kind in ("numeric", "text") and config.answer_is not in ("auto", "text"):
        raise UserError(
            f"data.answer_is={config.answer_is} names an option, and data.kind={config.kind} has "
            "none: set data.kind=choice or label"
        )


def _told(splits: Splits, config: DataConfig) -> Splits:
    """Returns the examples with the task of the config, if it has one."""
    task = read_task(config)
    if not task.is_said:
        return splits
    parts = {name: getattr(splits, name) for name in ("pool", "dev", "test")}
    labels = (e.choices for part in parts.values() for e in part if e.kind == "label")
    check_labels(task, itertools.chain.from_iterable(labels))
    told = {
        name: tuple(dataclasses.replace(example, task=task) for example in part)
        for name, part in parts.items()
    }
    return dataclasses.replace(splits, **told)


def _collect(rows: Iterable[Row], config: DataConfig) -> Splits:
    """Converts rows, and groups them by split; the caps apply after all rows have been checked."""
    reader, bad = RowReader(config), BadRows()
    found: dict[str, list[Example]] = {"pool": [], "dev": [], "test": []}
    called: collections.Counter[str] = collections.Counter()
    lost: set[str] = set()  # Our names of the splits that bad rows belong to.
    for row in rows:
        bad.total += 1
        name = ""
        try:
            reader.columns.check(row)
            theirs = reader.columns.text(row, "split")
            called[theirs] += 1
            name = _ours(theirs, config, reader.columns.name("split"))
            if name:
                found[name].append(reader.example(row, name))
        except BadRowError as error:
            lost.add(name)
            bad.add(row, error)
    if doubt := reader.doubt():
        listed = [bad.summary()] if bad.rows else []
        raise BadRowsError("\n".join([f"{config.path}: {doubt}", *listed]), bad)
    if bad.rows and config.on_bad_row == "error":
        # Where most rows fail alike, leaving them out would leave nothing.
        way_out = "" if bad.cause else "\nmend them, or leave them out with data.on_bad_row=skip"
        raise BadRowsError(f"{config.path}: {bad.summary()}{way_out}", bad)
    for name in ("pool", "test"):
        if not found[name]:
            raise BadRowsError(
                f"{config.path}: no examples for {name}{_why(name, bad, called, lost)}", bad
            )
    caps = {"pool": config.pool, "dev": config.dev, "test": config.test}
    kept = {name: tuple(rows[: caps[name] or None]) for name, rows in found.items()}
    cut = {name: len(rows) for name, rows in found.items() if len(rows) > len(kept[name])}
    return Splits(**kept, bad=bad, replaced=reader.replaced, cut=cut)


def _ours(theirs: str, config: DataConfig, column: str) -> str:
    """Returns our name of a split, or "" for one that `data.splits` leaves out."""
    if config.splits:
        chosen = {name.lower(): ours for name, ours in config.splits.items()}
        return SPLITS[chosen[theirs.lower()].lower()] if theirs.lower() in chosen else ""
    if theirs.lower() not in SPLITS:
        way_out = f"say what is what, as in data.splits={names([theirs])}:train"
        way_out += "; others are left out"
        raise bad_value(column, theirs, "is not train, dev or test", way_out)
    return SPLITS[theirs.lower()]


def _why(name: str, bad: BadRows, called: Mapping[str, int], lost: set[str]) -> str:
    """Returns why a split is empty, and the way out."""
    if bad.cause or name in lost:
        return f": {bad.summary()}"
    if not bad.total:
        return ": there are no rows"
    theirs = "train" if name == "pool" else name
    splits = ", ".join(f"{names([split])} ({count:,})" for split, count in called.items())
    skipped = f" (bad rows were skipped: {bad.counts()})" if bad.rows else ""
    return (
        f"; the splits are {splits}{skipped}: give some rows split={theirs}, or say which one is "
        f"meant with data.splits=NAME:{theirs}"
    )
