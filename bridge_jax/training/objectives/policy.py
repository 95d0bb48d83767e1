"""Policy optimisation on a model's own samples: GRPO (2402.03300) with later corrections.

Let r = p(token) / p_old(token), where p is the softmax of the tempered logits that tokens are drawn
from. The loss of a token is -min(r A, clip(r, 1 - low, 1 + high) A). It is averaged over all tokens
of a batch (DAPO, 2503.14476): with a mean per text first, each token of a long wrong text would
cost less. As in DAPO, the clip range is wider above.

The KL to a reference is estimated by r (log p - log p_ref), whose gradient is in expectation that
of the reverse KL. Without r, the gradient of log p - log p_ref vanishes in expectation; the
gradient of Schulman's estimator ("k3") belongs to another divergence.
"""

import dataclasses
import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.config.fields import UNKEYED
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import logprobs_at
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives import LARGEST, Parts
from bridge_jax.training.objectives.sft import at_targets


class PolicyTargets(NamedTuple):
    """The advantage of each token of a sample, and its log-probabilities (`Rows.extra_targets`).

    All are f32[...].

    Attributes:
      advantage: A.
      logprob: log p_old, nats.
      reference: log p_ref, nats; 0 without a reference.
      weight: 1 if the model has drawn the token, 0 if it was forced.
    """

    advantage: Any
    logprob: Any
    reference: Any
    weight: Any


@dataclasses.dataclass(frozen=True)
class Policy:
    """The clipped policy loss, and a KL to a reference.

    Attributes:
      temperature: temperature of the samples.
      clip_low, clip_high: r is clipped to [1 - low, 1 + high].
      kl: the weight of the KL.
      has_reference: whether there is a reference to compute the KL to.
    """

    temperature: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    has_reference: Annotated[bool, UNKEYED] = True
    name: str = "policy"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of drawn tokens as the divisor of every value that is averaged."""
        count: jax.Array = batch.extra_targets.weight.sum()
        return dict.fromkeys((*self._parts, "drift", "clipped"), count)

    def weights(self, counts: Parts) -> Parts:
        """Returns 1, and the weight of the KL."""
        weights = {"policy": jnp.float32(1), "kl": jnp.float32(self.kl)}
        return {part: weights[part] for part in self._parts}

    @property
    def _parts(self) -> tuple[str, ...]:
        return ("policy", "kl") if self.has_reference else ("policy",)

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sums of the parts, in nats, and the values that are logged.

        Over the drawn tokens these are the mean (`drift`) and maximum (`largest_drift`) of
        |log p - log p_old|, which is a rounding error if the same parameters drew the tokens; and
        `clipped`, the share whose gradient the clip sets to 0. `tokens` counts tokens without
        padding.
        """
        logprob = sampled_logprobs(model, params, batch, self.temperature, dropout)
        old, weight = batch.extra_targets.logprob, batch.extra_targets.weight
        # The old log-probability of a forced token may be -inf.
        log_ratio = jnp.where(weight > 0, logprob - old, 0.0)
        ratio, gain = jnp.exp(log_ratio), batch.extra_targets.advantage
        clipped_ratio = jnp.clip(ratio, 1 - self.clip_low, 1 + self.clip_high)
        surrogate = jnp.minimum(ratio * gain, clipped_ratio * gain)
        kl = ratio * (logprob - batch.extra_targets.reference)
        sums = {"policy": (-surrogate * weight).sum(), "kl": (kl * weight).sum()}
        sums = {part: sums[part] for part in self._parts}
        abs_log_ratio = jnp.abs(log_ratio)
        logged = {
            "drift": abs_log_ratio.sum(),
            LARGEST + "drift": abs_log_ratio.max(),
            "clipped": ((clipped_ratio * gain < ratio * gain) * weight).sum(),
            "tokens": (batch.segments > 0).sum().astype(jnp.float32),
        }
        return sums, jax.lax.stop_gradient(logged)


def sampled_logprobs(
    model: DecoderConfig,
    params: Any,
    rows: Rows,
    temperature: float,
    dropout: jax.Array | None = None,
) -> jax.Array:
    """Returns f32[R, T], the log-probability of each target under the tempered softmax, in nats."""
    hidden, output, target = at_targets(model, params, rows, dropout)
    found = logprobs_at(hidden / temperature, output, target[:, None])
    return found.reshape(rows.target.shape)


@functools.partial(jax.jit, static_argnums=(0, 3))
def reference_logprobs(
    model: DecoderConfig, params: Any, rows: Rows, temperature: float
) -> jax.Array:
    """Returns `sampled_logprobs` of a model that is not trained, in one jitted program."""
    return sampled_logprobs(model, params, rows, temperature)
