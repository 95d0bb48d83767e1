"""White-box distillation: the student learns the assistant's distribution at each target.

The assistant's K most probable tokens are stored for each target, as is usual for large
vocabularies; the remaining probability is one more outcome, the rest. Both distributions sum to
one, so their divergence is a proper one, and exact where K is the whole vocabulary:
KL = sum_k p_k log(p_k / q_k) + p_rest log(p_rest / q_rest).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head, logprobs_at
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives import Parts
from bridge_jax.training.objectives.sft import SFT, at_targets, part_sums

FLOOR = 1e-6  # of the rest's probability, a difference of f32 numbers near one


class SoftTargets(NamedTuple):
    """Another model's predictions at targets: its K most probable tokens (`Rows.beside`).

    Attributes:
      ids: int32[..., K].
      logprobs: f32[..., K], in nats, of the whole vocabulary.
      weight: f32[...], 1 where there are predictions.
    """

    ids: Any
    logprobs: Any
    weight: Any


@dataclasses.dataclass(frozen=True)
class SoftTargetSFT:
    """(1 - w) * NLL + w * KL of each target that has soft targets, and the NLL of the others.

    Attributes:
      weight: w.
      rationale_share: a in a * L_rationale + (1 - a) * L_answer, as in SFT.
      name: of the objective.
    """

    weight: float
    rationale_share: float = 0.5
    name: str = "soft_targets"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of tokens of each part."""
        return SFT(self.rationale_share).counts(batch)

    def weights(self, counts: Parts) -> Parts:
        """Returns a and 1 - a, or 1 for the only part that is there."""
        return SFT(self.rationale_share).weights(counts)

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sums of the losses in nats, and the number of tokens without padding."""
        assert batch.beside is not None, "the rows have no soft targets"
        hidden, output, target = at_targets(model, params, batch, dropout)
        soft = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batch.beside)
        return part_sums(token_losses(hidden, output, target, soft, self.weight), batch)


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
    hidden: jax.Array, head: Head, targets: jax.Array, soft: SoftTargets, share: float
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
    student = logprobs_at(hidden, head, jnp.column_stack([targets, ids]))
    w = share * has_soft
    return (1 - w) * -student[:, 0] + w * divergence(assistant, student[:, 1:])
