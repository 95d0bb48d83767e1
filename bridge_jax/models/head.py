"""The vocabulary head in chunks: statistics of each token, without a large N x V array.

For logits z, the streaming sums m = max z, s = sum exp(z - m), t = sum exp(z - m) z give
lse = m + log s, NLL = lse - z[target] and entropy = lse - t / s (in nats). With the second
highest logit m2 the two likeliest tokens have the probabilities 1 / s and exp(m2 - m) / s.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.parallel.sharding import constrain

CHUNK = 8192  # Entries of the vocabulary.
# Up to so many logits (64 MiB) are computed at once and kept for the backward pass. Our default.
KEPT_LOGITS = 1 << 24


class Head(NamedTuple):
    """The output head, which turns hidden states into logits.

    Attributes:
      table: f[V, D].
      softcap: logits become c * tanh(logits / c); None leaves them.
    """

    table: jax.Array
    softcap: float | None = None

    def cap(self, logits: jax.Array) -> jax.Array:
        """Returns the capped logits."""
        return logits if self.softcap is None else self.softcap * jnp.tanh(logits / self.softcap)


class TokenStatistics(NamedTuple):
    """Per position.

    Attributes:
      nll, entropy: f32[N], nats.
      margin: f32[N], 1 - (p1 - p2) of the two likeliest tokens: 1 where they are equally likely.
      predicted: int32[N], the likeliest token, the first of equals.
    """

    nll: jax.Array
    entropy: jax.Array
    margin: jax.Array
    predicted: jax.Array


class _Running(NamedTuple):
    top: jax.Array
    total: jax.Array
    weighted: jax.Array
    target: jax.Array
    second: jax.Array
    predicted: jax.Array


def token_statistics(
    hidden: jax.Array, head: Head, targets: jax.Array, chunk: int | None = None
) -> TokenStatistics:
    """Returns the NLL of `targets`, and the entropy, margin and arg-max of every prediction.

    The backward pass recomputes each chunk's logits, so its memory is bounded as well; where there
    is one chunk, of no more than `KEPT_LOGITS`, it is kept.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      targets: int32[N].
      chunk: vocabulary entries at a time; the largest array is N x chunk. None is all of them
        where N x V is no more than `KEPT_LOGITS`, otherwise `CHUNK`.
    """
    vocab, dim = head.table.shape
    few = hidden.shape[0] * vocab <= KEPT_LOGITS
    chunk = min(chunk or (vocab if few else CHUNK), vocab)
    chunks = -(-vocab // chunk)
    hidden = constrain(hidden, "batch", None)
    padded = jnp.pad(head.table, ((0, chunks * chunk - vocab), (0, 0))).reshape(chunks, chunk, dim)

    def step(run: _Running, inputs):
        index, rows = inputs
        rows = constrain(rows, "vocab", None)  # Gathered: partial logits would be larger to add up.
        logits = jnp.einsum(
            "ND,VD->NV", hidden, rows.astype(hidden.dtype), preferred_element_type=jnp.float32
        )
        ids = index * chunk + jnp.arange(chunk)
        logits = jnp.where(ids < vocab, head.cap(logits), -jnp.inf)
        # The maximum only keeps exp in range: its gradient cancels.
        top = jax.lax.stop_gradient(jnp.maximum(run.top, logits.max(-1)))
        scale = jnp.exp(run.top - top)
        weights = jnp.exp(logits - top[:, None])
        finite = jnp.where(ids < vocab, logits, 0.0)
        target = jnp.where(ids == targets[:, None], finite, 0.0).sum(-1)
        second, predicted = _likeliest(jax.lax.stop_gradient(logits), ids, run)
        return _Running(
            top,
            run.total * scale + weights.sum(-1),
            run.weighted * scale + (weights * finite).sum(-1),
            run.target + target,
            second,
            predicted,
        ), None

    zeros = jnp.zeros(hidden.shape[0], jnp.float32)
    low = zeros - 1e30
    start = _Running(low, zeros, zeros, zeros, low, jnp.zeros_like(targets))
    if chunks > 1 or not few:
        step = jax.checkpoint(step, prevent_cse=False)
    run, _ = jax.lax.scan(step, start, (jnp.arange(chunks), padded))
    lse = run.top + jnp.log(run.total)
    # Without a gradient, which no reader of the margin needs.
    margin = 1 - (1 - jnp.exp(run.second - run.top)) / jax.lax.stop_gradient(run.total)
    return TokenStatistics(lse - run.target, lse - run.weighted / run.total, margin, run.predicted)


def _likeliest(logits: jax.Array, ids: jax.Array, run: _Running) -> tuple[jax.Array, jax.Array]:
    """Returns f32[N], the second highest logit so far, and int32[N], the token of the highest."""
    top, at = logits.max(-1), ids[0] + logits.argmax(-1)
    others = jnp.where(ids == at[:, None], -jnp.inf, logits).max(-1)
    second = jnp.maximum(jnp.minimum(top, run.top), jnp.maximum(others, run.second))
    return second, jnp.where(top > run.top, at, run.predicted)


def logits(hidden: jax.Array, head: Head) -> jax.Array:
    """Returns f32[..., V]. For the few positions that sample a token."""
    return head.cap(
        jnp.einsum(
            "...D,VD->...V",
            hidden,
            head.table.astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )
    )
