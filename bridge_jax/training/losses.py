"""The multi-task loss: rationale and answer, each averaged over its own tokens.

L = a * L_rationale + (1 - a) * L_answer (BRIDGE's two terms; the per-part mean is our default, for
without it a long rationale swamps the answer). A batch that has only one part is trained on
that part alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.models import decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.text.packing import Rows
from bridge_jax.training import soft_targets


class PartSums(NamedTuple):
    """Sums of the tokens' losses in nats, and of the weights, per part: f32[] each."""

    rationale: jax.Array
    rationale_weight: jax.Array
    answer: jax.Array
    answer_weight: jax.Array


def part_sums(
    config: DecoderConfig,
    params: Any,
    rows: Rows,
    dropout: jax.Array | None = None,
    soft_share: float = 0.0,
) -> PartSums:
    """Returns the unnormalised losses of packed rows (`bridge_jax.text.packing.Rows`).

    With soft targets, `soft_share` of a token's loss is its divergence from these.
    """
    hidden = decoder.hidden_states(
        config, params, rows.tokens, rows.positions, rows.segments, dropout
    )
    picked = jnp.take_along_axis(hidden, rows.target_at[..., None], axis=1)  # B T D
    flat = picked.reshape(-1, picked.shape[-1])
    output, target = decoder.output_head(config, params), jnp.asarray(rows.target).reshape(-1)
    if rows.soft is None:
        loss = head.token_statistics(flat, output, target).nll
    else:
        soft = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), rows.soft)
        loss = soft_targets.token_losses(flat, output, target, soft, soft_share)
    loss = loss.reshape(rows.target.shape)
    return PartSums(
        (loss * rows.rationale_weight).sum(),
        rows.rationale_weight.sum(),
        (loss * rows.answer_weight).sum(),
        rows.answer_weight.sum(),
    )


def part_coefficients(
    rationale_weight: jax.Array, answer_weight: jax.Array, a: float
) -> tuple[jax.Array, jax.Array]:
    """Returns what each part's sum is multiplied by, so that L = sum of products.

    Args:
      rationale_weight, answer_weight: f32[], tokens of each part in the whole batch.
      a: the rationale's share where both parts are there.
    """
    share = jnp.where(answer_weight == 0, 1.0, jnp.where(rationale_weight == 0, 0.0, a))
    return share / jnp.maximum(rationale_weight, 1), (1 - share) / jnp.maximum(answer_weight, 1)
