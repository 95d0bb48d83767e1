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
