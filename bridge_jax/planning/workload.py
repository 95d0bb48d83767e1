"""Lists the step shapes and step counts of each stage of a run, and estimates the teacher's bill.

A stage declares its kind of work, its role, its parameters and its workload; the rest is derived
from data, tokenizers and config. The lengths of sequences are counted if the data and tokenizers
are on this machine. Otherwise every prompt and every rationale is assumed to be as long as the
config allows. So is a rationale that an API teacher has yet to write, or that is not recorded.
"""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bridge_jax import methods
from bridge_jax.config import API_TEACHERS, GenerationConfig, RunConfig, TrainConfig
from bridge_jax.data import sources
from bridge_jax.data.example import Example, with_task_text
from bridge_jax.errors import UserError
from bridge_jax.generation import engine
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods import rollouts, teacher
from bridge_jax.methods.checks import trainings
from bridge_jax.methods.inputs import Inputs
from bridge_jax.methods.shortening import Paying
from bridge_jax.methods.teacher import Asking
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.pipeline.artifacts import ROLES, Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.stages import ByLength, OwnReplies, Packed, Stage, Workload
from bridge_jax.selection import batches
from bridge_jax.selection.batches import Shape
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import Mode, TrainingSequence
from bridge_jax.training.objectives import Objective

SAMPLE = 1000  # Most examples of a stage to tokenize; the others are assumed to be like them.
ANSWER = 16  # Tokens of an answer, if they cannot be counted.


class TrainingWork(NamedTuple):
    """Training steps of `train.batch_rows` packed rows with `targets` targets each.

    `objective` is the loss; `soft` is how many of the assistant's most probable tokens each target
    has, 0 for none.
    """

    stage: str
    role: Role
    train: TrainConfig
    objective: Objective
    targets: int
    steps: int
    soft: int = 0


class ScoringWork(NamedTuple):
    """Scoring steps, counted in batches of the largest shape; smaller ones count as fractions.

    `trained` says whether a stage has trained the model, so that it has its adapter.
    """

    stage: str
    role: Role
    shape: Shape
    steps: int
    trained: bool = True

    @property
    def rows(self) -> int:
        """The rows of a batch, over all devices."""
        return self.shape.parts * self.shape.rows

    @property
    def width(self) -> int:
        """The tokens of a row."""
        return self.shape.width

    @property
    def targets(self) -> int:
        """The targets per row: the mean, rounded up."""
        return math.ceil(self.shape.targets / self.shape.rows)


class GenerationWork(NamedTuple):
    """Generation from prompts of at most `width` tokens, `rows` at a time, `steps` times.

    `trained` says whether a stage has trained the model. `part` is "replies" if a training stage
    generates replies with its own model between its steps.
    """

    stage: str
    role: Role
    rows: int
    width: int
    steps: int
    settings: GenerationConfig
    trained: bool = True
    part: str = ""


class ReadingWork(NamedTuple):
    """Forward passes over packed rows with `targets` targets each by a model that is not trained.

    Between the steps of a training, they read the rows that the training learns from, and find the
    probability of each target, or, if `soft` is not 0, the `soft` most probable tokens there.
    """

    stage: str
    role: Role
    rows: int
    width: int
    targets: int
    steps: int
    soft: int = 0
    part: str = "reading"


Work = TrainingWork | ScoringWork | GenerationWork | ReadingWork


def part_of(work: Work) -> str:
    """Returns a work's part of its stage: "replies", "reading", or "" for the stage's main step."""
    return work.part if isinstance(work, GenerationWork | ReadingWork) else ""


def name_of(work: Work) -> str:
    """Returns the stage of a work, followed by the work's part if it has one (`part_of`)."""
    part = part_of(work)
    return f"{work.stage}: {part}" if part else work.stage


