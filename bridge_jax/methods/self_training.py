"""Self-training, a baseline without a teacher: the warmed-up assistant writes what is learned.

What it gets right is one round as in STaR (2203.14465) and ReST (2308.08998), with the student as
the one that learns.
"""

from bridge_jax.config import RunConfig
from bridge_jax.methods import (
    apprenticeship,
    evaluation,
    instruct,
    logits,
    rationales,
    tutoring,
)
from bridge_jax.methods.method import Method
from bridge_jax.pipeline.stages import Stage


def stages(config: RunConfig) -> list[Stage]:
    """Returns the steps."""
    by = apprenticeship.WARMUP
    return [
        apprenticeship.warmup(config),
        *instruct.stages(config),
        *rationales.stages(config, by, "reason"),
        *logits.stages(config, by, "reason", {}),
        tutoring.student(config, {}),
        *evaluation.of_student(config, tutoring.STUDENT, evaluation.student_mode(config)),
        evaluation.test_of(config, evaluation.ASSISTANT_BASE, None),
        evaluation.test_of(config, evaluation.ASSISTANT, by),
    ]


METHOD = Method(
    "self",
    "a self-training without a teacher",
    (
        apprenticeship.WARMUP,
        instruct.INSTRUCT,
        rationales.COMPLETIONS,
        rationales.SAMPLES,
        rationales.RATIONALES,
        logits.LOGITS,
        tutoring.STUDENT,
        evaluation.ASSISTANT_BASE,
        evaluation.ASSISTANT,
        evaluation.STUDENT_BASE,
        evaluation.STUDENT_INSTRUCT,
        evaluation.STUDENT,
    ),
    stages,
    {"assistant": "after its warm-up on labels"},
)
