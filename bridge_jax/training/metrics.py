"""The numbers of each training step, as they come: a line a step, and live curves if wanted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts


class MetricsLog:
    """A JSONL file of steps; with several processes, the first one writes it."""

    def __init__(self, path: Path, start: int, tensorboard: bool = False):
        """Opens the file and drops what was logged after the `start` steps to continue from.

        Raises:
          UserError: TensorBoard is wanted, and its writer is not installed.
        """
        self._file = self._board = None
        if not hosts.is_first():
            return
        if tensorboard:
            self._board = _summary_writer()(str(path.parent / "tensorboard"), purge_step=start)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(lines[:start]))
        self._file = path.open("a")

    def write(self, values: Mapping[str, float]) -> None:
        """Adds a line.

        Args:
          values: `step`, from 0; `loss`, `rationale_loss` and `answer_loss` in nats a token;
            `grad_norm` before clipping; `step_seconds` from the end of the step before;
            `tokens_per_second` without padding, over all devices; `mfu` where the chip is known;
            `learning_rate`.
        """
        if self._file:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        if self._board:
            for name, value in values.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(values["step"]))

    def close(self) -> None:
        """Ends the files."""
        for file in (self._file, self._board):
            if file:
                file.close()


def check(tensorboard: bool) -> None:
    """Raises a `UserError` if TensorBoard is wanted and its writer is not installed."""
    if tensorboard:
        _summary_writer()


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "tensorboard=true needs its writer: pip install 'bridge-jax[tensorboard]'"
        ) from error
    return SummaryWriter
