"""Dense layers: their products, and their low-rank adapters (LoRA, 2106.09685).

Matrices are multiplied in a dtype of their own and summed in f32. On a TPU or GPU the stream and
what is multiplied are both bf16. A CPU has matrix units for bf16 too (AMX, AVX512-BF16), and
computes everything else in f32: there only what is multiplied is rounded.

An adapter's matrices are the leaves `lora_a` (inputs, r) and `lora_b` (r, outputs) next to the
`kernel` they change, stacked over layers as it is.
"""

import fnmatch
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.ad_checkpoint import checkpoint_name

from bridge_jax.config import LoraConfig
from bridge_jax.models.config import DecoderConfig

MATRICES = ("lora_a", "lora_b")
PRODUCTS = "products"  # Names the results of the dense maps.
SCALE = "kernel_scale"  # f32[outputs...], of an int8 kernel (`LoraConfig.base`)


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


def _project_forward(x: jax.Array, w: jax.Array, dtype: Any) -> tuple[jax.Array, Any]:
    return project(x, w, dtype), (x, w)


def _project_backward(dtype: Any, kept: Any, by_y: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    x, w = kept
    by_x = matmul("BS...,X...->BSX", by_y, w, dtype).astype(x.dtype)
    if jnp.issubdtype(w.dtype, jnp.integer):
        return by_x, None
    return by_x, matmul("BSX,BS...->X...", x, by_y, dtype).astype(w.dtype)


project.defvjp(_project_forward, _project_backward)


def parameter(
    module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...], dtype: Any
) -> Any:
    """Returns a normally initialised parameter with logical axis names; one of integers is zero."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    draw = nn.initializers.normal(0.02) if is_float else nn.initializers.zeros
    init = nn.with_logical_partitioning(draw, axes)
    return module.param(name, init, shape, dtype)


def lora_scale(lora: LoraConfig) -> float:
    """Returns the factor of B A x: alpha / r (2106.09685), or alpha / sqrt(r) (2312.03732)."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def is_adapted(lora: LoraConfig | None, path: str) -> bool:
    """Returns whether the projection at `path`, as "attention/query", has an adapter."""
    return lora is not None and any(fnmatch.fnmatch(path, p) for p in lora.targets)


