"""Loading of pretrained weights as our parameters, from safetensors folders and GGUF files.

Tensors are read one at a time. Each device gets its own rows in the layout of the file, and the
devices then exchange and transpose them. So all hosts together read a checkpoint once, in long
contiguous reads, however a parameter is sharded or replicated. Besides the parameters that stay in
a host's memory, it never holds more than its rows of one tensor.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.config import ModelConfig
from bridge_jax.errors import UserError
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig, computing_on
from bridge_jax.models.hub import presets
from bridge_jax.models.hub.families import Tensor, named_tensors
from bridge_jax.models.hub.files import Source, is_hub_id, locate, open_source, read_hf_config
from bridge_jax.models.hub.hf_config import cut, from_hf
from bridge_jax.parallel.sharding import make_mesh, spec_for

# Harmless extra tensors: constants that older exports kept, and the copy of a tied embedding.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|^lm_head\.weight$|^rope_freqs\.weight$")

_LISTED = 20  # names in one error


def load(
    model: ModelConfig, mesh: Mesh | None = None, dtype: Any = jnp.float32
) -> tuple[DecoderConfig, dict[str, Any]]:
    """Returns the config and the parameters of a checkpoint, cut to `keep_layers`.

    Args:
      model: the checkpoint, and the layers to keep.
      mesh: where the parameters go; None is the first device.
      dtype: dtype of the parameters.

    Raises:
      UserError: the checkpoint is missing, truncated, of an unsupported family, or has other
        tensors or shapes than its config implies (the message lists up to `_LISTED` of them).
    """
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    source, config, layers = _open(model)
    config = dataclasses.replace(config, param_dtype=dtype)
    abstract = decoder.abstract(config, mesh)
    shapes: dict[str, Any] = traverse_util.flatten_dict(abstract, sep="/")
    params = {}
    for row in {row: None for _, row, _ in named_tensors(source.table, config)}:
        stored = jax.ShapeDtypeStruct(row.shape(config), shapes[row.ours].dtype)

        def read(layer: int, row: Tensor = row, stored: Any = stored) -> jax.Array:
            return _read(source, row, layer, stored, mesh)

        arranged = row.pattern, tuple(row.axes(config).items())
        layers_of_row = layers if row.stacked else None
        params[row.ours] = _place(read, arranged, layers_of_row, shapes[row.ours])
    return config, traverse_util.unflatten_dict(params, sep="/")


def read_config(model: ModelConfig) -> DecoderConfig:
    """Returns the config of a checkpoint, cut to `keep_layers`.

    The weights are not read, except to compare a head with the embedding, but the names and shapes
    of the tensors are checked.

    Raises:
      UserError: as by `load`.
    """
    return _open(model)[1]


def planned_config(model: ModelConfig, device: Any = None) -> DecoderConfig:
    """Returns the config with which a checkpoint is trained on a device, without loading weights.

    By default the device is the first one. A hub id with a preset (`presets`) is not downloaded.
    Otherwise a head may be compared with a tied embedding, as in `read_hf_config`.
    """
    name = model.checkpoint
    published = is_hub_id(name) and not Path(name).exists() and name in presets.PRESETS
    hf = presets.hf_config(name) if published else read_hf_config(locate(name))
    config = from_hf(cut(hf, kept_layers(model, from_hf(hf))))
    config = dataclasses.replace(config, lora=model.lora if model.lora.rank else None)
    return computing_on(config, model, device)


def cut_hf_config(model: ModelConfig) -> dict[str, Any]:
    """Returns the `config.json` of a checkpoint, cut to `keep_layers`."""
    hf = read_hf_config(locate(model.checkpoint))
    return cut(hf, kept_layers(model, from_hf(hf)))


def kept_layers(model: ModelConfig, config: DecoderConfig) -> tuple[int, ...]:
    """Returns the indices of the checkpoint's layers that `model` keeps."""
    if bad := [i for i in model.keep_layers if not 0 <= i < config.num_layers]:
        raise UserError(
            f"keep_layers={bad}: {model.checkpoint} has layers 0 to {config.num_layers - 1}"
        )
    return model.keep_layers or tuple(range(config.num_layers))


def _open(model: ModelConfig) -> tuple[Source, DecoderConfig, tuple[int, ...]]:
    """Returns a checked checkpoint, its config cut to `keep_layers`, and the layers it keeps."""
    source = open_source(locate(model.checkpoint))
    whole = from_hf(source.hf_config)
    layers = kept_layers(model, whole)
    _check(source, whole)
    return source, from_hf(cut(source.hf_config, layers)), layers


