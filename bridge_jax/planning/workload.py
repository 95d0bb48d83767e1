"""Lists the step shapes and step counts of each stage, from data, tokenizers and config.

A stage declares its kind of work, its role, its parameters and its load; the rest follows. Sequence
lengths are counted where data and tokenizer are here. Where one of them is not, every prompt and
every rationale is taken to be as long as the config allows; so is a rationale that a teacher has
yet to write.
"""

import dataclasses
import math
from collections.abc import Collection
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax import methods
from bridge_jax.config import API_TEACHERS, GenerationConfig, RunConfig, TrainConfig
from bridge_jax.data.example import Example, with_task_text
from bridge_jax.errors import UserError
from bridge_jax.generation import engine
from bridge_jax.methods.checks import fits
from bridge_jax.methods.inputs import Inputs
from bridge_jax.parallel.sharding import filled_rows
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.stages import Load, Packed, Padded, Stage
from bridge_jax.selection import scores
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode, Sequence

SAMPLE = 1000  # Examples of a stage that are tokenized; their lengths stand for the rest.
ANSWER = 16  # Tokens of an answer, where they cannot be counted.


class TrainingWork(NamedTuple):
    """Steps of `train.batch_rows` packed rows with `targets` targets each.

    With `soft`, each target has that many of the assistant's most probable tokens.
    """

    stage: str
    role: Role
    train: TrainConfig
    targets: int
    steps: int
    soft: int = 0


class ScoringWork(NamedTuple):
    """Batches of int32[rows, width] with `targets` targets each."""

    stage: str
    role: Role
    rows: int
    width: int
    targets: int
    steps: int


class GenerationWork(NamedTuple):
    """Batches of `rows` prompts of `width` tokens, and how their completions are generated."""

    stage: str
    role: Role
    rows: int
    width: int
    steps: int
    settings: GenerationConfig


Work = TrainingWork | ScoringWork | GenerationWork


class Lengths:
    """Sequences of a run as counted, or as long as its config allows.

    Args:
      config: of the run, with the text of its task file in place of the file.
      stages: of the run.
      inputs: of the run.

    Attributes:
      pool: the examples whose lengths are counted; none where they are not.
      pool_size, test_size: how many examples there are.
    """

    def __init__(self, config: RunConfig, stages: Seq[Stage], inputs: Inputs):
        self.config, self.inputs = config, inputs
        asks = methods.asking(stages) is not None
        self._written_later = asks and config.teacher.kind in API_TEACHERS
        counted = config.data.source == "practice" or bool(config.data.path)
        for role in ROLES:
            try:
                _ = inputs.model(role).tokenizer
            except UserError:
                counted = False
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
        found = [] if load.text == "rationale" else self._of_mode(role, load, None)
        for mode in load.modes if load.text != "answer" else ():
            whole = self._of_mode(role, load, mode)
            found += [each.without_answer for each in whole] if load.text == "both" else whole
        return found

    def prompts(self, role: Role, load: Load) -> list[int]:
        """Returns the tokens of the prompts of at most `SAMPLE` examples of a load, every mode."""
        if not self.pool:
            return [self.config.max_prompt_tokens]
        reading, sample = self.inputs.rendering(role), self._sample(load)
        return [len(reading.prompt(example, mode)) for mode in load.modes for example in sample]

    def _sample(self, load: Load) -> list[Example]:
        count = min(self.examples(load), SAMPLE)
        return [self.pool[i % len(self.pool)] for i in range(count)]

    def _of_mode(self, role: Role, load: Load, mode: Mode | None) -> list[Sequence]:
        """Returns the sequences of a load in one mode; those of answers alone if it is None."""
        longest = self.config.generation.max_new_tokens
        if not self.pool:
            rationale = [0] * max(0, longest - ANSWER) if mode else []
            prompt = [0] * self.config.max_prompt_tokens
            count = min(self.examples(load), SAMPLE)
            return [Sequence(prompt, rationale, [0] * ANSWER)] * count
        reading, found = self.inputs.rendering(role), []
        for example in self._sample(load):
            bare = reading.sequence(example, None)
            recorded = example.rationales.get(self.config.data.rationale)
            if mode is None:
                found.append(bare)
            elif recorded is not None and not self._written_later:
                found.append(reading.sequence(example, recorded, mode=mode))
            else:
                rationale = [0] * max(0, longest - len(bare.answer))
                prompt = reading.prompt(example, mode)
                found.append(bare._replace(prompt=prompt, rationale=rationale))
        return found


