"""Does 5% of the teacher's answers and an assistant beat the teacher's answers alone?

    python -m launch.study --config=configs/studies/direct_vs_bridge.py --workdir=runs/direct

The direct student learns from the teacher's answers to 5% of the pool (the very ones that the
assistant learned from), 10% and 100%, each for about as many steps as the student.
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
    def direct(percent: float, *changes: str) -> Cell:
        asked = common.share(percent)
        return common.cell(f"direct, {percent:g}%", seed, "method=direct", *asked, *changes)

    return [
        common.cell(BRIDGE, seed, *common.share(5)),
        direct(5),
        direct(10),
        direct(100, "selection.strategy=random"),  # All are asked: there is nothing to choose.
    ]
