"""Scaled dot-product attention with grouped heads: one function for every user."""

import jax
import jax.numpy as jnp


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    scale: float,
    softcap: float | None = None,
) -> jax.Array:
    """Returns f[B, S, N, H].

    Args:
      query: f[B, S, N, H].
      key, value: f[B, T, K, H]; K divides N, and N / K query heads share a key head.
      mask: bool[B, 1, S, T], who sees whom.
      scale: multiplies the scores.
      softcap: c * tanh(scores / c), before the mask (Gemma 2, 2408.00118).
    """
    if softcap is None:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale)
    batch, steps, _, dim = query.shape
    grouped = query.reshape(batch, steps, key.shape[2], -1, dim)
    scores = jnp.einsum("BSKGH,BTKH->BKGST", grouped, key, preferred_element_type=jnp.float32)
    scores = softcap * jnp.tanh(scores * scale / softcap)
    scores = jnp.where(mask[:, :, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("BKGST,BTKH->BSKGH", weights, value).reshape(query.shape)
