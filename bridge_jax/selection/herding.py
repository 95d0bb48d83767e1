"""Herding: a selection whose mean stays near that of the pool."""

import functools

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
    numbers,
    on_devices,
    place_rows,
    take,
)


def herd(embeddings: np.ndarray, count: int, mesh: Mesh) -> np.ndarray:
    """Returns int[count]: herding (Welling 2009) with the linear kernel, without replacement.

    w_0 = mean, x_t = argmax <w_t, x>, w_(t+1) = w_t + mean - x_t; the first of equals.

    Args:
      embeddings: f32[N, D], L2-normalised.
      count: at most N.
      mesh: its data axes share the rows.
    """
    mean = embeddings.mean(0, dtype=np.float64).astype(np.float32)
    return fetch(herded(place_rows(embeddings, mesh), mean, count, mesh))


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def herded(rows: Rows, mean: jax.typing.ArrayLike, count: int, mesh: Mesh) -> jax.Array:
    """Returns int32[count] of the rows; one pass over them a step."""

    def run(values, real, mean):
        number = numbers(real)

        def step(turn, carry):
            w, free, order = carry
            value = lax.map(lambda x: jnp.dot(x, w, precision=lax.Precision.HIGHEST), values)
            chosen = best(jnp.where(free, value, -jnp.inf), number)
            w = w + mean - take(values, chosen)
            return w, free & (number != chosen), order.at[turn].set(chosen)

        start = (mean, real, jnp.zeros(count, jnp.int32))
        return lax.fori_loop(0, count, step, start)[2]

    return on_devices(run, mesh, (SPLIT, SPLIT, WHOLE), WHOLE)(*rows, jnp.asarray(mean))
