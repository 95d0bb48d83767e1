"""Scaled dot-product attention: grouped heads, rotary positions, and kernels for TPU and GPU.

The kernels are JAX's splash attention for TPU and cuDNN's flash attention (2205.14135) for GPU.
Neither writes the S x S scores to memory. Splash attention reads segment ids and skips blocks that
are fully masked; cuDNN is given a dense mask.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from bridge_jax.models.config import Kernel, Rope
from bridge_jax.parallel.sharding import RULES, axis_size, on_each_device

# Plain attention, without a kernel:
LONG = 1024  # Rows up to this length are computed in parts, longer ones in chunks.
PARTS, PART = 4, 64  # Most parts of a row, and fewest queries of a part.
CHUNK_QUERIES = 512  # Most queries of a chunk, whose scores the backward pass recomputes.
LANES = 128  # Block sizes of splash attention are multiples of this,
KERNEL_BLOCK_TOKENS = 512  # and at most this: all inputs of a block must fit in a core's memory.
RESIDUALS = "attention"  # Checkpoint name of what the kernel keeps: output, softmax sums.


class Rotation(NamedTuple):
    """Rotary positions (RoFormer, 2104.09864), in the layout that pairs the two halves of a head.

    `sin` and `cos` are those of each position's angles: f32[B, S, 1, H/2] each.
    """

    sin: jax.Array
    cos: jax.Array


def frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Returns the rotary frequencies f32[H/2], in radians per token."""
    half = head_dim // 2
    plain = rope.theta ** (-np.arange(half) / half)
    if not rope.original_context:
        return (plain / rope.factor).astype(np.float32)
    # `keep` is 1 for short wavelengths, which are kept, and 0 for long ones, which are stretched.
    turns = rope.original_context * plain / (2 * math.pi)
    keep = np.clip((turns - rope.low) / (rope.high - rope.low), 0, 1)
    return (plain * (keep + (1 - keep) / rope.factor)).astype(np.float32)


def rotation(rope: Rope, head_dim: int, positions: jax.Array) -> Rotation:
    """Returns the rotation of positions int32[B, S]; the same for every layer."""
    angle = positions[:, :, None, None] * jnp.asarray(frequencies(rope, head_dim))
    return Rotation(jnp.sin(angle), jnp.cos(angle))


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Returns the heads f[B, S, N, H], rotated by the angles of their positions."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * by.cos - second * by.sin, second * by.cos + first * by.sin], -1
    )
    return rotated.astype(x.dtype)


class SlidingWindow(NamedTuple):
    """Limit of a query to the last `size` positions, its own included, if `applies` (bool[])."""

    size: int
    applies: jax.Array


