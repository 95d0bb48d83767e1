"""Dense layers: their matrix products and low-rank adapters (LoRA, 2106.09685).

The operands of a matrix product have a dtype of their own; sums are in f32. On a TPU or GPU the
residual stream and the operands are both bf16. A CPU may have matrix units for bf16 too (AMX,
AVX512-BF16), but computes everything else in f32, so there only the operands are rounded.

An adapter's matrices are the leaves `lora_a` (inputs, r) and `lora_b` (r, outputs) next to the
`kernel` that they change, and are stacked over layers like it.
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
PRODUCTS = "products"  # Checkpoint name of the outputs of projections, for `remat`.
SCALE = "kernel_scale"  # f32[outputs...], the scales of an int8 kernel (`LoraConfig.base`)


def matmul(letters: str, a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """Returns `jnp.einsum(letters, a, b)` in f32, with the operands rounded to `dtype`.

    The result is f32 because XLA on CPU does not use the matrix units for a bf16 result.
    """
    return jnp.einsum(letters, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: jax.Array, w: jax.Array, dtype: Any) -> jax.Array:
    """Returns y = x W, f[B, S, ...] in the dtype of x.

    JAX's own differentiation rule computes the gradient of W transposed. XLA on CPU then transposes
    the gradient of y where that is computed, which takes longer than the products.

    Args:
      x: f[B, S, X].
      w: f[X, ...]; its gradient is f32 until it is cast to the dtype of w. An integer w has none.
      dtype: dtype in which they are multiplied.
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
    """Returns a parameter with logical axis names: normally distributed, or zero if integer."""
    is_float = jnp.issubdtype(dtype, jnp.floating)
    draw = nn.initializers.normal(0.02) if is_float else nn.initializers.zeros
    init = nn.with_logical_partitioning(draw, axes)
    return module.param(name, init, shape, dtype)


def lora_scale(lora: LoraConfig) -> float:
    """Returns the factor of B A x: alpha / r (2106.09685), or alpha / sqrt(r) (2312.03732)."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def is_adapted(lora: LoraConfig | None, path: str) -> bool:
    """Returns whether the projection at `path`, such as "attention/query", has an adapter."""
    return lora is not None and any(fnmatch.fnmatch(path, p) for p in lora.targets)


class Projection(nn.Module):
    """Dense layer y = W x (+ b) (+ s * B A dropout(x)); an int8 W has a scale for each output.

    In the shapes below, B is the batch, S the positions, and R the rank of the adapter. X is W's
    input axes merged into one: D (residual stream), N H (heads) or F (MLP). The dots are W's output
    axes: N H, K H, F or D.

    Attributes:
      axes: logical names of W's axes: the input axes, which are summed over, then the output axes.
      features: sizes of the output axes.
      bias: whether there is a bias b, of shape `features`.
    """

    config: DecoderConfig
    axes: tuple[str, ...]
    features: tuple[int, ...]
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns f[B, S, ...features].

        Args:
          x: f[B, S, ...inputs], with as many input axes as W sums over.
        """
        c, lora = self.config, self.config.lora
        summed = len(self.axes) - len(self.features)
        in_shape, in_axes = x.shape[-summed:], self.axes[:summed]
        out_axes = self.axes[summed:]
        is_int8 = lora is not None and lora.base == "int8"
        kernel_dtype = jnp.int8 if is_int8 else c.param_dtype
        kernel = parameter(self, "kernel", self.axes, (*in_shape, *self.features), kernel_dtype)
        # One merged axis: with two, XLA on CPU would change the layout of the kernel at every use.
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
            # A is drawn as in PEFT, and B is zero, so that a new adapter changes nothing.
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
    """Returns (adapter, base), the trained and the frozen parameters, under their old paths."""
    flat = traverse_util.flatten_dict(params)
    adapter = {path: leaf for path, leaf in flat.items() if path[-1] in MATRICES}
    base = {path: leaf for path, leaf in flat.items() if path not in adapter}
    return traverse_util.unflatten_dict(adapter), traverse_util.unflatten_dict(base)


def partition(config: DecoderConfig, params: Any) -> tuple[Any, Any]:
    """Returns (trained, frozen): an adapter and its base; without adapter, `params` and {}."""
    return split(params) if config.lora else (params, {})


def quantized_base(base: Any, like: Any) -> Any:
    """Returns the frozen base of an adapter, with kernels quantised to int8 if `like` has scales.

    Args:
      base: stacked parameters without an adapter, in a float dtype.
      like: their target shapes, dtypes and shardings (`split` of `decoder.abstract`). A kernel that
        is int8 here is rounded with one scale per output, which maps its largest magnitude to 127.
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


def dequantized(kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns the dequantised kernel f32[inputs..., outputs...] of one layer kept in int8."""
    return kernel.astype(jnp.float32) * scale


def combine(*parts: Any) -> Any:
    """Returns the parts from `split` or `partition` joined into one tree."""
    flat: dict[Any, Any] = {}
    for part in parts:
        flat |= traverse_util.flatten_dict(part)
    return traverse_util.unflatten_dict(flat)


@functools.partial(jax.jit, static_argnums=0)
def merge(lora: LoraConfig, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the kernel of one layer with the adapter merged into it: W + s * A B.

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
    """Returns stacked parameters with their adapter merged into the (dequantised) kernels."""
    adapter, base = split(params)
    kernels: dict[Any, Any] = traverse_util.flatten_dict(base)
    for path in [path for path in kernels if path[-1] == SCALE]:
        scale, kernel = kernels.pop(path), (*path[:-1], "kernel")
        kernels[kernel] = jax.vmap(dequantized)(kernels[kernel], scale)
    matrices = traverse_util.flatten_dict(adapter)
    for path in {path[:-1] for path in matrices}:
        a, b = (matrices[*path, name] for name in MATRICES)
        kernel = (*path, "kernel")
        kernels[kernel] = jax.vmap(functools.partial(merge, lora))(kernels[kernel], a, b)
    return traverse_util.unflatten_dict(kernels)
