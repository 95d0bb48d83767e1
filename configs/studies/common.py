"""Defines what the studies on triage share (`configs.triage`). Not a study itself."""

import dataclasses
import math

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.config.io import override
from bridge_jax.study.study import StudyRun
from configs import triage
from configs.triage import EPOCHS, POOL

SEEDS = range(3)
TRAININGS = tuple(RunConfig().trainings())
# About how many steps the assistant is trained, up to 20%: after six it still wrote bare labels.
STEPS = 10
ROW = 80  # The most tokens in one of the assistant's sequences.
MODES = 2  # It learns each teacher answer in two modes: with and without the gold answer shown.


def layers(count: int) -> str:
    """Returns the value of `keep_layers` for `count` of SmolLM2-135M's layers, evenly spaced."""
    return ",".join(str(math.ceil(i * 29 / (count - 1))) for i in range(count))


def base() -> RunConfig:
    """Returns the config that the runs vary; labels are trained with the student's settings."""
    return override(
        dataclasses.replace(triage.get_config(), compare=(), labels_training=TrainConfig(epochs=0)),
        ["budget.usd=1.0", f"evaluation.assistant_examples={POOL // 8}"],
    )


def share(percent: float, modes: int = MODES, pool: int = POOL) -> tuple[str, ...]:
    """Returns the changes that ask about a share of the pool, rounded up.

    Few answers are read more often, so that the models that learn from them alone train enough; of
    many answers, the assistant reads several in a row of tokens.

    Args:
      percent: of the pool.
      modes: in how many modes the assistant reads each answer; 1 if no gold answers are shown.
      pool: number of questions in the pool.
    """
    queries = math.ceil(percent / 100 * pool)
    sequences, as_the_student = modes * queries, round(EPOCHS * pool / queries)
    return (
        f"budget.queries={queries}",
        f"assistant_training.epochs={math.ceil(STEPS / sequences)}",
        f"assistant_training.row_tokens={ROW * max(1, sequences // STEPS)}",
        f"direct_training.epochs={as_the_student}",
    )


def run(variant: str, seed: int, *changes: str, x: float | None = None) -> StudyRun:
    """Returns a run that differs from `base` by `changes` ("a.b=value") and the seed."""
    name = variant if x is None else f"{variant}, {x:g}"
    return StudyRun(variant, override(base(), [f"seed={seed}", f"name={name}", *changes]), x)
