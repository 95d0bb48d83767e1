"""An import reads a checkpoint once, and keeps no more than one tensor beside the parameters."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file

from bridge_jax.config import MeshConfig, ModelConfig
from bridge_jax.models.hub import checkpoint as checkpoints
from bridge_jax.models.hub.files import StoredTensors
from bridge_jax.parallel.sharding import make_mesh
from tests import tiny
from tests.processes import together

SCRIPT = """
import sys, threading, time
import jax
from bridge_jax.config import ModelConfig
from bridge_jax.models.hub import checkpoint

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024

peak, stop = 0, threading.Event()
def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.001)

checkpoint.load(ModelConfig(sys.argv[2]))  # compiled, everything imported
before = anonymous()
threading.Thread(target=watch).start()
_, params = checkpoint.load(ModelConfig(sys.argv[1]))
jax.block_until_ready(params)
stop.set()
print(peak - before, sum(a.nbytes for a in jax.tree.leaves(params)))
"""


@pytest.mark.slow
def test_peak_memory(tmp_path):
    shape = {"layers": 24, "vocab": 2048, "dim": 512, "mlp": 2048, "heads": 8, "kv_heads": 8}
    big = tiny.write_checkpoint(tmp_path / "big", head_dim=64, **shape)
    small = tiny.write_checkpoint(tmp_path / "small", head_dim=64, **shape | {"layers": 1})
    config = json.loads((big / "config.json").read_text())
    largest = max(a.nbytes for a in tiny.tensors(config | {"num_hidden_layers": 1}, 0).values())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(big), str(small)],
        capture_output=True,
        text=True,
        check=True,
        # In huge pages every arena of the allocator is rounded up to megabytes that hold nothing.
        env=os.environ | {"GLIBC_TUNABLES": ""},
    )
    peak, model = map(int, done.stdout.split())
    assert model > 380e6
    # The allocator's own slack is allowed; a second copy of the model, or of a stack of 24 layers
    # (100 MB), is not.
    assert peak < model + largest + 40e6


def test_a_layer_is_written_before_the_next_is_read(monkeypatch, one_device):
    sharding = NamedSharding(one_device, PartitionSpec(None, None, None))
    shape = jax.ShapeDtypeStruct((4, 128, 128), jnp.float32, sharding=sharding)
    busy, stacks = jnp.full((128, 128), 1 / 128), []

    @jax.jit
    def slow(stack, layer, position):
        ones = jax.lax.fori_loop(0, 2000, lambda _, x: x @ busy, jnp.ones((128, 128)))
        return stack.at[position].set(layer * ones)

    def write(*given):
        stacks.append(slow(*given))
        return stacks[-1]

    def read(layer):
        assert all(stack.is_ready() for stack in stacks)
        return jnp.full((128, 128), layer, jnp.float32)

    monkeypatch.setattr(checkpoints, "_stacking", lambda _: (lambda: jnp.zeros(shape.shape), write))
    arranged = "D F -> D F", (("D", 128), ("F", 128))
    found = checkpoints._place(read, arranged, (3, 1, 0, 2), shape)
    np.testing.assert_allclose(found[:, 0, 0], [3, 1, 0, 2], rtol=1e-3)


def counting(monkeypatch):
    """Returns a list to which each read adds (name, first row, last row, bytes)."""
    found, rows = [], StoredTensors.rows

    def read(tensors, name, first, last):
        value = rows(tensors, name, first, last)
        found.append((name, first, last, value.nbytes))
        return value

    monkeypatch.setattr(StoredTensors, "rows", read)
    return found


@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_each_device_reads_rows_of_its_own(sizes, tmp_path, monkeypatch):
    folder = tiny.write_checkpoint(tmp_path, dim=64, tied=False)
    reads = counting(monkeypatch)
    mesh = make_mesh(MeshConfig(*sizes))
    _, params = checkpoints.load(ModelConfig(str(folder)), mesh)
    stored = load_file(folder / "model.safetensors")
    assert sum(size for *_, size in reads) == sum(a.nbytes for a in stored.values())
    for name, tensor in stored.items():
        parts = sorted((first, last) for read, first, last, _ in reads if read == name)
        eighth = len(tensor) // 8
        assert parts == [(i * eighth, (i + 1) * eighth) for i in range(8)]
    _, alone = checkpoints.load(ModelConfig(str(folder)))
    jax.tree.map(np.testing.assert_array_equal, params, alone)
    kernel = params["layers"]["attention"]["query"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec(None, "fsdp", "tensor", None)


def test_rows_that_the_devices_do_not_divide_are_read_once(tmp_path, monkeypatch):
    folder = tiny.write_checkpoint(tmp_path, vocab=514, tied=False)
    reads = counting(monkeypatch)
    _, params = checkpoints.load(ModelConfig(str(folder)), make_mesh(MeshConfig(2, 4, 1)))
    table = [read[1:3] for read in reads if read[0] == "model.embed_tokens.weight"]
    assert sorted(table) == [(0, 257), (257, 514)]
    stored = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(params["embedding"], stored["model.embed_tokens.weight"])


HOSTS = """
import json
from pathlib import Path
from bridge_jax.config import MeshConfig, ModelConfig
from bridge_jax.models.hub import checkpoint
from bridge_jax.models.hub.files import StoredTensors
from bridge_jax.parallel.sharding import make_mesh

rows, read = StoredTensors.rows, 0

def counted(*asked):
    global read
    value = rows(*asked)
    read += value.nbytes
    return value

StoredTensors.rows = counted
for sizes in ((1, 8, 1), (2, 2, 2)):
    _, params = checkpoint.load(ModelConfig(sys.argv[4]), make_mesh(MeshConfig(*sizes)))
shards = params["embedding"].addressable_shards
print(json.dumps({"read": read, "rows": [shard.data[0, :2].tolist() for shard in shards]}))
"""


@pytest.mark.slow
def test_each_of_two_hosts_reads_half_of_a_checkpoint(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, dim=64)
    stored = load_file(folder / "model.safetensors")
    hosts = together(HOSTS, 2, 4, [str(folder)])
    whole = sum(a.nbytes for a in stored.values())
    assert [host["read"] for host in hosts] == [whole, whole]  # half of it twice
    table = stored["model.embed_tokens.weight"]
    first = [table[row, column : column + 2].tolist() for column in (0, 32) for row in (0, 256)]
    assert [sorted(host["rows"]) for host in hosts] == [sorted(first)] * 2
