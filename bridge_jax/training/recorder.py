"""Records the numbers of each training step: a line a step, and TensorBoard's curves if wanted."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import TrainConfig
from bridge_jax.errors import UserError
from bridge_jax.parallel import chips, hosts


class Recorder:
    """Writes a JSONL file of steps; of several processes, the first one does.

    The metrics of a step are read after the next one is sent off, so that no chip waits. A line has
    `step`, from 0; `loss`, and `NAME_loss` of each part of it, in nats a token or whatever the
    objective counts; `grad_norm` before clipping; `step_seconds` from the end of the step before or
    of the pause after it; `tokens_per_second` without padding, over all devices; `mfu` where the
    chip is known; `learning_rate`; and what was measured on the dev split after the step.
    """

    def __init__(
        self,
        path: Path,
        start: int,
        name: str,
        config: TrainConfig,
        rates: np.ndarray,
        flops_per_token: float,
        mesh: Mesh,
        tensorboard: bool,
        advance: Callable[..., None],
        fault: Callable[[Mapping[str, float]], str] = lambda _: "",
    ):
        """Opens the file and drops what was logged after the `start` steps to continue from.

        Raises:
          UserError: TensorBoard is wanted, and its writer is not installed.
        """
        self._name, self._config, self._rates, self._advance = name, config, rates, advance
        self._fault = fault
        peak = chips.peak_flops(list(mesh.devices.flat))
        self._flops_share = flops_per_token / peak if peak else None
        self._sent: tuple[int, Mapping[str, Any]] | None = None
        self._ended: tuple[int, dict[str, float]] | None = None
        self._began = time.perf_counter()
        self._file = self._board = None
        if not hosts.is_first():
            return
        if tensorboard:
            self._board = _summary_writer()(str(path.parent / "tensorboard"), purge_step=start)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(lines[:start]))
        self._file = path.open("a")

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the step before this one."""
        self.flush()
        self._sent = step, metrics

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Waits for the last step, and leaves the time of the block out of every step.

        Raises:
          UserError: the step's loss is not finite.
        """
        self._wait()
        try:
            yield
        finally:
            self._began = time.perf_counter()

    def flush(self, measured: Mapping[str, float] | None = None) -> None:
        """Records the last step, with what was measured after it.

        Raises:
          UserError: its loss is not finite.
        """
        self._wait()
        if self._ended is None:
            return
        (step, values), self._ended = self._ended, None
        values |= {"learning_rate": self._rates[step].item()} | dict(measured or {})
        if self._file:
            self._file.write(json.dumps({"step": step} | values) + "\n")
            self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        self._advance(1, loss=values["loss"], **(measured or {}))

    def _wait(self) -> None:
        """Waits for the last step, and computes its numbers."""
        if self._sent is None:
            return
        (step, metrics), self._sent = self._sent, None
        values = {k: np.asarray(v).item() for k, v in metrics.items()}
        if fault := self._fault(values):
            raise UserError(f"{self._name}: step {step}: {fault}")
        if not np.isfinite(values["loss"]):
            raise UserError(
                f"{self._name}: the loss is {values['loss']} at step {step}; lower learning_rate "
                f"({self._config.learning_rate}) or clip_norm ({self._config.clip_norm}) and run "
                "again"
            )
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        rate = values.pop("tokens", 0.0) / seconds
        values |= {"step_seconds": seconds, "tokens_per_second": rate}
        if self._flops_share:
            values["mfu"] = rate * self._flops_share
        self._ended = step, values

    def close(self) -> None:
        """Closes the files."""
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