def opened(
    config: RunConfig, devices: Any = None, hashes: Hashes | None = None
) -> tuple[list[Stage], Lengths]:
    """Returns the stages of a run, and its sequence lengths; nothing is kept on the disk.

    Args:
      config: of the run.
      devices: of the mesh, by default all; they may be those of another machine.
      hashes: of files, to share them between runs.
    """
    config = dataclasses.replace(config, data=with_task_text(config.data))
    stages = methods.stages(config)
    inputs = Inputs(config, Path(), None, hashes or Hashes(), devices)
    return stages, Lengths(config, stages, inputs)


def workloads(
    stages: Seq[Stage], lengths: Lengths, only: Collection[str] | None = None
) -> list[Work]:
    """Returns the work of each stage that runs a model, in order.

    Args:
      stages: of a run.
      lengths: of its sequences.
      only: names of the stages that are wanted, by default all.
    """
    found: list[Work] = []
    for stage in stages:
        role, load = stage.artifact.role, stage.load
        if not role or not load or (only is not None and stage.name not in only):
            continue
        if stage.artifact.work == "train":
            ((_, fit),) = fits([stage])
            shape = Packed(fit.train.batch_rows, fit.train.row_tokens)
            targets, batches = _packed(shape, role, load, lengths)
            steps = batches * fit.train.epochs
            found.append(TrainingWork(stage.name, role, fit.train, targets, steps, load.soft))
        elif stage.artifact.work == "score":
            found.append(ScoringWork(stage.name, role, *_scoring(stage.name, role, load, lengths)))
        else:
            settings, count = stage.params.generation, lengths.examples(load) * load.passes
            rows = engine.rows_a_batch(settings, count)
            width = engine.padded_width(max(lengths.prompts(role, load)))
            steps = math.ceil(count / rows)
            found.append(GenerationWork(stage.name, role, rows, width, steps, settings))
    return found


def _scoring(stage: str, role: Role, load: Load, lengths: Lengths) -> tuple[int, int, int, int]:
    """Returns the rows, width and targets of a batch, and the number of batches."""
    match load.batch:
        case Packed() as shape:
            targets, steps = _packed(shape, role, load, lengths)
            return filled_rows(shape.rows, lengths.inputs.mesh), shape.tokens, targets, steps
        case Padded() as shape:
            sequences = lengths.sequences(role, load)
            targets = _up(max(s.targets for s in sequences), scores.TARGETS)
            width = _up(max(s.length for s in sequences), scores.BUCKET)
            rows = scores.rows_a_batch(shape.tokens, width, lengths.inputs.mesh)
            mean = np.mean([_up(s.length, scores.BUCKET) for s in sequences])
            steps = math.ceil(lengths.examples(load) * load.passes * mean / (rows * width))
            return rows, width, targets, steps
        case None:
            raise ValueError(f"{stage}: its load does not say how it forms batches")


def _packed(shape: Packed, role: Role, load: Load, lengths: Lengths) -> tuple[int, int]:
    """Returns the targets of a row, and the number of batches in which all sequences are read."""
    sequences, count = lengths.sequences(role, load), lengths.examples(load) * load.passes
    rows = pack(sequences, shape.tokens, 0)
    number = math.ceil(len(rows.tokens) * count / len(sequences))
    return rows.target.shape[1], math.ceil(number / shape.rows)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
