"""The programs compile for a TPU that is not there: shapes, layouts and memory are checked."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bridge_jax.config import GenerationConfig, TrainConfig
from bridge_jax.generation.engine import generate_batch
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import make_mesh, parameter_shardings
from bridge_jax.selection.scores import ScoreBatch, score_batch
from bridge_jax.text.packing import Rows
from bridge_jax.training.optimizer import make_optimizer
from bridge_jax.training.step import TrainState, make_train_step

CONFIG = DecoderConfig(4096, 256, 2, 4, 2, 64, 512, dtype=jnp.bfloat16, remat=True)
B, S, T = 8, 256, 64
HBM = 16 * 2**30  # bytes of a v5e chip


@pytest.fixture(scope="module")
def mesh():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    return make_mesh(fsdp=2, tensor=2, devices=topology.devices)


@pytest.fixture(scope="module")
def params(mesh):
    boxed = jax.eval_shape(functools.partial(decoder.init, CONFIG), jax.random.key(0))
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        nn.unbox(boxed),
        parameter_shardings(boxed, mesh),
    )


def array(mesh, *shape, dtype=jnp.int32):
    spec = PartitionSpec(("data", "fsdp")) if shape else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def check(lowered):
    memory = lowered.compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    assert 0 < used < HBM
    return memory


def test_train_step(mesh, params):
    optimizer = make_optimizer(TrainConfig(), 10)
    # Moments lie as their parameters, counters everywhere.
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_shape = {p.shape: p.sharding for p in jax.tree.leaves(params)}
    opt_state = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=by_shape.get(a.shape, everywhere)
        ),
        jax.eval_shape(optimizer.init, params),
    )
    state = TrainState(params, opt_state, array(mesh))
    shardings = jax.tree.map(lambda a: a.sharding, state)
    tokens, small = array(mesh, B, S), array(mesh, B, T)
    weights = array(mesh, B, T, dtype=jnp.float32)
    rows = Rows(tokens, tokens, tokens, small, small, weights, weights)
    memory = check(make_train_step(CONFIG, optimizer, 0.5, 2, shardings).lower(state, {}, rows))
    # The old state is donated: its bytes are the new one's.
    parameters = sum(p.size for p in jax.tree.leaves(params))
    assert memory.alias_size_in_bytes > 3 * 4 * parameters / 4 * 0.9


def test_scoring_step(mesh, params):
    row = array(mesh, B)
    batch = ScoreBatch(array(mesh, B, S), row, row, array(mesh, B, T))  # type: ignore[arg-type]
    check(score_batch.lower(CONFIG, params, batch))


def test_generation(mesh, params):
    config = dataclasses.replace(CONFIG, remat=False)
    key = jax.eval_shape(lambda: jax.random.key(0))
    settings = GenerationConfig(max_new_tokens=32, temperature=0.7, top_p=0.9)
    check(generate_batch.lower(config, params, array(mesh, B, S), array(mesh, B), key, settings, 2))
