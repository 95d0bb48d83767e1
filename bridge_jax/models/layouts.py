"""Chooses the meshes of a model: one to train and score it, one to generate with it.

Training cuts parameters, gradients and moments over `fsdp` (ZeRO-3, 1910.02054), and gathers a
layer's weights for thousands of tokens at once. Generation would gather all weights for every
token; so each chip, or a few by `tensor`, keeps all of them, and the others hold copies (`data`).
Both meshes have the same devices in the same order: a jitted function can read from the one and
write to the other.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig, MeshConfig
from bridge_jax.models import costs, decoder, lora
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import (
    abstract_mesh,
    axis_sizes,
    batch_devices,
    filled_rows,
    local_bytes,
    make_mesh,
    regrouped,
    slice_count,
)

# Of a chip's memory, for weights and the cache in generation; the rest is for activations and the
# compiler's buffers. Our default.
ROOM = 0.8


class Use(NamedTuple):
    """What a model does, as far as its layout depends on it.

    Attributes:
      rows, slots: of the cache in generation: completions at a time, and tokens of each, its
        prompt included.
      in_training: it also generates between training steps, beside its moments.
    """

    rows: int = GenerationConfig.batch_size
    slots: int = 1024
    in_training: bool = False


class Layouts(NamedTuple):
    """The sizes of a model's meshes, and notes on what could not be as it was asked for."""

    training: MeshConfig
    generation: MeshConfig
    notes: tuple[str, ...]


class Meshes(NamedTuple):
    """The meshes of a model, and notes on what could not be as it was asked for."""

    training: Mesh
    generation: Mesh
    notes: tuple[str, ...]


def choose(
    config: DecoderConfig,
    wanted: MeshConfig,
    devices: Sequence[Any] | None = None,
    use: Use | None = None,
) -> Meshes:
    """Returns the meshes of a model.

    Args:
      config: of the model, its compute dtype and adapter included.
      wanted: the sizes that were asked for.
      devices: all of them by default; they may be those of another machine.
      use: what it does.

    Raises:
      UserError: the sizes do not match the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    memory = chips.memory(devices[0])
    found = layouts(config, wanted, len(devices), slice_count(devices), memory, use or Use())
    training = make_mesh(found.training, devices, together=found.generation.tensor)
    return Meshes(training, regrouped(training, found.generation), found.notes)


def layouts(
    config: DecoderConfig, wanted: MeshConfig, devices: int, slices: int, memory: float, use: Use
) -> Layouts:
    """Decides the sizes of a model's meshes.

    `tensor` has to divide the query heads and the MLP, `fsdp` the width of the model. For
    generation `tensor` is as small as the memory allows: its sums at every layer take time.

    Args:
      config: of the model, its compute dtype and adapter included.
      wanted: the sizes that were asked for.
      devices, slices: their numbers.
      memory: bytes of a device.
      use: what the model does.

    Raises:
      UserError: the sizes do not match the number of devices.
    """
    asked = axis_sizes(wanted, devices)
    cut = math.gcd(config.num_heads, config.mlp_dim)
    training = axis_sizes(wanted, devices, slices, config.model_dim, cut)
    notes = []
    within = f" and the {devices // slices} chips of a slice" if slices > 1 else ""
    divides_heads = (
        f"divides its {config.num_heads} heads and its MLP of {config.mlp_dim:,}{within}"
    )
    if training.tensor < asked.tensor:
        notes.append(f"mesh.tensor={asked.tensor} becomes {training.tensor}, which {divides_heads}")
    if training.fsdp < asked.fsdp:
        notes.append(
            f"mesh.fsdp={asked.fsdp} becomes {training.fsdp}, which divides its width of "
            f"{config.model_dim:,}{within}"
        )
    if training.data > asked.data:
        notes.append(f"the devices that are left hold copies, mesh.data={training.data}")

    most = math.gcd(cut, devices // slices)
    tensors = [size for size in range(1, most + 1) if most % size == 0]
    if wanted.generation_tensor:
        tensors = [math.gcd(wanted.generation_tensor, most)]
        if tensors[0] < wanted.generation_tensor:
            notes.append(
                f"mesh.generation_tensor={wanted.generation_tensor} becomes {tensors[0]}, which "
                f"{divides_heads}"
            )
    held = _held(config, training, use)
    needs = {}
    for tensor in tensors:
        mesh = abstract_mesh(MeshConfig(devices // tensor, 1, tensor))
        cache = cache_bytes(config, mesh, use.rows, use.slots)
        needs[tensor] = held + local_bytes(generated_with(config, mesh)) + cache
    fitting = [tensor for tensor, need in needs.items() if need <= ROOM * memory]
    if fitting or wanted.generation_tensor:
        tensor = fitting[0] if fitting else tensors[0]
        generation = MeshConfig(devices // tensor, 1, tensor)
    else:
        generation = dataclasses.replace(training)
    if not fitting:
        gathers = ""
        if generation.fsdp > 1:
            gathers = "; it keeps the mesh of training, and gathers its weights at every token"
        notes.append(
            f"generation takes about {min(needs.values()) / chips.GIB:.1f} GiB at "
            f"tensor={min(needs, key=needs.__getitem__)}, of a chip's {memory / chips.GIB:.1f}"
            f"{gathers}"
        )
    for tensor in sorted({training.tensor, generation.tensor}):
        if config.num_kv_heads % tensor:
            notes.append(
                f"tensor={tensor} does not divide its {config.num_kv_heads} KV heads, which are "
                "whole on every chip"
            )
        if config.vocab_size % tensor:
            notes.append(
                f"tensor={tensor} does not divide its {config.vocab_size:,} tokens, whose table it "
                "does not cut"
            )
    return Layouts(training, generation, tuple(notes))


def as_generated(config: DecoderConfig, cache: Any = "compute") -> DecoderConfig:
    """Returns the config of a model that generates: adapter merged, in the compute dtype."""
    return dataclasses.replace(
        config, lora=None, param_dtype=config.dtype, remat="none", kernel="plain", cache=cache
    )


def generated_with(config: DecoderConfig, mesh: Any) -> decoder.Params:
    """Returns the parameters that generation reads, each with its place on the generation mesh."""
    return decoder.abstract(as_generated(config), mesh)


def in_training(config: DecoderConfig) -> DecoderConfig:
    """Returns the config with the dtype of training: f32, or the compute dtype if frozen."""
    return dataclasses.replace(config, param_dtype=config.dtype if config.lora else jnp.float32)


def cache_bytes(config: DecoderConfig, mesh: Any, rows: int, slots: int) -> int:
    """Returns the bytes on a chip of the keys and values of `rows` sequences of `slots` tokens."""
    whole = costs.cache_bytes(config, filled_rows(rows, mesh), slots)
    heads = 1 if config.num_kv_heads % mesh.shape["tensor"] else mesh.shape["tensor"]
    return whole // (batch_devices(mesh) * heads)


def state_bytes(config: DecoderConfig, mesh: Any) -> int:
    """Returns the bytes on a chip of what is trained and its two moments, and of what is frozen."""
    params = decoder.abstract(in_training(config), mesh)
    trained, frozen = lora.split(params) if config.lora else (params, {})
    return 3 * local_bytes(trained) + local_bytes(frozen)


def _held(config: DecoderConfig, training: MeshConfig, use: Use) -> int:
    """Returns the bytes on a chip of the training mesh's arrays, which stay in generation."""
    mesh = abstract_mesh(training)
    return (
        state_bytes(config, mesh) if use.in_training else local_bytes(generated_with(config, mesh))
    )
