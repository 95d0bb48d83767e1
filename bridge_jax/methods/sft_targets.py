"""Builds the student's SFT targets from the teacher's and the assistant's rationales."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

from bridge_jax.config import RunConfig
from bridge_jax.data.example import Example
from bridge_jax.methods.annotations import kept_annotations
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.rationales import FILE
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering


class SFTTarget(NamedTuple):
    """The text that the student learns of an example: rationale and answer, or the answer alone."""

    example: Example
    rationale: str | None
    answer: str


@dataclasses.dataclass(frozen=True)
class SFTTargets:
    """Parameters of the targets.

    Attributes:
      form: a chain of rationale and answer, or two passes.
      labelled: whether the answer after a teacher's rationale is the gold one, or the teacher's.
      by_gold: whether rationales were kept by their gold answers. If so, the student learns the
        gold answers. If not, those that the assistant wrote.
      answers_alone: whether it learns the gold answer where a rationale was rejected.
    """

    form: Literal["chain", "two_pass"]
    labelled: bool
    by_gold: bool = False
    answers_alone: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> "SFTTargets":
        """Returns the parameters in a config."""
        by_gold = config.rationales.filter == "gold"
        alone = by_gold and config.rationales.rejected == "label"
        return cls(config.form, config.data.labelled, by_gold, alone)

    def of_pool(
        self, pool: Examples, judged: Folder | None, annotated: Folder | None
    ) -> list[SFTTarget]:
        """Returns the targets of the whole pool, in its order.

        An example has the teacher's rationale if it was annotated, else the assistant's if it was
        kept, else the gold answer alone (`answers_alone`), or no target. Where no assistant wrote
        (`judged` is None), the targets are the teacher's alone, in the order of the selection.
        """
        if judged is None:
            assert annotated, "there is neither a teacher nor an assistant"
            return self._of_teacher(pool, annotated)
        found = {e.id: SFTTarget(e, None, e.gold) for e in pool} if self.answers_alone else {}
        for row in judged.rows(FILE):
            if row["kept"]:
                example = pool.by_id[row["id"]]
                answer = example.gold if self.by_gold else row["answer"]
                found[example.id] = SFTTarget(example, row["rationale"], answer)
        if annotated:
            found |= {target.example.id: target for target in self._of_teacher(pool, annotated)}
        return [found[example.id] for example in pool if example.id in found]

    def _of_teacher(self, pool: Examples, annotated: Folder) -> list[SFTTarget]:
        return [SFTTarget(*kept) for kept in kept_annotations(annotated, pool, self.labelled)]

    def sequences(
        self, targets: Sequence[SFTTarget], reading: Rendering
    ) -> list[list[prompts.Sequence]]:
        """Returns the sequences of each target: one, or in two passes answer and rationale.

        L = a * L_rationale + (1 - a) * L_answer weighs the two passes as the parts of a chain.
        """
        whole = reading.sequences(targets)
        if self.form == "chain":
            return [[sequence] for sequence in whole]
        answers = reading.sequences([(example, None, answer) for example, _, answer in targets])
        return [
            [answer, sequence.without_answer] if target.rationale else [sequence]
            for target, sequence, answer in zip(targets, whole, answers)
        ]
