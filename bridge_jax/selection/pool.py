"""Places a pool of rows on the mesh, in blocks whose size depends only on the number of rows.

Each device processes its blocks one at a time. Besides the rows, it holds only the temporary arrays
of a block, a few numbers per row and a few vectors per cluster. All devices compute a block by the
same operations. So with `best` and integer sums, one device and many choose the same rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import BATCH, batch_devices

SPLIT, WHOLE = PartitionSpec(BATCH), PartitionSpec()
SMALLEST, LARGEST = 8, 4096  # Rows per block.
NOWHERE = np.iinfo(np.int32).max  # A row index that no row has.


class PoolRows(NamedTuple):
    """N rows as M blocks of R, padded with zeros; the blocks are split over the devices.

    Attributes:
      values: f32[M, R, D].
      real: bool[M, R], false for padding.
    """

    values: jax.Array
    real: jax.Array


def block_rows(count: int) -> int:
    """Returns R, a power of two that gives a pool 8 to 16 blocks (our default).

    A pool of under 57 rows has fewer, one of over 65,536 has more.
    """
    return min(LARGEST, max(SMALLEST, 2 ** int(np.ceil(np.log2(max(1, count / 16))))))


def place(values: np.ndarray, mesh: Mesh, fill: Any = 0) -> jax.Array:
    """Places [N, ...], held by every process, on the mesh as [M, R, ...], padded with `fill`."""
    rows, parts = block_rows(len(values)), batch_devices(mesh)
    blocks = -(-len(values) // (rows * parts)) * parts

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(blocks)
        held = values[start * rows : stop * rows]
        whole = np.full(((stop - start) * rows, *values.shape[1:]), fill, values.dtype)
        whole[: len(held)] = held
        return whole.reshape(-1, rows, *values.shape[1:])

    shape = (blocks, rows, *values.shape[1:])
    return jax.make_array_from_callback(shape, NamedSharding(mesh, SPLIT), part)


def place_rows(values: np.ndarray, mesh: Mesh) -> PoolRows:
    """Places f[N, D] on the mesh as f32 rows."""
    real = place(np.ones(len(values), bool), mesh, False)
    return PoolRows(place(np.asarray(values, np.float32), mesh), real)


def gather(values: jax.Array, count: int) -> np.ndarray:
    """Returns the first `count` rows of [M, R, ...] as a NumPy array [count, ...]."""
    return fetch(values).reshape(-1, *values.shape[2:])[:count]


def centered(embeddings: np.ndarray) -> np.ndarray:
    """Subtracts the mean from f32[N, D]: distances stay the same, and products round less."""
    mean = embeddings.mean(0, dtype=np.float64).astype(np.float32)
    return embeddings.astype(np.float32, copy=False) - mean


def on_devices(function: Any, mesh: Mesh, inputs: Any, outputs: Any) -> Any:
    """Runs `function` on each device's blocks; inputs and outputs are `SPLIT` or `WHOLE`."""
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


# The functions below are called inside `on_devices`, with the blocks of one device.


def numbers(real: jax.Array) -> jax.Array:
    """Returns int32[m, R]: each row's index in the pool."""
    first = lax.axis_index(BATCH) * real.size
    return (first + jnp.arange(real.size, dtype=jnp.int32)).reshape(real.shape)


def best(value: jax.Array, number: jax.Array) -> jax.Array:
    """Returns int32[]: the row with the highest value on any device; ties go to the first row."""
    top = lax.pmax(value.max(), BATCH)
    return lax.pmin(jnp.where(value == top, number, NOWHERE).min(), BATCH)


def take(values: jax.Array, number: jax.Array) -> jax.Array:
    """Returns f32[..., D]: the rows with these indices on any device; zeros for `NOWHERE`."""
    held = values.reshape(-1, values.shape[-1])
    at = number - lax.axis_index(BATCH) * len(held)
    mine = (at >= 0) & (at < len(held))
    found = jnp.where(mine[..., None], held[jnp.where(mine, at, 0)], 0)
    return lax.psum(found, BATCH)
