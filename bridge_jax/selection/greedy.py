"""Selects rows greedily: k-center, D^2 sampling, herding, coverage.

Each choice takes one pass over the pool. Except in herding, copies of chosen rows come after all
other rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import BATCH
from bridge_jax.selection.pool import (
    NOWHERE,
    SPLIT,
    WHOLE,
    PoolRows,
    best,
    centered,
    gather,
    numbers,
    on_devices,
    place,
    place_rows,
    take,
)

COPY = 2e-5  # Rows at most this far apart are copies, up to rounding. The largest distance is 2.
SAME = 100 * COPY  # Distances that differ by at most this count as equal.
_TAKEN, _LAST = -1.0, -1e30


def farthest_first(embeddings: np.ndarray, count: int, mesh: Mesh) -> np.ndarray:
    """Selects by k-center greedy (Gonzalez 1985; core-sets, 1708.00489); returns int[count].

    The first row is the one nearest the mean (our default), which is a typical question and not an
    outlier. Each next row is the one farthest from all chosen rows; ties go to the lowest index.

    Args:
      embeddings: f32[N, D], L2-normalized.
      count: at most N.
      mesh: the rows are split over its data axes.
    """
    values = centered(embeddings)
    start = np.argmin(np.linalg.norm(values, axis=1), keepdims=True)
    return fetch(centers(place_rows(values, mesh), start, count, mesh))[0]


def d2_sample(vectors: np.ndarray, count: int, seed: int, mesh: Mesh) -> np.ndarray:
    """Selects by BADGE (1906.03671), k-means++ seeding on gradient embeddings; returns int[count].

    The first row is the one with the largest norm, as in the authors' code. Each next row is drawn
    with a probability proportional to its squared distance to the nearest chosen row.

    Args:
      vectors: f32[N, D], of any norm.
      count: at most N.
      seed: the seed of the draws.
      mesh: the rows are split over its data axes.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    start = np.argmax(lengths, keepdims=True)
    rows = place_rows(vectors / max(float(lengths[start[0]]), 1e-30), mesh)
    return fetch(centers(rows, start, count, mesh, seed))[0]


@functools.partial(jax.jit, static_argnames=("count", "mesh", "expanded"))
def centers(
    rows: PoolRows,
    starts: jax.typing.ArrayLike,
    count: int,
    mesh: Mesh,
    seed: jax.typing.ArrayLike | None = None,
    expanded: bool = False,
) -> jax.Array:
    """Chooses `count` rows for each of S first rows, in one pass over the pool per choice.

    Args:
      rows: at most 2 apart from each other, which `COPY` assumes.
      starts: int[S], the indices of the first rows.
      count: at most the number of rows.
      mesh: the rows are split over its data axes.
      seed: the seed of draws in proportion to the squared distance; if None, the farthest row is
        chosen instead.
      expanded: computes |x|^2 - 2 x c + |c|^2 instead of |x - c|^2: one matrix product for all S,
        with a rounding error of about 1e-7.

    Returns:
      int32[S, count], the chosen rows, beginning with the first row.
    """

    def choose(rows, start, key):
        values, number = rows.values, numbers(rows.real)

        def step(turn, carry):
            nearest, order = carry
            last = order[turn - 1]
            center = take(values, last)

            def block(inputs):
                x, before, at = inputs
                if expanded:
                    product = jnp.dot(x, center, precision=lax.Precision.HIGHEST)
                    squared = jnp.square(x).sum(-1) - 2 * product + jnp.square(center).sum(-1)
                else:
                    squared = jnp.square(x - center).sum(-1)
                squared = jnp.where(squared <= (1e-6 if expanded else COPY**2), 0.0, squared)
                now = jnp.where(at == last, _TAKEN, jnp.minimum(before, squared))
                if key is None:
                    return now, now
                # The argmax of log weight + Gumbel noise is a draw in proportion to the weight.
                drawn = jax.random.fold_in(jax.random.fold_in(key, turn), at[0])
                noise = jax.random.gumbel(drawn, now.shape)
                value = jnp.where(now > 0, jnp.log(now) + noise, _LAST)
                return now, jnp.where(now == _TAKEN, -jnp.inf, value)

            nearest, value = lax.map(block, (values, nearest, number))
            return nearest, order.at[turn].set(best(value, number))

        nearest = jnp.where(rows.real, jnp.inf, _TAKEN)
        order = jnp.zeros(count, jnp.int32).at[0].set(start)
        return lax.fori_loop(1, count, step, (nearest, order))[1]

    starts = jnp.asarray(starts, jnp.int32)
    keys = None if seed is None else jax.random.split(jax.random.key(seed), len(starts))
    choose_all = jax.vmap(choose, in_axes=(None, 0, 0))
    return on_devices(choose_all, mesh, (SPLIT, WHOLE, WHOLE), WHOLE)(rows, starts, keys)


