"""Phase 2 of BRIDGE (2512.20403): trains the student.

It is instruction-tuned first. Then it learns from the assistant's rationales for the whole pool; in
the baselines from the teacher's answers alone, or from the gold labels.
"""

import dataclasses
from collections.abc import Sequence
from itertools import chain

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.methods import inputs, logits
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.methods.fitting import Fit, dev_reads, fit, fit_of
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.logits import LOGITS, text_of
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Load, Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import DrawnInstructions, Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.batches import steps_of
from bridge_jax.training.objectives.soft_targets import SoftTargetSFT

INSTRUCT = Artifact(
    "tutoring/instruct", "Student’s instruction warm-up", "train", "student", TRAINED
)
STUDENT = Artifact(
    "tutoring/student", "Training the student", "train", "student", TRAINED, is_last=True
)
DIRECT = Artifact("baselines/direct", "Training the direct student", "train", "student", TRAINED)
LABELS = Artifact("baselines/labels", "Training on the labels", "train", "student", TRAINED)


def instruct(params: Fit, out: Folder, student: RoleModel, drawn: DrawnInstructions) -> None:
    """Trains the student on generic instructions, so that it follows prompts first."""
    fit(out, "instructions", student.trainable(), drawn.sequences, params)


def instruction_stages(config: RunConfig) -> list[Stage]:
    """Returns the student's instruction warm-up, if there is one."""
    count = config.instruct.examples
    if not count:
        return []
    reads = {"student": inputs.STUDENT, "drawn": inputs.INSTRUCTIONS}
    load = Load("instructions", count)
    return [Stage(INSTRUCT, instruct, fit_of(config, "instruct.train"), reads, load)]


def instruction_reads(config: RunConfig) -> dict[str, str]:
    """Returns argument -> stage of the student's instruction warm-up, if there is one."""
    return {"instructed": INSTRUCT.name} if config.instruct.examples else {}


@dataclasses.dataclass(frozen=True)
class Tutoring:
    """Parameters of the student's training: how it is trained, and on which targets."""

    how: Fit
    targets: SFTTargets


def teach(
    params: Tutoring,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    judged: Folder | None = None,
    annotated: Folder | None = None,
    predicted: Folder | None = None,
    instructed: Folder | None = None,
    dev: Examples | None = None,
) -> None:
    """Trains the student on the rationales of the whole pool, and on the assistant's logits.

    Without the assistant's rationales (`judged`) it learns the teacher's answers alone. That is
    direct distillation, a baseline.
    """
    targets = params.targets.of_pool(pool, judged, annotated)
    if predicted:
        sequences = logits.attach(params.targets, targets, reading, predicted)
    else:
        sequences = list(chain.from_iterable(params.targets.sequences(targets, reading)))
    name = "student" if judged else "direct student"
    fit(out, name, student.trainable(instructed), sequences, params.how, reading, dev)


@dataclasses.dataclass(frozen=True)
class AsLong:
    """Parameters of a training on labels that takes as many steps as the student's.

    Attributes:
      how: it is trained, but for the number of steps.
      targets: of the student.
      epochs, batch_rows, row_tokens: of the student's training.
      more: steps that the student is trained for after it.
    """

    how: Fit
    targets: SFTTargets
    epochs: int
    batch_rows: int
    row_tokens: int
    more: int = 0


def teach_labels(
    params: Fit | AsLong,
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

    The rationales (`judged`) and the teacher's answers say nothing but how many steps the student
    takes to learn them.
    """
    sequences = reading.labelled(pool, pool.digest)
    if isinstance(params, AsLong):
        targets = params.targets.of_pool(pool, judged, annotated)
        learned = list(chain.from_iterable(params.targets.sequences(targets, reading)))
        rows = pack(learned, params.row_tokens, 0)
        steps = steps_of(rows, TrainConfig(epochs=params.epochs, batch_rows=params.batch_rows))
        train = dataclasses.replace(params.how.train, steps=steps + params.more)
        params = dataclasses.replace(params.how, train=train)
    name = "student" if out.artifact == STUDENT else "labels student"
    fit(out, name, student.trainable(instructed), sequences, params, reading, dev)


def student_mode(config: RunConfig) -> Mode:
    """Returns how a student that learned rationales is asked: as it was trained."""
    return "answer" if config.form == "two_pass" else "reason"


def student_stage(config: RunConfig, annotated: dict[str, str]) -> Stage:
    """Returns the student's training on rationales; `annotated` as in `logits.stages`."""
    weight = config.logits.weight
    how = fit_of(config, "student_training", student_mode(config))
    reads = _reads(config, how) | {"judged": RATIONALES.name} | annotated
    top = 0
    if weight:
        soft = SoftTargetSFT(weight, config.student_training.rationale_weight)
        how = dataclasses.replace(how, objective=soft)
        reads["predicted"] = LOGITS.name
        top = config.logits.top_k
    params = Tutoring(how, SFTTargets.of(config))
    return Stage(STUDENT, teach, params, reads, Load("pool", text=text_of(config), soft=top))


def direct_stage(config: RunConfig, artifact: Artifact = DIRECT) -> Stage:
    """Returns the training of the direct student, for comparison or as the run's own student."""
    targets = SFTTargets(config.form, config.data.labelled)
    params = Tutoring(fit_of(config, "direct_training", student_mode(config)), targets)
    reads = _reads(config, params.how) | {"annotated": ANNOTATIONS.name}
    load = Load("selected", selected_count(config), text_of(config))
    return Stage(artifact, teach, params, reads, load)


def labels(config: RunConfig) -> Stage:
    """Returns the training on labels as the run's own student."""
    params = _on_labels(config)
    if not (params.train.epochs or params.train.steps):
        own = config.student_training
        train = dataclasses.replace(params.train, epochs=own.epochs, steps=own.steps)
        params = dataclasses.replace(params, train=train)
    load = Load("pool", text="answer")
    return Stage(STUDENT, teach_labels, params, _reads(config, params), load)


def labels_beside(config: RunConfig, beside: Stage, then: Sequence[Stage] = ()) -> Stage:
    """Returns the training on labels for comparison with a student, in as many steps by default.

    Args:
      config: of the run.
      beside: the student's training on rationales.
      then: its trainings after that, each for a given number of steps.
    """
    more = sum(stage.params.how.train.steps for stage in then)
    params = _on_labels(config)
    reads, load = _reads(config, params), Load("pool", text="answer")
    if params.train.epochs or params.train.steps:
        return Stage(LABELS, teach_labels, params, reads, load)
    if steps := config.student_training.steps:
        train = dataclasses.replace(params.train, steps=steps + more)
        fixed = dataclasses.replace(params, train=train)
        return Stage(LABELS, teach_labels, fixed, reads, load)
    # How many steps the student takes depends on the rationales that are kept.
    reads |= {name: beside.reads[name] for name in ("judged", "annotated") if name in beside.reads}
    load = dataclasses.replace(load, as_long_as=(beside, *then))
    own = config.student_training
    pace = own.epochs, own.batch_rows, own.row_tokens
    as_long = AsLong(params, beside.params.targets, *pace, more)
    return Stage(LABELS, teach_labels, as_long, reads, load)


def _on_labels(config: RunConfig) -> Fit:
    """Returns how labels are learned: as the student's training says where nothing else is set."""
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
    return fit_of(config, "labels_training", "answer")


def _reads(config: RunConfig, how: Fit) -> dict[str, str]:
    return inputs.POOL_TO_STUDENT | instruction_reads(config) | dev_reads(how)
