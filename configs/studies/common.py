"""What the studies on practice tasks start from: a task that a small student can learn, in minutes.

Not a study itself. `base` has 104 questions of triage in the pool and 104 for the test (17 for the
assistant), each written in one batch, and a student of 6 of SmolLM2-135M's 30 layers, which learns
in two passes. The assistant is the whole model: cut, it would first have to learn to write again,
from a handful of answers. Prompts are at most 44 tokens long (instructions 53), rationales with
their answers 18, so a row holds three examples. Trainings keep all activations: there is memory.
"""

import dataclasses
import math

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override
from bridge_jax.studies.study import Cell
from configs import quickstart

POOL, PASSES = 104, 2
SEEDS = range(3)
TRAININGS = (
    *("warmup.train", "assistant_training", "instruct.train"),
    *("student_training", "direct_training"),
)
STEPS = 10  # Of the assistant, at least, with up to 20%: after six it went on writing bare labels.
ROW = 80  # Tokens of one of the assistant's examples, at most.


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
            "data.domains=triage",
            "data.min_steps=2",
            "data.max_steps=2",
            "max_prompt_tokens=56",
            "budget.usd=1.0",
            f"student.keep_layers={layers(6)}",
            "warmup.fraction=0.25",
            "instruct.examples=120",
            f"student_training.epochs={PASSES}",
            "student_training.learning_rate=1e-3",
            "direct_training.learning_rate=1e-3",
            "generation.max_new_tokens=20",
            f"generation.batch_size={POOL}",
            f"evaluation.assistant_examples={POOL // 6}",
            *(f"{training}.remat=none" for training in TRAININGS),
            *(f"{training}.batch_rows=1" for training in TRAININGS),
            *(f"{training}.row_tokens=192" for training in TRAININGS),
            f"assistant_training.row_tokens={ROW}",
        ],
    )


def share(percent: float) -> tuple[str, ...]:
    """Returns the changes that ask about a share of the pool, rounded up.

    Few answers are read more often, for the models that learn from them alone to train enough;
    many are read by the assistant several at a time.
    """
    queries = math.ceil(percent / 100 * POOL)
    as_the_student = round(PASSES * POOL / queries)
    return (
        f"budget.queries={queries}",
        f"assistant_training.epochs={math.ceil(STEPS / queries)}",
        f"assistant_training.row_tokens={ROW * max(1, queries // STEPS)}",
        f"direct_training.epochs={as_the_student}",
    )


def cell(variant: str, seed: int, *changes: str, x: float | None = None) -> Cell:
    """Returns a run that differs from `base` by `changes` ("a.b=value") and the seed."""
    name = variant if x is None else f"{variant}, {x:g}"
    return Cell(variant, override(base(), [f"seed={seed}", f"name={name}", *changes]), x)