def herd(embeddings: np.ndarray, count: int, mesh: Mesh) -> np.ndarray:
    """Selects by herding (Welling 2009), linear kernel, without replacement; returns int[count].

    The selection's mean stays near the pool's: w_0 = mean, x_t = argmax <w_t, x>,
    w_(t+1) = w_t + mean - x_t. Ties go to the lowest index.

    Args:
      embeddings: f32[N, D], L2-normalized.
      count: at most N.
      mesh: the rows are split over its data axes.
    """
    mean = embeddings.mean(0, dtype=np.float64).astype(np.float32)
    return fetch(herded(place_rows(embeddings, mesh), mean, count, mesh))


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def herded(rows: PoolRows, mean: jax.typing.ArrayLike, count: int, mesh: Mesh) -> jax.Array:
    """Returns int32[count], the rows that `herd` selects. `mean` is f32[D]."""

    def run(rows, mean):
        number = numbers(rows.real)

        def step(turn, carry):
            w, free, order = carry
            value = lax.map(lambda x: jnp.dot(x, w, precision=lax.Precision.HIGHEST), rows.values)
            chosen = best(jnp.where(free, value, -jnp.inf), number)
            w = w + mean - take(rows.values, chosen)
            return w, free & (number != chosen), order.at[turn].set(chosen)

        start = (mean, rows.real, jnp.zeros(count, jnp.int32))
        return lax.fori_loop(0, count, step, start)[2]

    return on_devices(run, mesh, (SPLIT, WHOLE), WHOLE)(rows, jnp.asarray(mean))


def cover(
    score: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    mass: np.ndarray,
    count: int,
    score_weight: float,
    mesh: Mesh,
) -> np.ndarray:
    """Allocates the budget over clusters, then picks within each by rank and distance.

    Clusters get their places in the order of `allocate`. The first row of a cluster is the one with
    the highest score. Each next row maximizes w * rank + (1 - w) * distance, with the distance to
    the nearest chosen row of its cluster (our default). The rank is scaled to 0..1 within the
    cluster, the distance over the rows that can still be chosen: embeddings of a language model are
    close together, so unscaled distances would hardly count. Copies of chosen rows come after all
    other rows; their places go to other rows.

    Args:
      score: f[N], ranked within clusters; of equal scores, the first row's ranks highest.
      embeddings: f32[N, D], L2-normalized.
      labels: int[N], the cluster of each row, below K.
      mass: f[K], the masses by which `allocate` allocates places.
      count: at most N.
      score_weight: w.
      mesh: the rows are split over its data axes.

    Returns:
      int[count], in the order of selection.
    """
    rows = place_rows(centered(embeddings), mesh)
    rank, label = place(scaled_ranks(score, labels), mesh), place(labels.astype(np.int32), mesh)
    seat = allocate(np.bincount(labels, minlength=len(mass)), mass)
    given = count  # Places; some of them may go to copies.
    while True:
        turn = _occurrences(seat[:given])
        steps = int(turn.max()) + 1
        found = select_per_cluster(rows, rank, label, len(mass), score_weight, steps, mesh)
        taken, is_copy = (gather(part, len(score)) for part in found)
        chosen = np.flatnonzero(taken >= 0)
        chosen = chosen[np.lexsort((taken[chosen], labels[chosen]))]
        members = np.bincount(labels[chosen])
        order = chosen[(np.cumsum(members) - members)[seat[:given]] + turn]
        order = order[np.argsort(is_copy[order], kind="stable")]
        if given == len(score) or (~is_copy[order]).sum() >= count:
            return order[:count]
        given = min(2 * given, len(score))


