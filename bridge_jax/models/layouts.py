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
from bridge_jax.models import costs, decoder, projection
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
    """Describes the use of a model, as far as its layout depends on it.

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
    asked, inside = axis_sizes(wanted, devices), devices // slices
    cut = math.gcd(config.num_heads, config.mlp_dim)
    training = axis_sizes(wanted, devices, slices, config.model_dim, cut)
    within = f" and the {inside} chips of a slice" if slices > 1 else ""
    divided = f"its {config.num_heads} heads and its MLP of {config.mlp_dim:,}{within}"
    notes = []
    if training.tensor < asked.tensor:
        notes.append(f"mesh.tensor={asked.tensor} becomes {training.tensor}, to divide {divided}")
    if training.fsdp < asked.fsdp:
        notes.append(
            f"mesh.fsdp={asked.fsdp} becomes {training.fsdp}, to divide its width of "
            f"{config.model_dim:,}{within}"
        )
    if training.data > asked.data:
        notes.append(f"the devices that are left hold copies, mesh.data={training.data}")

    most, wish = math.gcd(cut, inside), wanted.generation_tensor
    tensors = [size for size in range(1, most + 1) if most % size == 0]
    if wish:
        tensors = [math.gcd(wish, most)]
        if tensors[0] < wish:
            notes.append(f"mesh.generation_tensor={wish} becomes {tensors[0]}, to divide {divided}")
    whole = [MeshConfig(devices // tensor, 1, tensor) for tensor in tensors]
    among = whole if wish else [*whole, training]
    generation, need = _with_room(config, among, training, ROOM * memory, use)
    if need > ROOM * memory:
        notes.append(
            f"generation takes about {need / chips.GIB:.1f} GiB of a chip's "
            f"{memory / chips.GIB:.1f}"
        )
    if generation.fsdp > 1:
        notes.append("generation gathers weights at every token: no chips hold all of them")
    if config.lora and config.lora.base:
        dtype = jnp.dtype(config.matmul_dtype).name
        notes.append(
            f"its {config.lora.base} base is for training and scoring: generation has the weights "
            f"in {dtype}, the adapter merged"
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
    """Returns the config of a model that generates: adapter merged, for products alone."""
    return dataclasses.replace(
        config,
        lora=None,
        param_dtype=config.matmul_dtype,
        remat="none",
        kernel="plain",
        cache=cache,
    )


def _with_room(
    config: DecoderConfig, among: list[MeshConfig], training: MeshConfig, room: float, use: Use
) -> tuple[MeshConfig, int]:
    """Returns the sizes to generate with, and the bytes that they take of a chip.

    The first of `among` that have room, else what takes least.
    """
    mesh = abstract_mesh(training)
    held = state_bytes(config, mesh) if use.in_training else held_bytes(config, mesh)
    needs = {}
    for sizes in among:
        mesh = abstract_mesh(sizes)
        cache = cache_bytes(config, mesh, use.rows, use.slots)
        needs[sizes] = held + local_bytes(generation_weights(config, mesh)) + cache
    fitting = [sizes for sizes, need in needs.items() if need <= room]
    found = fitting[0] if fitting else min(needs, key=needs.__getitem__)
    return found, needs[found]


def held_bytes(config: DecoderConfig, mesh: Any, trained: bool = False) -> int:
    """Returns the bytes on a chip of the weights as they were read, which stay beside copies.

    Those of a model that was trained with an adapter have it apart, over a base that may be int8.
    """
    if trained and config.lora:
        return local_bytes(decoder.abstract(in_training(config), mesh))
    return local_bytes(generation_weights(config, mesh))


def generation_weights(config: DecoderConfig, mesh: Any) -> decoder.Params:
    """Returns the parameters that generation reads, each with its place on the generation mesh."""
    return decoder.abstract(as_generated(config), mesh)


def in_training(config: DecoderConfig) -> DecoderConfig:
    """Returns the config with the dtype of training: f32, or that of products if frozen."""
    dtype = config.matmul_dtype if config.lora else jnp.float32
    return dataclasses.replace(config, param_dtype=dtype)


def cache_bytes(config: DecoderConfig, mesh: Any, rows: int, slots: int) -> int:
    """Returns the bytes on a chip of the keys and values of `rows` sequences of `slots` tokens."""
    whole = costs.cache_bytes(config, filled_rows(rows, mesh), slots)
    heads = 1 if config.num_kv_heads % mesh.shape["tensor"] else mesh.shape["tensor"]
    return whole // (batch_devices(mesh) * heads)


def state_bytes(config: DecoderConfig, mesh: Any) -> int:
    """Returns the bytes on a chip of what is trained and its two moments, and of what is frozen."""
    params = decoder.abstract(in_training(config), mesh)
    trained, frozen = projection.partition(config, params)
    return 3 * local_bytes(trained) + local_bytes(frozen)
