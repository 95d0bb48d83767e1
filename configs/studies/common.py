"""What the studies on practice tasks start from: the quickstart. Not a study itself.

Its task is one that a small student can learn, in minutes. The assistant is the whole model: cut,
it would first have to learn to write again, from a handful of answers. Prompts are at most 44
tokens long (instructions 53), rationales with their answers 18, so a row of 192 holds three
examples.
"""

import dataclasses
import math

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell
from configs import quickstart

QUICKSTART = quickstart.get_config()
POOL = QUICKSTART.data.pool
SEEDS = range(3)
TRAININGS = (
    *("warmup.train", "assistant_training", "instruct.train"),
    *("student_training", "direct_training"),
)
STEPS = 10  # Of the assistant, at least, with up to 20% of the pool.


def layers(count: int) -> str:
    """Returns the value of `keep_layers` for `count` of SmolLM2-135M's layers, evenly spaced."""
    return ",".join(str(math.ceil(i * 29 / (count - 1))) for i in range(count))


def base() -> RunConfig:
    """Returns the config that the runs of a study vary."""
    return override(
        dataclasses.replace(QUICKSTART, compare_direct=False),
        ["budget.usd=1.0", f"evaluation.assistant_examples={POOL // 6}"],
    )


def share(percent: float) -> tuple[str, ...]:
    """Returns the changes that ask about a share of the pool, rounded up.

    Few answers are read more often, for the models that learn from them alone to train enough;
    many are read by the assistant several at a time.
    """
    queries = math.ceil(percent / 100 * POOL)
    row = QUICKSTART.assistant_training.row_tokens * max(1, queries // STEPS)
    as_the_student = round(QUICKSTART.student_training.epochs * POOL / queries)
    return (
        f"budget.queries={queries}",
        f"assistant_training.epochs={math.ceil(STEPS / queries)}",
        f"assistant_training.row_tokens={row}",
        f"direct_training.epochs={as_the_student}",
    )


def cell(variant: str, seed: int, *changes: str, x: float | None = None) -> Cell:
    """Returns a run that differs from `base` by `changes` ("a.b=value") and the seed."""
    name = variant if x is None else f"{variant}, {x:g}"
    return Cell(variant, override(base(), [f"seed={seed}", f"name={name}", *changes]), x)
