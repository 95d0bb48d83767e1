"""The examples of a run: generated practice tasks, a JSON Lines file, or a dataset of the hub."""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge_jax.config import DataConfig
from bridge_jax.errors import UserError
from bridge_jax.tasks import practice
from bridge_jax.tasks.example import Example, Splits
from bridge_jax.tasks.rows import BadRowError, Reader, Row
from bridge_jax.tasks.task import check_labels, read

# Hub names of splits, and ours.
SPLITS = {
    "train": "pool",
    "pool": "pool",
    "dev": "dev",
    "validation": "dev",
    "test": "test",
}


def load(config: DataConfig, seed: int) -> Splits:
    """Returns the examples that `config` names.

    Args:
      config: where they come from. For `jsonl` and `hf`, `pool`, `dev` and `test` keep the first
        examples of each split, in file order; 0 keeps all.
      seed: of practice tasks; the other sources do not depend on it.

    Raises:
      UserError: the data or the task cannot be read, a row is malformed (unless
        `on_bad_row="skip"`), or pool or test is empty.
    """
    if config.source == "practice":
        splits = practice.generate(
            seed,
            config.pool,
            config.dev,
            config.test,
            config.domains,
            config.min_steps,
            config.max_steps,
            config.families,
            config.label_share,
        )
        if config.kind == "text":
            splits = _open_ended(splits, config.min_rouge)
    else:
        splits = _collect(raw_rows(config), config)
    for name in ("pool", "test"):
        if not getattr(splits, name):
            skipped = f" ({splits.skipped} bad rows were skipped)" if splits.skipped else ""
            raise UserError(
                f"{config.path or 'practice tasks'}: no examples for {name}{skipped}; "
                + (
                    f"set data.{name} above 0"
                    if config.source == "practice"
                    else f"give some rows split={'train' if name == 'pool' else name}"
                )
            )
    return _told(splits, config)


def raw_rows(config: DataConfig, part: str = "data") -> Iterator[Row]:
    """Yields the rows of a file or a dataset; `part` of the run's config names it in messages."""
    return _jsonl_rows(config, part) if config.source == "jsonl" else _hub_rows(config, part)


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


def _open_ended(splits: Splits, min_rouge: float) -> Splits:
    """Returns practice examples whose answers are sentences."""
    pool, dev, test = (
        tuple(practice.open_ended(example, min_rouge) for example in part)
        for part in (splits.pool, splits.dev, splits.test)
    )
    return Splits(pool, dev, test)


def _collect(rows: Iterator[Row], config: DataConfig) -> Splits:
    """Returns the converted rows by split; the caps apply after all rows have been checked."""
    reader = Reader(config)
    found: dict[str, list[Example]] = {"pool": [], "dev": [], "test": []}
    skipped = 0
    for row in rows:
        try:
            name = SPLITS.get(reader.text(row, "split"))
            if name is None:
                column = reader.column("split")
                raise BadRowError(f"{column}={row.value.get(column)!r} is not train, dev or test")
            found[name].append(reader.example(row, name))
        except BadRowError as error:
            if config.on_bad_row == "error":
                raise UserError(
                    f"{row.where}: {error} (mend the row, or pass data.on_bad_row=skip)"
                ) from None
            skipped += 1
    caps = {"pool": config.pool, "dev": config.dev, "test": config.test}
    kept = {name: tuple(rows[: caps[name] or None]) for name, rows in found.items()}
    return Splits(**kept, skipped=skipped)


def _jsonl_rows(config: DataConfig, part: str) -> Iterator[Row]:
    path = Path(config.path)
    if not path.is_file():
        raise UserError(f"{part}.path={config.path}: no such file")
    # By lines of bytes: str.splitlines would also cut at separators that JSON strings may hold.
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield _jsonl_row(f"{config.path}, line {number}", line)


def _jsonl_row(where: str, line: bytes) -> Row:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Row(where, {}, "is not UTF-8")
    if not text.strip():
        return Row(where, {}, "is empty")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Row(where, {}, f"is not valid JSON: {error.msg} at column {error.colno}")
    if not isinstance(value, dict):
        return Row(where, {}, f"is a JSON {type(value).__name__}, not an object")
    return Row(where, value)


def _hub_rows(config: DataConfig, part: str) -> Iterator[Row]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{part}.source=hf needs the datasets library: pip install 'bridge-jax[datasets]'"
        ) from None
    try:
        loaded: Any = _load_dataset(datasets, config.path)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{part}.path={config.path}: datasets cannot load it ({type(error).__name__}: "
            f"{reason}); give a dataset of the hub, or a local file or folder of parquet or JSON"
        ) from error
    split_column = config.columns.get("split", "split")
    for name, rows in loaded.items():
        for number, value in enumerate(rows):
            # A hub dataset keeps its splits apart; a column overrides that.
            yield Row(
                f"{config.path}, {name} row {number}",
                value if value.get(split_column) is not None else {**value, split_column: name},
            )


def _load_dataset(datasets: Any, path: str) -> Any:
    """Returns a dict of splits; a single local file is read by its type."""
    if not Path(path).is_file():
        return datasets.load_dataset(path)
    suffix = Path(path).suffix.lstrip(".")
    kind = {"jsonl": "json", "json": "json", "parquet": "parquet", "csv": "csv"}.get(suffix)
    if kind is None:
        raise ValueError(f"unknown type .{suffix}")
    return datasets.load_dataset(kind, data_files=path)
