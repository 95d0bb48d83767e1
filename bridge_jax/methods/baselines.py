"""The methods that BRIDGE is compared with; each has a list of its steps."""

from bridge_jax.config import RunConfig
from bridge_jax.errors import require
from bridge_jax.methods import (
    apprenticeship,
    evaluation,
    held_out,
    logits,
    rationales,
    thresholds,
    tutoring,
)
from bridge_jax.methods.annotations import ANNOTATIONS, annotations_stage
from bridge_jax.pipeline.stages import Method, Stage


def direct_stages(config: RunConfig) -> list[Stage]:
    """Direct distillation: the student learns from the teacher's answers alone.

    An assistant is warmed up only if the selection uses its scores.
    """
    return [
        *up_to_answers(config),
        tutoring.direct_stage(config, tutoring.STUDENT),
        *evaluation.student_test_stages(config, tutoring.student_mode(config)),
    ]


def up_to_answers(config: RunConfig) -> list[Stage]:
    """Returns the stages up to the teacher's answers, and the student's instruction warm-up."""
    scored = config.selection.strategy != "random"
    warmup = apprenticeship.warmup_stages(config) if scored else []
    return [
        *warmup,
        *apprenticeship.selection_stages(config, scored),
        *held_out.stages(config),
        annotations_stage(config, apprenticeship.SELECTION),
        *tutoring.instruction_stages(config),
    ]


DIRECT = Method(
    "direct",
    "a direct distillation",
    (
        *apprenticeship.UP_TO_SELECTION,
        *held_out.ALL,
        ANNOTATIONS,
        tutoring.INSTRUCT,
        tutoring.STUDENT,
        *evaluation.OF_STUDENT,
    ),
    direct_stages,
    {"student": "after the teacher's answers alone"},
)


def self_training_stages(config: RunConfig) -> list[Stage]:
    """Self-training without a teacher: the student learns what the warmed-up assistant writes.

    Keeping what it gets right is one round as in STaR (2203.14465) and ReST (2308.08998), with the
    student as the one that learns.
    """
    by = apprenticeship.WARMUP
    return [
        *apprenticeship.warmup_stages(config),
        *held_out.stages(config),
        *tutoring.instruction_stages(config),
        *rationales.sample_stages(config, tutoring.instruction_reads(config)),
        *thresholds.stages(config, by, "reason"),
        *rationales.stages(config, by, "reason"),
        *logits.stages(config, by, "reason", {}),
        tutoring.student_stage(config, {}),
        *evaluation.student_test_stages(config, tutoring.student_mode(config)),
        evaluation.test_stage(config, evaluation.ASSISTANT_BASE, None),
        evaluation.test_stage(config, evaluation.ASSISTANT, by),
    ]


def _check_self_training(config: RunConfig) -> None:
    """Raises a `UserError` if the assistant learns nothing."""
    require(
        config.warmup.fraction > 0,
        "warmup.fraction=0: method=self has no teacher, and the assistant writes what it learned "
        "in its warm-up on labels; raise it, or use method=bridge",
    )


SELF_TRAINING = Method(
    "self",
    "a self-training without a teacher",
    (
        apprenticeship.WARMUP,
        *held_out.ALL,
        tutoring.INSTRUCT,
        *thresholds.ALL,
        *rationales.ALL,
        logits.LOGITS,
        tutoring.STUDENT,
        *evaluation.OF_ASSISTANT,
        *evaluation.OF_STUDENT,
    ),
    self_training_stages,
    {"assistant": "after its warm-up on labels"},
    _check_self_training,
)


def labels_stages(config: RunConfig) -> list[Stage]:
    """Fine-tuning on labels: the student learns the gold answers of the whole pool.

    There is neither a teacher nor an assistant.
    """
    return [
        *held_out.stages(config),
        *tutoring.instruction_stages(config),
        tutoring.labels(config),
        *evaluation.student_test_stages(config, "answer"),
    ]


def _check_labels(config: RunConfig) -> None:
    """Raises a `UserError` for a form with rationales, or unknown labels."""
    require(
        config.form == "chain",
        f"form={config.form}: method=labels has no rationale; leave it at chain",
    )
    require(config.data.labelled, "data.labelled=false: method=labels trains on gold answers")


LABELS = Method(
    "labels",
    "a fine-tuning on labels",
    (*held_out.ALL, tutoring.INSTRUCT, tutoring.STUDENT, *evaluation.OF_STUDENT),
    labels_stages,
    {"student": "after the gold answers of the pool"},
    _check_labels,
)
