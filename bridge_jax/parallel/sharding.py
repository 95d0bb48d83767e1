"""The device mesh and where each array lives on it."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bridge_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. A name without a rule is an error, so nothing is replicated unnoticed.
RULES = (
    ("vocab", "tensor"),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("head_dim", None),
    ("lora_rank", None),
    ("layers", None),
    ("norm", None),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """Returns a mesh; `data=-1` takes the devices that the other axes leave."""
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = len(devices) // (fsdp * tensor)
    if data * fsdp * tensor != len(devices):
        raise UserError(
            f"mesh data={data} fsdp={fsdp} tensor={tensor} needs {data * fsdp * tensor} devices, "
            f"there are {len(devices)}"
        )
    return Mesh(np.asarray(devices).reshape(data, fsdp, tensor), AXES)


def parameter_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Returns the `NamedSharding` of each parameter.

    Args:
      boxed: parameters (or their shapes) with logical axis names, from `decoder.init`.
      mesh: the mesh.

    Raises:
      UserError: an axis has no rule, or its size is not divided by the mesh axis.
    """
    rules = dict(RULES)

    def place(path: Any, leaf: Any) -> NamedSharding:
        names = leaf.names if isinstance(leaf, nn.Partitioned) else ()
        where = jax.tree_util.keystr(path)
        spec = []
        for name, size in zip(names, leaf.value.shape):
            if name not in rules:
                raise UserError(f"parameter {where}: axis {name!r} has no rule in RULES")
            axis = rules[name]
            if isinstance(axis, str) and size % mesh.shape[axis]:
                raise UserError(
                    f"parameter {where}: axis {name!r} of size {size} is not divided by mesh "
                    f"axis {axis}={mesh.shape[axis]}"
                )
            spec.append(axis)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(
        place, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)
    )


def on_mesh(tree: Any, mesh: Mesh) -> Any:
    """Returns `tree` with what is not yet on the mesh (step counters) replicated over it."""
    replicated = NamedSharding(mesh, PartitionSpec())

    def place(a: jax.Array) -> jax.Array:
        there = isinstance(a.sharding, NamedSharding) and a.sharding.mesh == mesh
        return a if there else jax.device_put(a, replicated)

    return jax.tree.map(place, tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Places this process's rows of a batch: the leading axis is split over data and fsdp.

    Raises:
      UserError: the devices do not divide the rows.
    """
    sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    rows = len(jax.tree.leaves(batch)[0]) * jax.process_count()
    if rows % (parts := mesh.shape["data"] * mesh.shape["fsdp"]):
        raise UserError(
            f"a batch of {rows} rows is not divided by the {parts} devices of data x fsdp: make "
            "batch_rows (training) or generation.batch_size a multiple of it"
        )
    return jax.tree.map(lambda a: jax.make_array_from_process_local_data(sharding, a), batch)
