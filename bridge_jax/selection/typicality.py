"""How dense a pool is around each of its rows, within the row's cluster."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bridge_jax.parallel.sharding import BATCH, batch_devices
from bridge_jax.selection.rows import (
    SPLIT,
    Rows,
    centered,
    gather,
    numbers,
    on_devices,
    place,
    place_rows,
)

NEIGHBOURS = 20  # K of 2202.02794.


def typicality(embeddings: np.ndarray, labels: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Returns f32[N]: 1 / mean distance to the K nearest of the same cluster (2202.02794).

    Where a cluster has K or fewer, all others of it count; one alone has 0.

    Args:
      embeddings: f32[N, D], L2-normalised.
      labels: int[N], the clusters.
      mesh: its data axes share the rows.
    """
    order = np.argsort(labels, kind="stable")
    # Rows that fill up are a cluster of their own, after all others.
    label = place(labels[order].astype(np.int32), mesh, fill=int(labels.max()) + 1)
    found = neighbour_distances(place_rows(centered(embeddings)[order], mesh), label, mesh)
    mean = np.empty(len(labels), np.float32)
    mean[order] = gather(found, len(labels))
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(mean), 0, 1 / np.maximum(mean, 1e-6))


@functools.partial(jax.jit, static_argnames=("mesh", "neighbours"))
def neighbour_distances(
    rows: Rows, label: jax.Array, mesh: Mesh, neighbours: int = NEIGHBOURS
) -> jax.Array:
    """Returns f32[M, R]: the mean distance to the nearest of the same label; NaN for one alone.

    The blocks go around the devices. Of two blocks only those are compared that share a label,
    which are few when the rows are in the order of their labels.

    Args:
      rows: sorted by label.
      label: int32[M, R].
      mesh: its data axes share the rows.
      neighbours: K.
    """
    devices = batch_devices(mesh)
    ring = [(i, (i + 1) % devices) for i in range(devices)]

    def run(values, real, label):
        mine = (values, label, numbers(real))

        def visit(_, carry):
            held, nearest = carry
            nearest = lax.map(lambda inputs: _closer(inputs, held), (mine, nearest))
            return jax.tree.map(lambda a: lax.ppermute(a, BATCH, ring), held), nearest

        nearest = jnp.full((*real.shape, neighbours), jnp.inf)
        _, nearest = lax.fori_loop(0, devices, visit, (mine, nearest))

        def add(carry, squared):  # One after the other: a sum's bits depend on how it is cut up.
            total, count = carry
            known = jnp.isfinite(squared)
            return (total + jnp.where(known, jnp.sqrt(squared), 0), count + known), None

        zeros = jnp.zeros(real.shape)
        total, count = lax.scan(add, (zeros, zeros), jnp.moveaxis(nearest, -1, 0))[0]
        return total / count

    return on_devices(run, mesh, (SPLIT, SPLIT, SPLIT), SPLIT)(*rows, label)


def _closer(inputs, held):
    """Returns f32[R, K]: the squared distances nearest to a block, so far or among `held`."""
    (x, label, number), nearest = inputs

    def compare(nearest, keys):
        product = jnp.einsum("RD,TD->RT", x, keys[0], precision=lax.Precision.HIGHEST)
        squared = jnp.square(x).sum(-1)[:, None] - 2 * product + jnp.square(keys[0]).sum(-1)
        counts = (label[:, None] == keys[1]) & (number[:, None] != keys[2])
        squared = jnp.where(counts, jnp.maximum(squared, 0), jnp.inf)
        both = jnp.concatenate([nearest, squared], 1)
        return -lax.top_k(-both, nearest.shape[1])[0]

    def block(nearest, keys):
        share = (label.min() <= keys[1].max()) & (keys[1].min() <= label.max())
        return lax.cond(share, compare, lambda nearest, _: nearest, nearest, keys), None

    return lax.scan(block, nearest, held)[0]
