"""One jitted training step: gradients over micro-batches, update, metrics."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.models import lora
from bridge_jax.models.config import DecoderConfig
from bridge_jax.text.packing import Rows
from bridge_jax.training import losses


class TrainState(NamedTuple):
    """What a checkpoint holds: trained parameters, optimizer state, steps done (int32[])."""

    params: Any
    opt_state: Any
    step: jax.Array


def abstract_state(optimizer: optax.GradientTransformation, params: Any, mesh: Mesh) -> TrainState:
    """Returns the state as `jax.ShapeDtypeStruct`s: moments lie as their parameters do.

    Args:
      optimizer: of the stage.
      params: arrays or `ShapeDtypeStruct`s with shardings.
      mesh: where counters are replicated.
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
    return TrainState(jax.tree.map(lambda a: placed(a, a.sharding), params), opt_state, step)


def init_state(optimizer: optax.GradientTransformation, params: Any, mesh: Mesh) -> TrainState:
    """Returns the state before the first step; `params` are in it, not copied."""
    like = abstract_state(optimizer, params, mesh)
    places = jax.tree.map(lambda a: a.sharding, like)
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(params)
    return TrainState(params, opt_state, jax.device_put(jnp.int32(0), places.step))


class StepMetrics(NamedTuple):
    """Of one step, f32[] each: losses in nats a token, tokens counted with padding left out."""

    loss: jax.Array
    rationale_loss: jax.Array
    answer_loss: jax.Array
    grad_norm: jax.Array
    tokens: jax.Array


def loss_and_gradients(
    config: DecoderConfig,
    params: Any,
    rows: Rows,
    rationale_share: float,
    accumulate: int,
    frozen: Any = None,
    dropout: jax.Array | None = None,
    soft_share: float = 0.0,
) -> tuple[StepMetrics, Any]:
    """Returns the metrics and gradients of a batch, computed in `accumulate` micro-batches.

    The parts' weights are summed over the whole batch first, so the result does not depend on
    how the batch is cut.

    Args:
      config: the model.
      params: what is trained: all parameters, or an adapter's.
      rows: the batch.
      rationale_share: a of the loss.
      accumulate: micro-batches; divides the rows.
      frozen: the parameters that are not trained.
      dropout: random key of an adapter's dropout.
      soft_share: of the divergence from soft targets, in the loss of a token that has them.
    """
    rationale_tokens, answer_tokens = rows.rationale_weight.sum(), rows.answer_weight.sum()
    by_rationale, by_answer = losses.part_coefficients(
        rationale_tokens, answer_tokens, rationale_share
    )

    @functools.partial(jax.value_and_grad, has_aux=True)
    def part(params: Any, micro: Rows, index: jax.Array | int):
        whole = lora.join(frozen, params) if frozen else params
        key = None if dropout is None else jax.random.fold_in(dropout, index)
        sums = losses.part_sums(config, whole, micro, key, soft_share)
        return by_rationale * sums.rationale + by_answer * sums.answer, sums

    def add(total: Any, inputs: tuple[Rows, jax.Array]):
        return jax.tree.map(jnp.add, total, part(params, *inputs)), None

    if accumulate == 1:
        (loss, sums), gradients = part(params, rows, 0)
    else:
        micro = jax.tree.map(lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), rows)
        shapes = jax.eval_shape(part, params, jax.tree.map(lambda a: a[0], micro), 0)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        ((loss, sums), gradients), _ = jax.lax.scan(add, zeros, (micro, jnp.arange(accumulate)))
    metrics = StepMetrics(
        loss,
        sums.rationale / jnp.maximum(rationale_tokens, 1),
        sums.answer / jnp.maximum(answer_tokens, 1),
        optax.tree.norm(gradients),
        (rows.segments > 0).sum().astype(jnp.float32),
    )
    return metrics, gradients


def make_train_step(
    config: DecoderConfig,
    optimizer: optax.GradientTransformation,
    rationale_share: float,
    accumulate: int,
    shardings: Any = None,
    seed: int = 0,
    soft_share: float = 0.0,
):
    """Returns `(state, frozen, rows, rate) -> (state, metrics)`, jitted, the old state donated.

    `rate` f32[] is the step's learning rate. The new state lies as `shardings` says, if given; when
    the old one does too, the step is compiled once. `seed` is of an adapter's dropout, `soft_share`
    of `loss_and_gradients`. Equal arguments return the same function (of the last few), which is
    not traced again.
    """
    has_dropout = config.lora is not None and config.lora.dropout > 0
    places, tree = jax.tree.flatten(shardings)
    return _jitted(
        config, optimizer, rationale_share, accumulate, tuple(places), tree,
        seed if has_dropout else None, soft_share,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)  # Of assistant and student; rows of all lengths share one.
def _jitted(
    config: DecoderConfig,
    optimizer: optax.GradientTransformation,
    rationale_share: float,
    accumulate: int,
    places: tuple[NamedSharding, ...],
    tree: Any,
    seed: int | None,
    soft_share: float,
):
    def train_step(
        state: TrainState, frozen: Any, rows: Rows, rate: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        key = None if seed is None else jax.random.fold_in(jax.random.key(seed), state.step)
        metrics, gradients = loss_and_gradients(
            config, state.params, rows, rationale_share, accumulate, frozen, key, soft_share
        )
        directions, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, optax.tree.scale(rate, directions))
        return TrainState(params, opt_state, state.step + 1), metrics

    shardings = jax.tree.unflatten(tree, places)
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))
