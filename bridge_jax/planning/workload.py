"""Lists the step shapes and step counts of each stage.

All of it follows from what the stages say of themselves: their kind of work, their role, their
parameters and their load.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from bridge_jax.config import GenerationConfig, TrainConfig
from bridge_jax.generation import engine
from bridge_jax.methods.checks import fits
from bridge_jax.parallel.sharding import filled_rows
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.stages import Load, Packed, Padded, Stage
from bridge_jax.planning.lengths import Lengths
from bridge_jax.selection import scores
from bridge_jax.text.packing import pack


class Training(NamedTuple):
    """Steps of `train.batch_rows` packed rows with `targets` targets each.

    With `soft`, a target has so many of the assistant's most probable tokens beside it.
    """

    stage: str
    role: Role
    train: TrainConfig
    targets: int
    steps: int
    soft: int = 0


class Scoring(NamedTuple):
    """Batches of int32[rows, width] with `targets` targets each."""

    stage: str
    role: Role
    rows: int
    width: int
    targets: int
    steps: int


class Generation(NamedTuple):
    """Batches of `rows` prompts of `width` tokens, and how their completions are written."""

    stage: str
    role: Role
    rows: int
    width: int
    steps: int
    settings: GenerationConfig


Work = Training | Scoring | Generation


def workloads(
    stages: Sequence[Stage], lengths: Lengths, only: Collection[str] | None = None
) -> list[Work]:
    """Returns the work of each stage that runs a model, in order.

    Args:
      stages: of a run.
      lengths: of its sequences.
      only: names of the stages that are wanted, by default all.
    """
    return [
        _work(stage, stage.artifact.role, stage.load, lengths)
        for stage in stages
        if stage.artifact.role and stage.load and (only is None or stage.name in only)
    ]


def _work(stage: Stage, role: Role, load: Load, lengths: Lengths) -> Work:
    match stage.artifact.work:
        case "train":
            return _training(stage, role, load, lengths)
        case "score":
            return _scoring(stage, role, load, lengths)
        case _:
            return _generation(stage, role, load, lengths)


def _training(stage: Stage, role: Role, load: Load, lengths: Lengths) -> Training:
    ((_, fit),) = fits([stage])
    shape = Packed(fit.train.batch_rows, fit.train.row_tokens)
    targets, batches = _packed(shape, role, load, lengths)
    return Training(stage.name, role, fit.train, targets, batches * fit.train.epochs, load.soft)


def _scoring(stage: Stage, role: Role, load: Load, lengths: Lengths) -> Scoring:
    match load.batch:
        case Packed() as shape:
            rows, width = filled_rows(shape.rows, lengths.inputs.mesh), shape.tokens
            targets, steps = _packed(shape, role, load, lengths)
        case Padded() as shape:
            sequences = lengths.sequences(role, load)
            targets = _up(max(s.targets for s in sequences), scores.TARGETS)
            width = _up(max(s.length for s in sequences), scores.BUCKET)
            rows = scores.rows_a_batch(shape.tokens, width, lengths.inputs.mesh)
            mean = np.mean([_up(s.length, scores.BUCKET) for s in sequences])
            steps = math.ceil(lengths.examples(load) * load.passes * mean / (rows * width))
        case None:
            raise ValueError(f"{stage.name}: its load does not say how it forms batches")
    return Scoring(stage.name, role, rows, width, targets, steps)


def _packed(shape: Packed, role: Role, load: Load, lengths: Lengths) -> tuple[int, int]:
    """Returns the targets of a row, and the number of batches in which all sequences are read."""
    sequences, count = lengths.sequences(role, load), lengths.examples(load) * load.passes
    rows = pack(sequences, shape.tokens, 0)
    number = math.ceil(len(rows.tokens) * count / len(sequences))
    return rows.target.shape[1], math.ceil(number / shape.rows)


def _generation(stage: Stage, role: Role, load: Load, lengths: Lengths) -> Generation:
    settings, count = stage.params.generation, lengths.examples(load) * load.passes
    rows = engine.rows_a_batch(settings, count)
    width = engine.padded_width(max(lengths.prompts(role, load)))
    return Generation(stage.name, role, rows, width, math.ceil(count / rows), settings)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
