"""One jitted training step of any objective: gradients over micro-batches, update, metrics.

The optimizer is AdamW with gradient clipping. The learning rate, which has a linear warm-up and a
cosine decay, is an input of the step and not part of the optimizer: trainings that differ only in
their rates or in their number of steps are one compiled program.
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
    """Returns f32[total_steps]: a line up to the peak, then a cosine to a tenth of it."""
    warmup = max(1, round(config.warmup_fraction * total_steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup,
        max(total_steps, warmup + 1),
        0.1 * config.learning_rate,
    )
    # One ahead: a first step at rate 0 would be paid for and train nothing.
    return np.asarray(jax.vmap(schedule)(np.arange(1, total_steps + 1)), np.float32)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Returns AdamW without its learning rate, which multiplies the directions later.

    Norms and biases are not decayed.
    """
    return _adamw(config.clip_norm, config.weight_decay)


@functools.cache  # One for all rates and epochs, so that `make_train_step` finds its step again.
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
    """Returns the gradients, shortened to `limit` if their norm is larger.

    One factor for all, which XLA fuses into what reads them; `optax.clip_by_global_norm` divides
    and selects each number before.
    """
    return optax.tree.scale(jnp.minimum(1.0, limit / optax.tree.norm(gradients)), gradients)


class TrainState(NamedTuple):
    """The state of a training, which is what a checkpoint holds.

    Attributes:
      params: the parameters that are trained.
      opt_state: the optimizer's.
      step: int32[], steps done.
      average: the moving average of the parameters; None without one.
      best: the parameters that were best on the dev split so far; None if they are not kept.
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
    """Returns the state as `jax.ShapeDtypeStruct`s: moments and copies lie as their parameters do.

    Args:
      params: arrays or `ShapeDtypeStruct`s with shardings.
      mesh: where counters are replicated.
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
    """Returns the state before the first step; `params` are in it, not copied."""
    like = abstract_state(optimizer, params, mesh)
    places = jax.tree.map(lambda a: a.sharding, like)
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(params)
    step = jax.device_put(jnp.int32(0), places.step)
    copies = (copy(params) if wanted else None for wanted in (average, best))
    return TrainState(params, opt_state, step, *copies)


def copy(params: Any) -> Any:
    """Returns the parameters in buffers of their own, which outlive a step that donates these."""
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

    The parts' counts are summed over the whole batch first, so the result does not depend on how
    the batch is cut.

    Args:
      objective: what is minimised.
      params: what is trained: all parameters, or an adapter's.
      batch: a pytree of arrays; their first axis is the rows.
      accumulate: micro-batches; divides the rows.
      frozen: the parameters that are not trained.
      dropout: random key of an adapter's dropout.

    Returns:
      f32[] each: `loss`, and `NAME_loss` of each part, the mean in nats a token or whatever the
      objective counts; `grad_norm` before clipping; and what the objective logs.
    """
    counts = objective.counts(batch)
    factors = coefficients(objective, counts)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def part(params: Any, micro: Any, index: jax.Array | int):
        whole = projection.combine(frozen, params) if frozen else params
        key = None if dropout is None else jax.random.fold_in(dropout, index)
        sums, logged = objective.loss(config, whole, micro, key)
        return sum(factors[name] * sums[name] for name in sums), (sums, logged)

    def add(total: Any, inputs: tuple[Any, jax.Array]):
        return jax.tree.map_with_path(combine, total, part(params, *inputs)), None

    if accumulate == 1:
        (loss, (sums, logged)), gradients = part(params, batch, 0)
    else:
        micro = jax.tree.map(
            lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), batch
        )
        shapes = jax.eval_shape(part, params, jax.tree.map(lambda a: a[0], micro), 0)
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


def combine(path: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the sum of two micro-batches' values, or the larger where a name asks for it."""
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
    """Returns `(state, frozen, batch, rate) -> (state, metrics)`, jitted, the old state donated.

    The last few functions are cached: equal arguments return the same one, which is not traced
    again. `rate` f32[] is the learning rate of the step.

    Args:
      objective: what is minimised.
      accumulate: micro-batches of a step.
      shardings: of the new state; if the old state has them too, the step is compiled once.
      seed: of an adapter's dropout.
      ema_decay: decay of the state's `average`, if it has one. The first 1 / (1 - ema_decay) steps
        have equal weights, so that the initial parameters have none.
    """
    has_dropout = config.lora is not None and config.lora.dropout > 0
    places, tree = jax.tree.flatten(shardings)
    return _jitted(
        objective, config, optimizer, accumulate, tuple(places), tree,
        seed if has_dropout else None, ema_decay,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)  # Of assistant and student; rows of all lengths share one.
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
    """Returns the sums of the parts of a batch's loss, and their counts."""
    sums, _ = objective.loss(config, params, batch)
    return sums, objective.counts(batch)
