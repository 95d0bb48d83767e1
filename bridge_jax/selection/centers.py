"""Centers one after the other, far from those before: k-center greedy and D^2 sampling.

Each step is one pass over the pool. A row that is a copy of a center comes after all others.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from bridge_jax.parallel.hosts import fetch
from bridge_jax.selection.rows import (
    SPLIT,
    WHOLE,
    Rows,
    best,
    centered,
    numbers,
    on_devices,
    place_rows,
    take,
)

COPY = 2e-5  # Nearer than this, of at most 2, is the same: scores differ by rounding.
_TAKEN, _LAST = -1.0, -1e30


def farthest_first(embeddings: np.ndarray, count: int, mesh: Mesh) -> np.ndarray:
    """Returns int[count]: k-center greedy (Gonzalez 1985; core-sets, 1708.00489).

    The first is the one nearest the mean (our default): a common question, no outlier. Each next
    one is the farthest from those before, the first of equals.

    Args:
      embeddings: f32[N, D], L2-normalised.
      count: at most N.
      mesh: its data axes share the rows.
    """
    values = centered(embeddings)
    start = int(np.argmin(np.linalg.norm(values, axis=1)))
    return fetch(farthest(place_rows(values, mesh), start, count, mesh))


def d2_sample(vectors: np.ndarray, count: int, seed: int, mesh: Mesh) -> np.ndarray:
    """Returns int[count]: BADGE (1906.03671), the seeding of k-means++ on gradient embeddings.

    The first is the longest, as in the code of its authors; each next one is drawn with a
    probability in proportion to the squared distance to those before.

    Args:
      vectors: f32[N, D], of any length.
      count: at most N.
      seed: of the draws.
      mesh: its data axes share the rows.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    start = int(np.argmax(lengths))
    rows = place_rows(vectors / max(float(lengths[start]), 1e-30), mesh)
    return fetch(sampled(rows, np.array([start]), seed, count, mesh))[0]


def plus_plus(
    rows: Rows, pool: int, count: int, seed: int, restarts: int, mesh: Mesh
) -> np.ndarray:
    """Returns int[restarts, count]: the seeding of k-means++ (Arthur, Vassilvitskii 2007).

    All restarts share each pass over the `pool` rows.
    """
    starts = np.random.default_rng(seed).integers(pool, size=restarts)
    return fetch(sampled(rows, starts, seed, count, mesh, expanded=True))


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def farthest(rows: Rows, start: jax.typing.ArrayLike, count: int, mesh: Mesh) -> jax.Array:
    """Returns int32[count]: row `start`, then always the farthest from those before."""

    def pick(values, real, start):
        return _centers(values, real, start, count, _squares, lambda nearest, *_: nearest)

    return on_devices(pick, mesh, (SPLIT, SPLIT, WHOLE), WHOLE)(*rows, jnp.int32(start))


@functools.partial(jax.jit, static_argnames=("count", "mesh", "expanded"))
def sampled(
    rows: Rows,
    starts: jax.typing.ArrayLike,
    seed: jax.typing.ArrayLike,
    count: int,
    mesh: Mesh,
    expanded: bool = False,
) -> jax.Array:
    """Returns int32[S, count]: S times, `count` rows drawn by D^2 sampling.

    Args:
      rows: of length 1 at most.
      starts: int32[S], the first row of each.
      seed: of the draws.
      count: at most the number of rows.
      mesh: its data axes share the rows.
      expanded: |x|^2 - 2 x c + |c|^2, one product for all S, with some 1e-7 of rounding.
    """
    distance = _expanded if expanded else _squares

    def pick(values, real, starts, seed):
        def one(start, key):
            def race(nearest, number, step):
                # The highest log weight + Gumbel noise is a draw in proportion to the weight.
                drawn = jax.random.fold_in(jax.random.fold_in(key, step), number[0])
                noise = jax.random.gumbel(drawn, nearest.shape)
                value = jnp.where(nearest > 0, jnp.log(nearest) + noise, _LAST)
                return jnp.where(nearest == _TAKEN, -jnp.inf, value)

            return _centers(values, real, start, count, distance, race)

        return jax.vmap(one)(starts, jax.random.split(jax.random.key(seed), len(starts)))

    inputs = (SPLIT, SPLIT, WHOLE, WHOLE)
    given = jnp.asarray(starts, jnp.int32), jnp.asarray(seed)
    return on_devices(pick, mesh, inputs, WHOLE)(*rows, *given)


def _centers(
    values: jax.Array,
    real: jax.Array,
    start: jax.Array,
    count: int,
    distance: Callable[..., jax.Array],
    value_of: Callable[..., jax.Array],
) -> jax.Array:
    """Returns int32[count]; the next is the row of the highest `value_of` its nearest center."""
    number = numbers(real)

    def step(turn, carry):
        nearest, order = carry
        last = order[turn - 1]
        center = take(values, last)

        def block(inputs):
            x, before, at = inputs
            squared = distance(x, center)
            squared = jnp.where(squared <= COPY**2, 0.0, squared)
            now = jnp.where(at == last, _TAKEN, jnp.minimum(before, squared))
            return now, value_of(now, at, turn)

        nearest, value = lax.map(block, (values, nearest, number))
        return nearest, order.at[turn].set(best(value, number))

    nearest = jnp.where(real, jnp.inf, _TAKEN)
    order = jnp.zeros(count, jnp.int32).at[0].set(start)
    return lax.fori_loop(1, count, step, (nearest, order))[1]


def _squares(x: jax.Array, center: jax.Array) -> jax.Array:
    return jnp.square(x - center).sum(-1)


def _expanded(x: jax.Array, center: jax.Array) -> jax.Array:
    product = jnp.dot(x, center, precision=lax.Precision.HIGHEST)
    squared = jnp.square(x).sum(-1) - 2 * product + jnp.square(center).sum(-1)
    return jnp.where(squared < 1e-6, 0.0, squared)  # Below it is rounding.
