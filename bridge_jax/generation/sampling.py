"""From logits to a token and its log-probability."""

import jax
import jax.numpy as jnp


def sample(
    logits: jax.Array, key: jax.Array, temperature: float, top_p: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the token int32[B] and its log-probability f32[B] under the model itself.

    The log-probability is that of the untempered, untruncated distribution, so that it can be
    compared over sampling settings.

    Args:
      logits: f32[B, V].
      key: random key; unused when greedy.
      temperature: 0 takes the most probable token.
      top_p: keeps the smallest set of tokens whose probability reaches it (nucleus, 1904.09751).
    """
    logprobs = jax.nn.log_softmax(logits)
    if temperature == 0:
        token = jnp.argmax(logits, -1)
    else:
        scaled = logits / temperature
        if top_p < 1:
            scaled = jnp.where(_nucleus(scaled, top_p), scaled, -jnp.inf)
        token = jax.random.categorical(key, scaled)
    return token, jnp.take_along_axis(logprobs, token[:, None], axis=1)[:, 0]


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Returns bool[B, V]: the tokens that top_p keeps, the most probable one always."""
    probabilities = jax.nn.softmax(logits)
    descending = jnp.sort(probabilities, descending=True)
    before = jnp.cumsum(descending, -1) - descending
    kept = jnp.where(before < top_p, descending, jnp.inf)
    return probabilities >= kept.min(-1, keepdims=True)
