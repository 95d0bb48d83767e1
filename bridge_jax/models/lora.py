"""Low-rank adapters beside the model's own parameters: found, drawn, merged.

An adapter's matrices are the leaves `lora_a` (inputs, r) and `lora_b` (r, outputs) next to the
`kernel` they change, stacked over layers as it is (`bridge_jax.models.projection`).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh

from bridge_jax.config import LoraConfig
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.projection import lora_scale

MATRICES = ("lora_a", "lora_b")


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


def draw(config: DecoderConfig, mesh: Mesh, key: jax.Array) -> Any:
    """Returns a fresh adapter for `config.lora`, which changes nothing before it is trained."""
    shardings = jax.tree.map(lambda a: a.sharding, split(decoder.abstract(config, mesh))[0])
    return jax.jit(
        lambda key: split(nn.unbox(decoder.init(config, key)))[0], out_shardings=shardings
    )(key)


@functools.partial(jax.jit, static_argnums=0)
def merge(lora: LoraConfig, kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the kernel, of one layer, that computes the same without an adapter: W + s * A B.

    Args:
      lora: how the adapter is scaled.
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
