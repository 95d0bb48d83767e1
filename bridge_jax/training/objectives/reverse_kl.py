"""On-policy distillation: the reverse KL to another model, at each token of the learner's own text.

L = mean over tokens of KL(learner || other), the gradient taken through the distributions and not
through the text (GKD, 2306.13649, with the reverse KL). It is that of a whole distribution at each
token, not an estimate from the token that was drawn, so its variance is lower. The other's K most
probable tokens are outcomes, and all the rest is one more (`objectives.soft_targets`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import logprobs_at
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives import Parts
from bridge_jax.training.objectives.sft import at_targets
from bridge_jax.training.objectives.soft_targets import divergence


@dataclasses.dataclass(frozen=True)
class ReverseKL:
    """The reverse KL of rows whose tokens have soft targets (`Rows.beside`).

    Attributes:
      name: of the objective.
    """

    name: str = "reverse_kl"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of tokens that have soft targets."""
        return {"kl": batch.beside.weight.sum()}

    def weights(self, counts: Parts) -> Parts:
        """Returns 1."""
        return {"kl": jnp.float32(1)}

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sum of the KL in nats, and the number of tokens without padding."""
        assert batch.beside is not None, "the rows have no soft targets"
        hidden, output, _ = at_targets(model, params, batch, dropout)
        ids, other, weight = (a.reshape(-1, *a.shape[2:]) for a in batch.beside)
        kl = divergence(logprobs_at(hidden, output, ids), other)
        tokens = (batch.segments > 0).sum().astype(jnp.float32)
        return {"kl": (kl * weight).sum()}, {"tokens": tokens}
