"""A dense map, with a bias and a low-rank adapter where the config wants them."""

import fnmatch
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bridge_jax.config import LoraConfig
from bridge_jax.models.config import DecoderConfig


def parameter(
    module: nn.Module, name: str, axes: tuple[str, ...], shape: tuple[int, ...], dtype: Any
) -> Any:
    """Returns a normally initialised parameter with logical axis names."""
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)
    return module.param(name, init, shape, dtype)


def lora_scale(lora: LoraConfig) -> float:
    """Returns what B A x is multiplied by: alpha / r (2106.09685), or / sqrt(r) (2312.03732)."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def is_adapted(lora: LoraConfig | None, path: str) -> bool:
    """Returns whether the projection at `path`, as "attention/query", has an adapter."""
    return lora is not None and any(fnmatch.fnmatch(path, p) for p in lora.targets)


class Projection(nn.Module):
    """y = W x (+ b) (+ s * B A dropout(x)).

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
        """Returns f[B, S, ...features] for f[B, S, ...]."""
        c, lora = self.config, self.config.lora
        summed = len(self.axes) - len(self.features)
        in_shape, in_axes = x.shape[-summed:], self.axes[:summed]
        out_axes = self.axes[summed:]
        kernel = parameter(self, "kernel", self.axes, (*in_shape, *self.features), c.param_dtype)
        # Over one axis: of two, XLA on CPU would change the order in the kernel at every use.
        x = x.reshape(*x.shape[:-summed], -1)
        y = jnp.einsum("BSX,X...->BS...", x, kernel.astype(c.dtype).reshape(-1, *self.features))
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
            low = jnp.einsum("BSX,XR->BSR", x, a.astype(c.dtype).reshape(-1, lora.rank))
            y = y + lora_scale(lora) * jnp.einsum("BSR,R...->BS...", low, b.astype(c.dtype))
        return y
