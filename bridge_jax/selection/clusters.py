"""Clusters a pool by k-means over the mesh, and measures the density around each row.

k-means sums integers: every value is rounded to a fixed-point number of two digits (see `digit`),
so that the sum is the same in any order. Otherwise the cluster of a row near a border would depend
on the number of devices, and so would the selection.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import BATCH, batch_devices
from bridge_jax.selection.greedy import centers
from bridge_jax.selection.pool import (
    SPLIT,
    WHOLE,
    PoolRows,
    centered,
    gather,
    numbers,
    on_devices,
    place,
    place_rows,
    take,
)

RESTARTS, ITERATIONS = 4, 25  # Our defaults: later iterations move few rows.
TOLERANCE = 1e-4  # A fraction of the mean variance per coordinate, as in scikit-learn.
NEIGHBOURS = 20  # K in TypiClust (2202.02794).


class Clusters(NamedTuple):
    """A clustering of N rows.

    Attributes:
      labels: int[N], below K; a cluster may be empty if rows are copies of each other.
      centroids: f32[K, D].
      inertia: the sum of the squared distances between rows and their centroids.
    """

    labels: np.ndarray
    centroids: np.ndarray
    inertia: float


def kmeans(
    embeddings: np.ndarray, clusters: int, seed: int, mesh: Mesh, restarts: int = RESTARTS
) -> Clusters:
    """Returns the clustering with the lowest inertia among several runs, each O(N K D).

    Args:
      embeddings: f32[N, D], rows with an L2 norm of at most 1.
      clusters: K; lowered to N if there are fewer rows.
      seed: the seed of the random initial centroids.
      mesh: the rows are split over its data axes.
      restarts: the number of runs.
    """
    count = len(embeddings)
    mean = embeddings.mean(0, dtype=np.float64)
    values = centered(embeddings)
    rows = place_rows(values, mesh)
    # The seeding of k-means++ (Arthur, Vassilvitskii 2007).
    starts = np.random.default_rng(seed).integers(count, size=restarts)
    seeds = fetch(centers(rows, starts, min(clusters, count), mesh, seed, expanded=True))
    tolerance = TOLERANCE * float(np.square(values).mean(dtype=np.float64))
    found = []
    for first in seeds:
        labels, squared, centroids = lloyd(rows, first, digit(count), tolerance, mesh)
        inertia = float(gather(squared, count).sum(dtype=np.float64))
        moved = (fetch(centroids) + mean).astype(np.float32)
        found.append(Clusters(gather(labels, count), moved, inertia))
    return min(found, key=lambda clusters: clusters.inertia)


def digit(count: int) -> float:
    """Returns the base of a fixed-point digit, a power of two.

    The sum of `count` values of 2 fits into int32.
    """
    return 2.0 ** min(15, 29 - math.ceil(math.log2(max(2, count))))


@functools.partial(jax.jit, static_argnames="mesh")
def lloyd(
    rows: PoolRows,
    seeds: jax.typing.ArrayLike,
    base: jax.typing.ArrayLike,
    tolerance: jax.typing.ArrayLike,
    mesh: Mesh,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs Lloyd's algorithm; returns labels, squared distances and centroids.

    The shapes are int32[M, R], f32[M, R] and f32[K, D]. An empty cluster keeps its centroid. The
    loop ends when the sum of the centroids' squared moves is at most `tolerance`, or after
    `ITERATIONS`.

    Args:
      rows: with an L2 norm of at most 2.
      seeds: int32[K], the indices of the rows that are the initial centroids.
      base: the base of the fixed-point digits, from `digit`.
      tolerance: a squared distance.
      mesh: the rows are split over its data axes.
    """

    def run(rows, seeds, base, tolerance):
        def step(carry):
            turn, centroids, _ = carry
            sums, sizes = _sums(rows, centroids, base)
            means = sums / jnp.maximum(sizes, 1)[:, None]
            new = jnp.where(sizes[:, None] > 0, means, centroids)
            return turn + 1, new, jnp.square(new - centroids).sum()

        def goes_on(carry):
            turn, _, shift = carry
            return (turn < ITERATIONS) & (shift > tolerance)

        start = (0, take(rows.values, seeds), jnp.float32(jnp.inf))
        centroids = lax.while_loop(goes_on, step, start)[1]
        labels, squared = lax.map(lambda x: nearest(x, centroids), rows.values)
        return labels, squared, centroids

    given = jnp.asarray(seeds), jnp.float32(base), jnp.float32(tolerance)
    inputs, outputs = (SPLIT, WHOLE, WHOLE, WHOLE), (SPLIT, SPLIT, WHOLE)
    return on_devices(run, mesh, inputs, outputs)(rows, *given)


