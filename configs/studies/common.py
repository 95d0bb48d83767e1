"""What the studies on practice tasks start from: the quickstart, smaller, so that many runs fit.

Not a study itself. `base` has 104 examples in the pool and 104 test questions (26 for the
assistant), each written in one batch, and a student of 6 of SmolLM2-135M's 30 layers.
The assistant is the whole model: cut, it would first have to learn to write again, from a handful
of answers. Rationales of these tasks are at most 21 tokens long, whole examples at most 82.
Trainings keep all activations: there is memory enough.
"""

import dataclasses
import math

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell
from configs import quickstart

POOL = 104
SEEDS = range(3)
TRAININGS = (
    *("warmup.train", "assistant_training", "instruct.train"),
    *("student_training", "direct_training"),
)
# The direct student's steps at 5%, about as many as the student's.
AS_MANY_STEPS = "direct_training.epochs=35"


def layers(count: int) -> str:
    """Returns the value of `keep_layers` for `count` of SmolLM2-135M's layers, evenly spaced."""
    return ",".join(str(math.ceil(i * 29 / (count - 1))) for i in range(count))


def base() -> RunConfig:
    """Returns the config that the runs of a study vary."""
    return override(
        dataclasses.replace(quickstart.get_config(), compare_direct=False),
        [
            f"data.pool={POOL}",
            f"data.test={POOL}",
            "budget.usd=1.0",
            f"student.keep_layers={layers(6)}",
            "warmup.fraction=0.25",
            "assistant_training.epochs=3",
            "instruct.examples=60",
            "student_training.epochs=2",
            "generation.max_new_tokens=24",
            f"generation.batch_size={POOL}",
            f"evaluation.assistant_examples={POOL // 4}",
            *(f"{training}.remat=none" for training in TRAININGS),
            *(f"{training}.batch_rows=1" for training in TRAININGS),
            *(f"{training}.row_tokens=232" for training in TRAININGS),  # Three examples.
        ],
    )


def queries(percent: float) -> int:
    """Returns how many examples a share of the pool is, rounded up."""
    return math.ceil(percent / 100 * POOL)


def cell(variant: str, seed: int, *changes: str, x: float | None = None) -> Cell:
    """Returns a run that differs from `base` by `changes` ("a.b=value") and the seed."""
    name = variant if x is None else f"{variant}, {x:g}"
    return Cell(variant, override(base(), [f"seed={seed}", f"name={name}", *changes]), x)
