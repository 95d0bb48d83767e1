"""Measures how accuracy grows with the budget, for three selection strategies.

    python -m launch.plan --config=configs/studies/budget_scaling.py
    python -m launch.study --config=configs/studies/budget_scaling.py --workdir=runs/budget_scaling
    python -m launch.report --workdir=runs/budget_scaling --target_accuracy=0.6

45 runs: 0.1, 1, 5, 10 and 20% of 101 practice questions (with fewer questions, the first two
budgets are the same), rounded up to 1, 2, 6, 11 and 21 queries, x random, difficulty and coverage x
3 seeds. Took 41 min 41 s on two CPU cores with AVX-512 at revision e2f3580, and 58 min 13 s on
slower ones. The student has 51 to 56% with one query and 79 to 90% with 21; no strategy is reliably
better than random questions.
"""

from bridge_jax.study.study import Study
from configs.studies import common

POOL = 101
BUDGETS = (0.1, 1.0, 5.0, 10.0, 20.0)
STRATEGIES = ("random", "difficulty", "coverage")


def get_study() -> Study:
    """Returns the study, ordered by seed, so that its first runs are a study too."""
    runs = [
        common.run(
            strategy,
            seed,
            f"data.pool={POOL}",
            f"selection.strategy={strategy}",
            *common.share(percent, pool=POOL),
            x=percent,
        )
        for seed in common.SEEDS
        for percent in BUDGETS
        for strategy in STRATEGIES
    ]
    return Study(
        "budget_scaling",
        "How far does a budget go, and does it matter what is asked?",
        tuple(runs),
        reference="random",
        axis="teacher queries, % of the pool",
    )
