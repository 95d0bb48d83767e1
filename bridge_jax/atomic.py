"""Writing a small file whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Writes `value` in one step, and waits until it is on the disk."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def replace(path: Path, text: str) -> None:
    """Writes `text` in one step; what it is made from is elsewhere on the disk."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
