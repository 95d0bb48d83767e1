"""Fine-tuning on labels, a baseline: the student learns the gold answers of the whole pool."""

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError
from bridge_jax.methods import evaluation, instruct, tutoring
from bridge_jax.methods.method import Method
from bridge_jax.pipeline.stages import Stage


def stages(config: RunConfig) -> list[Stage]:
    """Returns the steps: neither a teacher nor an assistant."""
    return [
        *instruct.stages(config),
        tutoring.labels(config),
        *evaluation.of_student(config, tutoring.STUDENT, "answer"),
    ]


def check(config: RunConfig) -> None:
    """Raises a `UserError` for what needs rationales, or labels that are not known."""
    if config.form != "chain":
        raise UserError(f"form={config.form}: method=labels has no rationale; leave it at chain")
    if not config.data.labelled:
        raise UserError("data.labelled=false: method=labels trains on gold answers")


METHOD = Method(
    "labels",
    "a fine-tuning on labels",
    (
        instruct.INSTRUCT,
        tutoring.STUDENT,
        evaluation.STUDENT_BASE,
        evaluation.STUDENT_INSTRUCT,
        evaluation.STUDENT,
    ),
    stages,
    {"student": "after the gold answers of the pool"},
    check,
)
