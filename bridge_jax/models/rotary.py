"""Rotary position embeddings (RoFormer, 2104.09864) in the layout of two halves."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridge_jax.models.config import Rope


class Rotation(NamedTuple):
    """Sines and cosines of the angles of each position: f32[B, S, 1, H/2] each."""

    sin: jax.Array
    cos: jax.Array


def frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Returns f32[H/2], radians a token."""
    half = head_dim // 2
    plain = rope.theta ** (-np.arange(half) / half)
    if not rope.original_context:
        return (plain / rope.factor).astype(np.float32)
    # 1 where a wavelength is short and kept, 0 where it is long and stretched.
    turns = rope.original_context * plain / (2 * math.pi)
    keep = np.clip((turns - rope.low) / (rope.high - rope.low), 0, 1)
    return (plain * (keep + (1 - keep) / rope.factor)).astype(np.float32)


def rotation(rope: Rope, head_dim: int, positions: jax.Array) -> Rotation:
    """Returns the rotation of positions int32[B, S]; the same for every layer."""
    angle = positions[:, :, None, None] * jnp.asarray(frequencies(rope, head_dim))
    return Rotation(jnp.sin(angle), jnp.cos(angle))


def rotate(x: jax.Array, by: Rotation) -> jax.Array:
    """Rotates f[B, S, N, H]."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * by.cos - second * by.sin, second * by.cos + first * by.sin], -1
    )
    return rotated.astype(x.dtype)
