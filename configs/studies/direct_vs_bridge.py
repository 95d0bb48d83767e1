"""Does 5% of the teacher's answers and an assistant beat the teacher's answers alone?

    python -m launch.study --config=configs/studies/direct_vs_bridge.py --workdir=runs/direct

The direct student learns from the teacher's answers to 5% of the pool (the very ones that the
assistant learned from), 10% and 100%, each for about as many steps as the student, 70: that are 35,
17 and 2 epochs.
"""

from bridge_jax.studies.study import Cell, Study
from configs.studies import common

BRIDGE = "bridge, 5%"


def get_study() -> Study:
    """Returns the study."""
    return Study(
        "direct_vs_bridge",
        "Does 5% with an assistant beat the teacher’s answers alone?",
        tuple(cell for seed in common.SEEDS for cell in _cells(seed)),
        reference=BRIDGE,
    )


def _cells(seed: int) -> list[Cell]:
    few = f"budget.queries={common.queries(5)}"
    return [
        common.cell(BRIDGE, seed, few),
        _direct("direct, 5%", seed, few, common.AS_MANY_STEPS),
        _direct(
            "direct, 10%", seed, f"budget.queries={common.queries(10)}", "direct_training.epochs=17"
        ),
        _direct(
            "direct, 100%",
            seed,
            f"budget.queries={common.POOL}",
            "direct_training.epochs=2",
            "selection.strategy=random",  # All are asked: there is nothing to choose.
        ),
    ]


def _direct(variant: str, seed: int, *changes: str) -> Cell:
    return common.cell(variant, seed, "method=direct", *changes)