def dense_mask(segments: jax.Array, window: SlidingWindow | None = None) -> jax.Array:
    """Returns bool[B, 1, S, S]: which keys each query attends to.

    A query attends to the keys of its own segment, up to and including its own position.

    Args:
      segments: int32[B, S]; 0 is padding, which no query attends to.
      window: how far back a query attends.
    """
    steps = segments.shape[1]
    ago = jnp.arange(steps)[:, None] - jnp.arange(steps)[None, :]
    seen = ago >= 0
    if window is not None:
        seen &= (ago < window.size) | ~window.applies
    same = segments[:, :, None] == segments[:, None, :]
    return (same & seen & (segments > 0)[:, None, :])[:, None]


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    scale: float,
    softcap: float | None = None,
    window: SlidingWindow | None = None,
    kernel: Kernel = "plain",
) -> jax.Array:
    """Returns the attention output f[B, S, N, H].

    Args:
      query: f[B, S, N, H].
      key, value: f[B, S, K, H]; K divides N, and N / K query heads share a key head.
      segments: int32[B, S], segment ids of packed rows; 0 is padding.
      scale: multiplies the scores.
      softcap: c in c * tanh(scores / c), applied before the mask (Gemma 2, 2408.00118).
      window: how far back a query attends; None is all the way.
      kernel: the implementation; shapes that it does not support use the plain one. Results agree
        up to rounding, except at padding, where a query has all keys masked in one implementation
        and attends to other padding in another.
    """
    if kernel == "splash" and supports_splash(query):
        return splash(query, key, value, segments, scale, softcap, window)
    mask = dense_mask(segments, window)
    if kernel == "cudnn" and supports_cudnn(query, softcap):
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=True, scale=scale, implementation="cudnn"
        )
    batch, steps, heads, dim = query.shape
    if steps <= LONG:
        parts = []
        size = max(PART, -(-steps // PARTS))
        for start in range(0, steps, size):  # A part needs no keys after its end.
            end = min(start + size, steps)
            seen = key[:, :end], value[:, :end], mask[:, :, start:end, :end]
            parts.append(_plain(query[:, start:end], *seen, scale, softcap))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
    count = -(-steps // CHUNK_QUERIES)
    size = -(-steps // count)
    missing = count * size - steps
    query = jnp.pad(query, ((0, 0), (0, missing), (0, 0), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, missing), (0, 0)))

    @jax.checkpoint  # Otherwise the scores of all chunks would be kept for the backward pass.
    def part(_: None, chunk: tuple[jax.Array, jax.Array]):
        return None, _plain(chunk[0], key, value, chunk[1], scale, softcap)

    queries = query.reshape(batch, count, size, heads, dim).swapaxes(0, 1)
    masks = mask.reshape(batch, 1, count, size, mask.shape[-1]).transpose(2, 0, 1, 3, 4)
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
    """Returns f[B, S, N, H]; query heads that share a key head are rows of one matrix product."""
    batch, steps, heads, dim = query.shape
    slots, kv_heads = key.shape[1], key.shape[2]
    grouped = (query * jnp.asarray(scale, query.dtype)).reshape(batch, steps, kv_heads, -1, dim)
    grouped = grouped.transpose(0, 2, 3, 1, 4)  # B K G S H
    shape = grouped.shape[:4]
    rows = grouped.reshape(batch, kv_heads, -1, dim)  # B K GS H
    scores = jnp.einsum("BKXH,BTKH->BKXT", rows, key, preferred_element_type=jnp.float32)
    scores = scores.reshape(*shape, slots)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(mask[:, :, None], scores, jnp.finfo(jnp.float32).min)
    # The maximum only keeps exp in range. Dividing after the product takes fewer divisions.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1)[..., None]  # B K G S 1
    weights = weights.astype(value.dtype).reshape(batch, kv_heads, -1, slots)
    mixed = jnp.einsum("BKXT,BTKH->BKXH", weights, value, preferred_element_type=jnp.float32)
    mixed = (mixed.reshape(*shape, dim) / total).astype(value.dtype)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, steps, heads, dim)


def supports_splash(query: jax.Array) -> bool:
    """Returns whether the rows are long enough for splash attention to pay off."""
    return query.shape[1] >= LANES


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    scale: float,
    softcap: float | None,
    window: SlidingWindow | None,
) -> jax.Array:
    """Returns f[B, S, N, H] like `attention`, except at padding, which attends to padding."""
    real = query.shape[1]
    missing = -real % LANES
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (query, key, value)
    )
    segments = jnp.pad(jnp.asarray(segments), ((0, 0), (0, missing)))
    steps = real + missing

    def attend(size: int | None):
        def on_chip(query: Any, key: Any, value: Any, segments: Any) -> Any:
            kernel = _splash_kernel(query.shape[2], steps, size, softcap)
            heads_first = (x.swapaxes(1, 2) for x in (query, key, value))
            return jax.vmap(kernel)(*heads_first, segments)

        return lambda: _on_each_chip(on_chip, query * scale, key, value, segments)

    if window is None:
        mixed = attend(None)()
    else:
        mixed = jax.lax.cond(window.applies, attend(window.size), attend(None))
    return mixed.swapaxes(1, 2)[:, :real]


def supports_cudnn(query: jax.Array, softcap: float | None) -> bool:
    """Returns whether cuDNN supports this on an Ampere or newer GPU."""
    steps, dim = query.shape[1], query.shape[3]
    narrow = query.dtype in (jnp.bfloat16, jnp.float16)
    return steps % 2 == 0 and narrow and softcap is None and dim <= 128 and dim % 8 == 0


def _splash_kernel(heads: int, steps: int, window: int | None, softcap: float | None) -> Any:
    """Returns a function (f[N, S, H], f[K, S, H], f[K, S, H], int32[S]) -> f[N, S, H]."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    shape = (steps, steps)
    if window is None:
        mask = splash_attention.CausalMask(shape)
    else:
        mask = splash_attention.LocalMask(shape, (window - 1, 0), 0)
    block = max(size for size in range(LANES, KERNEL_BLOCK_TOKENS + 1, LANES) if steps % size == 0)
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads),
        block_sizes=splash_attention.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block,
            use_fused_bwd_kernel=True,
        ),
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name=RESIDUALS,
        head_shards=1,
        q_seq_shards=1,
    )  # fmt: skip
    return lambda query, key, value, segments: kernel(
        query, key, value, splash_attention.SegmentIds(segments, segments)
    )


def _on_each_chip(
    function: Any, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array
) -> jax.Array:
    """Runs a single-chip kernel on each chip's rows and heads.

    If `tensor` does not divide the KV heads, they are repeated, so that each chip gets copies of
    those that its query heads share.
    """
    copies = math.lcm(key.shape[2], axis_size("tensor")) // key.shape[2]
    if copies > 1:
        key, value = (jnp.repeat(x, copies, axis=2) for x in (key, value))
    rows = PartitionSpec(RULES["batch"])
    places = PartitionSpec(RULES["batch"], None, RULES["heads"])
    on_chips = on_each_device(
        function, (places, places, places, rows), PartitionSpec(RULES["batch"], RULES["heads"])
    )
    return on_chips(query, key, value, segments)
