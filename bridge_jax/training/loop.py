"""The training loop of every stage and objective, resumable at any step."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bridge_jax.config import Curves, TrainConfig
from bridge_jax.errors import UserError
from bridge_jax.models import projection
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import preemption
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.progress import track
from bridge_jax.timing import Spans
from bridge_jax.training.batches import Feed
from bridge_jax.training.checkpoints import STATE, StateCheckpoints
from bridge_jax.training.objectives import Objective
from bridge_jax.training.recorder import Guard, GuardMonitor, Recorder
from bridge_jax.training.step import (
    copy,
    init_state,
    learning_rates,
    make_optimizer,
    make_train_step,
)

# Measures parameters on the dev split: `loss` (lower is better) or `accuracy` (higher is better).
Measure = Callable[[Any], Mapping[str, float]]


def train(
    out: Path,
    name: str,
    model: DecoderConfig,
    params: Any,
    objective: Objective,
    data: Feed,
    *,
    steps: int,
    config: TrainConfig,
    seed: int,
    mesh: Mesh,
    curves: Sequence[Curves] = (),
    spans: Spans | None = None,
    measure: Measure | None = None,
    flops_per_token: float = 0.0,
    guards: Sequence[Guard] = (),
) -> Any:
    """Trains `params`; returns all parameters, or only the adapter if there is one.

    Metrics go to `out/metrics.jsonl`, one line per step, and to each of `curves`. Checkpoints go to
    `out/state`, with the position in the data after the last batch that was trained on. The same
    call resumes from there with the same results.

    Args:
      out: the folder of the stage.
      name: name of the training run in progress bars, curves and messages.
      model: the decoder.
      params: its parameters; the trained ones are donated.
      objective: the objective to minimise.
      data: the source of the batches.
      steps: maximum number of steps.
      config: settings of the optimizer, the checkpoints and the measurements on the dev split.
      seed: seed of dropout.
      mesh: the training mesh.
      curves: where to plot the metrics as well.
      spans: records the time spent on data, dev measurements and checkpoints.
      measure: measures the parameters that would be kept, every `config.dev_every` steps and after
        the last step; required if `dev_every` is not 0.
      flops_per_token: FLOPs of a step per token, for the MFU; with 0 no MFU is logged.
      guards: limits on logged metrics. If one is violated, training stops and the state is
        saved: with another limit, the same call resumes from there.

    Raises:
      UserError: a loss or a dev measurement is not finite, or the disk is full; the last checkpoint
        is kept. Or a guard is violated.
      Preempted: the machine is about to be taken away; the state after the last step is saved.
    """
    spans = spans or Spans()
    optimizer, rates = make_optimizer(config), learning_rates(config, steps)
    trained, frozen = projection.partition(model, params)
    averaged = config.ema_decay > 0
    state = init_state(optimizer, trained, mesh, averaged, config.keep_best)
    step_fn = make_train_step(
        objective,
        dataclasses.replace(model, remat=config.remat),
        optimizer,
        accumulate=config.accumulate,
        shardings=jax.tree.map(lambda a: a.sharding, state),
        seed=seed,
        ema_decay=config.ema_decay,
    )
    checkpoints = StateCheckpoints(out / STATE, config.checkpoint_every)
    state, position = checkpoints.restore(state)
    start, dev, monitor = int(state.step), _Dev(config, measure), GuardMonitor(guards)
    if position:
        data.set_state(position["data"])
        dev.best, dev.waited = position["best"], position["waited"]
        monitor.set_state(position.get("limits", {}))
        _check_guards(monitor, name, start)
    succeeded = False
    try:
        with (
            jax.set_mesh(mesh),
            preemption.deferred() as stop_asked,
            track(name, steps, "steps") as advance,
            contextlib.closing(
                Recorder(
                    out / "metrics.jsonl",
                    name,
                    start=start,
                    config=config,
                    rates=rates,
                    flops_per_token=flops_per_token,
                    mesh=mesh,
                    curves=curves,
                    advance=advance,
                    monitor=monitor,
                )
            ) as record,
        ):
            advance(start)
            for step in range(start, steps):
                with spans.span("data"):
                    now = projection.combine(frozen, state.params) if frozen else state.params
                    rows, seen = data.next_batch(now)
                    batch = shard_batch(rows, mesh, config.accumulate)
                state, metrics = step_fn(state, frozen, batch, rates[step])
                record.step(step, {**metrics, **seen})
                is_last = step + 1 == steps
                if dev.is_due(step + 1, is_last):
                    kept = state.average if averaged else state.params
                    with record.paused(), spans.span("dev"):
                        values, is_best = dev.measured(
                            projection.combine(frozen, kept) if frozen else kept
                        )
                    record.flush(values)
                    if is_best and config.keep_best:
                        state = state._replace(best=copy(kept))
                    is_last = is_last or dev.out_of_patience
                stop = not is_last and stop_asked()
                is_due = not is_last and checkpoints.is_due(step + 1)
                if is_last or stop or is_due or monitor.violation:
                    record.flush()
                # After the last step the stage saves the parameters, unless a guard is violated.
                if stop or is_due or monitor.violation:
                    position = {
                        "data": data.get_state(),
                        "best": dev.best,
                        "waited": dev.waited,
                        "limits": monitor.get_state(),
                    }
                    with record.paused(), spans.span("checkpoint"):
                        checkpoints.save(step + 1, state, position)
                _check_guards(monitor, name, step + 1)
                if stop:
                    raise preemption.Preempted
                if is_last:
                    break
        succeeded = True
    finally:
        with spans.span("checkpoint"):
            checkpoints.close(needed=not succeeded)
    kept = state.average if averaged else state.params
    return jax.block_until_ready(state.best if config.keep_best else kept)


def _check_guards(monitor: GuardMonitor, name: str, steps: int) -> None:
    """Raises a `UserError` if a guard is violated after `steps` steps, whose state is saved."""
    if violation := monitor.violation:
        raise UserError(
            f"{name}: stopped after {steps} steps (state saved): {violation}. Run the same command "
            "with another limit to resume; changing other settings restarts this training from "
            "the model before it"
        )


class _Dev:
    """Measurements on the dev split: when they are due, the best one, and early stopping."""

    def __init__(self, config: TrainConfig, measure: Measure | None):
        self._config, self._measure = config, measure
        self.best: float | None = None
        self.waited = 0

    def is_due(self, steps: int, is_last: bool) -> bool:
        """Returns whether the parameters are measured after `steps` steps."""
        every = self._config.dev_every
        return bool(every) and (is_last or steps % every == 0)

    def measured(self, params: Any) -> tuple[dict[str, float], bool]:
        """Returns the measurements by log name, and whether they are the best so far."""
        assert self._measure, "dev_every needs something to measure with"
        found = self._measure(params)
        value = found[self._config.dev_metric]
        if not math.isfinite(value):
            raise UserError(
                f"the {self._config.dev_metric} on the dev split is {value}; lower learning_rate "
                f"({self._config.learning_rate}) and run again"
            )
        sign = -1 if self._config.dev_metric == "loss" else 1
        is_best = self.best is None or sign * value > sign * self.best
        self.best = value if is_best else self.best
        self.waited = 0 if is_best else self.waited + 1
        return {f"dev_{name}": value for name, value in found.items()}, is_best

    @property
    def out_of_patience(self) -> bool:
        """Returns whether none of the last `patience` measurements beat the best before them."""
        return 0 < self._config.patience <= self.waited
