"""The vocabulary head in chunks: statistics of each token, without a large N x V array.

For logits z, the streaming sums m = max z, s = sum exp(z - m), t = sum exp(z - m) z give
lse = m + log s, NLL = lse - z[target] and entropy = lse - t / s (in nats). With the second
highest logit m2 the two likeliest tokens have the probabilities 1 / s and exp(m2 - m) / s.

The backward pass recomputes each chunk's logits, so its memory is bounded as well; where there is
one chunk, of no more than `KEPT_LOGITS`, it is kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns f32[..., V] for f[..., D]: for few positions, or few entries of the table."""
        table = self.table.astype(hidden.dtype)
        found = jnp.einsum("...D,VD->...V", hidden, table, preferred_element_type=jnp.float32)
        return found if self.softcap is None else self.softcap * jnp.tanh(found / self.softcap)


class TokenStatistics(NamedTuple):
    """Statistics of each prediction.

    Attributes:
      nll, entropy: f32[N], nats.
      margin: f32[N], 1 - (p1 - p2) of the two likeliest tokens: 1 where they are equally likely.
        It has no gradient.
      predicted: int32[N], the likeliest token, the first of equals.
    """

    nll: jax.Array
    entropy: jax.Array
    margin: jax.Array
    predicted: jax.Array


class Top(NamedTuple):
    """The K most probable tokens of each prediction, the most probable first.

    Attributes:
      ids: int32[N, K].
      logprobs: f32[N, K], in nats.
    """

    ids: jax.Array
    logprobs: jax.Array


class _Sums(NamedTuple):
    """The streaming sums m, s and t, f32[N] each."""

    top: jax.Array
    total: jax.Array
    weighted: jax.Array

    @property
    def logsumexp(self) -> jax.Array:
        return self.top + jnp.log(self.total)


def token_statistics(
    hidden: jax.Array, head: Head, targets: jax.Array, chunk: int | None = None
) -> TokenStatistics:
    """Returns the NLL of `targets`, and the entropy, margin and arg-max of every prediction.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      targets: int32[N].
      chunk: vocabulary entries at a time; the largest array is N x chunk. None is all of them
        where N x V is no more than `KEPT_LOGITS`, otherwise `CHUNK`.
    """

    def see(found: tuple[jax.Array, ...], ids: jax.Array, logits: jax.Array):
        target = found[0] + jnp.where(ids == targets[:, None], logits, 0.0).sum(-1)
        return target, *_likeliest(jax.lax.stop_gradient(logits), ids, *found[1:])

    zeros = jnp.zeros(hidden.shape[0], jnp.float32)
    start = zeros, zeros - 1e30, zeros - 1e30, jnp.zeros_like(targets)
    sums, (target, first, second, predicted) = _over_chunks(hidden, head, chunk, start, see)
    lse = sums.logsumexp
    margin = 1 - (1 - jnp.exp(second - first)) / jax.lax.stop_gradient(sums.total)
    return TokenStatistics(lse - target, lse - sums.weighted / sums.total, margin, predicted)


def top(hidden: jax.Array, head: Head, k: int, among: int, chunk: int | None = None) -> Top:
    """Returns the `k` most probable of the first `among` tokens at every position.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      k: K, at most `among`.
      among: ids from here on are left out, though not from the probabilities.
      chunk: as in `token_statistics`.
    """

    def see(found: Top, ids: jax.Array, logits: jax.Array) -> Top:
        allowed = jnp.where(ids < among, logits, -jnp.inf)
        values = jnp.concatenate([found.logprobs, allowed], axis=1)
        names = jnp.concatenate([found.ids, jnp.broadcast_to(ids, logits.shape)], axis=1)
        values, at = jax.lax.top_k(values, k)
        return Top(jnp.take_along_axis(names, at, axis=1), values)

    count = hidden.shape[0]
    start = Top(jnp.zeros((count, k), jnp.int32), jnp.full((count, k), -jnp.inf))
    sums, found = _over_chunks(hidden, head, chunk, start, see)
    return found._replace(logprobs=found.logprobs - sums.logsumexp[:, None])


def logprobs_at(
    hidden: jax.Array, head: Head, ids: jax.Array, chunk: int | None = None
) -> jax.Array:
    """Returns f32[N, K], the log-probabilities of tokens int32[N, K], in nats.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      ids: int32[N, K].
      chunk: as in `token_statistics`.
    """

    def see(found: jax.Array, of_chunk: jax.Array, logits: jax.Array) -> jax.Array:
        at = ids - of_chunk[0]
        inside = (at >= 0) & (at < len(of_chunk))
        values = jnp.take_along_axis(logits, jnp.where(inside, at, 0), axis=1)
        return found + jnp.where(inside, values, 0.0)

    sums, found = _over_chunks(hidden, head, chunk, jnp.zeros(ids.shape, jnp.float32), see)
    return found - sums.logsumexp[:, None]


def _likeliest(
    logits: jax.Array, ids: jax.Array, first: jax.Array, second: jax.Array, predicted: jax.Array
) -> tuple[jax.Array, ...]:
    """Returns the highest logit f32[N] so far, the second, and the token int32[N] of the first."""
    top, at = logits.max(-1), ids[0] + logits.argmax(-1)
    others = jnp.where(ids == at[:, None], -jnp.inf, logits).max(-1)
    second = jnp.maximum(jnp.minimum(top, first), jnp.maximum(others, second))
    return jnp.maximum(top, first), second, jnp.where(top > first, at, predicted)


def _over_chunks(
    hidden: jax.Array,
    head: Head,
    chunk: int | None,
    start: Any,
    see: Callable[[Any, jax.Array, jax.Array], Any],
) -> tuple[_Sums, Any]:
    """Returns the sums, and the state after `see(state, ids int32[C], logits f32[N, C])` of all."""
    vocab, dim = head.table.shape
    few = hidden.shape[0] * vocab <= KEPT_LOGITS
    chunk = min(chunk or (vocab if few else CHUNK), vocab)
    chunks = -(-vocab // chunk)
    hidden = constrain(hidden, "batch", None)
    padded = jnp.pad(head.table, ((0, chunks * chunk - vocab), (0, 0))).reshape(chunks, chunk, dim)

    def step(run: tuple[_Sums, Any], inputs: tuple[jax.Array, jax.Array]):
        (sums, state), (index, rows) = run, inputs
        rows = constrain(rows, "vocab", None)  # Gathered: partial logits would be larger to add up.
        ids = index * chunk + jnp.arange(chunk)
        logits = jnp.where(ids < vocab, Head(rows, head.softcap).logits(hidden), -jnp.inf)
        # The maximum only keeps exp in range: its gradient cancels.
        top = jax.lax.stop_gradient(jnp.maximum(sums.top, logits.max(-1)))
        scale, weights = jnp.exp(sums.top - top), jnp.exp(logits - top[:, None])
        weighted = (weights * jnp.where(ids < vocab, logits, 0.0)).sum(-1)
        sums = _Sums(top, sums.total * scale + weights.sum(-1), sums.weighted * scale + weighted)
        return (sums, see(state, ids, logits)), None

    if chunks > 1 or not few:
        step = jax.checkpoint(step, prevent_cse=False)
    zeros = jnp.zeros(hidden.shape[0], jnp.float32)
    begin = _Sums(zeros - 1e30, zeros, zeros), start
    return jax.lax.scan(step, begin, (jnp.arange(chunks), padded))[0]
