"""Scaled dot-product attention with grouped heads: one function for every user and every chip."""

import jax
import jax.numpy as jnp

from bridge_jax.models import kernels
from bridge_jax.models.config import Kernel
from bridge_jax.models.visible import Visible, Window, dense_mask

CHUNK = 512  # Queries whose scores exist at once, where there are more and no kernel is used.


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: Visible,
    scale: float,
    softcap: float | None = None,
    window: Window | None = None,
    kernel: Kernel = "plain",
) -> jax.Array:
    """Returns f[B, S, N, H].

    Args:
      query: f[B, S, N, H].
      key, value: f[B, T, K, H]; K divides N, and N / K query heads share a key head.
      visible: who sees whom.
      scale: multiplies the scores.
      softcap: c * tanh(scores / c), before the mask (Gemma 2, 2408.00118).
      window: how far back a query sees, where it is not all the way.
      kernel: what computes whole rows of packed segments; shapes that it does not take, and rows
        that are read from a cache, are computed plainly. The results are the same to rounding,
        except at padding, which sees nothing in the one and other padding in the other.
    """
    if kernel == "splash" and kernels.splash_takes(query, visible):
        return kernels.splash(query, key, value, visible, scale, softcap, window)
    mask = dense_mask(visible, window)
    if kernel == "cudnn" and kernels.cudnn_takes(query, visible, softcap):
        return kernels.cudnn(query, key, value, mask, scale)
    batch, steps, heads, dim = query.shape
    if steps <= CHUNK:
        return _plain(query, key, value, mask, scale, softcap)
    missing = -steps % CHUNK
    query = jnp.pad(query, ((0, 0), (0, missing), (0, 0), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, missing), (0, 0)))

    @jax.checkpoint  # Otherwise the backward pass would keep the scores of all chunks.
    def part(_: None, chunk: tuple[jax.Array, jax.Array]):
        return None, _plain(chunk[0], key, value, chunk[1], scale, softcap)

    queries = query.reshape(batch, -1, CHUNK, heads, dim).swapaxes(0, 1)
    masks = mask.reshape(batch, 1, -1, CHUNK, mask.shape[-1]).transpose(2, 0, 1, 3, 4)
    mixed = jax.lax.scan(part, None, (queries, masks))[1]
    return mixed.swapaxes(0, 1).reshape(query.shape)[:, :steps]


def _plain(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    scale: float,
    softcap: float | None,
) -> jax.Array:
    if softcap is None:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, scale=scale)
    batch, steps, _, dim = query.shape
    grouped = query.reshape(batch, steps, key.shape[2], -1, dim)
    scores = jnp.einsum("BSKGH,BTKH->BKGST", grouped, key, preferred_element_type=jnp.float32)
    scores = softcap * jnp.tanh(scores * scale / softcap)
    scores = jnp.where(mask[:, :, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("BKGST,BTKH->BSKGH", weights, value).reshape(query.shape)
