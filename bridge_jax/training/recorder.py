"""Records the metrics of each training step: one line per step, and curves elsewhere if wanted.

Guards on these metrics stop training that has gone wrong.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import Curves, TrainConfig
from bridge_jax.errors import UserError, require
from bridge_jax.parallel import chips, hosts

_PROJECT = "bridge-jax"  # The project's name in wandb and trackio.
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Guard:
    """A limit on the mean of a logged metric over the last steps; beyond it, training has failed.

    Attributes:
      name: the metric's name in the log.
      setting: the config setting that holds the bound, for messages.
      bound: the largest allowed mean, or the smallest if `is_least`.
      why: what a violation shows, and what may help; completes the sentence of the message.
      steps: number of steps in the mean; nothing is checked until so many have logged the metric.
      is_least: whether means below `bound` violate the limit, instead of means above it.
    """

    name: str
    setting: str
    bound: float
    why: str
    steps: int = 1
    is_least: bool = False

    def violation(self, values: Sequence[float]) -> str:
        """Returns why training has to stop after the last steps logged `values`, or ""."""
        if len(values) < self.steps:
            return ""
        mean = sum(values) / len(values)
        is_kept = mean >= self.bound if self.is_least else mean <= self.bound
        if is_kept:
            return ""
        over = f"over the last {self.steps} steps " if self.steps > 1 else ""
        than = "less" if self.is_least else "more"
        limit = f"{self.setting}={self.bound:g}"
        return f"{over}{self.name} is {mean:.3g}, {than} than {limit}: {self.why}"


class GuardMonitor:
    """The recent values of the metrics that have guards.

    Its state is a JSON value, saved with the training state, so that the means continue after an
    interruption.
    """

    def __init__(self, guards: Sequence[Guard]):
        """Takes the guards, each on a different metric."""
        self._guards = guards
        self._recent = {each.name: collections.deque[float](maxlen=each.steps) for each in guards}

    def add(self, logged: Mapping[str, float]) -> None:
        """Adds the metrics that a step has logged; some may be missing."""
        for name, recent in self._recent.items():
            if name in logged:
                recent.append(logged[name])

    @property
    def violation(self) -> str:
        """Returns why training has to stop, by the first violated guard, or ""."""
        for guard in self._guards:
            if violation := guard.violation(self._recent[guard.name]):
                return violation
        return ""

    def get_state(self) -> dict[str, list[float]]:
        """Returns the recent values of each metric."""
        return {name: list(recent) for name, recent in self._recent.items()}

    def set_state(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restores a state; guards may have been added or removed since it was saved."""
        for name, values in state.items():
            if name in self._recent:
                self._recent[name].extend(values)


