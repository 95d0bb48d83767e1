"""One of several processes that select from one pool: prints what each strategy chooses.

python tests/selection/on_hosts.py PORT PROCESSES ID
"""

import json
import sys

import jax
import numpy as np

if __name__ == "__main__":
    port, processes, process = map(int, sys.argv[1:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", processes, process)

    from bridge_jax.config import SelectionConfig
    from bridge_jax.selection.strategies import STRATEGIES, select
    from tests.selection.pools import unit_vectors

    embeddings, gradients = (unit_vectors(300, 8, seed, mean=1.0) for seed in (0, 1))
    difficulty = np.random.default_rng(0).gamma(2, size=300)
    chosen = {}
    for strategy in STRATEGIES:
        config = SelectionConfig(strategy=strategy)
        found = select(difficulty, embeddings, 40, config, 0, None, gradients)
        chosen[strategy] = found.chosen
    print(json.dumps({"devices": jax.device_count(), "chosen": chosen}))
