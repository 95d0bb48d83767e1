"""Draws the next token of each row, with the row's own temperature, nucleus and random key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

BLOCK_LOGITS = 512  # Vocabulary entries per block; a block is drawn first, then a token in it.


class Sampled(NamedTuple):
    """One token per row, with its log-probabilities.

    Attributes:
      token: int32[B].
      logprob: f32[B], nats, under the model's own distribution, so that it can be compared across
        sampling settings.
      sampled_logprob: f32[B], nats, under the tempered nucleus distribution that was drawn from; 0
        in a greedy row, -inf for a forced token that could not have been drawn.
    """

    token: jax.Array
    logprob: jax.Array
    sampled_logprob: jax.Array


def sample(
    logits: jax.Array,
    keys: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    forced: jax.Array | None = None,
) -> Sampled:
    """Draws a token for each row.

    Args:
      logits: f32[B, V].
      keys: random keys [B]; unused by greedy rows.
      temperature: f32[B]; 0 takes the most probable token.
      top_p: f32[B]; keeps the smallest set of tokens whose total probability reaches it (nucleus,
        1904.09751), and all tokens as probable as the least probable one of them.
      forced: int32[B], the token to take instead of drawing one; -1 for none.
    """
    greedy = temperature <= 0
    likeliest = jnp.argmax(logits, -1).astype(jnp.int32)

    def or_forced(token: jax.Array) -> jax.Array:
        return token if forced is None else jnp.where(forced >= 0, forced, token)

    def draw() -> tuple[jax.Array, jax.Array]:
        scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None]
        cuts = (top_p < 1) & ~greedy
        scaled = jax.lax.cond(cuts.any(), lambda: _nucleus(scaled, top_p), lambda: scaled)
        token = or_forced(jnp.where(greedy, likeliest, _draw(scaled, keys)))
        # A greedy token is not drawn from a distribution.
        return token, jnp.where(greedy, 0.0, _logprob(scaled, token))

    def take() -> tuple[jax.Array, jax.Array]:
        return or_forced(likeliest), jnp.zeros(greedy.shape)

    # One branch for token and log-probability, since each branch costs a GPU a synchronization.
    token, sampled = jax.lax.cond(greedy.all(), take, draw)
    return Sampled(token, _logprob(logits, token), sampled)


def _logprob(logits: jax.Array, token: jax.Array) -> jax.Array:
    """Returns f32[B], the log-probabilities of tokens int32[B] under logits f32[B, V]."""
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Returns the logits f32[B, V], -inf outside the nucleus; the most probable token is kept.

    The threshold is the largest p such that the tokens of probability p or more together reach
    `top_p`. It is found by bisection, which costs less than sorting. Nonnegative floats have the
    order of their bit patterns, so 31 halvings find it exactly.
    """
    probabilities = jax.nn.softmax(logits)
    target = jnp.where(top_p < 1, top_p, 2.0)  # Nothing reaches 2: all tokens are kept.

    def mass(bits: jax.Array) -> jax.Array:
        least = jax.lax.bitcast_convert_type(bits, jnp.float32)[:, None]
        return jnp.where(probabilities >= least, probabilities, 0.0).sum(-1)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds  # `low` reaches the target, `high` does not.
        middle = (low + high) // 2
        reaches = mass(middle) >= target
        return jnp.where(reaches, middle, low), jnp.where(reaches, high, middle)

    highest = probabilities.max(-1)
    low = jnp.zeros(highest.shape, jnp.int32)
    high = jax.lax.bitcast_convert_type(highest, jnp.int32) + 1
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    least = jax.lax.bitcast_convert_type(low, jnp.float32)[:, None]
    return jnp.where(probabilities >= least, logits, -jnp.inf)


def _draw(logits: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns int32[B], drawn in two steps: a block of the vocabulary, then a token in it.

    Each step takes the argmax of logits plus Gumbel noise. Two draws among few entries need few
    random numbers, and the product of their probabilities is the probability of the token.
    """
    batch, vocab = logits.shape
    padded = jnp.pad(logits, ((0, 0), (0, -vocab % BLOCK_LOGITS)), constant_values=-jnp.inf)
    blocks = padded.reshape(batch, -1, BLOCK_LOGITS)
    keys = jax.vmap(lambda key: jax.random.split(key, 2))(keys)
    block = _largest(jax.nn.logsumexp(blocks, axis=-1), keys[:, 0])
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * BLOCK_LOGITS + _largest(inside, keys[:, 1])


def _largest(logits: jax.Array, keys: jax.Array) -> jax.Array:
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    return jnp.argmax(logits + noise, -1).astype(jnp.int32)
