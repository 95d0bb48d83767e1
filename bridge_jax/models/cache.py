"""The KV cache of generation, and attention over it.

Each layer has its own cache, with one slot per sequence. Position p of a sequence is stored at
place p of its slot. In a local layer, a slot may have fewer places than the longest sequence has
tokens (`places_of`). It is then a ring: position p is stored at p modulo the number of places, and
only the last positions are kept. There is no left padding.

Slots are read whole, unless their number of places is a larger multiple of `CHUNK_PLACES`. Then
they are read in chunks, only up to the end of the fullest slot.

Letters of shapes: G rows of tokens, S tokens per row, B slots, T places per slot, N query heads,
K key and value heads, Q query heads per key head, H head width.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import BATCH, axis_size, on_each_device

CHUNK_PLACES = 512  # Places per chunk of a long slot.


class LayerCache(NamedTuple):
    """Keys and values of a layer, with axes in the order that matrix products need.

    Attributes:
      keys, values: [K, B, T, H] each, in the compute dtype, bf16 or int8 (`DecoderConfig.cache`).
      key_scales, value_scales: f32[K, B, T], factors of the int8 entries; None for other dtypes.
    """

    keys: jax.Array
    values: jax.Array
    key_scales: jax.Array | None = None
    value_scales: jax.Array | None = None


class Places(NamedTuple):
    """Locations of tokens in a cache.

    Attributes:
      positions: int32[G, S], position of each token in its sequence; consecutive within a row.
      slots: int32[G], slot of each row, numbered within its chip. A row with a number beyond the
        chip's last slot is not written. None if row g is in slot g.
      last: int32[G], the highest position that the row's slot holds after this call.
    """

    positions: jax.Array
    slots: jax.Array | None
    last: jax.Array


def places_of(config: DecoderConfig, length: int, ahead: int) -> tuple[int, ...]:
    """Returns T, the number of places per slot, for each layer.

    Args:
      config: config of the decoder.
      length: tokens of the longest sequence.
      ahead: most tokens of a sequence that are written before the first of them attends.
    """
    if not config.window or not any(config.local):
        return (length,) * config.num_layers
    ring = min(length, config.window + ahead)
    return tuple(ring if local else length for local in config.local)


def init_cache(
    config: DecoderConfig, slots: int, length: int, ahead: int
) -> tuple[LayerCache, ...]:
    """Returns one empty cache of `slots` slots per layer; for other arguments see `places_of`."""

    dtypes = {"compute": config.dtype, "bf16": jnp.bfloat16, "int8": jnp.int8}

    def empty(places: int) -> LayerCache:
        shape = (config.num_kv_heads, slots, places, config.head_dim)
        values = jnp.zeros(shape, dtypes[config.cache])
        scales = jnp.zeros(shape[:-1]) if config.cache == "int8" else None
        return LayerCache(values, values, scales, scales)

    return tuple(empty(size) for size in places_of(config, length, ahead))


def cache_spec(kv_heads: int) -> PartitionSpec:
    """Returns the partition spec of keys and values on the current mesh (`jax.set_mesh`)."""
    return PartitionSpec(_specs(kv_heads)[1], BATCH)


def copy_slots(
    cache: tuple[LayerCache, ...], sources: jax.Array, targets: jax.Array
) -> tuple[LayerCache, ...]:
    """Copies slots, each chip within its own part of the cache.

    Args:
      cache: one cache per layer.
      sources, targets: int32[C] on each chip, slots numbered within the chip. They are copied in
        order, up to the first source of -1.
    """

    def copy(cache: tuple[LayerCache, ...], sources: jax.Array, targets: jax.Array):
        def one(i: jax.Array, cache: tuple[LayerCache, ...]):
            def moved(a: jax.Array) -> jax.Array:
                slot = jax.lax.dynamic_slice_in_dim(a, sources[i], 1, axis=1)
                return jax.lax.dynamic_update_slice_in_dim(a, slot, targets[i], axis=1)

            return jax.tree.map(moved, cache)

        return jax.lax.fori_loop(0, jnp.argmax(jnp.append(sources, -1) < 0), one, cache)

    spec = cache_spec(cache[0].keys.shape[0])
    specs = jax.tree.map(lambda _: spec, cache)
    rows = PartitionSpec(BATCH)
    return on_each_device(copy, (specs, rows, rows), specs)(cache, sources, targets)


def cached_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cache: LayerCache,
    places: Places,
    scale: float,
    softcap: float | None,
    window: int | None,
) -> tuple[jax.Array, LayerCache]:
    """Writes keys and values to the cache, and attends to positions up to each query's own.

    All rows are written before any row attends, so consecutive parts of one sequence may be several
    rows of the same call.

    Args:
      query: f[G, S, N, H].
      key, value: f[G, S, K, H].
      cache: cache of this layer.
      places: where the tokens go in the cache.
      scale, softcap: as in `attention.attention`.
      window: how many positions a query attends to, its own included; None is all.

    Returns:
      f[G, S, N, H], and the cache with these keys and values.
    """
    heads, kv = _specs(key.shape[2], query.shape[2])
    run = functools.partial(
        _attend, scale=scale, softcap=softcap, window=window, group=query.shape[2] // key.shape[2]
    )
    rows, spec = PartitionSpec(BATCH), cache_spec(key.shape[2])
    new, cached = PartitionSpec(BATCH, None, kv), jax.tree.map(lambda _: spec, cache)
    asked = PartitionSpec(BATCH, None, heads)
    where = jax.tree.map(lambda _: rows, places)
    return on_each_device(run, (asked, new, new, cached, where), (asked, cached))(
        query, key, value, cache, places
    )


def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cache: LayerCache,
    places: Places,
    scale: float,
    softcap: float | None,
    window: int | None,
    group: int,
) -> tuple[jax.Array, LayerCache]:
    """Computes `cached_attention` on one chip; `group` is Q of the whole model."""
    cache = _written(key, value, cache, places)
    return _mixed(query, cache, places, scale, softcap, window, group), cache


def _written(key: jax.Array, value: jax.Array, cache: LayerCache, places: Places) -> LayerCache:
    """Returns the cache of one chip with the new keys and values in it."""
    size = cache.keys.shape[2]
    slots = jnp.arange(len(key)) if places.slots is None else places.slots
    at = (slots[:, None], places.positions % size)
    new = [x.transpose(2, 0, 1, 3) for x in (key, value)]  # K G S H
    scales: list[Any] = [None, None]
    if cache.key_scales is not None:
        scales = [jnp.abs(x).max(-1).astype(jnp.float32) / 127 for x in new]  # K G S
        new = [jnp.round(x / jnp.maximum(scale, 1e-30)[..., None]) for x, scale in zip(new, scales)]
    return jax.tree.map(
        lambda kept, x: kept.at[:, *at].set(x.astype(kept.dtype), mode="drop"),
        cache,
        LayerCache(*new, *scales),
    )


def _read_heads(heads: int, kv_heads: int, group: int) -> tuple[int, Callable[[Any], Any]]:
    """Returns the number of key heads that a chip's `heads` query heads read, and a selector.

    If `tensor` does not divide the key heads, every chip holds all of them and selects its own.
    """
    if heads >= group * kv_heads:
        return kv_heads, lambda kept: kept
    first = jax.lax.axis_index("tensor") * heads
    if heads % group and group % heads:  # One key head per query head.
        return heads, lambda kept: jnp.take(kept, (first + jnp.arange(heads)) // group, axis=0)
    own = max(1, heads // group)
    return own, lambda kept: jax.lax.dynamic_slice_in_dim(kept, first // group, own)


def _mixed(
    query: jax.Array,
    cache: LayerCache,
    places: Places,
    scale: float,
    softcap: float | None,
    window: int | None,
    group: int,
) -> jax.Array:
    """Returns the attention output f[G, S, N, H] of one chip's queries over its cache."""
    rows, steps, heads, dim = query.shape
    size = cache.keys.shape[2]
    positions, slots, last = places
    own, of_chip = _read_heads(heads, len(cache.keys), group)

    def read(kept: jax.Array, start: Any, count: int) -> jax.Array:
        """Returns [own, G, count, ...]."""
        kept = of_chip(kept)
        if count < size:
            kept = jax.lax.dynamic_slice_in_dim(kept, start, count, axis=2)
        return kept if slots is None else jnp.take(kept, slots, axis=1, mode="clip")

    asked = query.reshape(rows, steps, own, -1, dim).transpose(2, 0, 1, 3, 4)  # own G S Q H
    asked = asked.reshape(own, rows, -1, dim) * jnp.asarray(scale, query.dtype)  # own G SQ H

    def part(start: Any, state: Any, count: int) -> Any:
        """Adds `count` places from `start` on to a streaming softmax."""
        best, total, mixed = state
        place = start + jnp.arange(count)
        # The position that each place holds.
        position = last[:, None, None] - (last[:, None, None] - place) % size  # G 1 T
        seen = (position <= positions[..., None]) & (position >= 0)  # G S T
        if window is not None:
            seen &= position > positions[..., None] - window
        held = jax.tree.map(lambda kept: read(kept, start, count), cache)
        keys, values = held.keys.astype(asked.dtype), held.values.astype(asked.dtype)
        scores = jnp.einsum("KGTH,KGXH->KGTX", keys, asked, preferred_element_type=jnp.float32)
        # XLA on CPU would fold the transpose below into the product, and then transpose the keys,
        # which takes longer. The barrier keeps the two apart.
        scores = jax.lax.platform_dependent(
            scores, cpu=jax.lax.optimization_barrier, default=lambda scores: scores
        ).swapaxes(2, 3)
        if held.key_scales is not None:
            scores *= held.key_scales[:, :, None]
        if softcap is not None:
            scores = softcap * jnp.tanh(scores / softcap)
        scores = scores.reshape(own, rows, steps, -1, count)  # own G S Q T
        scores = jnp.where(seen[:, :, None], scores, -jnp.inf).reshape(own, rows, -1, count)
        top = jnp.maximum(best, scores.max(-1, keepdims=True))
        weights, shrink = jnp.exp(scores - top), jnp.exp(best - top)
        total = total * shrink + weights.sum(-1, keepdims=True)
        if held.value_scales is not None:
            weights *= held.value_scales[:, :, None]
        weights = weights.astype(values.dtype)
        more = jnp.einsum("KGXT,KGTH->KGXH", weights, values, preferred_element_type=jnp.float32)
        return top, total, mixed * shrink + more

    column = (*asked.shape[:-1], 1)
    begin = jnp.full(column, -1e30), jnp.zeros(column), jnp.zeros(asked.shape, jnp.float32)
    if size <= CHUNK_PLACES:
        _, total, mixed = part(0, begin, size)
    else:
        # Chunks must divide T; otherwise the last one would reach beyond the end.
        count = CHUNK_PLACES if size % CHUNK_PLACES == 0 else size
        filled = jnp.minimum(last.max() + 1, size)
        parts = (filled + count - 1) // count

        def chunk(i: Any, state: Any) -> Any:
            return part(i * count, state, count)

        _, total, mixed = jax.lax.fori_loop(0, parts, chunk, begin)
    # A row that is in no slot attends to nothing, so its total is 0.
    mixed = (mixed / jnp.maximum(total, 1e-30)).astype(query.dtype)
    mixed = mixed.reshape(own, rows, steps, -1, dim)
    return mixed.transpose(1, 2, 0, 3, 4).reshape(query.shape)


def _specs(kv_heads: int, heads: int = 0) -> tuple[str | None, str | None]:
    """Returns the mesh axes of query and key heads: "tensor" if it divides them, else None."""
    parts = axis_size("tensor")
    return (
        "tensor" if heads % parts == 0 else None,
        "tensor" if kv_heads % parts == 0 else None,
    )
