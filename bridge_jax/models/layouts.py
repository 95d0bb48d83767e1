"""The choice of a model's meshes: one for training and scoring, one for generation.

Training shards parameters, gradients and moments over `fsdp` (ZeRO-3, 1910.02054), and gathers a
layer's weights for thousands of tokens at once. Generation would have to gather all weights for
every token. Instead each chip, or each small group of chips along `tensor`, holds all weights, and
these groups are replicas along `data`. Both meshes have the same devices in the same order, so that
one jitted function can read from one mesh and write to the other.
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

# Share of a chip's memory for weights, training state and the cache in generation; the rest is for
# activations and the compiler's buffers. Our default.
ROOM = 0.8


class Use(NamedTuple):
    """The use of a model, as far as its layout depends on it.

    Attributes:
      rows, slots: size of the generation cache: completions at a time, and tokens of each,
        including its prompt.
      in_training: whether the model also generates between training steps, while the training
        state stays in memory.
    """

    rows: int = GenerationConfig.batch_size
    slots: int = 1024
    in_training: bool = False


class Layouts(NamedTuple):
    """The axis sizes of a model's meshes, and notes for the user on changed sizes and memory."""

    training: MeshConfig
    generation: MeshConfig
    notes: tuple[str, ...]


class Meshes(NamedTuple):
    """The meshes of a model, and notes for the user on changed sizes and memory."""

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
      config: the model's config, with its compute dtype and adapter.
      wanted: the requested sizes.
      devices: all devices by default; they may belong to another machine.
      use: how the model is used.

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
    """Chooses the axis sizes of a model's meshes.

    `tensor` must divide the number of query heads and the MLP width, and `fsdp` the model width.
    For generation `tensor` is by default as small as memory allows, since its all-reduces in every
    layer take time.

    Args:
      config: the model's config, with its compute dtype and adapter.
      wanted: the requested sizes.
      devices, slices: number of devices and of slices.
      memory: bytes of memory of a device.
      use: how the model is used.

    Raises:
      UserError: the sizes do not match the number of devices.
    """
    asked, inside = axis_sizes(wanted, devices), devices // slices
    cut = math.gcd(config.num_heads, config.mlp_dim)
    training = axis_sizes(wanted, devices, slices, config.model_dim, cut)
    within = f" and the {inside} chips of a slice" if slices > 1 else ""
    divided = f"the {config.num_heads} heads and the MLP width {config.mlp_dim:,}{within}"
    notes = []
    if training.tensor < asked.tensor:
        notes.append(
            f"mesh.tensor={asked.tensor} reduced to {training.tensor}, which divides {divided}"
        )
    if training.fsdp < asked.fsdp:
        notes.append(
            f"mesh.fsdp={asked.fsdp} reduced to {training.fsdp}, which divides the model width "
            f"{config.model_dim:,}{within}"
        )
    if training.data > asked.data:
        notes.append(f"leftover devices hold replicas: mesh.data={training.data}")

    most, wish = math.gcd(cut, inside), wanted.generation_tensor
    tensors = [size for size in range(1, most + 1) if most % size == 0]
    if wish:
        tensors = [math.gcd(wish, most)]
        if tensors[0] < wish:
            notes.append(
                f"mesh.generation_tensor={wish} reduced to {tensors[0]}, which divides {divided}"
            )
    whole = [MeshConfig(devices // tensor, 1, tensor) for tensor in tensors]
    among = whole if wish else [*whole, training]
    generation, need = _with_room(config, among, training, ROOM * memory, use)
    if need > ROOM * memory:
        notes.append(
            f"generation takes about {need / chips.GIB:.1f} GiB of a chip's "
            f"{memory / chips.GIB:.1f}"
        )
    if generation.fsdp > 1:
        notes.append("generation gathers weights at every token: they do not fit unless sharded")
    if config.lora and config.lora.base:
        dtype = jnp.dtype(config.matmul_dtype).name
        notes.append(
            f"the {config.lora.base} base is used only for training and scoring; generation uses "
            f"{dtype} weights with the adapter merged"
        )
    for tensor in sorted({training.tensor, generation.tensor}):
        if config.num_kv_heads % tensor:
            notes.append(
                f"tensor={tensor} does not divide the {config.num_kv_heads} KV heads, which are "
                "replicated on every chip"
            )
        if config.vocab_size % tensor:
            notes.append(
                f"tensor={tensor} does not divide the vocabulary size {config.vocab_size:,}; the "
                "embedding table is not sharded over tensor"
            )
    return Layouts(training, generation, tuple(notes))


def generation_config(config: DecoderConfig, cache: Any = "compute") -> DecoderConfig:
    """Returns the config for generation: adapter merged, parameters in the matmul dtype."""
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
    """Returns the mesh sizes for generation, and the bytes that they take per chip.

    These are the first sizes of `among` that fit in `room`, or those that need least if none does.
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
    """Returns the bytes per chip of the weights as loaded, which stay beside any copy of them.

    A model trained with an adapter keeps the adapter separate from its base, which may be int8.
    """
    if trained and config.lora:
        return local_bytes(decoder.abstract(training_config(config), mesh))
    return local_bytes(generation_weights(config, mesh))


def generation_weights(config: DecoderConfig, mesh: Any) -> decoder.Params:
    """Returns the abstract parameters that generation reads, with their shardings on `mesh`."""
    return decoder.abstract(generation_config(config), mesh)


def training_config(config: DecoderConfig) -> DecoderConfig:
    """Returns the config with parameters as trained: f32, or the matmul dtype under an adapter."""
    dtype = config.matmul_dtype if config.lora else jnp.float32
    return dataclasses.replace(config, param_dtype=dtype)


def cache_bytes(config: DecoderConfig, mesh: Any, rows: int, slots: int) -> int:
    """Returns the bytes per chip of the keys and values of `rows` sequences of `slots` tokens."""
    whole = costs.cache_bytes(config, filled_rows(rows, mesh), slots)
    heads = 1 if config.num_kv_heads % mesh.shape["tensor"] else mesh.shape["tensor"]
    return whole // (batch_devices(mesh) * heads)


def state_bytes(config: DecoderConfig, mesh: Any) -> int:
    """Returns the bytes per chip of the parameters, and of two moments for each trained one."""
    params = decoder.abstract(training_config(config), mesh)
    trained, frozen = projection.partition(config, params)
    return 3 * local_bytes(trained) + local_bytes(frozen)
