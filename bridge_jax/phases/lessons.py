"""What the student reads: lessons from the teacher and the assistant, in the form of the config."""

from typing import NamedTuple

from bridge_jax.phases import apprenticeship
from bridge_jax.phases.context import Run
from bridge_jax.phases.rationales import RATIONALES
from bridge_jax.tasks.example import Example
from bridge_jax.text import prompts


class Lesson(NamedTuple):
    """What the student reads of an example: rationale and answer, or the answer alone."""

    example: Example
    rationale: str | None
    answer: str


def of_pool(run: Run) -> list[Lesson]:
    """Returns the lessons of the whole pool, in its order.

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
    if run.config.asks_teacher:
        lessons |= {paid[0].id: Lesson(*paid) for paid in apprenticeship.bought(run)}
    return [lessons[e.id] for e in pool if e.id in lessons]


def read(run: Run, lesson: Lesson) -> list[prompts.Sequence]:
    """Returns the sequences that a lesson is: one, or in two passes the answer and the rationale.

    L = a * L_rationale + (1 - a) * L_answer weighs the two as it does the parts of a chain.
    """
    whole = run.sequence("student", *lesson)
    if run.config.form == "chain" or not lesson.rationale:
        return [whole]
    answer = run.sequence("student", lesson.example, None, lesson.answer)
    return [answer, whole.without_answer]
