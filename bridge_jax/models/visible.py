"""Who sees whom in attention: packed segments, a cache, and windows, in one form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Visible(NamedTuple):
    """Who sees whom: a query sees the keys of its own segment in its own slot and before.

    Attributes:
      query: int32[B, S], the segment of each query.
      key: int32[B, T], the segment of each key; nobody sees 0, which is padding.
      start: int32[], the slot of the first query; None for whole rows, where S is T.
    """

    query: jax.Array
    key: jax.Array
    start: jax.Array | None = None


class Window(NamedTuple):
    """Where `applies` (bool[]), the last `size` slots are seen, the query's own included."""

    size: int
    applies: jax.Array


def dense_mask(visible: Visible, window: Window | None = None) -> jax.Array:
    """Returns bool[B, 1, S, T]: who sees whom, written out."""
    steps, slots = visible.query.shape[1], visible.key.shape[1]
    start = 0 if visible.start is None else visible.start
    ago = start + jnp.arange(steps)[:, None] - jnp.arange(slots)[None, :]
    seen = ago >= 0
    if window is not None:
        seen &= (ago < window.size) | ~window.applies
    same = visible.query[:, :, None] == visible.key[:, None, :]
    return (same & seen & (visible.key > 0)[:, None, :])[:, None]
