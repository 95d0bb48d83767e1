"""Seats for clusters, and who takes them: high in rank and unlike those who sit already."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bridge_jax.parallel.sharding import BATCH
from bridge_jax.selection.centers import COPY
from bridge_jax.selection.rows import (
    NOWHERE,
    SPLIT,
    WHOLE,
    Rows,
    centered,
    gather,
    numbers,
    on_devices,
    place,
    place_rows,
    take,
)

SAME = 100 * COPY  # Distances in a range of less than this are not told apart.


def cover(
    score: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    mass: np.ndarray,
    count: int,
    score_weight: float,
    mesh: Mesh,
) -> np.ndarray:
    """Returns int[count]: the order of `seats`, each taken by its cluster's next one (our default).

    The first of a cluster has the highest score. The next one maximises w * rank + (1 - w) *
    distance to the chosen of its cluster. The rank goes from 0 to 1 over the cluster, the distance
    over those that may still be chosen: the embeddings of a language model lie close together, and
    unscaled distances would hardly count.
    Copies of chosen ones come after all others, and their seats go to the next.

    Args:
      score: f[N], ranked within clusters; of equals the first ranks highest.
      embeddings: f32[N, D], L2-normalised.
      labels: int[N], below K.
      mass: f[K], what seats are given for.
      count: at most N.
      score_weight: w.
      mesh: its data axes share the rows.
    """
    pool = (
        place_rows(centered(embeddings), mesh),
        place(scaled_ranks(score, labels), mesh),
        place(labels.astype(np.int32), mesh),
    )
    seat = seats(np.bincount(labels, minlength=len(mass)), mass)
    given = count  # Seats, some of which copies may have taken.
    while True:
        turn = _occurrences(seat[:given])
        steps = int(turn.max()) + 1
        found = take_turns(*pool, len(mass), score_weight, steps, mesh)
        taken, is_copy = (gather(part, len(score)) for part in found)
        order = _seated(seat[:given], turn, labels, taken)
        order = order[np.argsort(is_copy[order], kind="stable")]
        if given == len(score) or (~is_copy[order]).sum() >= count:
            return order[:count]
        given = min(2 * given, len(score))


def _seated(
    seat: np.ndarray, turn: np.ndarray, labels: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """Returns int[B]: for each seat, the row of its cluster that was taken in its turn."""
    rows = np.flatnonzero(taken >= 0)
    rows = rows[np.lexsort((taken[rows], labels[rows]))]
    members = np.bincount(labels[rows])
    return rows[(np.cumsum(members) - members)[seat] + turn]


def seats(sizes: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Returns int[N]: the cluster of every seat, best first, none with more seats than members.

    One seat for every cluster in order of mass, then by Webster's method (Sainte-Lague): the next
    goes to the highest mass / (2 * seats + 1). No cluster loses a seat when there are more to give,
    so a smaller budget has the first seats of a larger one. Of equals the one with fewer seats is
    first, then the first cluster. Without any mass, sizes count.

    Args:
      sizes: int[K].
      mass: f[K], 0 or more.
    """
    mass = mass if mass.any() else sizes
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    held = _occurrences(cluster)
    quotient = mass[cluster] / (2 * held + 1)
    return cluster[np.lexsort((cluster, held, -quotient, held > 0))]


def scaled_ranks(score: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns f32[N]: each one's rank within its cluster, from 0 to 1 for the highest score."""
    order = np.lexsort((-np.arange(len(score)), score, labels))
    ranks = np.empty(len(score))
    ranks[order] = _occurrences(labels[order])
    return (ranks / np.maximum(1, np.bincount(labels)[labels] - 1)).astype(np.float32)


def _occurrences(values: np.ndarray) -> np.ndarray:
    """Returns int[N]: how often each value occurs before."""
    order = np.argsort(values, kind="stable")
    inside = values[order]
    found = np.empty(len(values), int)
    found[order] = np.arange(len(values)) - np.searchsorted(inside, inside)
    return found


@functools.partial(jax.jit, static_argnames=("clusters", "mesh"))
def take_turns(
    rows: Rows,
    rank: jax.Array,
    label: jax.Array,
    clusters: int,
    weight: jax.typing.ArrayLike,
    turns: jax.typing.ArrayLike,
    mesh: Mesh,
) -> tuple[jax.Array, jax.Array]:
    """Returns int32[M, R]: the turn in which each row is its cluster's next one, or -1.

    Also returns bool[M, R]: whether it was a copy of an earlier one then. All clusters take their
    turns at once, with one pass over the rows for each.

    Args:
      rows: the pool.
      rank: f32[M, R], 0 to 1.
      label: int32[M, R], below K.
      clusters: K.
      weight: w in w * rank + (1 - w) * distance, scaled as in `cover`.
      turns: how many.
      mesh: its data axes share the rows.
    """

    def run(values, real, rank, label, weight, turns):
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

    inputs = (SPLIT, SPLIT, SPLIT, SPLIT, WHOLE, WHOLE)
    given = jnp.float32(weight), jnp.int32(turns)
    return on_devices(run, mesh, inputs, (SPLIT, SPLIT))(*rows, rank, label, *given)


def _scaled(distance: jax.Array, counts: jax.Array, label: jax.Array, clusters: int) -> jax.Array:
    """Returns f32[m, R]: 0 for the least and 1 for the greatest that `counts`, in each cluster.

    Where these are almost the same, or none counts, all are 0: rounding is not stretched.
    """

    def extreme(
        segment: Callable[..., jax.Array], across: Callable[..., jax.Array], otherwise: float
    ) -> jax.Array:
        values = jnp.where(counts, distance, otherwise).ravel()
        return across(segment(values, label.ravel(), clusters), BATCH)[label]

    low = extreme(jax.ops.segment_min, lax.pmin, jnp.inf)
    spread = extreme(jax.ops.segment_max, lax.pmax, -jnp.inf) - low
    return jnp.where(spread > SAME, jnp.clip((distance - low) / spread, 0, 1), 0)


def _best_of_each(
    value: jax.Array, label: jax.Array, number: jax.Array, clusters: int
) -> jax.Array:
    """Returns int32[K]: each cluster's row with the highest value, the first of equals."""
    flat = label.ravel()
    top = lax.pmax(jax.ops.segment_max(value.ravel(), flat, clusters), BATCH)
    first = jnp.where(value == top[label], number, NOWHERE).ravel()
    return lax.pmin(jax.ops.segment_min(first, flat, clusters), BATCH)
