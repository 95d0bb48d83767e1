"""The vocabulary head in chunks, for a few entries of each prediction: no N x V array exists.

`top` finds the most probable tokens, `logprobs_at` returns those of given tokens. Both are exact:
the log-sum-exp is over the whole vocabulary (`bridge_jax.models.head` has the streaming sums).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bridge_jax.models.head import Head
from bridge_jax.parallel.sharding import constrain


class Top(NamedTuple):
    """The K most probable tokens of each prediction, the most probable first.

    Attributes:
      ids: int32[N, K].
      logprobs: f32[N, K], in nats.
    """

    ids: jax.Array
    logprobs: jax.Array


class _Sums(NamedTuple):
    """The running maximum, and the sum of exp(logit - maximum): f32[N] each."""

    top: jax.Array
    total: jax.Array

    def add(self, logits: jax.Array) -> "_Sums":
        # The maximum only keeps exp in range: its gradient cancels.
        top = jax.lax.stop_gradient(jnp.maximum(self.top, logits.max(-1)))
        weights = jnp.exp(logits - top[:, None])
        return _Sums(top, self.total * jnp.exp(self.top - top) + weights.sum(-1))

    @property
    def logsumexp(self) -> jax.Array:
        return self.top + jnp.log(self.total)


def top(hidden: jax.Array, head: Head, k: int, among: int, chunk: int = 8192) -> Top:
    """Returns the `k` most probable of the first `among` tokens at every position.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      k: K, at most `among`.
      among: ids from here on are left out, though not from the probabilities.
      chunk: vocabulary entries at a time.
    """

    def best(found: Top, ids: jax.Array, logits: jax.Array) -> Top:
        allowed = jnp.where(ids < among, logits, -jnp.inf)
        values = jnp.concatenate([found.logprobs, allowed], axis=1)
        names = jnp.concatenate([found.ids, jnp.broadcast_to(ids, logits.shape)], axis=1)
        values, at = jax.lax.top_k(values, k)
        return Top(jnp.take_along_axis(names, at, axis=1), values)

    count = hidden.shape[0]
    start = Top(jnp.zeros((count, k), jnp.int32), jnp.full((count, k), -jnp.inf))
    sums, found = _over_chunks(hidden, head, chunk, start, best)
    return found._replace(logprobs=found.logprobs - sums.logsumexp[:, None])


def logprobs_at(hidden: jax.Array, head: Head, ids: jax.Array, chunk: int = 8192) -> jax.Array:
    """Returns f32[N, K], the log-probabilities of tokens int32[N, K], in nats.

    The backward pass recomputes each chunk's logits, so its memory is bounded as well.

    Args:
      hidden: f[N, D], after the final norm.
      head: of V logits.
      ids: int32[N, K].
      chunk: vocabulary entries at a time.
    """

    def pick(found: jax.Array, of_chunk: jax.Array, logits: jax.Array) -> jax.Array:
        at = ids - of_chunk[0]
        inside = (at >= 0) & (at < len(of_chunk))
        values = jnp.take_along_axis(logits, jnp.where(inside, at, 0), axis=1)
        return found + jnp.where(inside, values, 0.0)

    sums, found = _over_chunks(hidden, head, chunk, jnp.zeros(ids.shape, jnp.float32), pick)
    return found - sums.logsumexp[:, None]


def _over_chunks(
    hidden: jax.Array,
    head: Head,
    chunk: int,
    start: Any,
    see: Callable[[Any, jax.Array, jax.Array], Any],
) -> tuple[_Sums, Any]:
    """Returns the sums, and the state after `see(state, ids int32[C], logits f32[N, C])` of all."""
    vocab, dim = head.table.shape
    chunk = min(chunk, vocab)
    chunks = -(-vocab // chunk)
    hidden = constrain(hidden, "batch", None)
    padded = jnp.pad(head.table, ((0, chunks * chunk - vocab), (0, 0))).reshape(chunks, chunk, dim)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(run: tuple[_Sums, Any], inputs: tuple[jax.Array, jax.Array]):
        index, rows = inputs
        rows = constrain(rows, "vocab", None)  # Gathered, as in `head.token_statistics`.
        logits = jnp.einsum(
            "ND,VD->NV", hidden, rows.astype(hidden.dtype), preferred_element_type=jnp.float32
        )
        ids = index * chunk + jnp.arange(chunk)
        logits = jnp.where(ids < vocab, head.cap(logits), -jnp.inf)
        sums, state = run
        return (sums.add(logits), see(state, ids, logits)), None

    zeros = jnp.zeros(hidden.shape[0], jnp.float32)
    run, _ = jax.lax.scan(step, (_Sums(zeros - 1e30, zeros), start), (jnp.arange(chunks), padded))
    return run
