"""What the studies on real questions with a recorded teacher have in common. Not a study itself."""

from collections.abc import Sequence

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell, Study

VARIANTS = {
    "random": ["selection.strategy=random"],
    "coverage": ["selection.strategy=coverage"],
    "direct": ["selection.strategy=coverage", "method=direct"],
}


def study(name: str, question: str, base: RunConfig, changes: Sequence[str]) -> Study:
    """Returns `base` with `changes`: questions chosen, at random, or without an assistant.

    The direct student learns from the very answers that the assistant of `coverage` learned from.
    """
    cells = [
        Cell(variant, override(base, [f"seed={seed}", f"name={variant}", *changes, *its_own]))
        for seed in range(3)
        for variant, its_own in VARIANTS.items()
    ]
    return Study(name, question, tuple(cells), reference="random")
