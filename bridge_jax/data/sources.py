"""The examples of a run: generated practice tasks, a JSON Lines file, or a dataset of the hub."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from bridge_jax.config import DataConfig
from bridge_jax.data import hub, jsonl, practice
from bridge_jax.data.bad_rows import BadRowError, BadRows, BadRowsError, names, shown
from bridge_jax.data.columns import Row
from bridge_jax.data.example import Example, Splits
from bridge_jax.data.rows import Reader
from bridge_jax.data.task import check_labels, read
from bridge_jax.errors import UserError

# What others call their splits, in any case, and what we do.
SPLITS = {
    **dict.fromkeys(("train", "training", "pool"), "pool"),
    **dict.fromkeys(("dev", "development", "validation", "valid", "val", "eval"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def load(config: DataConfig, seed: int) -> Splits:
    """Returns the examples that `config` names.

    Args:
      config: where they come from. For `jsonl` and `hf`, `pool`, `dev` and `test` keep the first
        examples of each split, in file order; 0 keeps all.
      seed: of practice tasks; the other sources do not depend on it.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or there are no others.
      UserError: the data or the task cannot be read, answers can be read in two ways, or pool or
        test is empty.
    """
    _check(config)
    if config.source == "practice":
        sizes = {name: getattr(config, name) for name in _OF_PRACTICE}
        splits = practice.generate(seed, **sizes)
        for name in ("pool", "test"):
            if not getattr(splits, name):
                raise UserError(f"practice tasks: no examples for {name}; set data.{name} above 0")
        if config.kind == "text":
            splits = practice.open_ended(splits, config.min_rouge)
    else:
        splits = _collect(raw_rows(config), config)
    return _told(splits, config)


def raw_rows(config: DataConfig, part: str = "data") -> Iterator[Row]:
    """Yields the rows of a file or a dataset; `part` of the run's config names it in messages."""
    return jsonl.read(config.path, part) if config.source == "jsonl" else hub.read(config, part)


def _check(config: DataConfig) -> None:
    """Raises a UserError for settings that would be ignored or could not work."""
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
    """Returns the examples with what the task is, if the config says it."""
    task = read(config)
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
    """Returns the converted rows by split; the caps apply after all rows have been checked."""
    reader, bad = Reader(config), BadRows()
    found: dict[str, list[Example]] = {"pool": [], "dev": [], "test": []}
    called: collections.Counter[str] = collections.Counter()
    lost: set[str] = set()  # Splits of ours that bad rows belong to.
    for row in rows:
        bad.total += 1
        name = ""
        try:
            theirs = reader.split(row)
            called[theirs] += 1
            name = _ours(theirs, config, reader.columns.name("split"))
            if name:
                found[name].append(reader.example(row, name))
        except BadRowError as error:
            lost.add(name)
            bad.add(row.file, row.place, error)
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
        raise BadRowError(
            f"{column}={shown(theirs)} is not train, dev or test",
            f"{column} is not train, dev or test",
            f"say what is what, as in data.splits={names([theirs])}:train; others are left out",
        )
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
