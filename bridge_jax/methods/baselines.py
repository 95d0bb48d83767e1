"""The methods that BRIDGE is compared with, as lists of steps, and training on gold labels."""

import dataclasses
from collections.abc import Sequence
from itertools import chain

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.errors import require
from bridge_jax.methods import (
    apprenticeship,
    evaluation,
    held_out,
    logits,
    rationales,
    selection_parts,
    thresholds,
    tutoring,
)
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import SFTTargets
from bridge_jax.methods.fitting import TrainSpec, fit, train_spec
from bridge_jax.methods.inputs import Examples
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Method, Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.packing import pack
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.batches import steps_of

LABELS = Artifact("baselines/labels", "Training on the labels", "train", "student", TRAINED)


def direct_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of direct distillation: only the teacher's answers train the student.

    There is an assistant only if the selection uses its scores or its drafts.
    """
    return [
        *up_to_answers(config),
        tutoring.direct_stage(config, tutoring.STUDENT),
        *evaluation.student_test_stages(config, tutoring.student_mode(config)),
    ]


def up_to_answers(config: RunConfig) -> list[Stage]:
    """Returns the stages up to the teacher's answers, and the student's instruction warm-up."""
    has_assistant = config.selection.strategy != "random" or config.selection.parts > 1
    return [
        *(apprenticeship.warmup_stages(config) if has_assistant else []),
        *selection_parts.selection_stages(config),
        *held_out.stages(config),
        *selection_parts.stages(config),
        *tutoring.instruction_stages(config),
    ]


DIRECT_METHOD = Method(
    "direct",
    "a direct distillation",
    (
        *apprenticeship.UP_TO_SELECTION,
        *held_out.ALL,
        *selection_parts.ALL,
        ANNOTATIONS,
        tutoring.INSTRUCT,
        tutoring.STUDENT,
        *evaluation.OF_STUDENT,
    ),
    direct_stages,
    {"student": "trained on the teacher's answers alone"},
)


def self_training_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of self-training: the student learns from the warmed-up assistant.

    Nothing is learned from a teacher. Keeping only the assistant's right answers makes this one
    round as in STaR (2203.14465) and ReST (2308.08998), except that the student learns.
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
    """Raises a `UserError` if there is no warm-up, so that the assistant would learn nothing."""
    require(
        config.warmup.fraction > 0,
        "warmup.fraction=0: method=self has no teacher, so the assistant learns only in its "
        "warm-up on labels; raise it, or use method=bridge",
    )


SELF_TRAINING_METHOD = Method(
    "self",
    "a self-training run without a teacher",
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


@dataclasses.dataclass(frozen=True)
class AsLong:
    """Parameters of training on labels for as many steps as the student is trained.

    Attributes:
      how: the training settings, except for the number of steps.
      targets: the student's targets, from which the number of steps is computed.
      epochs, batch_rows, row_tokens: settings of the student's training.
      more: steps of the student's later trainings, which are added.
    """

    how: TrainSpec
    targets: SFTTargets
    epochs: int
    batch_rows: int
    row_tokens: int
    more: int = 0


def teach_labels(
    params: TrainSpec | AsLong,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    judged: Folder | None = None,
    annotated: Folder | None = None,
    instructed: Folder | None = None,
    dev: Examples | None = None,
) -> None:
    """Trains the student on the gold answers of the whole pool: fine-tuning, a baseline.

    The rationales (`judged`) and the teacher's answers (`annotated`) only determine the number of
    steps: as many as a student takes to learn them.
    """
    sequences = reading.labelled(pool, pool.digest)
    if isinstance(params, AsLong):
        targets = params.targets.of_pool(pool, judged, annotated)
        learned = list(chain.from_iterable(params.targets.sequences(targets, reading)))
        rows = pack(learned, params.row_tokens, 0)
        steps = steps_of(rows, TrainConfig(epochs=params.epochs, batch_rows=params.batch_rows))
        train = dataclasses.replace(params.how.train, steps=steps + params.more)
        params = dataclasses.replace(params.how, train=train)
    name = "student" if out.artifact == tutoring.STUDENT else "labels student"
    fit(out, name, student.trainable(instructed), sequences, params, reading, dev)


def student_on_labels_stage(config: RunConfig) -> Stage:
    """Returns the stage that trains the run's own student on labels."""
    params = _on_labels(config)
    if not (params.train.epochs or params.train.steps):
        own = config.student_training
        train = dataclasses.replace(params.train, epochs=own.epochs, steps=own.steps)
        params = dataclasses.replace(params, train=train)
    workload = Workload("pool", text="answer")
    reads = tutoring.student_reads(config, params)
    return Stage(tutoring.STUDENT, teach_labels, params, reads, workload)


def labels_stage(config: RunConfig, compared: Stage, then: Sequence[Stage] = ()) -> Stage:
    """Returns the training on labels to compare a student with; by default for as many steps.

    Args:
      compared: the student's training on rationales.
      then: the student's later trainings, each with a fixed number of steps.
    """
    more = sum(stage.params.how.train.steps for stage in then)
    params = _on_labels(config)
    reads, workload = tutoring.student_reads(config, params), Workload("pool", text="answer")
    if params.train.epochs or params.train.steps:
        return Stage(LABELS, teach_labels, params, reads, workload)
    if steps := config.student_training.steps:
        train = dataclasses.replace(params.train, steps=steps + more)
        fixed = dataclasses.replace(params, train=train)
        return Stage(LABELS, teach_labels, fixed, reads, workload)
    # The student's number of steps depends on the rationales that are kept.
    for name in {"judged", "annotated"} & compared.reads.keys():
        reads[name] = compared.reads[name]
    workload = dataclasses.replace(workload, as_long_as=(compared, *then))
    own = config.student_training
    pace = own.epochs, own.batch_rows, own.row_tokens
    as_long = AsLong(params, compared.params.targets, *pace, more)
    return Stage(LABELS, teach_labels, as_long, reads, workload)


def _on_labels(config: RunConfig) -> TrainSpec:
    """Returns the parameters of training on labels.

    Unless the config sets their epochs or steps, fields left at their defaults are taken from the
    student's training.
    """
    chosen = config.labels_training
    if not (chosen.epochs or chosen.steps):
        default = TrainConfig()
        fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"epochs", "steps"}
        taken = {
            name: getattr(config.student_training, name)
            for name in fields
            if getattr(chosen, name) == getattr(default, name)
        }
        config = dataclasses.replace(config, labels_training=dataclasses.replace(chosen, **taken))
    return train_spec(config, "labels_training", "answer")


def labels_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of fine-tuning: the student learns the gold answers of the whole pool.

    It learns from neither a teacher nor an assistant.
    """
    return [
        *held_out.stages(config),
        *tutoring.instruction_stages(config),
        student_on_labels_stage(config),
        *evaluation.student_test_stages(config, "answer"),
    ]


def _check_labels(config: RunConfig) -> None:
    """Raises a `UserError` if the form is not `chain`, or the pool is unlabelled."""
    require(
        config.form == "chain",
        f"form={config.form}: method=labels has no rationale; set it to chain",
    )
    require(config.data.labelled, "data.labelled=false: method=labels trains on gold answers")


LABELS_METHOD = Method(
    "labels",
    "a fine-tuning run on labels",
    (*held_out.ALL, tutoring.INSTRUCT, tutoring.STUDENT, *evaluation.OF_STUDENT),
    labels_stages,
    {"student": "trained on the gold answers of the pool"},
    _check_labels,
)
