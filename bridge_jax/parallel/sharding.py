"""The device mesh and where each array is placed on it.

A model may be on two meshes of the same devices, one to train it and one to generate with it
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
    "rows": AXES,  # of a tensor in a file, while it is read
}
# Axes of parameters that are replicated where the mesh does not divide them: grouped heads are few,
# and a padded table would have rows that no checkpoint, sampler or export has.
REPLICABLE = ("kv_heads", "vocab")


def axis_sizes(
    wanted: MeshConfig, devices: int, slices: int = 1, model_dim: int = 0, heads: int = 0
) -> MeshConfig:
    """Returns the sizes of the axes that a model can use; devices that are left go to `data`.

    `fsdp` and `tensor` stay inside of a slice, whose chips are connected better than the slices.

    Args:
      wanted: the sizes that were asked for.
      devices: their number.
      slices: how many slices they form.
      model_dim: the size that `fsdp` has to divide; 0 is any.
      heads: the size that `tensor` has to divide; 0 is any.

    Raises:
      UserError: the sizes do not match the number of devices.
    """
    asked = {axis: getattr(wanted, axis) for axis in AXES}
    given = math.prod(size for size in asked.values() if size != -1)
    left = devices // given
    if devices % given or (left != 1 and -1 not in asked.values()):
        multiple = "a multiple of " if -1 in asked.values() else ""
        raise UserError(
            f"mesh {' '.join(f'{axis}={size}' for axis, size in asked.items())} takes "
            f"{multiple}{given} devices, there are {devices}"
            "; change mesh.data, mesh.fsdp or mesh.tensor (-1 takes what is left)"
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
    """Returns the mesh of `config`; neighbours on it are neighbours in the hardware.

    Args:
      config: the sizes of the axes; all devices on fsdp by default.
      devices: all of them by default. Those of several slices are parts of `data`.
      together: so many devices in a row are neighbours as well, for `regrouped`.

    Raises:
      UserError: the sizes do not match the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    slices = slice_count(devices)
    sizes = axis_sizes(config or MeshConfig(), len(devices), slices)
    shape = _nested(len(devices) // slices, sizes.fsdp * sizes.tensor, together, sizes.tensor)
    # `jax.make_mesh` splits a physical axis on v5e alone, and refuses tensor=2 on a 4x4 of v6e.
    if slices > 1:
        grid = mesh_utils.create_hybrid_device_mesh(
            shape, (slices, *[1] * (len(shape) - 1)), devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return _mesh(grid, sizes)


def regrouped(mesh: Mesh, sizes: MeshConfig) -> Mesh:
    """Returns a mesh of other sizes, with the devices in the same order.

    One jitted function can therefore read from the one and write to the other.
    """
    return _mesh(mesh.devices, sizes)


def abstract_mesh(sizes: MeshConfig) -> AbstractMesh:
    """Returns a mesh without devices, to see where arrays would lie."""
    return AbstractMesh(tuple(getattr(sizes, axis) for axis in AXES), AXES)


def slice_count(devices: Sequence[Any]) -> int:
    """Returns how many slices the devices form: groups that are connected by the network alone."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _mesh(grid: np.ndarray, sizes: MeshConfig) -> Mesh:
    shape = tuple(getattr(sizes, axis) for axis in AXES)
    return Mesh(grid.reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _nested(*sizes: int) -> tuple[int, ...]:
    """Returns the shape of a grid that has groups of each of these sizes, in a row, as blocks.

    The first is the number of devices; one that does not divide a larger one is left out.
    """
    chain = [sizes[0]]
    for size in sorted(set(sizes[1:]), reverse=True):
        if chain[-1] % size == 0:
            chain.append(size)
    return (*(a // b for a, b in itertools.pairwise(chain)), chain[-1])


def spec_for(
    names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Returns where an array lies: each axis on the mesh axes of its rule that divide its size.

    Args:
      names: of the array's axes; None is replicated.
      shape: of the array.
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
      UserError: an axis has no rule, or is not `REPLICABLE` and the mesh axes of its rule do not
        divide its size.
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
                    f"parameter {where}: axis {name!r} of size {size} is not divided by mesh "
                    f"{parts}; choose another {settings}"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(
        place, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)
    )


def local_bytes(tree: Any) -> int:
    """Returns the bytes of abstract arrays on one device of their meshes."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Returns `x`, inside of jit, with its axes placed by the rules of their names.

    Outside of `jax.set_mesh` it returns `x` unchanged.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec_for(names, x.shape, mesh))


def axis_size(*axes: str) -> int:
    """Returns into how many parts axes of the mesh split an array; 1 outside of `jax.set_mesh`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in axes)


def on_each_device(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
    """Returns a function of one device's parts of arrays as a function of the whole arrays.

    With one device, or outside of `jax.set_mesh`, that is the function itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


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


def filled_rows(rows: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> int:
    """Returns how many rows a batch of `rows` has on the mesh, empty ones included."""
    parts = batch_devices(mesh) * accumulate
    return -(-rows // parts) * parts


def batch_devices(mesh: Mesh | AbstractMesh) -> int:
    """Returns how many parts a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)
