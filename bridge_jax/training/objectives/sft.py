"""Supervised fine-tuning on rationales and answers, each averaged over its own tokens.

L = a * L_rationale + (1 - a) * L_answer (BRIDGE's two terms). The mean over each part is our
default: without it a long rationale outweighs the answer. A batch that has only one part is
trained on that part alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head, logprobs_at
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives import Parts


@dataclasses.dataclass(frozen=True)
class SFT:
    """The negative log-likelihood of the targets of packed rows (`bridge_jax.text.packing.Rows`).

    Attributes:
      rationale_share: a.
    """

    rationale_share: float = 0.5
    name: str = "sft"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of tokens of each part."""
        return {"rationale": batch.rationale_weight.sum(), "answer": batch.answer_weight.sum()}

    def weights(self, counts: Parts) -> Parts:
        """Returns a and 1 - a, or 1 for the only part in the batch."""
        rationale, answer = counts["rationale"], counts["answer"]
        share = jnp.where(rationale == 0, 0.0, self.rationale_share)
        share = jnp.where(answer == 0, 1.0, share)
        return {"rationale": share, "answer": 1 - share}

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sums of the NLL in nats, and the number of tokens without padding."""
        hidden, output, target = at_targets(model, params, batch, dropout)
        return part_sums(-logprobs_at(hidden, output, target[:, None])[:, 0], batch)


def at_targets(
    model: DecoderConfig, params: Any, rows: Rows, dropout: jax.Array | None = None
) -> tuple[jax.Array, Head, jax.Array]:
    """Returns hidden states at the targets f[R * T, D], the head, and targets int32[R * T]."""
    hidden = decoder.hidden_states(
        model, params, rows.tokens, rows.positions, rows.segments, dropout
    )
    picked = jnp.take_along_axis(hidden, rows.target_at[..., None], axis=1)  # R T D
    output = decoder.output_head(model, params)
    return picked.reshape(-1, picked.shape[-1]), output, jnp.asarray(rows.target).reshape(-1)


def part_sums(losses: jax.Array, rows: Rows) -> tuple[Parts, Parts]:
    """Returns the result of `Objective.loss` from the losses f32[R * T] of all targets, in nats."""
    losses = losses.reshape(rows.target.shape)
    sums = {
        "rationale": (losses * rows.rationale_weight).sum(),
        "answer": (losses * rows.answer_weight).sum(),
    }
    return sums, {"tokens": (rows.segments > 0).sum().astype(jnp.float32)}
