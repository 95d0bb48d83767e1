"""BRIDGE (arXiv 2512.20403): a few paid answers teach an assistant, which teaches the student."""

from bridge_jax.config import RunConfig
from bridge_jax.methods import (
    apprenticeship,
    baselines,
    evaluation,
    held_out,
    logits,
    rationales,
    rounds,
    selection_parts,
    thresholds,
    tutoring,
)
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.pipeline.stages import Method, Stage
from bridge_jax.text.prompts import Mode


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of a run, in the order of the paper's steps."""
    modes = _modes(config)
    annotated = {"annotated": ANNOTATIONS.name}
    by = rounds.last(config)
    plan = [
        # Phase 1, apprenticeship.
        *apprenticeship.warmup_stages(config),
        *selection_parts.selection_stages(config),
        *held_out.stages(config),
        *selection_parts.stages(config),
        rationales.assistant_stage(config, modes),
        # The filter may compare rationales with the student's samples, in rounds too.
        *tutoring.instruction_stages(config),
        *rationales.sample_stages(config, tutoring.instruction_reads(config)),
        *rounds.stages(config, modes),
        # Phase 2, tutoring.
        *thresholds.stages(config, by, modes[-1]),
        *rationales.stages(config, by, modes[-1]),
        *logits.stages(config, by, modes[-1], annotated),
    ]
    if "direct" in config.compare:
        plan.append(tutoring.direct_stage(config))
    plan.append(tutoring.student_stage(config, annotated))
    if _compares_labels(config):
        plan.append(baselines.labels_stage(config, plan[-1]))
    return plan + _tests(config)


def _compares_labels(config: RunConfig) -> bool:
    return "labels" in config.compare and config.data.labelled


def _modes(config: RunConfig) -> tuple[Mode, ...]:
    """Returns the modes in which the assistant is trained; it writes for the pool in the last one.

    If the pool is labelled and `rationales.show_gold` is set, it explains the gold answers.
    """
    shows_gold = config.data.labelled and config.rationales.show_gold
    return ("reason", "explain") if shows_gold else ("reason",)


def _tests(config: RunConfig) -> list[Stage]:
    mode = tutoring.student_mode(config)
    others = []
    if "direct" in config.compare:
        others.append(
            evaluation.test_stage(config, evaluation.STUDENT_DIRECT, tutoring.DIRECT, mode)
        )
    if _compares_labels(config):
        others.append(
            evaluation.test_stage(config, evaluation.STUDENT_LABELS, baselines.LABELS, "answer")
        )
    return [
        *evaluation.student_test_stages(config, mode, others),
        evaluation.test_stage(config, evaluation.ASSISTANT_BASE, None),
        evaluation.test_stage(config, evaluation.ASSISTANT, rounds.last(config)),
    ]


# In the order of reports.
UP_TO_STUDENT = (
    *apprenticeship.UP_TO_SELECTION,
    *held_out.ALL,
    *selection_parts.ALL,
    ANNOTATIONS,
    rationales.ASSISTANT,
    *rounds.ALL,
    tutoring.INSTRUCT,
    *thresholds.ALL,
    *rationales.ALL,
    logits.LOGITS,
    tutoring.STUDENT,
)
METHOD = Method(
    "bridge",
    "a BRIDGE distillation (arXiv 2512.20403)",
    (
        *UP_TO_STUDENT,
        tutoring.DIRECT,
        baselines.LABELS,
        *evaluation.OF_ASSISTANT,
        evaluation.STUDENT_BASE,
        evaluation.STUDENT_INSTRUCT,
        evaluation.STUDENT_DIRECT,
        evaluation.STUDENT_LABELS,
        evaluation.STUDENT,
        evaluation.STUDENT_DEV,
    ),
    stages,
)
