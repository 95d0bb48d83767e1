"""One jitted training step for any objective: gradients over micro-batches, update, metrics.

The optimizer is AdamW with gradient clipping. The learning rate, with linear warm-up and cosine
decay, is an input of the step and not part of the optimizer: training runs that differ only in
their learning rates or number of steps share one compiled program.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.config import TrainConfig
from bridge_jax.models import projection
from bridge_jax.models.config import DecoderConfig
from bridge_jax.training.objectives import LARGEST, Objective, Parts, coefficients


def learning_rates(config: TrainConfig, total_steps: int) -> np.ndarray:
    """Returns f32[total_steps]: linear warm-up to the peak, then cosine decay to a tenth of it."""
    warmup = max(1, round(config.warmup_fraction * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup,
        max(total_steps, warmup + 1),
        0.1 * config.learning_rate,
    )
    # Shifted by one step: a first step at rate 0 would cost time and train nothing.
    return np.asarray(jax.vmap(schedule)(np.arange(1, total_steps + 1)), np.float32)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Returns AdamW with clipping, without its learning rate, which the train step multiplies in.

    Norms and biases have no weight decay.
    """
    return _adamw(config.clip_norm, config.weight_decay)


@functools.cache  # The same object for all learning rates, so that `_jitted` hits its cache.
def _adamw(clip_norm: float, weight_decay: float) -> optax.GradientTransformation:
    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key not in ("scale", "bias"), params
        )

    return optax.chain(
        optax.stateless(lambda gradients, _: _clipped(gradients, clip_norm)),
        optax.scale_by_adam(b2=0.95),
        optax.add_decayed_weights(weight_decay, decayed),
        optax.scale(-1.0),
    )


def _clipped(gradients: Any, limit: float) -> Any:
    """Returns the gradients, scaled to global norm `limit` if their norm is larger.

    XLA fuses the single scale factor into the operations that read the gradients.
    `optax.clip_by_global_norm` divides and selects every element first.
    """
    return optax.tree.scale(jnp.minimum(1.0, limit / optax.tree.norm(gradients)), gradients)


class TrainState(NamedTuple):
    """The state of a training run, as a checkpoint stores it.

    Attributes:
      params: the parameters that are trained.
      opt_state: the state of the optimizer.
      step: int32[], steps done.
      average: the moving average of the parameters; None without one.
      best: the best parameters on the dev split so far; None if they are not kept.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    average: Any = None
    best: Any = None


def abstract_state(
    optimizer: optax.GradientTransformation,
    params: Any,
    mesh: Mesh,
    average: bool = False,
    best: bool = False,
) -> TrainState:
    """Returns the state as `jax.ShapeDtypeStruct`s; moments and copies are sharded like `params`.

    Args:
      params: arrays or `ShapeDtypeStruct`s with shardings.
      mesh: the mesh on which counters are replicated.
      average, best: whether the state has these copies of the parameters.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())

    def placed(a: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)

    opt_state = optax.tree.map_params(
        optimizer,
        lambda a, p: placed(a, p.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda a: placed(a, everywhere),
    )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    like = jax.tree.map(lambda a: placed(a, a.sharding), params)
    return TrainState(like, opt_state, step, like if average else None, like if best else None)


def init_state(
    optimizer: optax.GradientTransformation,
    params: Any,
    mesh: Mesh,
    average: bool = False,
    best: bool = False,
) -> TrainState:
    """Returns the state before the first step; it holds `params` themselves, not a copy."""
    like = abstract_state(optimizer, params, mesh)
    places = jax.tree.map(lambda a: a.sharding, like)
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(params)
    step = jax.device_put(jnp.int32(0), places.step)
    copies = (copy(params) if wanted else None for wanted in (average, best))
    return TrainState(params, opt_state, step, *copies)


def copy(params: Any) -> Any:
    """Copies the parameters to new buffers, which outlive a step that donates the originals."""
    return jax.tree.map(jnp.copy, params)


def loss_and_gradients(
    objective: Objective,
    config: DecoderConfig,
    params: Any,
    batch: Any,
    accumulate: int = 1,
    frozen: Any = None,
    dropout: jax.Array | None = None,
) -> tuple[Parts, Any]:
    """Returns the metrics and the gradients of a batch, computed in `accumulate` micro-batches.

    The counts of the loss parts are summed over the whole batch first, so the result does not
    depend on how the batch is split.

    Args:
      objective: the objective to minimise.
      params: the trained parameters: all of them, or an adapter.
      batch: a pytree of arrays whose first axis is the rows.
      accumulate: number of micro-batches; divides the number of rows.
      frozen: the parameters that are not trained.
      dropout: random key of an adapter's dropout.

    Returns:
      The metrics, f32[] each, and the gradients. The metrics are `loss`; `NAME_loss` of each part,
      its mean in nats per token or per whatever the objective counts; `grad_norm` before clipping;
      and the values that the objective logs.
    """
    counts = objective.counts(batch)
    factors = coefficients(objective, counts)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def micro_loss(params: Any, micro: Any, index: jax.Array | int):
        whole = projection.combine(frozen, params) if frozen else params
        key = None if dropout is None else jax.random.fold_in(dropout, index)
        sums, logged = objective.loss(config, whole, micro, key)
        return sum(factors[name] * sums[name] for name in sums), (sums, logged)

    def add(total: Any, inputs: tuple[Any, jax.Array]):
        return jax.tree.map_with_path(add_or_max, total, micro_loss(params, *inputs)), None

    if accumulate == 1:
        (loss, (sums, logged)), gradients = micro_loss(params, batch, 0)
    else:
        micro = jax.tree.map(
            lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), batch
        )
        shapes = jax.eval_shape(micro_loss, params, jax.tree.map(lambda a: a[0], micro), 0)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (micro, jnp.arange(accumulate)))
        (loss, (sums, logged)), gradients = total
    means = {f"{name}_loss": sums[name] for name in sums} | logged
    divisors = {f"{name}_loss": counts[name] for name in sums} | counts
    means = {
        name: value / jnp.maximum(divisors[name], 1) if name in divisors else value
        for name, value in means.items()
    }
    return {"loss": loss, **means, "grad_norm": optax.tree.norm(gradients)}, gradients


