"""Every step compiles for a TPU that is not there: shapes, layouts and memory are checked.

The models are small, and so is the pool: `make plans` compiles the real ones.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bridge_jax.config import LoraConfig, MeshConfig, TrainConfig
from bridge_jax.generation import slots
from bridge_jax.models import decoder, projection
from bridge_jax.models.config import DecoderConfig, Rope
from bridge_jax.parallel import chips
from bridge_jax.parallel.sharding import local_bytes, make_mesh
from bridge_jax.selection import clusters, greedy
from bridge_jax.selection.batches import Shape, empty
from bridge_jax.selection.pool import PoolRows
from bridge_jax.selection.scores import gradient_batch, score_batch
from bridge_jax.text.packing import Rows
from bridge_jax.training.objectives.distillation import (
    ReverseKL,
    SoftTargets,
    SoftTargetSFT,
    predict_batch,
)
from bridge_jax.training.objectives.policy import Policy, PolicyTargets
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import TrainState, make_optimizer, make_train_step

CONFIG = DecoderConfig(
    512, 128, 2, 4, 2, 64, 256, dtype=jnp.bfloat16, kernel="splash", remat="full"
)
WINDOWED = dataclasses.replace(
    CONFIG,
    window=64,
    local=(True, False),
    local_rope=Rope(),
    qk_norm=True,
    qkv_bias=True,
    post_norms=True,
    norm_offset=1.0,
    attention_softcap=50.0,
    final_softcap=30.0,
)
ADAPTED = dataclasses.replace(
    CONFIG,
    lora=LoraConfig(rank=8, dropout=0.1, targets=("attention/value", "mlp/up")),
    param_dtype=jnp.bfloat16,
)
B, S, T = 8, 256, 64
BLOCKS, ROWS, WIDTH = 8, 512, 512  # of the pool
# A million embeddings of width 1,024 take an eighth of a v5e chip's memory on each of two chips.
ROOM = 8 * BLOCKS * ROWS * WIDTH * 4 // 2
# XLA looks for neither the fastest nor the smallest program, and is done in half the time.
QUICKLY: Any = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}


@pytest.fixture(scope="module")
def mesh():
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    topology = topologies.get_topology_desc("v5e:2x2", platform="tpu")
    return make_mesh(MeshConfig(1, 2, 2), topology.devices)


def array(mesh, *shape, dtype=jnp.int32):
    spec = PartitionSpec(("data", "fsdp")) if shape else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def check(lowered, kernel=False):
    """Returns the memory of the compiled step, which has the kernel for TPUs in it or has not."""
    compiled = lowered.compile(compiler_options=QUICKLY)
    assert ("splash" in compiled.as_text()) == kernel
    memory = compiled.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    assert 0 < used < ROOM
    return memory


def gathered(text):
    """Returns the numbers of values that a compiled program gathers, at once or started."""
    lines = [line for line in text.splitlines() if re.search(r" all-gather(-start)?\(", line)]
    shapes = [re.findall(r"\w\d+\[([\d,]+)\]", line.split(" all-gather")[0]) for line in lines]
    return [max(math.prod(map(int, s.split(","))) for s in of_one) for of_one in shapes]


def train_step(config, trained, frozen, mesh, extra_targets=None, objective=None):
    """Returns the compiled step's memory."""
    optimizer = make_optimizer(TrainConfig())
    # Moments lie as their parameters, counters everywhere.
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_shape = {p.shape: p.sharding for p in jax.tree.leaves(trained)}
    opt_state = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(
            a.shape, a.dtype, sharding=by_shape.get(a.shape, everywhere)
        ),
        jax.eval_shape(optimizer.init, trained),
    )
    state = TrainState(trained, opt_state, array(mesh))
    shardings = jax.tree.map(lambda a: a.sharding, state)
    tokens, small = array(mesh, B, S), array(mesh, B, T)
    weights = array(mesh, B, T, dtype=jnp.float32)
    rows = Rows(tokens, tokens, tokens, small, small, weights, weights, extra_targets)
    objective = objective or SFT()
    step = make_train_step(objective, config, optimizer, accumulate=2, shardings=shardings)
    with jax.set_mesh(mesh):
        return check(step.lower(state, frozen, rows, array(mesh, dtype=jnp.float32)), kernel=True)


