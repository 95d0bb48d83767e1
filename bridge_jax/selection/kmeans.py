"""k-means over the mesh: k-means++ seeding and Lloyd's iterations, the best of some restarts.

Sums of members are sums of integers: every value is rounded to two digits of a fixed point, and the
sum is the same in whatever order devices and threads add it up.
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
from bridge_jax.parallel.sharding import BATCH
from bridge_jax.selection.centers import plus_plus
from bridge_jax.selection.rows import (
    SPLIT,
    WHOLE,
    Rows,
    centered,
    gather,
    on_devices,
    place_rows,
    take,
)

RESTARTS, ITERATIONS = 4, 25  # Our defaults: later iterations move few rows.
TOLERANCE = 1e-4  # Of the mean variance of a coordinate, as scikit-learn's.


class Clusters(NamedTuple):
    """Of N rows.

    Attributes:
      labels: int[N], below K; a cluster may be empty where rows are copies of each other.
      centroids: f32[K, D].
      inertia: sum of squared distances to the centroids.
    """

    labels: np.ndarray
    centroids: np.ndarray
    inertia: float


def kmeans(
    embeddings: np.ndarray, clusters: int, seed: int, mesh: Mesh, restarts: int = RESTARTS
) -> Clusters:
    """Returns the clustering of the lowest inertia; time grows with N x K x D.

    Args:
      embeddings: f32[N, D] of length 1 at most.
      clusters: K; N where there are fewer rows.
      seed: of the seeding.
      mesh: its data axes share the rows.
      restarts: how often it is seeded and run.
    """
    count = len(embeddings)
    mean = embeddings.mean(0, dtype=np.float64)
    values = centered(embeddings)
    rows = place_rows(values, mesh)
    seeds = plus_plus(rows, count, min(clusters, count), seed, restarts, mesh)
    tolerance = TOLERANCE * float(np.square(values).mean(dtype=np.float64))
    found = None
    for first in seeds:
        labels, squared, centroids = lloyd(rows, first, digit(count), tolerance, mesh)
        inertia = float(gather(squared, count).sum(dtype=np.float64))
        if found is None or inertia < found.inertia:
            moved = (fetch(centroids) + mean).astype(np.float32)
            found = Clusters(gather(labels, count), moved, inertia)
    assert found, "restarts is above 0"
    return found


def digit(count: int) -> float:
    """Returns the base of the fixed point, a power of two: `count` values of 2 fit into int32."""
    return 2.0 ** min(15, 29 - math.ceil(math.log2(max(2, count))))


@functools.partial(jax.jit, static_argnames="mesh")
def lloyd(
    rows: Rows,
    seeds: jax.typing.ArrayLike,
    base: jax.typing.ArrayLike,
    tolerance: jax.typing.ArrayLike,
    mesh: Mesh,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns int32[M, R] labels, f32[M, R] squared distances and the f32[K, D] centroids.

    An empty cluster keeps its centroid. It ends when the centroids move by no more than
    `tolerance`, squared and summed, or after `ITERATIONS`.

    Args:
      rows: of length 2 at most.
      seeds: int32[K], the rows that are the first centroids.
      base: from `digit`.
      tolerance: squared distance.
      mesh: its data axes share the rows.
    """

    def run(values, real, seeds, base, tolerance):
        def moved(centroids):
            sums, sizes = _sums(values, real, centroids, base)
            means = sums / jnp.maximum(sizes, 1)[:, None]
            return jnp.where(sizes[:, None] > 0, means, centroids)

        def step(carry):
            turn, centroids, _ = carry
            new = moved(centroids)
            return turn + 1, new, jnp.square(new - centroids).sum()

        def goes_on(carry):
            turn, _, shift = carry
            return (turn < ITERATIONS) & (shift > tolerance)

        start = (0, take(values, seeds), jnp.float32(jnp.inf))
        centroids = lax.while_loop(goes_on, step, start)[1]
        labels, squared = lax.map(lambda x: nearest(x, centroids), values)
        return labels, squared, centroids

    return on_devices(run, mesh, (SPLIT, SPLIT, WHOLE, WHOLE, WHOLE), (SPLIT, SPLIT, WHOLE))(
        *rows, jnp.asarray(seeds), jnp.float32(base), jnp.float32(tolerance)
    )


def nearest(x: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns int32[R], the centroid nearest each row, the first of equals; f32[R], how far^2."""
    product = jnp.einsum("RD,KD->RK", x, centroids, precision=lax.Precision.HIGHEST)
    partial = jnp.square(centroids).sum(-1) - 2 * product
    squared = jnp.square(x).sum(-1) + partial.min(-1)
    return partial.argmin(-1).astype(jnp.int32), jnp.maximum(squared, 0)


def _sums(
    values: jax.Array, real: jax.Array, centroids: jax.Array, base: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns f32[K, D], the sum of each cluster's members over all devices, and their number."""
    clusters, dim = centroids.shape

    def block(sums, inputs):
        x, real = inputs
        labels, _ = nearest(x, centroids)
        labels = jnp.where(real, labels, clusters)  # Out of range: such a row is dropped.
        high = jnp.round(x * base)
        low = jnp.round((x * base - high) * base)
        digits = jnp.concatenate([high, low, jnp.ones((len(x), 1))], 1).astype(jnp.int32)
        return sums.at[labels].add(digits, mode="drop"), None

    sums, _ = lax.scan(block, jnp.zeros((clusters, 2 * dim + 1), jnp.int32), (values, real))
    high, low, sizes = jnp.split(lax.psum(sums, BATCH), (dim, 2 * dim), 1)
    return (high + low / base) / base, sizes[:, 0]
