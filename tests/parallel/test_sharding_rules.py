import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Engine
from bridge_jax.models import decoder
from bridge_jax.parallel import sharding
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Sequence
from bridge_jax.training.step import loss_and_gradients

RNG = np.random.default_rng(0)


def abstract(config):
    return jax.eval_shape(functools.partial(decoder.init, config), jax.random.key(0))


@pytest.fixture(scope="module")
def cube():
    return sharding.make_mesh(data=2, fsdp=2, tensor=2)


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


def test_loss_and_gradients_equal_those_of_one_device(tiny_model, sharded, cube, one_device):
    sequences = [Sequence(*(RNG.integers(3, 500, n).tolist() for n in (4, 5, 3))) for _ in range(8)]
    rows = pack(sequences, 12, 2)
    step = jax.jit(loss_and_gradients, static_argnums=(0, 3, 4))
    config, params = tiny_model
    expected = step(config, params, sharding.shard_batch(rows, one_device), 0.4, 1)
    found = step(*sharded, sharding.shard_batch(rows, cube), 0.4, 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, expected)


def test_generation_equals_that_of_one_device(tiny_model, sharded, cube, one_device):
    prompts = [RNG.integers(3, 500, n).tolist() for n in (3, 9, 20, 31)]
    settings = GenerationConfig(max_new_tokens=8, batch_size=4)

    def write(config, params, mesh):
        (batch,) = Engine(config, params, -1, 2, settings, mesh).complete(prompts)
        return dict(batch)

    expected, found = write(*tiny_model, one_device), write(*sharded, cube)
    for i in expected:
        assert found[i].ids == expected[i].ids
        np.testing.assert_allclose(found[i].logprobs, expected[i].logprobs, atol=1e-5)


def boxed(names, shape):
    return {"mlp": {"up": nn.Partitioned(jnp.zeros(shape), names)}}


def test_unknown_axis_names_the_parameter(cube):
    with pytest.raises(UserError, match=r"parameter \['mlp'\]\['up'\]: axis 'width' has no rule"):
        sharding.parameter_shardings(boxed(("embed", "width"), (4, 4)), cube)


def test_size_that_does_not_divide_names_the_parameter(cube):
    message = r"parameter \['mlp'\]\['up'\]: axis 'mlp' of size 5 is not divided.*tensor=2"
    with pytest.raises(UserError, match=message):
        sharding.parameter_shardings(boxed(("embed", "mlp"), (4, 5)), cube)


def test_mesh_sizes():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
    with pytest.raises(UserError, match="data=3 fsdp=1 tensor=1 needs 3 devices, there are 8"):
        sharding.make_mesh(data=3)


def test_batch_that_does_not_divide(cube):
    with pytest.raises(UserError, match=r"a batch of 6 rows is not divided by the 4 devices"):
        sharding.shard_batch((np.zeros((6, 3)),), cube)


def test_counters_go_on_the_mesh_and_the_rest_stays(sharded, cube):
    placed = sharding.on_mesh({"step": jnp.int32(3), "params": sharded[1]}, cube)
    assert placed["step"].sharding.is_fully_replicated
    assert len(placed["step"].sharding.device_set) == 8
    assert placed["params"]["embedding"] is sharded[1]["embedding"]