@pytest.mark.slow
def test_adapter_train_step_over_an_int8_base(mesh):
    assert ADAPTED.lora is not None
    config = dataclasses.replace(ADAPTED, lora=dataclasses.replace(ADAPTED.lora, base="int8"))
    floats = projection.split(decoder.abstract(ADAPTED, mesh))[1]
    adapter, base = projection.split(decoder.abstract(config, mesh))
    train_step(config, adapter, base, mesh)
    kernels = CONFIG.num_layers * (2 * 128 * 256 + 2 * 128 * 128 + 3 * 128 * 256)
    scales = CONFIG.num_layers * (256 + 2 * 128 + 128 + 2 * 256 + 128) * 4
    # Kernels are cut over the four chips, scales over the two of `tensor`, or not at all.
    saved = local_bytes(floats) - local_bytes(base)
    assert kernels // 4 - scales < saved < kernels // 4


@pytest.mark.slow
def test_adapter_train_step(mesh):
    adapter, base = projection.split(decoder.abstract(ADAPTED, mesh))
    memory = train_step(ADAPTED, adapter, base, mesh)
    frozen = sum(2 * p.size for p in jax.tree.leaves(base)) / 4
    # No gradient and no moment of the base: it is read, and beside it there is little.
    assert memory.argument_size_in_bytes < 2 * frozen
    assert memory.output_size_in_bytes < frozen


@pytest.mark.slow
def test_train_step_and_soft_targets(mesh):
    """Compiles the assistant's most probable tokens, and a student's step towards them."""
    k, params = 32, decoder.abstract(WINDOWED, mesh)
    wide, weights = (B, T, k), array(mesh, B, T, dtype=jnp.float32)
    soft: Any = SoftTargets(array(mesh, *wide), array(mesh, *wide, dtype=jnp.float32), weights)
    memory = train_step(WINDOWED, params, {}, mesh, soft, SoftTargetSFT(0.5))
    # The old state is donated: its bytes are the new one's.
    parameters = sum(p.size for p in jax.tree.leaves(params))
    assert memory.alias_size_in_bytes > 3 * 4 * parameters / 4 * 0.9
    tokens, small = array(mesh, B, S), array(mesh, B, T)
    rows: Any = Rows(tokens, tokens, tokens, small, small, weights, weights)  # type: ignore[arg-type]
    with jax.set_mesh(mesh):
        check(predict_batch.lower(WINDOWED, params, rows, k, WINDOWED.vocab_size), kernel=True)


@pytest.mark.slow
def test_policy_step(mesh):
    weights: Any = array(mesh, B, T, dtype=jnp.float32)
    extra_targets = PolicyTargets(weights, weights, weights, weights)
    train_step(CONFIG, decoder.abstract(CONFIG, mesh), {}, mesh, extra_targets, Policy(kl=0.001))


@pytest.mark.slow
def test_on_policy_step(mesh):
    wide, weights = (B, T, 32), array(mesh, B, T, dtype=jnp.float32)
    soft: Any = SoftTargets(array(mesh, *wide), array(mesh, *wide, dtype=jnp.float32), weights)
    train_step(CONFIG, decoder.abstract(CONFIG, mesh), {}, mesh, soft, ReverseKL())


