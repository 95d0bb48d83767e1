"""The files of a run: JSON and JSON Lines. With several processes, the first one writes them."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge_jax import atomic
from bridge_jax.parallel import hosts


def write_json(path: Path, value: Any) -> None:
    """Writes `value` whole or not at all."""
    if hosts.is_first():
        atomic.write_json(path, value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns what `path` holds, or None when it is not there or not whole."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a JSONL file."""
    if hosts.is_first():
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds rows to a JSONL file and waits until they are on the disk."""
    if not hosts.is_first():
        return
    with path.open("a") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the whole rows of a JSONL file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