class Lengths:
    """The lengths of a run's sequences: as counted, or as long as its config allows.

    Args:
      config: the run's config, with the text of its task file in place of the file.

    Attributes:
      pool: the examples of the pool; empty if lengths cannot be counted.
      pool_size, dev_size, test_size: the numbers of examples.
    """

    def __init__(self, config: RunConfig, stages: Sequence[Stage], inputs: Inputs):
        self.config, self.inputs = config, inputs
        asks = bool(methods.annotation_stages(stages))
        self._written_later = asks and config.teacher.kind in API_TEACHERS
        counted = config.data.source == "practice" or bool(config.data.path)
        for role in ROLES:
            try:
                _ = inputs.model(role).tokenizer
            except UserError:
                counted = False
        self.pool: Sequence[Example] = inputs.pool if counted else ()
        self.pool_size = len(self.pool) or config.data.pool or sources.SIZES["pool"]
        self.dev_size, self.test_size = (
            len(getattr(inputs, part))
            if counted
            else getattr(config.data, part) or sources.SIZES[part]
            for part in ("dev", "test")
        )
        if bought := config.evaluation.teacher_test:  # Others without a gold answer are not tested.
            known = sum(example.answer is not None for example in inputs.test) if counted else 0
            self.test_size = known + min(bought, self.test_size - known)

    def examples(self, workload: Workload) -> int:
        """Returns the number of examples of a workload."""
        sizes = {"test": self.test_size, "dev": self.dev_size}
        size = sizes.get(workload.of, self.pool_size)
        if workload.share < 1:
            size = max(1, round(workload.share * size))
        if workload.of == "pool" and workload.count:
            return min(workload.count, size)
        return workload.count or size

    def sequences(self, role: Role, workload: Workload) -> list[TrainingSequence]:
        """Returns the training sequences of at most `SAMPLE` examples of a workload, in every mode.

        Except for instructions, the examples are of the pool, whichever split the workload is of.
        """
        if workload.of == "instructions" and self.pool:
            return self.inputs.draw_instructions(min(workload.count, SAMPLE)).sequences
        found = [] if workload.text == "rationale" else self._of_mode(role, workload, None)
        for mode in workload.modes if workload.text != "answer" else ():
            whole = self._of_mode(role, workload, mode)
            found += [each.without_answer for each in whole] if workload.text == "both" else whole
        return found

    def prompts(self, role: Role, workload: Workload) -> list[int]:
        """Returns the token counts of the prompts of at most `SAMPLE` examples, in every mode."""
        if not self.pool:
            return [self.config.max_prompt_tokens]
        reading, sample = self.inputs.rendering(role), self._sample(workload)
        found = [reading.prompts(sample, "", mode).lengths for mode in workload.modes]
        return np.concatenate(found).tolist() if found else []

    def _sample(self, workload: Workload) -> list[Example]:
        count = min(self.examples(workload), SAMPLE)
        return [self.pool[i % len(self.pool)] for i in range(count)]

    def _of_mode(self, role: Role, workload: Workload, mode: Mode | None) -> list[TrainingSequence]:
        """Returns a workload's sequences in one mode; with answers alone if the mode is None."""
        longest = self.config.generation.max_new_tokens
        if not self.pool:
            rationale = [0] * max(0, longest - ANSWER) if mode else []
            prompt = [0] * self.config.max_prompt_tokens
            count = min(self.examples(workload), SAMPLE)
            return [TrainingSequence(prompt, rationale, [0] * ANSWER)] * count
        reading, sample = self.inputs.rendering(role), self._sample(workload)
        recorded = [None] * len(sample)
        if mode and not self._written_later:
            recorded = [e.rationales.get(self.config.data.rationale) for e in sample]
        items = [(e, text, _likely(e)) for e, text in zip(sample, recorded)]
        found = reading.sequences(items, mode or "reason")
        if mode is None:
            return found
        unwritten = [n for n, text in enumerate(recorded) if text is None]
        prompts = reading.prompts([sample[n] for n in unwritten], "", mode)
        for n, prompt in zip(unwritten, prompts):
            rationale = [0] * max(0, longest - len(found[n].answer))
            found[n] = found[n]._replace(prompt=prompt, rationale=rationale)
        return found


def _likely(example: Example) -> str:
    """Returns the answer; if unknown, the longest choice, or `ANSWER` zeros if there are none."""
    longest = max(example.choices, key=len, default="0" * ANSWER)
    return longest if example.answer is None else example.answer


def opened(
    config: RunConfig, devices: Any = None, hashes: Hashes | None = None
) -> tuple[list[Stage], Lengths]:
    """Returns the stages of a run and the lengths of its sequences; nothing is cached on disk.

    Args:
      config: the run's config.
      devices: the devices of the mesh, by default all; they may be those of another machine.
      hashes: hashes of files, to be shared between runs.
    """
    config = dataclasses.replace(config, data=with_task_text(config.data))
    stages = methods.stages(config)
    inputs = Inputs(config, Path(), None, hashes or Hashes(), devices)
    return stages, Lengths(config, stages, inputs)