@pytest.mark.slow
@pytest.mark.parametrize("config, step", [(CONFIG, score_batch), (WINDOWED, gradient_batch)])
def test_scoring_step(config, step, mesh):
    parts = 2
    shape = Shape(parts, B // parts, S, B // parts * T, 2 * B)
    batch: Any = jax.tree.map(lambda a: array(mesh, *a.shape), empty(shape))
    params = decoder.abstract(config, mesh)
    with jax.set_mesh(mesh):
        check(step.lower(config, params, batch), kernel=True)


@pytest.mark.slow
def test_fewer_kv_heads_than_chips(mesh):
    """Compiles 2 KV heads over 4 chips: no chip gathers the scores, the heads or the matrices."""
    four = make_mesh(MeshConfig(1, 1, 4), mesh.devices.ravel())
    params, shape = decoder.abstract(CONFIG, four), Shape(1, B, S, B * T, 2 * B)
    batch: Any = jax.tree.map(lambda a: array(four, *a.shape), empty(shape))
    with jax.set_mesh(four):
        compiled = score_batch.lower(CONFIG, params, batch).compile(compiler_options=QUICKLY)
    text = compiled.as_text()
    assert "splash" in text
    # The two highest logits of each prediction on each chip, and no more.
    assert max(gathered(text)) == 4 * 2 * B * T


@pytest.fixture(scope="module")
def pool(mesh):
    """Embeddings, split over two of the chips."""
    values = array(mesh, BLOCKS, ROWS, WIDTH, dtype=jnp.float32)
    return PoolRows(values, array(mesh, BLOCKS, ROWS, dtype=jnp.bool_))


@pytest.mark.slow
def test_kmeans(mesh, pool):
    count = 100
    check(clusters.lloyd.lower(pool, array(mesh, count), 1.0, 1.0, mesh))
    check(greedy.centers.lower(pool, array(mesh, 4), count, mesh, 0, expanded=True))


@pytest.mark.slow
def test_strategies(mesh, pool):
    rank = array(mesh, *pool.real.shape, dtype=jnp.float32)
    label = array(mesh, *pool.real.shape)
    first = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    check(greedy.centers.lower(pool, first, 500, mesh))
    check(greedy.herded.lower(pool, array(mesh, WIDTH, dtype=jnp.float32), 500, mesh))
    check(greedy.select_per_cluster.lower(pool, rank, label, 100, 0.5, 50, mesh))
    check(clusters.neighbour_distances.lower(pool, label, mesh))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 2, 2), (2, 1, 2)])
def test_generation(mesh, sizes):
    mesh = make_mesh(MeshConfig(*sizes), list(mesh.devices.ravel()))
    config = dataclasses.replace(WINDOWED, remat="none")
    programs = slots.lowered(config, mesh, slots.Size(8, 1024, 32, 16, 32, 4, 2))
    cache = sum(a.size * 2 for a in jax.tree.leaves(programs.state.cache)) / 4
    for program in (programs.prefill, programs.copy, programs.decode):
        memory = check(program)
        assert memory.alias_size_in_bytes > 0.9 * cache  # updated in place


@pytest.mark.slow
@pytest.mark.parametrize("sizes, gathers", [((2, 1, 2), False), ((1, 2, 2), True)])
def test_decoding_gathers_neither_the_weights_nor_the_table(mesh, sizes, gathers):
    """On the mesh for generation; on that for training it would, which shows that it is seen."""
    mesh = make_mesh(MeshConfig(*sizes), list(mesh.devices.ravel()))
    config = dataclasses.replace(WINDOWED, remat="none", vocab_size=4096)
    programs = slots.lowered(config, mesh, slots.Size(8, 256, 32, 16, 32, 4, 2))
    text = programs.decode.compile(compiler_options=QUICKLY).as_text()
    # The smallest matrix is of keys or values: 128 x 128. What else is gathered is of single rows.
    assert "all-reduce" in text and (max(gathered(text), default=0) >= 128 * 128 // 2) == gathers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:4x4", "v6e:4x4", "v5p:2x2x2"])
def test_a_mesh_axis_may_be_a_part_of_a_physical_one(name):
    pytest.importorskip("libtpu")
    devices, _ = chips.topology(name)
    half = len(devices) // 2
    assert make_mesh(MeshConfig(data=-1, fsdp=1, tensor=2), devices).devices.shape == (half, 1, 2)
