"""Builds the studies on real questions with a recorded teacher. Not a study itself.

Sized for two CPU cores: the student has 6 of SmolLM2-135M's 30 layers, the assistant all of them. A
step takes one row, so that a handful of answers trains the assistant for enough steps.
"""

from collections.abc import Sequence

from bridge_jax.config.io import override
from bridge_jax.study.study import Study, StudyRun
from configs import medical_cpu
from configs.studies import common

POOL, TEST = 80, 100  # Questions; four of the pool are asked.
EPOCHS = 1
VARIANTS = {
    "random": ["selection.strategy=random"],
    "coverage": ["selection.strategy=coverage"],
    "direct": ["selection.strategy=coverage", "method=direct"],
}


def study(name: str, question: str, row: int, changes: Sequence[str]) -> Study:
    """Returns a study of 5% of the pool: questions chosen, at random, or without an assistant.

    The direct student learns from the same answers that the assistant of `coverage` learns from,
    for as many steps as the other students, or fewer if the teacher was wrong.

    Args:
      name, question: those of the study.
      row: tokens of a row; they hold the longest example with its longest recorded rationale.
      changes: changes to `configs/medical_cpu.py`.
    """
    queries = POOL // 20
    small = [
        f"data.pool={POOL}",
        f"data.test={TEST}",
        f"budget.queries={queries}",
        f"student.keep_layers={common.layers(6)}",
        "assistant_training.epochs=3",
        f"student_training.epochs={EPOCHS}",
        f"direct_training.epochs={EPOCHS * POOL // queries}",
        *(f"{training}.remat=none" for training in common.TRAININGS),
        *(f"{training}.batch_rows=1" for training in common.TRAININGS),
        *(f"{training}.row_tokens={row}" for training in common.TRAININGS),
        f"evaluation.assistant_examples={TEST // 4}",
    ]
    runs = [
        StudyRun(
            variant,
            override(
                medical_cpu.get_config(),
                [f"seed={seed}", f"name={variant}", *small, *changes, *its_own],
            ),
        )
        for seed in common.SEEDS
        for variant, its_own in VARIANTS.items()
    ]
    return Study(name, question, tuple(runs), reference="coverage")
