"""The numbers of each training step, as they come: a line a step."""

import json
from collections.abc import Mapping
from pathlib import Path

from bridge_jax.parallel import hosts


class MetricsLog:
    """A JSONL file of steps; with several processes, the first one writes it."""

    def __init__(self, path: Path, start: int):
        """Opens the file and drops what was logged after the `start` steps to continue from."""
        self._file = None
        if hosts.is_first():
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            path.write_text("".join(lines[:start]))
            self._file = path.open("a")

    def write(self, values: Mapping[str, float]) -> None:
        """Adds a line."""
        if self._file:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        if self._file:
            self._file.close()
