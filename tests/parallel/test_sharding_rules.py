import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bridge_jax.config import MeshConfig
from bridge_jax.errors import UserError
from bridge_jax.models import decoder
from bridge_jax.parallel import sharding


def abstract(config):
    return jax.eval_shape(functools.partial(decoder.init, config), jax.random.key(0))


@pytest.fixture(scope="module")
def cube():
    return sharding.make_mesh(MeshConfig(2, 2, 2))


@pytest.fixture(scope="module")
def sharded(tiny_model, cube):
    config, params = tiny_model
    return config, jax.tree.map(
        jax.device_put, params, sharding.parameter_shardings(abstract(config), cube)
    )


def test_where_parameters_live(tiny_model, sharded):
    _, params = sharded
    query = params["layers"]["attention"]["query"]["kernel"]  # L D N H
    assert query.sharding.spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert query.addressable_shards[0].data.shape == (3, 16, 2, 8)
    assert params["embedding"].addressable_shards[0].data.shape == (256, 16)
    assert params["layers"]["mlp"]["down"]["kernel"].addressable_shards[0].data.shape == (3, 32, 16)


def boxed(names, shape):
    return {"mlp": {"up": nn.Partitioned(jnp.zeros(shape), names)}}


def test_unknown_axis_names_the_parameter(cube):
    with pytest.raises(UserError, match=r"parameter \['mlp'\]\['up'\]: axis 'width' has no rule"):
        sharding.parameter_shardings(boxed(("embed", "width"), (4, 4)), cube)


def test_size_that_does_not_divide_names_the_parameter(cube):
    with pytest.raises(UserError) as found:
        sharding.parameter_shardings(boxed(("embed", "mlp"), (4, 5)), cube)
    assert str(found.value) == (
        "parameter ['mlp']['up']: axis 'mlp' of size 5 is not divisible by mesh tensor=2; "
        "choose another mesh.tensor"
    )


def test_a_size_is_divided_by_all_the_mesh_axes_of_its_rule(cube):
    placed = sharding.parameter_shardings(boxed(("batch", "norm"), (8, 3)), cube)
    assert placed["mlp"]["up"].spec == PartitionSpec(("data", "fsdp"), None)
    with pytest.raises(UserError) as found:
        sharding.parameter_shardings(boxed(("batch", "norm"), (6, 3)), cube)
    assert str(found.value) == (
        "parameter ['mlp']['up']: axis 'batch' of size 6 is not divisible by mesh data=2 x fsdp=2; "
        "choose another mesh.data or mesh.fsdp"
    )


def test_mesh_sizes():
    assert dict(sharding.make_mesh().shape) == {"data": 1, "fsdp": 8, "tensor": 1}
    some = sharding.make_mesh(MeshConfig(-1, 4, 1))
    assert dict(some.shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    with pytest.raises(UserError, match="data=3 fsdp=1 tensor=1 requires 3 devices, but there are"):
        sharding.make_mesh(MeshConfig(3, 1, 1))
    message = "data=1 fsdp=-1 tensor=3 requires a multiple of 3 devices, but there are 8"
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(MeshConfig(tensor=3))


def test_a_batch_that_does_not_divide_is_filled_up(cube):
    rows = np.arange(1, 7).reshape(6, 1)
    (filled,) = sharding.shard_batch((rows,), cube)
    assert filled[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 0, 0]
    assert filled.addressable_shards[0].data.shape == (2, 1)
    assert sharding.filled_rows(6, cube, accumulate=3) == 12
    assert sharding.filled_rows(8, cube) == 8