def list_work(
    stages: Sequence[Stage], lengths: Lengths, only: Collection[str] | None = None
) -> list[Work]:
    """Returns the work of each stage that runs a model, in order.

    A training on a model's own replies has several: generating the replies, in some methods a
    forward pass of another model over them, and the training itself, which comes last.

    Args:
      stages: the stages of a run.
      lengths: the lengths of its sequences.
      only: names of the stages to list, by default all.
    """
    found: list[Work] = []
    for stage in stages:
        role, workload = stage.artifact.role, stage.workload
        if not role or not workload or (only is not None and stage.name not in only):
            continue
        if stage.artifact.work == "train" and workload.replies:
            found += _on_replies(stage, role, workload, workload.replies, lengths)
        elif stage.artifact.work == "train":
            ((_, spec),) = trainings([stage])
            shape = Packed(spec.train.batch_rows, spec.train.row_tokens)
            targets, batches = _packed(shape, role, workload, lengths)
            steps = spec.train.steps or batches * spec.train.epochs
            if workload.as_long_as:
                others = (list_work([each], lengths)[-1] for each in workload.as_long_as)
                steps = sum(other.steps for other in others)
            minimised = spec.train, spec.objective
            found.append(TrainingWork(stage.name, role, *minimised, targets, steps, workload.soft))
        elif stage.artifact.work == "score":
            scored = _scoring(stage.name, role, workload, lengths)
            found.append(ScoringWork(stage.name, role, *scored, _is_trained(stage, stages)))
        else:
            settings, count = stage.params.generation, lengths.examples(workload) * workload.passes
            rows = engine.slots_of(settings, count, lengths.inputs.meshes(role).generation)
            width = max(lengths.prompts(role, workload))
            steps = math.ceil(count / rows)
            trained = _is_trained(stage, stages)
            found.append(GenerationWork(stage.name, role, rows, width, steps, settings, trained))
    return found


def _is_trained(stage: Stage, stages: Sequence[Stage]) -> bool:
    """Returns whether another stage has trained the model of a stage."""
    role, read = stage.artifact.role, set(stage.reads.values())
    return any(
        each.name in read and each.artifact.work == "train" and each.artifact.role == role
        for each in stages
    )


