"""Phase 2, tutoring (BRIDGE, 2512.20403): the assistant teaches the student.

The student is instruction-tuned (`phases.instruct`), the assistant writes a rationale for every
example of the pool (`phases.rationales`), and the student learns from those that are kept.
"""

from collections.abc import Sequence
from pathlib import Path

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.phases import apprenticeship, lessons, logits
from bridge_jax.phases.context import Run
from bridge_jax.phases.instruct import TO_STUDENT, instruct_stage
from bridge_jax.phases.rationales import RATIONALES
from bridge_jax.phases.stages import Stage
from bridge_jax.text import prompts

STUDENT = "tutoring/student"
DIRECT = "baselines/direct"


def student(run: Run, out: Path) -> None:
    """Trains the student on the lessons of the whole pool, and on the assistant's logits."""
    found = lessons.of_pool(run)
    sequences = logits.attach(run, found) if run.config.logits.weight else _read(run, found)
    _train_student(run, out, "student", sequences, run.config.student_training)


def direct(run: Run, out: Path) -> None:
    """Trains the student on the teacher's answers alone: direct distillation, the baseline."""
    sequences = _read(run, [lessons.Lesson(*paid) for paid in apprenticeship.bought(run)])
    _train_student(run, out, "direct student", sequences, run.config.direct_training)


def labels(run: Run, out: Path) -> None:
    """Trains the student on the gold answers of the whole pool: fine-tuning, the baseline."""
    sequences = [run.sequence("student", example, None) for example in run.splits.pool]
    _train_student(run, out, "student", sequences, run.config.student_training)


def _read(run: Run, found: Sequence[lessons.Lesson]) -> list[prompts.Sequence]:
    return [sequence for lesson in found for sequence in lessons.read(run, lesson)]


def _train_student(
    run: Run, out: Path, name: str, sequences: Sequence[prompts.Sequence], config: TrainConfig
) -> None:
    run.train(out, name, run.trainable("student", instruct_stage(run.config)), sequences, config)


def student_stage(config: RunConfig) -> Stage:
    """Returns the student's training for a method."""
    first = tuple(filter(None, [instruct_stage(config)]))
    if config.method == "labels":
        return Stage(STUDENT, labels, ("student_training", "data", "task", *TO_STUDENT), first)
    if config.method == "direct":
        return direct_stage(config, STUDENT)
    paid = (apprenticeship.ANNOTATIONS,) * config.asks_teacher
    soft = tuple(stage.name for stage in logits.stages(config))
    reads = ("student_training", "form", "data.labelled", *TO_STUDENT)
    reads += ("logits",) if soft else ()
    return Stage(STUDENT, student, reads, (*first, *paid, RATIONALES, *soft))


def direct_stage(config: RunConfig, name: str = DIRECT) -> Stage:
    """Returns the training of the direct student, as the run's method or beside it."""
    first = tuple(filter(None, [instruct_stage(config)]))
    after = (*first, apprenticeship.ANNOTATIONS)
    reads = ("direct_training", "form", "data.labelled", *TO_STUDENT)
    return Stage(name, direct, reads, after)
