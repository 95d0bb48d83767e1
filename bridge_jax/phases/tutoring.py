"""Phase 2, tutoring (BRIDGE, 2512.20403): the assistant teaches the student.

The student is instruction-tuned, the assistant writes a rationale for every example of the pool
(`phases.rationales`), and the student learns from those that are kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.phases import apprenticeship
from bridge_jax.phases.context import Run
from bridge_jax.phases.rationales import RATIONALES
from bridge_jax.phases.stages import Stage
from bridge_jax.tasks.example import Example
from bridge_jax.tasks.practice.instructions import generate_instructions
from bridge_jax.text import prompts

INSTRUCT = "tutoring/instruct"
STUDENT = "tutoring/student"
DIRECT = "baselines/direct"


def instruct(run: Run, out: Path) -> None:
    """Trains the student on generic instructions, so that it does not stay blind to them."""
    config = run.config.instruct
    examples = generate_instructions(run.config.seed, config.examples)
    sequences = [run.sequence("student", e, e.rationales.get("medium")) for e in examples]
    run.train(out, "instructions", run.trainable("student", None), sequences, config.train)


class Lesson(NamedTuple):
    """What the student reads of an example: rationale and answer, or the answer alone."""

    example: Example
    rationale: str | None
    answer: str


def read(run: Run, lesson: Lesson) -> list[prompts.Sequence]:
    """Returns the sequences that a lesson is: one, or in two passes the answer and the rationale.

    L = a * L_rationale + (1 - a) * L_answer weighs the two as it does the parts of a chain.
    """
    whole = run.sequence("student", *lesson)
    if run.config.form == "chain" or not lesson.rationale:
        return [whole]
    answer = run.sequence("student", lesson.example, None, lesson.answer)
    return [answer, whole.without_answer]


def student(run: Run, out: Path) -> None:
    """Trains the student on the whole pool.

    The teacher's rationale where one was bought, else the assistant's where it was kept, else the
    gold answer alone. With a filter that reads no gold answer, the student learns the answer that
    the assistant wrote, and nothing where its rationale was rejected.
    """
    pool, has_gold = run.splits.pool, run.config.rationales.filter == "gold"
    lessons = {e.id: Lesson(e, None, e.answer) for e in pool} if has_gold else {}
    for row in run.rows(f"{RATIONALES}/rationales.jsonl"):
        if row["kept"]:
            example = run.pool_by_id[row["id"]]
            answer = example.answer if has_gold else row["answer"]
            lessons[example.id] = Lesson(example, row["rationale"], answer)
    lessons |= _bought(run)
    in_order = [lessons[e.id] for e in pool if e.id in lessons]
    _train_student(run, out, "student", in_order, run.config.student_training)


def direct(run: Run, out: Path) -> None:
    """Trains the student on the teacher's answers alone: direct distillation, the baseline."""
    lessons = list(_bought(run).values())
    _train_student(run, out, "direct student", lessons, run.config.direct_training)


def labels(run: Run, out: Path) -> None:
    """Trains the student on the gold answers of the whole pool: fine-tuning, the baseline."""
    lessons = [Lesson(example, None, example.answer) for example in run.splits.pool]
    _train_student(run, out, "student", lessons, run.config.student_training)


def _train_student(
    run: Run, out: Path, name: str, lessons: Sequence[Lesson], config: TrainConfig
) -> None:
    sequences = [sequence for lesson in lessons for sequence in read(run, lesson)]
    run.train(out, name, run.trainable("student", instruct_stage(run.config)), sequences, config)


def _bought(run: Run) -> dict[str, Lesson]:
    """Returns what the teacher was paid for, by example."""
    if not run.config.asks_teacher:
        return {}
    rows = run.rows(f"{apprenticeship.ANNOTATIONS}/annotations.jsonl")
    kept = [(run.pool_by_id[row["id"]], row["rationale"]) for row in rows if row["kept"]]
    return {example.id: Lesson(example, text, example.answer) for example, text in kept}


def instruct_stage(config: RunConfig) -> str | None:
    """Returns where the student's training begins: after its warm-up, if it has one."""
    return INSTRUCT if config.instruct.examples else None


_TO_STUDENT = ("student", "seed", "max_prompt_tokens", "on_long_prompt")
INSTRUCT_STAGE = Stage(INSTRUCT, instruct, ("instruct", *_TO_STUDENT))


def student_stage(config: RunConfig) -> Stage:
    """Returns the student's training for a method."""
    first = tuple(filter(None, [instruct_stage(config)]))
    if config.method == "labels":
        return Stage(STUDENT, labels, ("student_training", "data", *_TO_STUDENT), first)
    if config.method == "direct":
        return direct_stage(config, STUDENT)
    paid = (apprenticeship.ANNOTATIONS,) * config.asks_teacher
    after = (*first, *paid, RATIONALES)
    return Stage(STUDENT, student, ("student_training", "form", *_TO_STUDENT), after)


def direct_stage(config: RunConfig, name: str = DIRECT) -> Stage:
    """Returns the training of the direct student, as the run's method or beside it."""
    first = tuple(filter(None, [instruct_stage(config)]))
    after = (*first, apprenticeship.ANNOTATIONS)
    return Stage(name, direct, ("direct_training", "form", *_TO_STUDENT), after)