def _on_replies(
    stage: Stage, role: Role, workload: Workload, replies: OwnReplies, lengths: Lengths
) -> list[Work]:
    """Returns the work of a training on a model's own replies, all assumed to have full length."""
    ((_, spec),) = trainings([stage])
    train, settings, count = spec.train, replies.generation, replies.count
    mesh = lengths.inputs.meshes(role).generation
    slots, width = engine.slots_of(settings, count, mesh), max(lengths.prompts(role, workload))
    writing = math.ceil(count / slots) * train.steps
    found: list[Work] = [
        GenerationWork(stage.name, role, slots, width, writing, settings, part="replies")
    ]
    in_row = max(1, train.row_tokens // (width + settings.max_new_tokens))
    rows = -(-math.ceil(count / in_row) // train.batch_rows) * train.batch_rows
    wide = min(rollouts.WIDTH, train.row_tokens)
    targets = -(-min(in_row * settings.max_new_tokens, train.row_tokens) // wide) * wide
    if replies.reader:
        # Most probable tokens are found batch by batch; single probabilities, for all rows at once.
        at_once = train.batch_rows if replies.soft else rows
        readings = rows // at_once * train.steps
        shape = at_once, train.row_tokens, targets, readings, replies.soft
        found.append(ReadingWork(stage.name, replies.reader, *shape))
    learned = dataclasses.replace(train, batch_rows=rows)
    work = TrainingWork(
        stage.name, role, learned, spec.objective, targets, train.steps, replies.soft
    )
    return [*found, work]


def _scoring(stage: str, role: Role, workload: Workload, lengths: Lengths) -> tuple[Shape, int]:
    """Returns the shape of the largest batch, and the number of such batches."""
    mesh = lengths.inputs.meshes(role).training
    match workload.batch:
        case Packed() as shape:
            targets, steps = _packed(shape, role, workload, lengths)
            parts = batch_devices(mesh)
            rows = math.ceil(shape.rows / parts)
            return Shape(parts, rows, shape.tokens, targets * rows, rows), steps
        case ByLength() as shape:
            found: Sequence[TrainingSequence] = lengths.sequences(role, workload)
            if lengths.pool:  # Scored without the mark and the end token.
                found = lengths.inputs.rendering(role).own_answers(found)
            count = lengths.examples(workload) * workload.passes
            read = [found[i % len(found)] for i in range(min(count, 10 * SAMPLE))]
            lengths_of, targets_of = [s.length for s in read], [len(s.answer) for s in read]
            shapes = [b.shape for b in batches.plan(lengths_of, targets_of, shape.tokens, mesh)]
            largest = max(shapes, key=lambda s: (s.tokens, s.width))
            tokens = sum(s.tokens for s in shapes) * count / len(read)
            return largest, math.ceil(tokens / largest.tokens)
        case None:
            raise ValueError(f"{stage}: its workload does not say how it forms batches")


def _packed(shape: Packed, role: Role, workload: Workload, lengths: Lengths) -> tuple[int, int]:
    """Returns the targets per row, and the number of batches that hold all sequences."""
    sequences, count = (
        lengths.sequences(role, workload),
        lengths.examples(workload) * workload.passes,
    )
    rows = pack(sequences, shape.tokens, 0)
    number = math.ceil(len(rows.tokens) * count / len(sequences))
    return rows.target.shape[1], math.ceil(number / shape.rows)


class Spending(NamedTuple):
    """The expected bill of the teacher, with bounds.

    Attributes:
      queries: the number of requests.
      input_tokens, output_tokens, usd: the expected amounts.
      usd_low, usd_high: the cost of the cheapest selection, and of the most expensive one with all
        retries that the budget allows.
    """

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float
    usd_low: float
    usd_high: float


def expected(stages: Sequence[Stage], lengths: Lengths) -> Spending:
    """Estimates the bill of the stages that ask a teacher.

    Args:
      stages: the stages of a run.
      lengths: the lengths of its sequences.
    """
    found = [
        _of(stage.params, lengths.examples(stage.workload) * stage.workload.samples, lengths)
        for stage in stages
        if stage.artifact.work == "ask" and stage.workload
    ]
    if not found:
        return Spending(0, 0, 0, 0.0, 0.0, 0.0)
    total = Spending(*(sum(column) for column in zip(*found)))
    # The budget caps all stages together, unless the first answers of one alone exceed it.
    within = min(total.usd_high, lengths.config.budget.usd)
    return total._replace(usd_high=max(within, *(each.usd_high for each in found)))


def _of(params: Asking, queries: int, lengths: Lengths) -> Spending:
    """Estimates the bill of the first answers to `queries` requests, with bounds."""
    prices = teacher.prices_of(params.teacher)
    batch = params.teacher.batch and teacher.is_paid(params.teacher)
    most, longest = params.teacher.max_output_tokens, lengths.config.max_prompt_tokens
    # A request to shorten reasoning includes that reasoning in its prompt.
    shortens = isinstance(params, Paying)
    longest += most if shortens else 0
    if not lengths.pool:
        usd = in_usd(queries * prices.cost(longest, most, batch))
        tokens = queries * longest, queries * most
        return Spending(queries, *tokens, usd, 0.0, _with_retries(params, queries, usd))
    sample, count = lengths.pool[:SAMPLE], lengths.inputs.count
    asked, pairs = teacher.make_teacher(params, sample, count), []
    with asyncio.Runner() as loop:
        for example in sample:
            request, written = teacher.make_request(params, example), most
            if teacher.is_paid(params.teacher):
                said = sum(count(message.content) for message in request.messages)
            else:
                said = asked.estimate_input_tokens(request)
                with contextlib.suppress(UserError):  # None is recorded, or it is too long.
                    written = loop.run(asked.ask(request)).output_tokens
            pairs.append((said + (written if shortens else 0), written))
    costs = sorted(prices.cost(said, written, batch) for said, written in pairs)
    few = min(queries, len(costs))
    low, high = (sum(part) * queries / few for part in (costs[:few], costs[-few:]))
    inputs, outputs = (round(float(np.mean(column)) * queries) for column in zip(*pairs))
    usd = in_usd(round(float(np.mean(costs)) * queries))
    most_usd = _with_retries(params, queries, in_usd(round(high)))
    return Spending(queries, inputs, outputs, usd, in_usd(round(low)), most_usd)


def _with_retries(params: Asking, queries: int, usd: float) -> float:
    """Returns the cost of the first answers and of all retries that the budget allows."""
    config, budget = params.teacher, params.budget
    retries, samples = config.retries, config.samples
    if isinstance(params, Paying):
        retries, samples = params.how.tries - 1, 1
    rounds = min(1 + retries / samples, budget.queries / queries)
    return max(usd, min(usd * rounds, budget.usd))