def add_or_max(path: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """Adds two micro-batches' values, or takes the maximum if the name begins with `LARGEST`."""
    name = getattr(path[-1], "key", "")
    return jnp.maximum(a, b) if str(name).startswith(LARGEST) else a + b


def make_train_step(
    objective: Objective,
    config: DecoderConfig,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    shardings: Any = None,
    seed: int = 0,
    ema_decay: float = 0.0,
):
    """Returns a jitted `(state, frozen, batch, rate) -> (state, metrics)` that donates `state`.

    The last few functions are cached: equal arguments return the same function, which is not traced
    again. `rate` f32[] is the learning rate of the step.

    Args:
      objective: the objective to minimise.
      accumulate: micro-batches per step.
      shardings: shardings of the new state; if the old state has the same ones, the step is
        compiled once.
      seed: seed of an adapter's dropout.
      ema_decay: decay of the state's `average`, if it has one. The first 1 / (1 - ema_decay) steps
        get equal weights, so that the initial parameters get none.
    """
    has_dropout = config.lora is not None and config.lora.dropout > 0
    places, tree = jax.tree.flatten(shardings)
    return _jitted(
        objective, config, optimizer, accumulate, tuple(places), tree,
        seed if has_dropout else None, ema_decay,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)  # Assistant and student; all row lengths share one entry.
def _jitted(
    objective: Objective,
    config: DecoderConfig,
    optimizer: optax.GradientTransformation,
    accumulate: int,
    places: tuple[NamedSharding, ...],
    tree: Any,
    seed: int | None,
    ema_decay: float,
):
    def train_step(
        state: TrainState, frozen: Any, batch: Any, rate: jax.Array
    ) -> tuple[TrainState, Parts]:
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        metrics, gradients = loss_and_gradients(
            objective, config, state.params, batch, accumulate, frozen, key
        )
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, optax.tree.scale(rate, directions))
        average = state.average
        if average is not None:
            newest = jnp.maximum(1 - ema_decay, 1 / (state.step + 1))
            average = optax.incremental_update(params, average, newest)
        return TrainState(params, opt_state, state.step + 1, average, state.best), metrics

    shardings = jax.tree.unflatten(tree, places)
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))


@functools.partial(jax.jit, static_argnums=(0, 1))
def loss_sums(
    objective: Objective, config: DecoderConfig, params: Any, batch: Any
) -> tuple[Parts, Parts]:
    """Returns the sums of the loss parts of a batch, and their counts."""
    sums, _ = objective.loss(config, params, batch)
    return sums, objective.counts(batch)
