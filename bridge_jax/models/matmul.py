"""Products of matrices in a dtype of their own, summed in f32.

On a TPU or GPU the stream and what is multiplied are both bf16. A CPU has matrix units for bf16 too
(AMX, AVX512-BF16), and computes everything else in f32: there only what is multiplied is rounded.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp


def matmul(letters: str, a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """Returns `jnp.einsum(letters, a, b)` in f32, of arrays that are rounded to `dtype`.

    XLA on CPU does not use the matrix units for products that are to be bf16.
    """
    return jnp.einsum(letters, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: jax.Array, w: jax.Array, dtype: Any) -> jax.Array:
    """Returns x W, f[B, S, ...] in the dtype of x.

    JAX's own rule gives the gradient of W transposed. XLA on CPU then transposes the gradient of y
    where it is computed, which takes longer than the products.

    Args:
      x: f[B, S, X].
      w: f[X, ...]; its gradient is not rounded before it is in the dtype of w. Integers have none.
      dtype: in which they are multiplied.
    """
    return matmul("BSX,X...->BS...", x, w, dtype).astype(x.dtype)


def _forward(x: jax.Array, w: jax.Array, dtype: Any) -> tuple[jax.Array, Any]:
    return project(x, w, dtype), (x, w)


def _backward(dtype: Any, kept: Any, by_y: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    x, w = kept
    by_x = matmul("BS...,X...->BSX", by_y, w, dtype).astype(x.dtype)
    if jnp.issubdtype(w.dtype, jnp.integer):
        return by_x, None
    return by_x, matmul("BSX,BS...->X...", x, by_y, dtype).astype(w.dtype)


project.defvjp(_forward, _backward)
