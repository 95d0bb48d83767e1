"""Builds the student's training examples from the teacher's and the assistant's rationales."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

from bridge_jax.config import RunConfig
from bridge_jax.data.example import Example
from bridge_jax.methods.annotations import bought
from bridge_jax.methods.rationales import FILE
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering


class Lesson(NamedTuple):
    """A training example of the student: rationale and answer, or the answer alone."""

    example: Example
    rationale: str | None
    answer: str


@dataclasses.dataclass(frozen=True)
class Lessons:
    """Which lessons there are.

    Attributes:
      form: a chain of rationale and answer, or two passes.
      labelled: whether what the teacher explained has its gold answer, or else the teacher's.
      by_gold: whether rationales were kept by their gold answers, which are learned then, also
        where a rationale was rejected. Otherwise it is the answer that the assistant wrote.
    """

    form: Literal["chain", "two_pass"]
    labelled: bool
    by_gold: bool

    @classmethod
    def of(cls, config: RunConfig) -> "Lessons":
        """Returns the lessons of a config."""
        return cls(config.form, config.data.labelled, config.rationales.filter == "gold")

    def of_pool(self, pool: Examples, judged: Folder, annotated: Folder | None) -> list[Lesson]:
        """Returns the lessons of the whole pool, in its order.

        The teacher's rationale where one was bought, else the assistant's where it was kept, else
        the gold answer alone, or nothing.
        """
        lessons = {e.id: Lesson(e, None, e.answer) for e in pool} if self.by_gold else {}
        for row in judged.rows(FILE):
            if row["kept"]:
                example = pool.by_id[row["id"]]
                answer = example.answer if self.by_gold else row["answer"]
                lessons[example.id] = Lesson(example, row["rationale"], answer)
        if annotated:
            lessons |= {lesson.example.id: lesson for lesson in self.paid(pool, annotated)}
        return [lessons[e.id] for e in pool if e.id in lessons]

    def paid(self, pool: Examples, annotated: Folder) -> list[Lesson]:
        """Returns the lessons that the teacher was paid for."""
        return [Lesson(*paid) for paid in bought(annotated, pool, self.labelled)]

    def read(self, found: Sequence[Lesson], reading: Rendering) -> list[list[prompts.Sequence]]:
        """Returns the sequences that each lesson is: one, or in two passes answer and rationale.

        L = a * L_rationale + (1 - a) * L_answer weighs the two as it does the parts of a chain.
        """
        whole = reading.sequences(found)
        if self.form == "chain":
            return [[sequence] for sequence in whole]
        answers = reading.sequences([(example, None, answer) for example, _, answer in found])
        return [
            [answer, sequence.without_answer] if lesson.rationale else [sequence]
            for lesson, sequence, answer in zip(found, whole, answers)
        ]
