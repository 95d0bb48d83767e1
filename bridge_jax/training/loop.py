"""The training loop of every stage: batches in, parameters out, resumable at any step."""

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import TrainConfig
from bridge_jax.errors import UserError
from bridge_jax.models import costs, lora
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import chips, preemption
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.progress import track
from bridge_jax.text.batches import batches, steps_per_epoch
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Sequence
from bridge_jax.timing import Spans
from bridge_jax.training.checkpoints import STATE, StateCheckpoints
from bridge_jax.training.metrics import MetricsLog
from bridge_jax.training.optimizer import learning_rates, make_optimizer
from bridge_jax.training.step import StepMetrics, init_state, make_train_step


def train(
    out: Path,
    name: str,
    model: DecoderConfig,
    params: Any,
    sequences: Seq[Sequence],
    config: TrainConfig,
    seed: int,
    pad_id: int,
    mesh: Mesh,
    tensorboard: bool = False,
    soft_share: float = 0.0,
    spans: Spans | None = None,
) -> Any:
    """Trains `params` on `sequences`; returns what was trained: all of them, or the adapter.

    Metrics go to `out/metrics.jsonl`, a line a step, and with `tensorboard` to its files too;
    states go to `out/state`, from which the same call continues with the same numbers. What is
    trained is consumed (donated). `soft_share` is what the soft targets of the sequences weigh;
    `spans` takes the time of reading data and of checkpoints.

    Raises:
      UserError: a loss is not finite, or the disk is full; the last checkpoint is kept.
      Preempted: the machine is about to go; the state after the last step is saved.
    """
    spans = spans or Spans()
    rows = pack(sequences, config.row_tokens, pad_id)
    total = steps_per_epoch(rows, config.batch_rows) * config.epochs
    data = batches(rows, config.batch_rows, config.epochs, seed)
    optimizer, rates = make_optimizer(config), learning_rates(config, total)
    trained, frozen = lora.split(params) if model.lora else (params, {})
    state = init_state(optimizer, trained, mesh)
    step_fn = make_train_step(
        dataclasses.replace(model, remat=config.remat),
        optimizer,
        config.rationale_weight,
        config.accumulate,
        jax.tree.map(lambda a: a.sharding, state),
        seed,
        soft_share,
    )
    checkpoints = StateCheckpoints(out / STATE, config.checkpoint_every)
    state = checkpoints.restore(state)
    start = int(state.step)
    log = MetricsLog(out / "metrics.jsonl", start, tensorboard)
    done = False
    try:
        with (
            jax.set_mesh(mesh),
            preemption.deferred() as stop_asked,
            track(name, total, "steps") as advance,
        ):
            advance(start)
            # FLOPs of a token, if every place in the rows holds one.
            flops = costs.model_flops(model, 1, config.row_tokens, rows.target.shape[1])
            record = _Recorder(name, config, rates, flops / config.row_tokens, mesh, log, advance)
            for step in range(start, total):
                with spans.span("data"):
                    batch = shard_batch(data[step], mesh, config.accumulate)
                state, metrics = step_fn(state, frozen, batch, rates[step])
                record.step(step, metrics)
                stop = step + 1 < total and stop_asked()
                # After the last step the parameters are saved instead.
                if stop or (step + 1 < total and checkpoints.is_due(step + 1)):
                    record.rest()
                    with spans.span("checkpoint"):
                        checkpoints.save(step + 1, state)
                if stop:
                    raise preemption.Preempted
            record.rest()
        done = True
    finally:
        log.close()
        with spans.span("checkpoint"):
            checkpoints.close(needed=not done)
    return jax.block_until_ready(state.params)


class _Recorder:
    """Reads the metrics of a step when the next one has been sent off, so that no chip waits."""

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        rates: np.ndarray,
        flops: float,
        mesh: Mesh,
        log: MetricsLog,
        advance: Callable[..., None],
    ):
        self._name, self._config, self._log, self._advance = name, config, log, advance
        self._rates = rates
        peak = chips.peak_flops(list(mesh.devices.flat))
        self._flops_share = flops / peak if peak else None
        self._waiting: tuple[int, StepMetrics] | None = None
        self._ended = time.perf_counter()

    def step(self, step: int, metrics: StepMetrics) -> None:
        """Records the step before this one."""
        self.rest()
        self._waiting = step, metrics

    def rest(self) -> None:
        """Records the last step.

        Raises:
          UserError: its loss is not finite.
        """
        if self._waiting is None:
            return
        (step, metrics), self._waiting = self._waiting, None
        values = {k: np.asarray(v).item() for k, v in metrics._asdict().items()}
        if not np.isfinite(values["loss"]):
            raise UserError(
                f"{self._name}: the loss is {values['loss']} at step {step}; lower learning_rate "
                f"({self._config.learning_rate}) or clip_norm ({self._config.clip_norm}) and run "
                "again"
            )
        now = time.perf_counter()
        seconds, self._ended = now - self._ended, now
        tokens = values.pop("tokens")
        values |= {"step_seconds": seconds, "tokens_per_second": tokens / seconds}
        if self._flops_share:
            values["mfu"] = tokens / seconds * self._flops_share
        self._log.write({"step": step} | values | {"learning_rate": self._rates[step].item()})
        self._advance(1, loss=values["loss"])
