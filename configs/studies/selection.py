"""Compares all selection strategies with random questions, at 5% of the pool.

    python -m launch.study --config=configs/studies/selection.py --workdir=runs/practice

21 runs. Took 13 min 27 s on two CPU cores at revision 4f41199, after `baselines` in the same
workdir; the two variants that both studies share are not counted. No strategy is better than random
questions: 70 to 80% against 83%.
"""

from bridge_jax.study.study import Study
from configs.studies import common

STRATEGIES = (
    "random",
    "difficulty",
    "diversity",
    "coverage",
    "typicality",
    "badge",
    "herding",
)


def get_study() -> Study:
    """Returns the study."""
    asked = common.share(5)
    runs = [
        common.run(strategy, seed, f"selection.strategy={strategy}", *asked)
        for seed in common.SEEDS
        for strategy in STRATEGIES
    ]
    return Study(
        "selection", "Does choosing what to ask beat asking at random?", tuple(runs), "random"
    )
