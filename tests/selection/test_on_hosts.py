"""A selection by two processes is that of one."""

import pytest

from tests.processes import together

SCRIPT = """
import json
import numpy as np
from bridge_jax.config import SelectionConfig
from bridge_jax.selection.strategies import STRATEGIES, select
from tests.selection.pools import unit_vectors

embeddings, gradients = (unit_vectors(300, 8, seed, mean=1.0) for seed in (0, 1))
difficulty = np.random.default_rng(0).gamma(2, size=300)
chosen = {}
for strategy in STRATEGIES:
    config = SelectionConfig(strategy=strategy)
    chosen[strategy] = select(difficulty, embeddings, 40, config, 0, None, gradients).chosen
print(json.dumps({"devices": jax.device_count(), "chosen": chosen}))
"""


@pytest.mark.slow
def test_two_processes_choose_what_one_chooses():
    (alone,), (one, other) = together(SCRIPT, 1, 2), together(SCRIPT, 2, 2)
    assert (alone["devices"], one["devices"]) == (2, 4)
    assert alone["chosen"] == one["chosen"] == other["chosen"]
