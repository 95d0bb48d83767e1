"""Trains the student (phase 2 of BRIDGE, 2512.20403).

It learns from the assistant's rationales for the whole pool; in the baselines from the teacher's
answers alone, or from the gold labels. It is instruction-tuned first (`methods.instruct`).
"""

import dataclasses

from bridge_jax.config import RunConfig
from bridge_jax.methods import instruct, logits, names
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.fitting import Fit, fit, fit_of
from bridge_jax.methods.lessons import Lessons
from bridge_jax.methods.logits import LOGITS, text_of
from bridge_jax.methods.rationales import RATIONALES
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.objectives.soft_targets import SoftTargets

STUDENT = Artifact(
    "tutoring/student", "Training the student", "train", "student", TRAINED, is_last=True
)
DIRECT = Artifact("baselines/direct", "Training the direct student", "train", "student", TRAINED)


@dataclasses.dataclass(frozen=True)
class Tutoring:
    """Parameters of the student's training: how it is trained, and on which lessons."""

    how: Fit
    lessons: Lessons


def teach(
    params: Tutoring,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    judged: Folder,
    annotated: Folder | None = None,
    predicted: Folder | None = None,
    instructed: Folder | None = None,
) -> None:
    """Trains the student on the lessons of the whole pool, and on the assistant's logits."""
    lessons = params.lessons
    found = lessons.of_pool(pool, judged, annotated)
    if predicted:
        sequences = logits.attach(lessons, found, reading, predicted)
    else:
        sequences = [sequence for read in lessons.read(found, reading) for sequence in read]
    fit(out, "student", student.trainable(instructed), sequences, params.how)


def teach_directly(
    params: Tutoring,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    annotated: Folder,
    instructed: Folder | None = None,
) -> None:
    """Trains the student on the teacher's answers alone: direct distillation, the baseline."""
    lessons = params.lessons
    found = lessons.read(lessons.paid(pool, annotated), reading)
    sequences = [sequence for read in found for sequence in read]
    fit(out, "direct student", student.trainable(instructed), sequences, params.how)


def teach_labels(
    params: Fit,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    instructed: Folder | None = None,
) -> None:
    """Trains the student on the gold answers of the whole pool: fine-tuning, the baseline."""
    sequences = reading.labelled(pool, pool.digest)
    fit(out, "student", student.trainable(instructed), sequences, params)


def student(config: RunConfig, annotated: dict[str, str]) -> Stage:
    """Returns the student's training on rationales; `annotated` as in `logits.stages`."""
    weight = config.logits.weight
    how = fit_of(config, "student_training")
    if weight:
        soft = SoftTargets(weight, config.student_training.rationale_weight)
        how = dataclasses.replace(how, objective=soft)
    reads = _reads(config) | {"judged": RATIONALES.name} | annotated
    if weight:
        reads["predicted"] = LOGITS.name
    params = Tutoring(how, Lessons.of(config))
    top = config.logits.top_k if weight else 0
    return Stage(STUDENT, teach, params, reads, Load("pool", text=text_of(config), soft=top))


def direct(config: RunConfig, artifact: Artifact = DIRECT) -> Stage:
    """Returns the training of the direct student, beside another or as the run's own."""
    lessons = Lessons(config.form, config.data.labelled, by_gold=False)
    params = Tutoring(fit_of(config, "direct_training"), lessons)
    reads = _reads(config) | {"annotated": ANNOTATIONS.name}
    load = Load("selected", selected_count(config), text_of(config))
    return Stage(artifact, teach_directly, params, reads, load)


def labels(config: RunConfig) -> Stage:
    """Returns the student's training on labels."""
    params = fit_of(config, "student_training")
    return Stage(STUDENT, teach_labels, params, _reads(config), Load("pool", text="answer"))


def _reads(config: RunConfig) -> dict[str, str]:
    reads = {"pool": names.POOL, "student": names.STUDENT, "reading": names.TO_STUDENT}
    return reads | instruct.begun(config)
