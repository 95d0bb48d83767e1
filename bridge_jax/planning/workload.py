"""What a run will compute: for each stage, the shapes of its step and how often it is taken.

Lengths come from the data and the tokenizers. Where one of them is not here, every prompt and every
rationale is taken to be as long as the config allows.
"""

import asyncio
import contextlib
import math
from collections.abc import Collection
from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.config_checks import trainings
from bridge_jax.errors import UserError
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
    teacher,
    tutoring,
)
from bridge_jax.phases.context import Role, Run
from bridge_jax.selection import scores
from bridge_jax.tasks.example import Example
from bridge_jax.tasks.practice.instructions import generate_instructions
from bridge_jax.teachers.prices import in_usd
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Sequence

SAMPLE = 1000  # Examples of a stage that are tokenized; their lengths stand for the rest.
ANSWER = 16  # Tokens of an answer, where they cannot be counted.


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


class Spending(NamedTuple):
    """What the teacher is expected to cost, and between which bounds.

    Attributes:
      queries: requests.
      input_tokens, output_tokens, usd: expected.
      usd_low, usd_high: the cheapest selection, and the dearest with every retry that the budget
        leaves room for.
    """

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float
    usd_low: float
    usd_high: float


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

    def sequences(self, role: Role, count: int, reasoned: bool) -> list[Sequence]:
        """Returns at most `SAMPLE` of the `count` training sequences of a stage."""
        count = min(count, SAMPLE)
        if not self.pool:
            rationale = [0] * (self.config.generation.max_new_tokens - ANSWER) * reasoned
            return [Sequence([0] * self.config.max_prompt_tokens, rationale, [0] * ANSWER)] * count
        chosen = [self.pool[i % len(self.pool)] for i in range(count)]
        return [self.run.sequence(role, e, self.rationale(e) if reasoned else None) for e in chosen]

    def rationale(self, example: Example) -> str | None:
        """Returns what a recorded teacher says about an example."""
        return example.rationales.get(self.config.data.rationale)


def workloads(run: Run, only: Collection[str] | None = None) -> tuple[list[Work], Spending]:
    """Returns the work of each stage that runs a model, in order, and what is paid.

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
        apprenticeship.ASSISTANT: lambda: _training(
            apprenticeship.ASSISTANT, "assistant", "assistant_training", lengths,
            config.selected,
        ),
        instruct.INSTRUCT: lambda: _instruct(lengths),
        rationales.COMPLETIONS: lambda: _generation(
            rationales.COMPLETIONS, "assistant", lengths, lengths.pool_size
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
    return [by_stage[name]() for name in wanted], _spending(lengths)


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


def _instruct(lengths: Lengths) -> Training:
    config, count = lengths.config.instruct, lengths.config.instruct.examples
    sequences = lengths.sequences("student", count, True)
    if lengths.pool:
        examples = generate_instructions(lengths.config.seed, min(count, SAMPLE))
        sequences = [
            lengths.run.sequence("student", e, e.rationales.get("medium")) for e in examples
        ]
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
    """Returns the reading of the student's rows by the assistant, as if all were kept."""
    student, rows = _student(lengths), lengths.config.student_training
    filled = filled_rows(rows.batch_rows, lengths.run.mesh)
    steps = student.steps // rows.epochs
    return Scoring(logits.LOGITS, "assistant", filled, rows.row_tokens, student.targets, steps)


def _generation(stage: str, role: Role, lengths: Lengths, count: int) -> Generation:
    prompts = [len(s.prompt) for s in lengths.sequences(role, count, reasoned=True)]
    rows = engine.rows_a_batch(lengths.config.generation, count)
    width = engine.padded_width(max(prompts))
    return Generation(stage, role, rows, width, math.ceil(count / rows))


def _spending(lengths: Lengths) -> Spending:
    config = lengths.config
    if not config.asks_teacher:
        return Spending(0, 0, 0, 0.0, 0.0, 0.0)
    prices = teacher.prices_of(config.teacher)
    batch = config.teacher.batch and teacher.is_paid(config.teacher)
    queries = config.selected * config.teacher.samples
    most = config.teacher.max_output_tokens
    if not lengths.pool:
        cost = queries * prices.cost(config.max_prompt_tokens, most, batch)
        tokens = queries * config.max_prompt_tokens, queries * most
        return Spending(queries, *tokens, in_usd(cost), 0.0, _with_retries(config, in_usd(cost)))
    run, sample = lengths.run, lengths.pool[:SAMPLE]
    asked, pairs = teacher.make_teacher(run, sample), []
    count = run.tokenizer("student").encode
    with asyncio.Runner() as loop:
        for example in sample:
            request = teacher.make_request(run, example)
            said = sum(len(count(message.content)) for message in request.messages)
            written = most
            if not teacher.is_paid(config.teacher):
                said = asked.estimate_input_tokens(request)
                with contextlib.suppress(UserError):  # None is recorded, or a longer one.
                    written = loop.run(asked.ask(request)).output_tokens
            pairs.append((said, written))
    costs = sorted(prices.cost(said, written, batch) for said, written in pairs)
    few = min(queries, len(costs))
    low, high = (sum(part) * queries / few for part in (costs[:few], costs[-few:]))
    inputs, outputs = (round(float(np.mean(column)) * queries) for column in zip(*pairs))
    usd = in_usd(round(float(np.mean(costs)) * queries))
    most_usd = _with_retries(config, in_usd(round(high)))
    return Spending(queries, inputs, outputs, usd, in_usd(round(low)), most_usd)


def _with_retries(config: RunConfig, usd: float) -> float:
    """Returns the cost of the first answers and of all retries that the budget leaves room for."""
    asked = config.selected * config.teacher.samples
    with_retries = min(
        usd
        * min(1 + config.teacher.retries / config.teacher.samples, config.budget.queries / asked),
        config.budget.usd,
    )
    return max(usd, with_retries)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
