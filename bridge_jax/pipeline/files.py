"""Reads and writes JSON and JSON Lines; with several processes, the first one writes."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge_jax import atomic
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts


def write_json(path: Path, value: Any) -> None:
    """Writes `value` whole or not at all."""
    if hosts.is_first():
        atomic.write_json(path, value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in `path`; None when it is not there, not whole, or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSONL file whole or not at all, and waits until it is on the disk."""
    if hosts.is_first():
        atomic.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds rows to a JSONL file and waits until they are on the disk."""
    if not hosts.is_first():
        return
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, way_out: str = "") -> list[dict[str, Any]]:
    """Returns the rows of a finished stage's JSONL file.

    Args:
      path: of the file.
      way_out: what a user can do where it is damaged.

    Raises:
      UserError: it is not there, or damaged.
    """
    way_out = f"; {way_out}" if way_out else ""
    try:
        *lines, rest = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}){way_out}") from None
    rows = [_row(line) for line in lines]
    if rest:
        rows.append(None)
    if None in rows:
        raise UserError(f"{path}: line {rows.index(None) + 1} is damaged{way_out}")
    return [row for row in rows if row is not None]


def read_what_is_left(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a damaged JSONL file that can still be read; none if it is not there."""
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    return [row for line in lines if (row := _row(line)) is not None]


def read_appended(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a JSONL file that is still being written, up to the first damaged one.

    That is the last line, if a kill cut it short.
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
    """Returns the JSON object in a line, if it is one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
