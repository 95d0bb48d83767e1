"""What a run will compute: for each stage, the shapes of its step and how often it is taken."""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from bridge_jax.config import TrainConfig
from bridge_jax.config_checks import trainings
from bridge_jax.generation import engine
from bridge_jax.parallel.sharding import filled_rows
from bridge_jax.phases import (
    apprenticeship,
    evaluate,
    guesses,
    instruct,
    logits,
    plan,
    rationales,
    tutoring,
)
from bridge_jax.phases.context import Role, Run
from bridge_jax.planning.lengths import SAMPLE, Lengths
from bridge_jax.selection import scores
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode, Sequence


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
    """Batches of int32[rows, width] with `targets` answer tokens each."""

    stage: str
    role: Role
    rows: int
    width: int
    targets: int
    steps: int


class Generation(NamedTuple):
    """Batches of `rows` prompts of `width` tokens."""

    stage: str
    role: Role
    rows: int
    width: int
    steps: int


Work = Training | Scoring | Generation


def workloads(run: Run, only: Collection[str] | None = None) -> list[Work]:
    """Returns the work of each stage that runs a model, in order.

    Args:
      run: whose stages.
      only: names of the stages that are wanted, by default all.
    """
    config, lengths = run.config, Lengths(run)
    by_stage = {
        apprenticeship.WARMUP: lambda: _warmup(lengths),
        guesses.GUESSES: lambda: _generation(
            guesses.GUESSES, "assistant", lengths, lengths.pool_size
        ),
        apprenticeship.SCORES: lambda: _scoring(lengths),
        # The same step but for the head, which is passed through once more on the few answers.
        apprenticeship.GRADIENTS: lambda: _scoring(lengths)._replace(
            stage=apprenticeship.GRADIENTS
        ),
        apprenticeship.ASSISTANT: lambda: _assistant(lengths),
        instruct.INSTRUCT: lambda: _instruct(lengths),
        rationales.COMPLETIONS: lambda: _generation(
            rationales.COMPLETIONS, "assistant", lengths, lengths.pool_size,
            config.writing_mode,
        ),
        rationales.SAMPLES: lambda: _generation(
            rationales.SAMPLES, "student", lengths, lengths.pool_size * config.rationales.samples
        ),
        logits.LOGITS: lambda: _logits(lengths),
        tutoring.DIRECT: lambda: _training(
            tutoring.DIRECT, "student", "direct_training", lengths, config.selected
        ),
        tutoring.STUDENT: lambda: _student(lengths),
    }  # fmt: skip
    for candidate in plan.candidates(config):
        count = lengths.test_size
        if candidate.role == "assistant":
            count = config.evaluation.assistant_examples or count
        by_stage[evaluate.stage(candidate).name] = lambda c=candidate, n=count: _generation(
            evaluate.stage(c).name, c.role, lengths, n
        )
    names = [stage.name for stage in plan.stages(config)]
    wanted = [name for name in names if name in by_stage and (only is None or name in only)]
    return [by_stage[name]() for name in wanted]


def _training(
    stage: str, role: Role, key: str, lengths: Lengths, count: int, reasoned: bool = True
) -> Training:
    sequences = lengths.sequences(role, count, reasoned)
    if role == "student" and lengths.config.form == "two_pass":
        answers = lengths.sequences(role, count, reasoned=False)
        sequences, count = [*answers, *(s.without_answer for s in sequences)], 2 * count
    return _packed(stage, role, trainings(lengths.config)[key], sequences, count)


def _warmup(lengths: Lengths) -> Training:
    count = max(1, round(lengths.config.warmup.fraction * lengths.pool_size))
    return _training(
        apprenticeship.WARMUP, "assistant", "warmup.train", lengths, count, reasoned=False
    )


def _assistant(lengths: Lengths) -> Training:
    config, modes = lengths.config, lengths.config.assistant_modes
    sequences = [
        sequence
        for mode in modes
        for sequence in lengths.sequences("assistant", config.selected, True, mode)
    ]
    count = config.selected * len(modes)
    train = config.assistant_training
    return _packed(apprenticeship.ASSISTANT, "assistant", train, sequences, count)


def _instruct(lengths: Lengths) -> Training:
    config, count = lengths.config.instruct, lengths.config.instruct.examples
    sequences = lengths.sequences("student", count, True)
    if lengths.pool:
        sequences = lengths.run.instructions(min(count, SAMPLE)).sequences
    return _packed(instruct.INSTRUCT, "student", config.train, sequences, count)


def _student(lengths: Lengths) -> Training:
    config = lengths.config
    if config.method == "direct":
        count = config.selected
        return _training(tutoring.STUDENT, "student", "direct_training", lengths, count)
    training = _training(
        tutoring.STUDENT, "student", "student_training", lengths, lengths.pool_size,
        reasoned=config.method != "labels",
    )  # fmt: skip
    return training._replace(soft=config.logits.top_k if config.logits.weight else 0)


def _packed(
    stage: str, role: Role, train: TrainConfig, sequences: list[Sequence], count: int
) -> Training:
    rows = pack(sequences, train.row_tokens, 0)
    number = math.ceil(len(rows.tokens) * count / len(sequences))
    steps = math.ceil(number / train.batch_rows) * train.epochs
    return Training(stage, role, train, rows.target.shape[1], steps)


def _scoring(lengths: Lengths) -> Scoring:
    config, run = lengths.config, lengths.run
    sequences = lengths.sequences("assistant", lengths.pool_size, reasoned=False)
    targets = _up(max(len(s.answer) for s in sequences), scores.TARGETS)
    width = _up(max(s.length for s in sequences), scores.BUCKET)
    rows = scores.rows_a_batch(config.selection.batch_tokens, width, run.mesh)
    mean = np.mean([_up(s.length, scores.BUCKET) for s in sequences])
    steps = math.ceil(lengths.pool_size * mean / (rows * width))
    return Scoring(apprenticeship.SCORES, "assistant", rows, width, targets, steps)


def _logits(lengths: Lengths) -> Scoring:
    """Returns the reading by the assistant, of about as many rows as the student's."""
    student, rows = _student(lengths), lengths.config.student_training
    filled = filled_rows(rows.batch_rows, lengths.run.mesh)
    steps = student.steps // rows.epochs
    return Scoring(logits.LOGITS, "assistant", filled, rows.row_tokens, student.targets, steps)


def _generation(
    stage: str, role: Role, lengths: Lengths, count: int, mode: Mode = "reason"
) -> Generation:
    prompts = [len(s.prompt) for s in lengths.sequences(role, count, reasoned=True, mode=mode)]
    rows = engine.rows_a_batch(lengths.config.generation, count)
    width = engine.padded_width(max(prompts))
    return Generation(stage, role, rows, width, math.ceil(count / rows))


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
