"""The device mesh, and the sharding of each array on it.

A model may use two meshes over the same devices: one for training and one for generation
(`bridge_jax.models.layouts`).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

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
    "rows": AXES,  # rows of a tensor as read from a file
}
# Parameter axes that are replicated if the mesh does not divide them. Grouped-query attention has
# few KV heads, and a padded vocabulary would have rows that no checkpoint, sampler or export has.
REPLICABLE = ("kv_heads", "vocab")


def axis_sizes(
    wanted: MeshConfig, devices: int, slices: int = 1, model_dim: int = 0, heads: int = 0
) -> MeshConfig:
    """Returns the mesh axis sizes that a model can use; leftover devices go to `data`.

    `fsdp` and `tensor` stay within a slice: links within a slice are faster than between slices.

    Args:
      wanted: the requested sizes.
      devices: number of devices.
      slices: number of slices that the devices form.
      model_dim: a size that `fsdp` must divide; 0 allows any `fsdp`.
      heads: a size that `tensor` must divide; 0 allows any `tensor`.

    Raises:
      UserError: the sizes do not match the number of devices.
    """
    asked = {axis: getattr(wanted, axis) for axis in AXES}
    given = math.prod(size for size in asked.values() if size != -1)
    left = devices // given
    if devices % given or (left != 1 and -1 not in asked.values()):
        multiple = "a multiple of " if -1 in asked.values() else ""
        raise UserError(
            f"mesh {' '.join(f'{axis}={size}' for axis, size in asked.items())} requires "
            f"{multiple}{given} devices, but there are {devices}"
            "; change mesh.data, mesh.fsdp or mesh.tensor (-1 uses all remaining devices)"
        )
    inside = devices // slices
    tensor = math.gcd(left if wanted.tensor == -1 else wanted.tensor, heads, inside)
    fsdp = wanted.fsdp
    if fsdp == -1:
        fsdp = devices // (wanted.data * tensor)
    fsdp = math.gcd(fsdp, model_dim, inside // tensor)
    return MeshConfig(devices // (fsdp * tensor), fsdp, tensor)


def make_mesh(
    config: MeshConfig | None = None, devices: Sequence[Any] | None = None, together: int = 1
) -> Mesh:
    """Returns the mesh of `config`; neighbours on the mesh are neighbours in the hardware.

    Args:
      config: the axis sizes; by default all devices are on `fsdp`.
      devices: all devices by default. Several slices are laid out along `data`.
      together: each group of this many consecutive devices is also adjacent in the hardware, for
        `regrouped`.

    Raises:
      UserError: the sizes do not match the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = slice_count(devices)
    sizes = axis_sizes(config or MeshConfig(), len(devices), slices)
    shape = _nested(len(devices) // slices, sizes.fsdp * sizes.tensor, together, sizes.tensor)
    # `jax.make_mesh` splits a physical axis only on v5e, and refuses tensor=2 on a v6e 4x4.
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            shape, (slices, *[1] * (len(shape) - 1)), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return _mesh(grid, sizes)


def regrouped(mesh: Mesh, sizes: MeshConfig) -> Mesh:
    """Returns a mesh with other axis sizes and the devices in the same order.

    One jitted function can therefore read from one of the meshes and write to the other.
    """
    return _mesh(mesh.devices, sizes)


def abstract_mesh(sizes: MeshConfig) -> AbstractMesh:
    """Returns a mesh without devices, from which shardings can be computed."""
    return AbstractMesh(tuple(getattr(sizes, axis) for axis in AXES), AXES)


def slice_count(devices: Sequence[Any]) -> int:
    """Returns the number of slices: groups of devices that only the network connects."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh(grid: np.ndarray, sizes: MeshConfig) -> Mesh:
    shape = tuple(getattr(sizes, axis) for axis in AXES)
    return Mesh(grid.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _nested(*sizes: int) -> tuple[int, ...]:
    """Returns the shape of a grid in which consecutive devices form blocks of each of these sizes.

    The first size is the number of devices. A size is skipped if it does not divide the next larger
    one that is used.
    """
    chain = [sizes[0]]
    for size in sorted(set(sizes[1:]), reverse=True):
        if chain[-1] % size == 0:
            chain.append(size)
    return (*(a // b for a, b in itertools.pairwise(chain)), chain[-1])


def spec_for(
    names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Returns an array's spec: each axis is split over the mesh axes of its rule that divide it.

    Args:
      names: logical names of the array's axes; None is replicated.
      shape: shape of the array.
    """
    places: list[str | tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        rule = RULES[name] if name else None
        used: tuple[str, ...] = ()
        for axis in (rule,) if isinstance(rule, str) else rule or ():
            if size % math.prod(mesh.shape[part] for part in (*used, axis)) == 0:
                used = (*used, axis)
        places.append(used[0] if len(used) == 1 else used or None)
    return PartitionSpec(*places)


def parameter_shardings(boxed: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Returns the `NamedSharding` of each parameter.

    Args:
      boxed: parameters (or their shapes) with logical axis names, from `decoder.init`.

    Raises:
      UserError: an axis has no rule, or the mesh axes of its rule do not divide its size and it is
        not `REPLICABLE`.
    """

    def place(path: Any, leaf: Any) -> NamedSharding:
        if not isinstance(leaf, nn.Partitioned):
            return NamedSharding(mesh, PartitionSpec())
        where = jax.tree_util.keystr(path)
        for name in leaf.names:
            if name not in RULES:
                raise UserError(f"parameter {where}: axis {name!r} has no rule in RULES")
        spec = spec_for(leaf.names, leaf.value.shape, mesh)
        for name, size, used in zip(leaf.names, leaf.value.shape, spec):
            rule = RULES[str(name)]
            axes = (rule,) if isinstance(rule, str) else rule or ()
            if used != rule and name not in REPLICABLE:
                parts = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
                settings = " or ".join(f"mesh.{axis}" for axis in axes)
                raise UserError(
                    f"parameter {where}: axis {name!r} of size {size} is not divisible by mesh "
                    f"{parts}; choose another {settings}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(
        place, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)
    )


def local_bytes(tree: Any) -> int:
    """Returns the bytes that a tree of abstract sharded arrays takes on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrains the sharding of `x` inside jit, by the rules of its logical axis names.

    Outside of `jax.set_mesh` it returns `x` unchanged.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec_for(names, x.shape, mesh))


def axis_size(*axes: str) -> int:
    """Returns the product of the sizes of these mesh axes; 1 outside of `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def on_each_device(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
    """Turns a function of one device's shards into a function of whole arrays (`jax.shard_map`).

    With one device, or outside of `jax.set_mesh`, it returns the function itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def shard_batch(batch: Any, mesh: Mesh, accumulate: int = 1) -> Any:
    """Shards a batch that every process holds: its leading axis is split over data and fsdp.

    Empty rows (zeros) are appended until the devices divide the rows of each of the `accumulate`
    micro-batches.
    """
    sharding = NamedSharding(mesh, PartitionSpec(BATCH))

    def place(a: np.ndarray) -> jax.Array:
        missing = filled_rows(len(a), mesh, accumulate) - len(a)
        a = np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) if missing else a
        return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])

    return jax.tree.map(place, batch)


def filled_rows(rows: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> int:
    """Returns how many rows `shard_batch` makes of `rows`, including the empty ones."""
    parts = batch_devices(mesh) * accumulate
    return -(-rows // parts) * parts


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
    """Returns the number of parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)
