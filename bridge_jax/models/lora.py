"""Dense maps with low-rank adapters (LoRA, 2106.09685): applied, found, merged.

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
from bridge_jax.models.matmul import project

MATRICES = ("lora_a", "lora_b")
PRODUCTS = "products"  # Names the results of the dense maps.


def parameter(
    module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...], dtype: Any
) -> Any:
    """Returns a normally initialised parameter with logical axis names."""
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)
    return module.param(name, init, shape, dtype)


def lora_scale(lora: LoraConfig) -> float:
    """Returns the factor of B A x: alpha / r (2106.09685), or alpha / sqrt(r) (2312.03732)."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def is_adapted(lora: LoraConfig | None, path: str) -> bool:
    """Returns whether the projection at `path`, as "attention/query", has an adapter."""
    return lora is not None and any(fnmatch.fnmatch(path, p) for p in lora.targets)


class Projection(nn.Module):
    """y = W x (+ b) (+ s * B A dropout(x)).

    In the equations below B is the batch, S the positions, R the rank of the adapter, and X what W
    sums over, as one axis: D of the stream, N H of the heads, or F of the MLP. The dots are the
    features: N H or K H, F, or D.

    Attributes:
      config: of the decoder.
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
        kernel = parameter(self, "kernel", self.axes, (*in_shape, *self.features), c.param_dtype)
        # Over one axis: of two, XLA on CPU would change the order in the kernel at every use.
        x = x.reshape(*x.shape[:-summed], -1)  # B S X
        y: Any = project(x, kernel.reshape(-1, *self.features), c.matmul_dtype)  # B S ...
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


def join(*parts: Any) -> Any:
    """Returns one tree of the parts of `split`."""
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
    kernels = traverse_util.flatten_dict(base)
    matrices = traverse_util.flatten_dict(adapter)
    for path in {path[:-1] for path in matrices}:
        a, b = (matrices[*path, name] for name in MATRICES)
        kernel = (*path, "kernel")
        kernels[kernel] = jax.vmap(functools.partial(merge, lora))(kernels[kernel], a, b)
    return traverse_util.unflatten_dict(kernels)
