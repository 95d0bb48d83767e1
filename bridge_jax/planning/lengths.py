"""How long a run's sequences are.

Lengths come from the data and the tokenizers. Where one of them is not here, every prompt and every
rationale is taken to be as long as the config allows; so is a rationale that a teacher has yet to
write.
"""

from collections.abc import Sequence as Seq

from bridge_jax.config import API_TEACHERS
from bridge_jax.errors import UserError
from bridge_jax.phases.context import Role, Run
from bridge_jax.tasks.example import Example
from bridge_jax.text.prompts import Mode, Sequence

SAMPLE = 1000  # Examples of a stage that are tokenized; their lengths stand for the rest.
ANSWER = 16  # Tokens of an answer, where they cannot be counted.


class Lengths:
    """Sequences as the run will make them, or as long as its config allows.

    Attributes:
      counted: whether lengths are those of data and tokenizer, by role.
    """

    def __init__(self, run: Run):
        self.run, self.config = run, run.config
        self.counted: dict[str, bool] = {}
        has_data = run.config.data.source == "practice" or bool(run.config.data.path)
        for role in ("assistant", "student"):
            try:
                run.tokenizer(role)
                self.counted[role] = has_data
            except UserError:
                self.counted[role] = False
        counted = all(self.counted.values())
        self.pool: Seq[Example] = run.splits.pool if counted else ()
        self.pool_size = len(self.pool) or run.config.data.pool
        self.test_size = len(run.splits.test) if counted else run.config.data.test

    def sequences(
        self, role: Role, count: int, reasoned: bool, mode: Mode = "reason"
    ) -> list[Sequence]:
        """Returns at most `SAMPLE` of the `count` training sequences of a stage."""
        count = min(count, SAMPLE)
        if not self.pool:
            rationale = [0] * (self.config.generation.max_new_tokens - ANSWER) * reasoned
            return [Sequence([0] * self.config.max_prompt_tokens, rationale, [0] * ANSWER)] * count
        chosen = [self.pool[i % len(self.pool)] for i in range(count)]
        if not reasoned:
            return [self.run.sequence(role, example, None) for example in chosen]
        return [self._reasoned(role, example, mode) for example in chosen]

    def _reasoned(self, role: Role, example: Example, mode: Mode) -> Sequence:
        rationale = self._recorded(example)
        if rationale is not None:
            return self.run.sequence(role, example, rationale, mode=mode)
        bare = self.run.sequence(role, example, None)
        longest = max(0, self.config.generation.max_new_tokens - len(bare.answer))
        return bare._replace(prompt=self.run.prompt(role, example, mode), rationale=[0] * longest)

    def _recorded(self, example: Example) -> str | None:
        """Returns what the data say of an example, unless a vendor's teacher will say it."""
        if self.config.asks_teacher and self.config.teacher.kind in API_TEACHERS:
            return None
        return example.rationales.get(self.config.data.rationale)