def nearest(x: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the nearest centroid of each row, int32[R], and its squared distance, f32[R]."""
    product = jnp.einsum("RD,KD->RK", x, centroids, precision=lax.Precision.HIGHEST)
    partial = jnp.square(centroids).sum(-1) - 2 * product
    squared = jnp.square(x).sum(-1) + partial.min(-1)
    return partial.argmin(-1).astype(jnp.int32), jnp.maximum(squared, 0)


def _sums(rows: PoolRows, centroids: jax.Array, base: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns each cluster's sum of rows, f32[K, D], and count, int32[K], over all devices."""
    clusters, dim = centroids.shape

    def block(sums, inputs):
        x, real = inputs
        labels, _ = nearest(x, centroids)
        labels = jnp.where(real, labels, clusters)  # Out of range, so padding is dropped.
        high = jnp.round(x * base)
        low = jnp.round((x * base - high) * base)
        digits = jnp.concatenate([high, low, jnp.ones((len(x), 1))], 1).astype(jnp.int32)
        return sums.at[labels].add(digits, mode="drop"), None

    sums, _ = lax.scan(block, jnp.zeros((clusters, 2 * dim + 1), jnp.int32), rows)
    high, low, sizes = jnp.split(lax.psum(sums, BATCH), (dim, 2 * dim), 1)
    return (high + low / base) / base, sizes[:, 0]


def typicality(embeddings: np.ndarray, labels: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Returns f32[N]: 1 / mean distance to the K nearest rows of the same cluster (2202.02794).

    In a cluster of K rows or fewer, all other rows count. A row alone in its cluster gets 0.

    Args:
      embeddings: f32[N, D], L2-normalized.
      labels: int[N], the cluster of each row.
      mesh: the rows are split over its data axes.
    """
    order = np.argsort(labels, kind="stable")
    # Padding gets a label of its own, after all clusters.
    label = place(labels[order].astype(np.int32), mesh, fill=int(labels.max()) + 1)
    found = neighbour_distances(place_rows(centered(embeddings)[order], mesh), label, mesh)
    mean = np.empty(len(labels), np.float32)
    mean[order] = gather(found, len(labels))
    with np.errstate(divide="ignore"):
        return np.where(np.isnan(mean), 0, 1 / np.maximum(mean, 1e-6))


@functools.partial(jax.jit, static_argnames="mesh")
def neighbour_distances(rows: PoolRows, label: jax.Array, mesh: Mesh) -> jax.Array:
    """Returns f32[M, R]: the mean distance to the K nearest rows of the same label; NaN if none.

    The blocks travel around the devices in a ring. Two blocks are compared only if they share a
    label, which few do, since the rows are sorted by label.

    Args:
      rows: sorted by label.
      label: int32[M, R].
      mesh: the rows are split over its data axes.
    """
    devices = batch_devices(mesh)
    ring = [(i, (i + 1) % devices) for i in range(devices)]

    def run(rows, label):
        mine = (rows.values, label, numbers(rows.real))

        def visit(_, carry):
            held, nearest = carry
            nearest = lax.map(lambda inputs: _closer(inputs, held), (mine, nearest))
            return jax.tree.map(lambda a: lax.ppermute(a, BATCH, ring), held), nearest

        nearest = jnp.full((*rows.real.shape, NEIGHBOURS), jnp.inf)
        _, nearest = lax.fori_loop(0, devices, visit, (mine, nearest))

        def add(carry, squared):  # In a fixed order: the compiler's depends on the shapes.
            total, count = carry
            known = jnp.isfinite(squared)
            return (total + jnp.where(known, jnp.sqrt(squared), 0), count + known), None

        zeros = jnp.zeros(rows.real.shape)
        total, count = lax.scan(add, (zeros, zeros), jnp.moveaxis(nearest, -1, 0))[0]
        return total / count

    return on_devices(run, mesh, (SPLIT, SPLIT), SPLIT)(rows, label)


def _closer(inputs, held):
    """Returns f32[R, K]: the smallest squared distances so far, updated with the blocks `held`."""
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