class Projection(nn.Module):
    """y = W x (+ b) (+ s * B A dropout(x)). Of a W in int8, each output has a scale.

    In the shapes below, B is the batch, S the positions, and R the rank of the adapter. X is the
    input axes of W as one axis: D (stream), N H (heads) or F (MLP). The dots are its output axes:
    N H, K H, F or D.

    Attributes:
      axes: logical names of W's axes: those that it sums over, then its features.
      features: sizes of the latter.
      bias: whether there is b, with those sizes.
    """

    config: DecoderConfig
    axes: tuple[str, ...]
    features: tuple[int, ...]
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f[B, S, ...features].

        Args:
          x: f[B, S, ...inputs], of as many input axes as W sums over.
        """
        c, lora = self.config, self.config.lora
        summed = len(self.axes) - len(self.features)
        in_shape, in_axes = x.shape[-summed:], self.axes[:summed]
        out_axes = self.axes[summed:]
        is_int8 = lora is not None and lora.base == "int8"
        kernel_dtype = jnp.int8 if is_int8 else c.param_dtype
        kernel = parameter(self, "kernel", self.axes, (*in_shape, *self.features), kernel_dtype)
        # Over one axis: of two, XLA on CPU would change the order in the kernel at every use.
        x = x.reshape(*x.shape[:-summed], -1)  # B S X
        y: Any = project(x, kernel.reshape(-1, *self.features), c.matmul_dtype)  # B S ...
        if is_int8:
            scale = parameter(self, SCALE, out_axes, self.features, jnp.float32)
            y = y * scale.astype(y.dtype)
        if self.bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros, out_axes)
            bias: Any = self.param("bias", init, self.features, c.param_dtype)
            y = y + bias.astype(c.dtype)
        if lora is not None and is_adapted(lora, "/".join(self.path[-2:])):
            # A as PEFT draws it, B zero: a fresh adapter changes nothing.
            draw = nn.initializers.variance_scaling(
                1 / 3, "fan_in", "uniform", tuple(range(summed)), -1
            )
            init_a = nn.with_logical_partitioning(draw, (*in_axes, "lora_rank"))
            init_b = nn.with_logical_partitioning(nn.initializers.zeros, ("lora_rank", *out_axes))
            a: Any = self.param("lora_a", init_a, (*in_shape, lora.rank), jnp.float32)
            b: Any = self.param("lora_b", init_b, (lora.rank, *self.features), jnp.float32)
            if lora.dropout and self.has_rng("dropout"):
                x = nn.Dropout(lora.dropout, deterministic=False)(x)
            low: Any = project(x, a.reshape(-1, lora.rank), c.matmul_dtype)  # B S R
            high: Any = project(low, b, c.matmul_dtype)  # B S ...
            y = y + lora_scale(lora) * high
        return checkpoint_name(y, PRODUCTS)


def split(params: Any) -> tuple[Any, Any]:
    """Returns (adapter, base): what is trained and what is frozen. Both keep their paths."""
    flat = traverse_util.flatten_dict(params)
    adapter = {path: leaf for path, leaf in flat.items() if path[-1] in MATRICES}
    base = {path: leaf for path, leaf in flat.items() if path not in adapter}
    return traverse_util.unflatten_dict(adapter), traverse_util.unflatten_dict(base)


def partition(config: DecoderConfig, params: Any) -> tuple[Any, Any]:
    """Returns (trained, frozen): an adapter and its base, or without one all parameters and {}."""
    return split(params) if config.lora else (params, {})


def frozen(base: Any, like: Any) -> Any:
    """Returns the base of an adapter as it is kept.

    Args:
      base: stacked parameters without an adapter, in a float dtype.
      like: their shapes, dtypes and places (`split` of `decoder.abstract`); kernels that are int8
        here are rounded, their largest number for an output to 127.
    """
    wanted: dict[Any, Any] = traverse_util.flatten_dict(like)
    if not any(path[-1] == SCALE for path in wanted):
        return base

    def convert(base: Any) -> Any:
        flat: dict[Any, Any] = traverse_util.flatten_dict(base)
        for path in [path for path in wanted if path[-1] == SCALE]:
            at = (*path[:-1], "kernel")
            kernel = flat[at].astype(jnp.float32)
            summed = tuple(range(1, kernel.ndim - len(wanted[path].shape) + 1))
            scale = jnp.max(jnp.abs(kernel), summed, keepdims=True) / 127
            scale = jnp.where(scale == 0, 1, scale)
            flat[at] = jnp.round(kernel / scale).astype(jnp.int8)
            flat[path] = jnp.squeeze(scale, summed)
        return traverse_util.unflatten_dict(flat)

    return jax.jit(convert, out_shardings=jax.tree.map(lambda a: a.sharding, like))(base)


def in_floats(kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns the kernel f32[inputs..., outputs...] of one layer that is kept in int8."""
    return kernel.astype(jnp.float32) * scale


def combine(*parts: Any) -> Any:
    """Returns one tree of the parts of `split` or `partition`."""
    flat: dict[Any, Any] = {}
    for part in parts:
        flat |= traverse_util.flatten_dict(part)
    return traverse_util.unflatten_dict(flat)


@functools.partial(jax.jit, static_argnums=0)
def merge(lora: LoraConfig, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the kernel, of one layer, that computes the same without an adapter: W + s * A B.

    Args:
      lora: rank and scale of the adapter.
      kernel: f[inputs..., outputs...].
      a: f32[inputs..., r].
      b: f32[r, outputs...].
    """
    rank = b.shape[0]
    change = jnp.matmul(
        a.reshape(-1, rank), b.reshape(rank, -1), precision=jax.lax.Precision.HIGHEST
    )
    merged = kernel.astype(jnp.float32) + lora_scale(lora) * change.reshape(kernel.shape)
    return merged.astype(kernel.dtype)


def merged(lora: LoraConfig, params: Any) -> Any:
    """Returns stacked parameters with their adapter merged into the kernels."""
    adapter, base = split(params)
    kernels: dict[Any, Any] = traverse_util.flatten_dict(base)
    for path in [path for path in kernels if path[-1] == SCALE]:
        scale, kernel = kernels.pop(path), (*path[:-1], "kernel")
        kernels[kernel] = jax.vmap(in_floats)(kernels[kernel], scale)
    matrices = traverse_util.flatten_dict(adapter)
    for path in {path[:-1] for path in matrices}:
        a, b = (matrices[*path, name] for name in MATRICES)
        kernel = (*path, "kernel")
        kernels[kernel] = jax.vmap(functools.partial(merge, lora))(kernels[kernel], a, b)
    return traverse_util.unflatten_dict(kernels)
