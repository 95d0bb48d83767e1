"""Attention kernels of the makers of the chips: JAX's splash attention for TPU, cuDNN's for GPU.

Neither writes the S x S scores to memory. Splash attention skips blocks that nobody sees and reads
segment ids; cuDNN's flash attention (2205.14135) is given the mask.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bridge_jax.models.visible import Visible, Window
from bridge_jax.parallel.sharding import RULES

LANES = 128  # A block of splash attention is a multiple of this,
BLOCK = 512  # and at most this: what it needs has to lie beside each other in a core's memory.


def splash_takes(query: jax.Array, visible: Visible) -> bool:
    """Returns whether splash attention pays: for whole rows that are not short."""
    return visible.start is None and query.shape[1] >= LANES


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: Visible,
    scale: float,
    softcap: float | None,
    window: Window | None,
) -> jax.Array:
    """Returns f[B, S, N, H] like `attention`; at padding, which sees padding, something else."""
    real = query.shape[1]
    missing = -real % LANES
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) for x in (query, key, value)
    )
    segments = jnp.pad(jnp.asarray(visible.query), ((0, 0), (0, missing)))
    steps = real + missing

    def attend(size: int | None):
        def on_chip(query: Any, key: Any, value: Any, segments: Any) -> Any:
            kernel = _splash_kernel(query.shape[2], steps, size, softcap)
            return jax.vmap(kernel)(*(_heads_first(x) for x in (query, key, value)), segments)

        return lambda: _on_each_chip(on_chip, query * scale, key, value, segments)

    if window is None:
        mixed = attend(None)()
    else:
        mixed = jax.lax.cond(window.applies, attend(window.size), attend(None))
    return _heads_first(mixed)[:, :real]


def cudnn_takes(query: jax.Array, visible: Visible, softcap: float | None) -> bool:
    """Returns whether cuDNN can compute this, on cards since Ampere."""
    steps, dim = query.shape[1], query.shape[3]
    narrow = query.dtype in (jnp.bfloat16, jnp.float16)
    whole = visible.start is None and steps % 2 == 0
    return whole and narrow and softcap is None and dim <= 128 and dim % 8 == 0


def cudnn(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, scale: float
) -> jax.Array:
    """Returns f[B, S, N, H] like `attention`."""
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, scale=scale, implementation="cudnn"
    )


def _splash_kernel(heads: int, steps: int, window: int | None, softcap: float | None) -> Any:
    """Returns (f[N, S, H], f[K, S, H], f[K, S, H], int32[S]) -> f[N, S, H]."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    shape = (steps, steps)
    if window is None:
        mask = splash_attention.CausalMask(shape)
    else:
        mask = splash_attention.LocalMask(shape, (window - 1, 0), 0)
    block = max(size for size in range(LANES, BLOCK + 1, LANES) if steps % size == 0)
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * heads),
        block_sizes=splash_attention.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block,
            use_fused_bwd_kernel=True,
        ),
        attn_logits_soft_cap=softcap,
        head_shards=1,
        q_seq_shards=1,
    )  # fmt: skip
    return lambda query, key, value, segments: kernel(
        query, key, value, splash_attention.SegmentIds(segments, segments)
    )


def _on_each_chip(function: Any, *inputs: jax.Array) -> jax.Array:
    """Runs the kernel, which knows no mesh, on each chip's rows and heads."""
    if jax.sharding.get_abstract_mesh().empty:
        return function(*inputs)
    rows = PartitionSpec(RULES["batch"])
    places = PartitionSpec(RULES["batch"], None, RULES["heads"])
    return jax.shard_map(
        function,
        in_specs=(places, places, places, rows),
        out_specs=PartitionSpec(RULES["batch"], RULES["heads"]),
        check_vma=False,
    )(*inputs)


def _heads_first(x: jax.Array) -> jax.Array:
    """Swaps the axes of slots and heads."""
    return x.swapaxes(1, 2)
