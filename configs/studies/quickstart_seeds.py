"""The quickstart over three seeds: is the student better than the direct student?

    python -m launch.study --config=configs/studies/quickstart_seeds.py --workdir=runs/seeds

A seed changes the practice data, the selection, the batch order and the sampling. The direct
student, which has 16 examples and not 320, is trained for nearly as many steps as the student: 126
against 132 to 135 (the quickstart stops it after 30, to save time).
"""

import dataclasses

from bridge_jax.config import RunConfig
from configs import quickstart


def get_study() -> dict[str, RunConfig]:
    """Returns a run for each seed."""
    base = quickstart.get_config()
    base = dataclasses.replace(
        base, direct_training=dataclasses.replace(base.direct_training, epochs=42)
    )
    return {f"seed{seed}": dataclasses.replace(base, seed=seed) for seed in range(3)}