def _check(source: Source, config: DecoderConfig) -> None:
    """Raises a `UserError` if tensors of `config` are missing or misshapen, or others are there."""
    expected = {name: row for name, row, _ in named_tensors(source.table, config)}
    there = set(source.shapes)
    if missing := sorted(set(expected) - there):
        hint = ""
        if missing == ["lm_head.weight"]:
            hint = (
                "; if the head of this model is tied to its embedding, set "
                '"tie_word_embeddings": true in its config.json'
            )
        raise UserError(f"{source.path}: tensors are missing: {_some(missing)}{hint}")
    if extra := sorted(n for n in there - set(expected) if not _IGNORED.search(n)):
        raise UserError(
            f"{source.path}: unexpected tensors for {source.hf_config['model_type']}: "
            f"{_some(extra)}; dropping them would change the model, so this checkpoint is not "
            "supported"
        )
    wrong = []
    for name, row in expected.items():
        if source.shapes[name] != row.shape(config):
            wrong.append(f"{name} is {source.shapes[name]}, expected {row.shape(config)}")
    if wrong:
        raise UserError(
            f"{source.path}: tensor shapes do not match its config: {_some(wrong, '; ')}"
        )


def _some(found: list[str], comma: str = ", ") -> str:
    more = f"{comma}and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return comma.join(found[:_LISTED]) + more


def _read(
    source: Source, row: Tensor, layer: int, stored: jax.ShapeDtypeStruct, mesh: Mesh
) -> jax.Array:
    """Returns a tensor in the layout of its file, with its rows split over all devices."""

    @functools.cache  # If the devices do not divide the rows, several get the same ones.
    def part(first: int, last: int) -> np.ndarray:
        value = source.rows(row.theirs.format(i=layer), first, last)
        return (value - row.added if row.added else value).astype(stored.dtype, copy=False)

    names = ("rows",) + (None,) * (len(stored.shape) - 1)
    spread = NamedSharding(mesh, spec_for(names, stored.shape, mesh))

    def of_device(index: Any) -> np.ndarray:
        first, last, _ = index[0].indices(stored.shape[0])
        return part(first, last)

    return jax.make_array_from_callback(stored.shape, spread, of_device)


# An einops pattern from the axes of a stored tensor to ours, and the size of each axis.
_Arranged = tuple[str, tuple[tuple[str, int], ...]]


def _place(
    read: Callable[[int], jax.Array],
    arranged: _Arranged,
    layers: tuple[int, ...] | None,
    shape: jax.ShapeDtypeStruct,
) -> jax.Array:
    """Returns one parameter with its final sharding, and its layers stacked.

    Args:
      read: layer -> the tensor as it is stored.
      arranged: how its axes become ours.
      layers: the layers to stack; None if the parameter belongs to no layer.
      shape: shape, dtype and sharding of the parameter.
    """
    sharding = cast(NamedSharding, shape.sharding)
    if layers is None:
        return _arranging(arranged, sharding)(read(0))
    one = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    arrange = _arranging(arranged, one)
    zeros, write = _stacking(shape)
    stack = zeros()
    for position, layer in enumerate(layers):
        written = write(stack, arrange(read(layer)), position)
        # Without this, reading runs ahead of writing, and layers pile up on the host.
        stack = jax.block_until_ready(written)
    return stack


# Cached, so that tensors of the same shape and later loads do not compile again. A single program
# could do this and `_stacking`, but if its layer must be gathered, XLA copies the whole stack.
@functools.lru_cache(maxsize=64)
def _arranging(arranged: _Arranged, place: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """Returns a jitted function from a stored tensor to our axes, with the sharding `place`."""
    pattern, sizes = arranged

    def ours(stored: jax.Array) -> jax.Array:
        return einops.rearrange(stored, pattern, **dict(sizes))

    return jax.jit(ours, out_shardings=place)


@functools.lru_cache(maxsize=64)
def _stacking(shape: jax.ShapeDtypeStruct) -> tuple[Callable[..., jax.Array], ...]:
    """Returns two jitted functions: one makes a stack of zeros, one writes a layer into it."""

    def write(stack: jax.Array, layer: jax.Array, position: int) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, layer, position, 0)

    return (
        jax.jit(lambda: jnp.zeros(shape.shape, shape.dtype), out_shardings=shape.sharding),
        jax.jit(write, donate_argnums=0, out_shardings=shape.sharding),
    )