def allocate(sizes: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Returns int[N]: the cluster that gets each place, in order; at most one place per member.

    Each cluster first gets one place, in order of mass. Then Webster's method (Sainte-Lague) gives
    each next place to the cluster with the highest mass / (2 * places + 1). No cluster loses a
    place when the budget grows, so a smaller budget has the first places of a larger one. Ties go
    to the cluster with fewer places, then to the lower index. If all masses are 0, `sizes` replaces
    them.

    Args:
      sizes: int[K], the number of rows of each cluster.
      mass: f[K], 0 or more.
    """
    mass = mass if mass.any() else sizes
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    held = _occurrences(cluster)
    quotient = mass[cluster] / (2 * held + 1)
    return cluster[np.lexsort((cluster, held, -quotient, held > 0))]


def scaled_ranks(score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns f32[N]: the rank of each row in its cluster, from 0 to 1 for the highest score."""
    order = np.lexsort((-np.arange(len(score)), score, labels))
    ranks = np.empty(len(score))
    ranks[order] = _occurrences(labels[order])
    return (ranks / np.maximum(1, np.bincount(labels)[labels] - 1)).astype(np.float32)


def _occurrences(values: np.ndarray) -> np.ndarray:
    """Returns int[N]: how often each value has occurred earlier in the array."""
    order = np.argsort(values, kind="stable")
    inside = values[order]
    found = np.empty(len(values), int)
    found[order] = np.arange(len(values)) - np.searchsorted(inside, inside)
    return found


@functools.partial(jax.jit, static_argnames=("clusters", "mesh"))
def select_per_cluster(
    rows: PoolRows,
    rank: jax.Array,
    label: jax.Array,
    clusters: int,
    weight: jax.typing.ArrayLike,
    turns: jax.typing.ArrayLike,
    mesh: Mesh,
) -> tuple[jax.Array, jax.Array]:
    """Chooses one row of every cluster per turn, as in `cover`; a turn is one pass over the rows.

    Args:
      rows: the pool.
      rank: f32[M, R], 0 to 1.
      label: int32[M, R], below K.
      clusters: K.
      weight: w in w * rank + (1 - w) * distance, scaled as in `cover`.
      turns: the number of turns.
      mesh: the rows are split over its data axes.

    Returns:
      int32[M, R], the turn in which each row was chosen, or -1; and bool[M, R], whether the row was
      then a copy of a row chosen earlier.
    """

    def run(rows, rank, label, weight, turns):
        values, real = rows
        number = numbers(real)

        def step(turn, carry):
            nearest, taken, is_copy = carry
            free, repeats = real & (taken < 0), nearest <= COPY
            distance = _scaled(nearest, free & ~repeats, label, clusters)
            value = weight * rank + (1 - weight) * distance
            value = jnp.where(repeats, value - 1, value)
            value = jnp.where(turn == 0, rank, value)
            chosen = _best_of_each(jnp.where(free, value, -jnp.inf), label, number, clusters)
            centers = take(values, chosen)

            def block(inputs):
                x, label = inputs
                return jnp.sqrt(jnp.square(x - centers[label]).sum(-1))

            now = free & (number == chosen[label])
            nearest = jnp.minimum(nearest, lax.map(block, (values, label)))
            return nearest, jnp.where(now, turn, taken), is_copy | (now & repeats)

        start = (jnp.full(real.shape, jnp.inf), jnp.full(real.shape, -1), jnp.zeros_like(real))
        return lax.fori_loop(0, turns, step, start)[1:]

    inputs = (SPLIT, SPLIT, SPLIT, WHOLE, WHOLE)
    given = jnp.float32(weight), jnp.int32(turns)
    return on_devices(run, mesh, inputs, (SPLIT, SPLIT))(rows, rank, label, *given)


def _scaled(distance: jax.Array, counts: jax.Array, label: jax.Array, clusters: int) -> jax.Array:
    """Scales distances, f32[m, R], to 0..1 over the rows of each cluster where `counts` is true.

    If all of these are almost equal, or there are none, the result is 0, so that rounding errors
    are not magnified.
    """
    flat = label.ravel()
    low = jax.ops.segment_min(jnp.where(counts, distance, jnp.inf).ravel(), flat, clusters)
    high = jax.ops.segment_max(jnp.where(counts, distance, -jnp.inf).ravel(), flat, clusters)
    low, high = lax.pmin(low, BATCH)[label], lax.pmax(high, BATCH)[label]
    spread = high - low
    return jnp.where(spread > SAME, jnp.clip((distance - low) / spread, 0, 1), 0)


def _best_of_each(
    value: jax.Array, label: jax.Array, number: jax.Array, clusters: int
) -> jax.Array:
    """Returns int32[K]: each cluster's row with the highest value; ties go to the lowest index."""
    flat = label.ravel()
    top = lax.pmax(jax.ops.segment_max(value.ravel(), flat, clusters), BATCH)
    first = jnp.where(value == top[label], number, NOWHERE).ravel()
    return lax.pmin(jax.ops.segment_min(first, flat, clusters), BATCH)
