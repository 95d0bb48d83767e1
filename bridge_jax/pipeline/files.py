"""Reads and writes JSON and JSON Lines; of several processes, only the first one writes."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge_jax import atomic
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, atomically."""
    if hosts.is_first():
        atomic.write_json(path, value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in `path`; None if it is missing, damaged, or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSONL file atomically, and waits until it is on the disk."""
    if hosts.is_first():
        atomic.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Appends rows to a JSONL file, and waits until they are on the disk."""
    if not hosts.is_first():
        return
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, hint: str = "") -> list[dict[str, Any]]:
    """Returns the rows of a finished stage's JSONL file.

    Args:
      path: the path of the file.
      hint: what a user can do if it is damaged, for the message.

    Raises:
      UserError: the file is missing or damaged.
    """
    hint = f"; {hint}" if hint else ""
    try:
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}){hint}") from None
    rows = [_row(line) for line in lines]
    if rest:
        rows.append(None)
    if None in rows:
        raise UserError(f"{path}: line {rows.index(None) + 1} is damaged{hint}")
    return [row for row in rows if row is not None]


def read_what_is_left(path: Path) -> list[dict[str, Any]]:
    """Returns the readable rows of a damaged JSONL file; none if the file is missing."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    return [row for line in lines if (row := _row(line)) is not None]


def read_appended(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a JSONL file that is still being written, up to the first damaged one.

    A kill can cut the last line short.
    """
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_bytes().split(b"\n")[:-1]:
        if (row := _row(line)) is None:
            break
        rows.append(row)
    return rows


def _row(line: str | bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a line; None if there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
