"""Measures or bounds the sequence lengths of a run.

Lengths come from the data and the tokenizers. Where one of them is not here, every prompt and every
rationale is taken to be as long as the config allows; so is a rationale that a teacher has yet to
write.
"""

import dataclasses
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from bridge_jax import methods
from bridge_jax.config import API_TEACHERS, RunConfig
from bridge_jax.data.example import Example, with_task_text
from bridge_jax.errors import UserError
from bridge_jax.methods.inputs import Inputs
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.stages import Load, Stage
from bridge_jax.text.prompts import Mode, Sequence

SAMPLE = 1000  # Examples of a stage that are tokenized; their lengths stand for the rest.
ANSWER = 16  # Tokens of an answer, where they cannot be counted.


class Lengths:
    """Sequences as the run will make them, or as long as its config allows.

    Args:
      config: of the run, with the text of its task file in place of the file.
      stages: of the run.
      inputs: of the run.

    Attributes:
      counted: whether lengths are those of data and tokenizer, by role.
      pool: the examples whose lengths are counted; none where they are not.
      pool_size, test_size: how many examples there are.
    """

    def __init__(self, config: RunConfig, stages: Seq[Stage], inputs: Inputs):
        self.config, self.inputs = config, inputs
        asks = any(stage.artifact.work == "ask" for stage in stages)
        self._written_later = asks and config.teacher.kind in API_TEACHERS
        self.counted: dict[Role, bool] = {}
        has_data = config.data.source == "practice" or bool(config.data.path)
        roles: tuple[Role, ...] = ("assistant", "student")
        for role in roles:
            try:
                _ = inputs.model(role).tokenizer
                self.counted[role] = has_data
            except UserError:
                self.counted[role] = False
        counted = all(self.counted.values())
        self.pool: Seq[Example] = inputs.pool if counted else ()
        self.pool_size = len(self.pool) or config.data.pool
        self.test_size = len(inputs.test) if counted else config.data.test

    def examples(self, load: Load) -> int:
        """Returns how many examples a load has."""
        size = self.test_size if load.of == "test" else self.pool_size
        if load.share < 1:
            size = max(1, round(load.share * size))
        return load.count or size

    def sequences(self, role: Role, load: Load) -> list[Sequence]:
        """Returns the training sequences of at most `SAMPLE` examples of a load, in every mode.

        The examples of the pool stand for those of the test too.
        """
        if load.of == "instructions" and self.pool:
            return self.inputs.draw_instructions(min(load.count, SAMPLE)).sequences
        found = self._answers(role, load) if load.text != "rationale" else []
        if load.text == "answer":
            return found
        whole = [each for mode in load.modes for each in self._rationales(role, load, mode)]
        if load.text == "both":
            return [*found, *(sequence.without_answer for sequence in whole)]
        return whole

    def prompts(self, role: Role, load: Load) -> list[int]:
        """Returns the tokens of the prompts of at most `SAMPLE` examples of a load, every mode."""
        if not self.pool:
            return [self.config.max_prompt_tokens]
        reading, sample = self.inputs.rendering(role), self._sample(load)
        return [len(reading.prompt(example, mode)) for mode in load.modes for example in sample]

    def _sample(self, load: Load) -> list[Example]:
        count = min(self.examples(load), SAMPLE)
        return [self.pool[i % len(self.pool)] for i in range(count)]

    def _answers(self, role: Role, load: Load) -> list[Sequence]:
        if not self.pool:
            return self._longest(load, 0)
        reading = self.inputs.rendering(role)
        return [reading.sequence(example, None) for example in self._sample(load)]

    def _rationales(self, role: Role, load: Load, mode: Mode) -> list[Sequence]:
        if not self.pool:
            return self._longest(load, max(0, self.config.generation.max_new_tokens - ANSWER))
        return [self._reasoned(role, example, mode) for example in self._sample(load)]

    def _longest(self, load: Load, rationale: int) -> list[Sequence]:
        prompt = [0] * self.config.max_prompt_tokens
        count = min(self.examples(load), SAMPLE)
        return [Sequence(prompt, [0] * rationale, [0] * ANSWER)] * count

    def _reasoned(self, role: Role, example: Example, mode: Mode) -> Sequence:
        reading, rationale = self.inputs.rendering(role), self._recorded(example)
        if rationale is not None:
            return reading.sequence(example, rationale, mode=mode)
        bare = reading.sequence(example, None)
        longest = max(0, self.config.generation.max_new_tokens - len(bare.answer))
        return bare._replace(prompt=reading.prompt(example, mode), rationale=[0] * longest)

    def _recorded(self, example: Example) -> str | None:
        """Returns what the data say of an example, unless a vendor's teacher will say it."""
        if self._written_later:
            return None
        return example.rationales.get(self.config.data.rationale)


def opened(
    config: RunConfig, devices: Any = None, hashes: Hashes | None = None
) -> tuple[list[Stage], Lengths]:
    """Returns the stages of a run, and how long its sequences are; nothing is kept on the disk.

    Args:
      config: of the run.
      devices: of the mesh, by default all; they need not be there.
      hashes: of files, to share them between runs.
    """
    config = dataclasses.replace(config, data=with_task_text(config.data))
    stages = methods.stages(config)
    inputs = Inputs(config, Path(), None, hashes or Hashes(), devices)
    return stages, Lengths(config, stages, inputs)
