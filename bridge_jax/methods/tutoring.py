"""Phase 2 of BRIDGE (2512.20403): trains the student.

The student is instruction-tuned first. Then it learns from the assistant's rationales for the whole
pool, or, as a baseline, from the teacher's answers alone.
"""

import dataclasses
from itertools import chain

from bridge_jax.config import RunConfig
from bridge_jax.methods import inputs, logits
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.methods.fitting import TrainSpec, dev_reads, fit, train_spec
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.logits import LOGITS, text_of
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import DrawnInstructions, Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.objectives.distillation import SoftTargetSFT

INSTRUCT = Artifact(
    "tutoring/instruct", "Student’s instruction warm-up", "train", "student", TRAINED
)
STUDENT = Artifact(
    "tutoring/student", "Training the student", "train", "student", TRAINED, is_last=True
)
DIRECT = Artifact("baselines/direct", "Training the direct student", "train", "student", TRAINED)


def instruct(params: TrainSpec, out: Folder, student: RoleModel, drawn: DrawnInstructions) -> None:
    """Trains the student on generic instructions, so that it follows prompts first."""
    fit(out, "instructions", student.trainable(), drawn.sequences, params)


def instruction_stages(config: RunConfig) -> list[Stage]:
    """Returns the student's instruction warm-up, if there is one."""
    count = config.instruct.examples
    if not count:
        return []
    reads = {"student": inputs.STUDENT, "drawn": inputs.INSTRUCTIONS}
    workload = Workload("instructions", count)
    return [Stage(INSTRUCT, instruct, train_spec(config, "instruct.train"), reads, workload)]


def instruction_reads(config: RunConfig) -> dict[str, str]:
    """Returns argument -> stage of the student's instruction warm-up, if there is one."""
    return {"instructed": INSTRUCT.name} if config.instruct.examples else {}


@dataclasses.dataclass(frozen=True)
class Tutoring:
    """Parameters of the student's training: how it is trained, and on which targets."""

    how: TrainSpec
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
    """Trains the student on rationales for the pool, and on the assistant's logits (`predicted`).

    Without the assistant's rationales (`judged`), it learns from the teacher's answers alone. That
    is direct distillation, a baseline.
    """
    targets = params.targets.of_pool(pool, judged, annotated)
    if predicted:
        sequences = logits.attach(params.targets, targets, reading, predicted)
    else:
        sequences = list(chain.from_iterable(params.targets.sequences(targets, reading)))
    name = "student" if judged else "direct student"
    fit(out, name, student.trainable(instructed), sequences, params.how, reading, dev)


def student_mode(config: RunConfig) -> Mode:
    """Returns the prompt mode for a student that learned rationales: that of its training."""
    return "answer" if config.form == "two_pass" else "reason"


def student_stage(config: RunConfig, annotated: dict[str, str]) -> Stage:
    """Returns the student's training on rationales; `annotated` as in `logits.stages`."""
    weight = config.logits.weight
    spec = train_spec(config, "student_training", student_mode(config))
    reads = student_reads(config, spec) | {"judged": RATIONALES.name} | annotated
    top = 0
    if weight:
        soft = SoftTargetSFT(weight, config.student_training.rationale_weight)
        spec = dataclasses.replace(spec, objective=soft)
        reads["predicted"] = LOGITS.name
        top = config.logits.top_k
    params = Tutoring(spec, SFTTargets.of(config))
    return Stage(STUDENT, teach, params, reads, Workload("pool", text=text_of(config), soft=top))


def direct_stage(config: RunConfig, artifact: Artifact = DIRECT) -> Stage:
    """Returns the training of the direct student, for comparison or as the run's own student."""
    targets = SFTTargets(config.form, config.data.labelled)
    params = Tutoring(train_spec(config, "direct_training", student_mode(config)), targets)
    reads = student_reads(config, params.how) | {"annotated": ANNOTATIONS.name}
    workload = Workload("selected", selected_count(config), text_of(config))
    return Stage(artifact, teach, params, reads, workload)


def student_reads(config: RunConfig, spec: TrainSpec) -> dict[str, str]:
    """Returns argument -> input or stage that a student's training reads besides its targets."""
    return inputs.POOL_TO_STUDENT | instruction_reads(config) | dev_reads(spec)