class Recorder:
    """Writer of a JSONL file with one line per step; only the first process writes it.

    The metrics of a step are read after the next step is dispatched, so that no chip waits. A line
    has `step`, from 0; `loss`, and `NAME_loss` of each part, in nats per token or per whatever the
    objective counts; `grad_norm` before clipping; other values from the objective and the feed;
    `step_seconds`, since the end of the previous step or of a pause after it; `tokens_per_second`
    without padding, over all devices; `mfu` if the chip is known; `learning_rate`; and measurements
    on the dev split after the step.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        start: int,
        config: TrainConfig,
        rates: np.ndarray,
        flops_per_token: float,
        mesh: Mesh,
        curves: Sequence[Curves],
        advance: Callable[..., None],
        monitor: GuardMonitor,
    ):
        """Opens the file, and drops the lines of steps from `start` on.

        The metrics of each step are also added to `monitor`.

        Raises:
          UserError: the library that writes one of `curves` is not installed.
        """
        self._name, self._config, self._rates, self._advance = name, config, rates, advance
        self._monitor = monitor
        peak = chips.peak_flops(list(mesh.devices.flat))
        self._flops_share = flops_per_token / peak if peak else None
        self._sent: tuple[int, Mapping[str, Any]] | None = None
        self._ended: tuple[int, dict[str, float]] | None = None
        self._began = time.perf_counter()
        self._file = None
        self._boards: list[_Guarded] = []
        if not hosts.is_first():
            return
        self._boards = [_Guarded(each, path.parent, name, start) for each in curves]
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(lines[:start]))
        self._file = path.open("a")

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Records the previous step, and keeps the metrics of this one until the next call."""
        self.flush()
        self._sent = step, metrics

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Waits for the last step, and excludes the time of the block from `step_seconds`.

        Raises:
          UserError: the step's loss is not finite.
        """
        self._wait()
        try:
            yield
        finally:
            self._began = time.perf_counter()

    def flush(self, measured: Mapping[str, float] | None = None) -> None:
        """Records the last step, if it is not recorded yet, with values measured after it.

        Raises:
          UserError: the step's loss is not finite.
        """
        self._wait()
        if self._ended is None:
            return
        (step, values), self._ended = self._ended, None
        values |= {"learning_rate": self._rates[step].item()} | dict(measured or {})
        self._monitor.add(values)
        if self._file:
            self._file.write(json.dumps({"step": step} | values) + "\n")
            self._file.flush()
        for board in self._boards:
            board.add(values, step)
        self._advance(1, loss=values["loss"], **(measured or {}))

    def _wait(self) -> None:
        """Waits for the last step, and computes its metrics."""
        if self._sent is None:
            return
        (step, metrics), self._sent = self._sent, None
        values = {k: np.asarray(v).item() for k, v in metrics.items()}
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
        if self._file:
            self._file.close()
        for board in self._boards:
            board.close()


class Board(Protocol):
    """Writer of the curves of one training run; its errors do not stop training (`_Guarded`)."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Adds the values of a step."""
        ...

    def close(self) -> None:
        """Ends the curves."""
        ...


class _TensorBoard:
    def __init__(self, folder: Path, name: str, start: int):
        writer = _library("tensorboard").SummaryWriter
        self._writer = writer(str(folder / "tensorboard"), purge_step=start)

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Logged:
    """Curves in wandb or trackio, which share an API.

    Resumed training continues its curves in one run, whose name has a hash of the folder. Only
    metrics are sent: no code, no config, no terminal output.
    """

    def __init__(self, library: Curves, folder: Path, name: str):
        self._library = _library(library)
        found = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        how: dict[str, Any] = {"project": _PROJECT, "name": f"{name} {found}", "resume": "allow"}
        if library == "wandb":
            settings = self._library.Settings(
                console="off", silent=True, disable_git=True, disable_code=True
            )
            how |= {"id": found, "dir": str(folder), "settings": settings}
        else:
            how |= {"embed": False}
        self._library.init(**how)

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        self._library.finish()


class _Guarded:
    """A board that is dropped with a warning if it fails, so that training continues."""

    def __init__(self, curves: Curves, folder: Path, name: str, start: int):
        self._curves = curves
        self._board: Board | None = None
        _library(curves)
        with self._failures():
            if curves == "tensorboard":
                self._board = _TensorBoard(folder, name, start)
            else:
                self._board = _Logged(curves, folder, name)

    def add(self, values: Mapping[str, float], step: int) -> None:
        with self._failures():
            if self._board:
                self._board.add(values, step)

    def close(self) -> None:
        with self._failures():
            if self._board:
                self._board.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # A network, disk or library fault must not stop training.
            self._board = None
            why = str(error).splitlines()[:1]
            _log.warning(
                "curves=%s: disabled for the rest of this training (%s: %s); metrics.jsonl still "
                "has all metrics",
                self._curves,
                type(error).__name__,
                *(why or [""]),
            )


def check(curves: Sequence[Curves]) -> None:
    """Raises a `UserError` if a library for `curves` is not installed, or wandb has no key."""
    for each in curves:
        _library(each)
    if "wandb" in curves and not os.environ.get("WANDB_API_KEY"):
        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled")
        require(
            offline,
            "curves=wandb needs a key: set the environment variable WANDB_API_KEY, or "
            "WANDB_MODE=offline",
        )


def _library(curves: Curves) -> Any:
    module = {"tensorboard": "tensorboardX"}.get(curves, curves)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"curves={curves} requires an optional package: pip install 'bridge-jax[{curves}]'"
        ) from error
