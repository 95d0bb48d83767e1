"""Direct distillation, a baseline: the student learns from the teacher's answers alone."""

from bridge_jax.config import RunConfig
from bridge_jax.methods import annotations, apprenticeship, evaluation, instruct, tutoring
from bridge_jax.methods.method import Method
from bridge_jax.pipeline.stages import Stage


def stages(config: RunConfig) -> list[Stage]:
    """Returns the steps; an assistant is warmed up only where the selection looks at its scores."""
    scored = config.selection.strategy != "random"
    return [
        *([apprenticeship.warmup(config)] if scored else []),
        *apprenticeship.selection(config, scored),
        annotations.annotations(config),
        *instruct.stages(config),
        tutoring.direct(config, tutoring.STUDENT),
        *evaluation.of_student(config, tutoring.STUDENT, evaluation.student_mode(config)),
    ]


METHOD = Method(
    "direct",
    "a direct distillation",
    (
        apprenticeship.WARMUP,
        apprenticeship.GUESSES,
        apprenticeship.SCORES,
        apprenticeship.GRADIENTS,
        apprenticeship.SELECTION,
        annotations.ANNOTATIONS,
        instruct.INSTRUCT,
        tutoring.STUDENT,
        evaluation.STUDENT_BASE,
        evaluation.STUDENT_INSTRUCT,
        evaluation.STUDENT,
    ),
    stages,
    {"student": "after the teacher's answers alone"},
)
