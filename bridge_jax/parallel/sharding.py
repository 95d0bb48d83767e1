"""The device mesh and where each array lives on it."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bridge_jax.config import MeshConfig
from bridge_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")

# Logical axis -> mesh axes. A name without a rule is an error, so nothing is replicated unnoticed.
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": BATCH,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head_dim": None,
    "lora_rank": None,
    "layers": None,
    "norm": None,
}


def make_mesh(config: MeshConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh of `config`; neighbours on it are neighbours in the hardware.

    Args:
      config: the sizes of the axes; all devices on fsdp by default.
      devices: all of them by default.

    Raises:
      UserError: the sizes do not match the devices.
    """
    config = config or MeshConfig()
    devices = jax.devices() if devices is None else devices
    asked = {axis: getattr(config, axis) for axis in AXES}
    given = math.prod(size for size in asked.values() if size != -1)
    sizes = {axis: len(devices) // given if size == -1 else size for axis, size in asked.items()}
    if math.prod(sizes.values()) != len(devices):
        multiple = "a multiple of " if -1 in asked.values() else ""
        raise UserError(
            f"mesh {' '.join(f'{axis}={size}' for axis, size in asked.items())} takes "
            f"{multiple}{given} devices, there are {len(devices)}"
            "; change mesh.data, mesh.fsdp or mesh.tensor (-1 takes what is left)"
        )
    # `jax.make_mesh` splits a physical axis on v5e alone, and refuses tensor=2 on a 4x4 of v6e.
    grid = mesh_utils.create_device_mesh(
        tuple(sizes.values()), list(devices), allow_split_physical_axes=True
    )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Returns the `NamedSharding` of each parameter.

    Args:
      boxed: parameters (or their shapes) with logical axis names, from `decoder.init`.
      mesh: the mesh.

    Raises:
      UserError: an axis has no rule, or its size is not divided by the mesh axes of the rule.
    """

    def place(path: Any, leaf: Any) -> NamedSharding:
        names = leaf.names if isinstance(leaf, nn.Partitioned) else ()
        where = jax.tree_util.keystr(path)
        rules = []
        for name in names:
            if name not in RULES:
                raise UserError(f"parameter {where}: axis {name!r} has no rule in RULES")
            rules.append(RULES[name])
        spec = PartitionSpec(*rules)
        for name, size, rule in zip(names, leaf.value.shape, rules):
            axes = (rule,) if isinstance(rule, str) else rule or ()
            if size % math.prod(mesh.shape[axis] for axis in axes):
                parts = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
                settings = " or ".join(f"mesh.{axis}" for axis in axes)
                raise UserError(
                    f"parameter {where}: axis {name!r} of size {size} is not divided by mesh "
                    f"{parts}, in the spec {tuple(spec)}; choose another {settings}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(
        place, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)
    )


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Returns `x`, inside of jit, with its axes placed by the rules of their names.

    Outside of `jax.set_mesh` it returns `x` unchanged.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    spec = PartitionSpec(*(name and RULES[name] for name in names))
    return jax.lax.with_sharding_constraint(x, spec)


def shard_batch(batch: Any, mesh: Mesh, accumulate: int = 1) -> Any:
    """Places a batch that every process holds: the leading axis is split over data and fsdp.

    Rows that the devices do not divide, in each of `accumulate` micro-batches, are filled up with
    zeros: empty rows.
    """
    sharding = NamedSharding(mesh, PartitionSpec(BATCH))

    def place(a: np.ndarray) -> jax.Array:
        missing = filled_rows(len(a), mesh, accumulate) - len(a)
        a = np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) if missing else a
        return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])

    return jax.tree.map(place, batch)


def filled_rows(rows: int, mesh: Mesh, accumulate: int = 1) -> int:
    """Returns how many rows a batch of `rows` has on the mesh, empty ones included."""
    parts = batch_devices(mesh) * accumulate
    return -(-rows // parts) * parts


def batch_devices(mesh: Mesh) -> int:
    """Returns how many parts a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)
