"""An import keeps no more than one tensor beside the parameters."""

import json
import subprocess
import sys

from tests import tiny

SCRIPT = """
import sys, threading, time
import jax
from bridge_jax.config import ModelConfig
from bridge_jax.models import checkpoint

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
    )
    peak, model = map(int, done.stdout.split())
    assert model > 380e6
    # The allocator's own slack is allowed; a second copy of the model, or of a stack of 24 layers
    # (100 MB), is not.
    assert peak < model + largest + 40e6
