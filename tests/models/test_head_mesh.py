"""The head on a mesh: equal to one device, and each chip streams its own rows of the table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bridge_jax.config import MeshConfig
from bridge_jax.models import head
from bridge_jax.models.head import Head, Stream
from bridge_jax.parallel.sharding import make_mesh

N, D, K = 12, 8, 3


def inputs(vocab):
    keys = jax.random.split(jax.random.key(vocab), 3)
    hidden, table = 3 * jax.random.normal(keys[0], (N, D)), jax.random.normal(keys[1], (vocab, D))
    ids = jax.random.randint(keys[2], (N, K), 0, vocab).at[:2, 0].set(vocab - 1)
    return hidden, table, ids


def everything(hidden, table, ids, stream):
    """Returns all that the head finds, and the gradients of a sum of it."""
    weights = jnp.arange(float(N)).at[3].set(0)  # Padding has no weight.

    def total(hidden, table):
        output = Head(table, 5.0)
        stats = head.token_statistics(hidden, output, ids[:, 0], stream)
        best = head.top(hidden, output, K, 17, stream)
        logprobs = head.logprobs_at(hidden, output, ids, stream)
        per_row = stats.nll + stats.entropy + stats.margin + logprobs @ jnp.arange(1.0, 1 + K)
        return (weights * (per_row + best.logprobs.sum(-1))).sum(), (stats, best, logprobs)

    return jax.value_and_grad(total, (0, 1), has_aux=True)(hidden, table)


# Chunks that divide a chip's part of the table and do not; a table that two chips do not divide.
@pytest.mark.parametrize(
    ("vocab", "stream"),
    [
        pytest.param(42, Stream(7, 0), marks=pytest.mark.slow),
        (42, Stream(4, 0)),
        pytest.param(42, Stream(4), marks=pytest.mark.slow),
        pytest.param(41, Stream(8), marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(vocab, stream):
    arrays = inputs(vocab)
    expected = jax.jit(everything, static_argnums=3)(*arrays, stream)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    split = "tensor" if vocab % 2 == 0 else None
    specs = PartitionSpec(("data", "fsdp")), PartitionSpec(split, "fsdp")
    hidden, table = (jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(arrays, specs))
    with jax.set_mesh(mesh):
        found = jax.jit(everything, static_argnums=3)(hidden, table, arrays[2], stream)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, expected
    )
    of_hidden, of_table = found[1]
    assert of_table.sharding.spec == specs[1]
    assert of_hidden.sharding.is_equivalent_to(hidden.sharding, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1 << 27])
def test_no_chip_gathers_the_table_of_another(kept):
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices
    mesh = make_mesh(MeshConfig(1, 2, 2), devices)
    rows, width, vocab, chunk = 256, 384, 40_000, 1024

    def abstract(spec, dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def loss(hidden, table, targets):
        stats = head.token_statistics(hidden, Head(table), targets, Stream(chunk, kept))
        return stats.nll.sum(), (stats.entropy, stats.margin)

    batch = PartitionSpec(("data", "fsdp"))
    shapes = (
        abstract(batch, jnp.bfloat16, rows, width),
        abstract(PartitionSpec("tensor", "fsdp"), jnp.float32, vocab, width),
        abstract(batch, jnp.int32, rows),
    )
    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(loss, (0, 1), has_aux=True)).lower(*shapes).compile()
    found = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather(?:-start)?\(", compiled.as_text())
    shapes = {tuple(map(int, shape.split(","))) for shape in found}
    # Chunks are gathered over fsdp, the last one too, and the two likeliest tokens over tensor.
    last = vocab // 2 % chunk
    assert {(chunk, width), (last, width)} <= shapes
    assert max(max(shape) for shape in shapes) == chunk < vocab // 2
    memory = compiled.memory_analysis()
    table = 4 * vocab * width // 4
    # The gradient stays where the table is.
    assert memory.output_size_in_bytes < table + 2 * rows * width + 2**20
    if not kept:
        assert memory.temp_size_in_bytes < table + 2**23
