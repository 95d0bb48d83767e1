"""An import keeps no more than one tensor beside the parameters."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bridge_jax.models.hub import checkpoint as checkpoints
from tests import tiny

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
        return np.full((128, 128), layer, np.float32)

    monkeypatch.setattr(checkpoints, "_stacking", lambda _: (lambda: jnp.zeros(shape.shape), write))
    found = checkpoints._place(read, (3, 1, 0, 2), shape)
    np.testing.assert_allclose(found[:, 0, 0], [3, 1, 0, 2], rtol=1e-3)
