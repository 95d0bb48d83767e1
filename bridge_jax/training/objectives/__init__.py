"""Training objectives. The step and the loop work with any of them."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from bridge_jax.models.config import DecoderConfig

Parts = dict[str, jax.Array]  # f32[] each, by the name of a part of the loss
LARGEST = "largest_"


class Objective(Protocol):
    """A loss made of parts: L = sum over parts p of weight_p * sum_p / count_p.

    Objectives are frozen dataclasses; equal ones share a compiled step. The counts are computed
    apart from the loss, because a step over micro-batches divides by the counts of the whole batch:
    neither the number of micro-batches nor the number of devices changes a gradient.
    """

    @property
    def name(self) -> str:
        """Returns the objective's name, which is part of the key of a stage that trains with it."""
        ...

    def counts(self, batch: Any) -> Parts:
        """Returns the divisor of each part's sum, such as its number of tokens.

        Logged values are divided too if they have a divisor here.
        """
        ...

    def weights(self, counts: Parts) -> Parts:
        """Returns the weight of each part, given the counts of the whole batch."""
        ...

    def loss(
        self, model: DecoderConfig, params: Any, batch: Any, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sums of the parts, and values that are only logged, such as `tokens`.

        Logged values are summed over micro-batches too; those whose names begin with `LARGEST` take
        the maximum instead.

        Args:
          model: the decoder's config.
          params: all of its parameters.
          batch: a pytree of arrays whose first axis is the rows, such as `text.packing.Rows`.
          dropout: random key of an adapter's dropout.
        """
        ...


def coefficients(objective: Objective, counts: Parts) -> Parts:
    """Returns the factor of each part's sum in the loss: weight / count."""
    weights = objective.weights(counts)
    return {part: weights[part] / jnp.maximum(counts[part], 1) for part in weights}
