"""White-box distillation: the student learns what the assistant would have written beside a token.

The assistant's K most probable tokens are kept for each target, as in common practice for large
vocabularies; what is left of the probability is one more outcome, the rest. Both sum to one, so
the divergence of the two is a proper one, and exact where K is the whole vocabulary:
KL = sum_k p_k log(p_k / q_k) + p_rest log(p_rest / q_rest).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bridge_jax.models import decoder, soft_head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head
from bridge_jax.parallel import preemption
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.text.batches import batches_in_order
from bridge_jax.text.packing import Rows, SoftRows, first_fit, pack
from bridge_jax.text.prompts import Sequence, SoftTargets

FLOOR = 1e-6  # Of the rest's probability, which is a difference of f32 numbers near one.


def divergence(p_logprobs: jax.Array, q_logprobs: jax.Array) -> jax.Array:
    """Returns KL(p || q) in nats, f32[...], over K tokens and the rest.

    Args:
      p_logprobs: f32[..., K], of the model that is learned from.
      q_logprobs: f32[..., K], of the one that learns, at the same tokens.
    """
    p = jnp.exp(p_logprobs)
    p_rest = jnp.maximum(1 - p.sum(-1), 0.0)
    q_rest = 1 - jnp.exp(q_logprobs).sum(-1)
    ratio = jnp.log(jnp.maximum(p_rest, FLOOR)) - jnp.log(jnp.maximum(q_rest, FLOOR))
    return (p * (p_logprobs - q_logprobs)).sum(-1) + p_rest * ratio


def token_losses(
    hidden: jax.Array, head: Head, targets: jax.Array, soft: SoftRows, share: float
) -> jax.Array:
    """Returns (1 - w) * NLL + w * KL of each target, f32[N], in nats.

    Args:
      hidden: f[N, D], after the final norm.
      head: the student's.
      targets: int32[N].
      soft: of the assistant, flattened to N; a target without is learned by its NLL alone.
      share: w where there are soft targets.
    """
    ids, assistant, has_soft = map(jnp.asarray, soft)
    student = soft_head.logprobs_at(hidden, head, jnp.column_stack([targets, ids]))
    w = share * has_soft
    return (1 - w) * -student[:, 0] + w * divergence(assistant, student[:, 1:])


@functools.partial(jax.jit, static_argnames=("config", "k", "among"))
def predict_batch(
    config: DecoderConfig, params: Any, rows: Rows, k: int, among: int
) -> soft_head.Top:
    """Returns the K most probable tokens at each target of packed rows: [R, T, K] each."""
    hidden = decoder.hidden_states(config, params, rows.tokens, rows.positions, rows.segments)
    picked = jnp.take_along_axis(hidden, rows.target_at[..., None], axis=1)
    found = soft_head.top(
        picked.reshape(-1, picked.shape[-1]), decoder.output_head(config, params), k, among
    )
    return jax.tree.map(lambda a: a.reshape(*rows.target.shape, k), found)


def predict(
    config: DecoderConfig,
    params: Any,
    sequences: list[Sequence],
    k: int,
    among: int,
    batch_rows: int,
    row_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Callable[[int], None] = lambda n: None,
) -> SoftTargets:
    """Returns what a model predicts at the targets of all sequences, one after the other.

    Args:
      config, params: the assistant.
      sequences: the student's targets, under the assistant's prompts.
      k: K.
      among: tokens that both models have, the first ones.
      batch_rows, row_tokens: of the packed rows.
      pad_id: fills them.
      mesh: the rows of a batch are split over it.
      advance: is told how many rows were done.
    """
    rows, made = pack(sequences, row_tokens, pad_id), []
    for batch in batches_in_order(rows, batch_rows):
        with jax.set_mesh(mesh):
            found = fetch(predict_batch(config, params, shard_batch(batch, mesh), k, among))
        made.append(jax.tree.map(lambda a: a[:batch_rows], found))
        advance(batch_rows)
        preemption.stop_together()
    ids, logprobs = (np.concatenate(part) for part in zip(*made))
    # A row holds the targets of its sequences one after the other.
    slots: list[Any] = [None] * len(sequences)
    for row, members in enumerate(first_fit([s.length for s in sequences], row_tokens)):
        start = 0
        for index in members:
            end = start + sequences[index].targets
            slots[index] = row, slice(start, end)
            start = end
    return SoftTargets(
        *(np.concatenate([part[slot] for slot in slots]) for part in (ids, logprobs))
    )
