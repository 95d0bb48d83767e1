"""A new method in one file: the student learns the labels of the shortest questions alone."""

import dataclasses
from typing import TypedDict

from bridge_jax.methods import evaluation, inputs
from bridge_jax.methods.fitting import TrainSpec, fit, train_spec
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.stages import Method, Stage, Workload


class Short(TypedDict):
    """A question that is learned."""

    id: str
    length: int


SHORT = Artifact(
    "toy/short", "Choosing short questions", "select", None, (rows("short.jsonl", Short),)
)
DRILL = Artifact("toy/drill", "Drilling the student", "train", "student", TRAINED, is_last=True)
DRILLED = evaluation.measured("student_drilled", "student", "Drilled student", "after its drill")


@dataclasses.dataclass(frozen=True)
class Choosing:
    """Parameters of the choice: the share of the pool that is learned."""

    share: float


def choose(params, out, pool):
    """Writes the shortest questions."""
    shortest = sorted(pool, key=lambda example: (len(example.question), example.id))
    kept = shortest[: round(params.share * len(pool))]
    out.write_rows("short.jsonl", ({"id": e.id, "length": len(e.question)} for e in kept))


def drill(params: TrainSpec, out, pool, student, reading, short):
    """Trains the student on their labels."""
    found = [reading.sequence(pool.by_id[row["id"]], None) for row in short.rows("short.jsonl")]
    fit(out, "drill", student.trainable(), found, params)


def stages(config):
    """Returns the steps."""
    reads = inputs.POOL_TO_STUDENT
    return [
        Stage(SHORT, choose, Choosing(config.warmup.fraction), {"pool": inputs.POOL}),
        Stage(
            DRILL,
            drill,
            train_spec(config, "student_training"),
            reads | {"short": SHORT.name},
            Workload("pool", text="answer", share=config.warmup.fraction),
        ),
        evaluation.test_stage(config, evaluation.STUDENT_BASE, None, "answer"),
        evaluation.test_stage(config, DRILLED, DRILL, "answer"),
    ]


METHOD = Method("toy", "a drill", (SHORT, DRILL, evaluation.STUDENT_BASE, DRILLED), stages)
