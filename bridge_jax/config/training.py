"""Defines the settings of training, generation, filters and evaluation."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from bridge_jax.config.fields import (
    UNKEYED,
    Count,
    LogProbability,
    NotNegative,
    OneOf,
    Place,
    Positive,
    Range,
    Share,
    Size,
)

# The fields that a file of instructions may have a column for (`data.sources`).
INSTRUCT_COLUMNS = ("question", "answer", "context", "split")

Curves = Literal["tensorboard", "wandb", "trackio"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training stage.

    Attributes:
      epochs: passes over the rows; 0 is for `labels_training` alone (`RunConfig`).
      steps: training steps in place of `epochs`, repeating the rows as needed; 0 means `epochs`.
      batch_rows: packed rows a step.
      row_tokens: tokens a packed row; a longer sequence is an error.
      accumulate: micro-batches a step; divides batch_rows.
      learning_rate: the peak; linear warm-up over `warmup_fraction` of the steps, then a
        cosine to a tenth of it.
      warmup_fraction: share of the steps in which the learning rate rises.
      weight_decay, clip_norm: AdamW's decay of matrices; global gradient norm at most.
      rationale_weight: a in L = a * L_rationale + (1 - a) * L_answer.
      ema_decay: keep a moving average of the parameters of this decay, instead of the last ones; 0
        keeps the last ones.
      dev_every: steps between measurements on the dev split, which is also measured after the last
        step; 0 measures nothing.
      dev_metric: what is measured and compared: the `loss` of the gold answers, or the `accuracy`
        of the answers that the model writes, which takes longer.
      keep_best: keep the parameters of the best measurement instead of the last ones.
      patience: stop after so many measurements that are no better than the best before; 0 trains
        to the end.
      checkpoint_every: steps between checkpoints.
      remat: what the backward pass recomputes instead of keeping it: the `full` layer, all but
        the TPU's attention kernel (`attention`), all but matrix products (`dots`), or `none`.
    """

    epochs: Count = 3
    steps: Count = 0
    batch_rows: Size = 8
    row_tokens: Size = 256
    accumulate: Size = 1
    learning_rate: Positive = 3e-4
    warmup_fraction: Share = 0.1
    weight_decay: NotNegative = 0.01
    clip_norm: Positive = 1.0
    rationale_weight: Share = 0.5
    ema_decay: Share = 0.0
    dev_every: Count = 0
    dev_metric: Literal["loss", "accuracy"] = "loss"
    keep_best: bool = False
    patience: Count = 0
    checkpoint_every: Annotated[Size, UNKEYED] = 50
    remat: Annotated[Literal["full", "attention", "dots", "none"], UNKEYED] = "full"


@dataclasses.dataclass(frozen=True)
class WarmupConfig:
    """The assistant's label-only warm-up.

    Attributes:
      fraction: share of the pool, drawn at random from the examples with a gold answer; 0 leaves
        the warm-up out, as where nobody has labelled any, and the assistant scores the pool as
        downloaded.
      train: how it is trained.
      domains: draw from these domains alone, to see what a shift from them to the pool does; empty
        is all.
    """

    fraction: Share = 0.1
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class InstructConfig:
    """The student's instruction warm-up.

    Attributes:
      examples: how many instructions, drawn at random where a source has more; 0 leaves the
        warm-up out.
      train: how it is trained.
      source: `generated` (here, offline); `jsonl`, `csv` or `parquet` (one file); or `hf` (a
        dataset of the hub). A row is trained on as a chat of its own, question and answer as they
        are, without the run's task; one longer than `train.row_tokens` is left out and counted.
      path: the file, or the hub's dataset name.
      columns: one of our `INSTRUCT_COLUMNS` -> the file's column.
      on_bad_row: a malformed row is an error, or is skipped and counted.
    """

    examples: Count = 300
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))
    source: Literal["generated", "jsonl", "csv", "parquet", "hf"] = "generated"
    path: Place = ""
    columns: Mapping[Annotated[str, OneOf(INSTRUCT_COLUMNS)], str] = dataclasses.field(
        default_factory=dict
    )
    on_bad_row: Literal["error", "skip"] = "error"


@dataclasses.dataclass(frozen=True)
class LogitsConfig:
    """White-box distillation: the student learns the assistant's predictions beside its texts.

    Attributes:
      weight: w in (1 - w) * NLL + w * KL, of each token of a rationale and its answer; 0 does
        without. Both models need one vocabulary.
      top_k: the assistant's most probable tokens that are stored; the rest is one outcome.
    """

    weight: Share = 0.0
    top_k: Size = 32


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig:
    """On-policy distillation: the student learns from the assistant on its own replies.

    Attributes:
      questions: of the pool that the student answers in a step.
      temperature: of sampling; nothing is cut off.
      top_k: the assistant's most probable tokens that are compared; the rest is one outcome.
      train: `steps` are how many there are.
    """

    questions: Size = 16
    temperature: Positive = 1.0
    top_k: Size = 32
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(steps=100, learning_rate=5e-5)
    )


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Settings of generation.

    Attributes:
      max_new_tokens: completion length at most.
      batch_size: sequences that are written together, at most; when some end, others begin.
      temperature: 0 is greedy.
      top_p: nucleus sampling, with temperature > 0.
      cache: in what keys and values are kept: `compute`, as they are computed; `bf16`; or `int8`,
        with a scale for each, in about half the memory of bf16, and less exact.
    """

    max_new_tokens: Size = 96
    batch_size: Size = 64
    temperature: NotNegative = 0.0
    top_p: Annotated[float, Range(above=0, most=1)] = 1.0
    cache: Literal["compute", "bf16", "int8"] = "compute"


MOST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class RationalesConfig:
    """Settings of the assistant's rationales: how they are generated, and which ones are kept.

    Attributes:
      filter: `gold` keeps a rationale whose answer is gold. The others compare with none: the
        student learns the answer as written, and nothing where a rationale is rejected. `none`
        keeps all that end in an answer; `confidence` those with high log-probabilities;
        `consistency` those of them that the student's own samples agree with
        (`methods.rationales.sample`).
      rejected: what the student learns where `gold` rejects a rationale: the gold answer alone
        (`label`), or `nothing`, which is better where answers alone cannot be learned.
      show_gold: where the pool has labels, show them to an assistant that a teacher taught, under
        any filter: it explains the gold answer. That is the rationalization of STaR (2203.14465),
        where only what a model got wrong is explained; to explain all is our choice. For it the
        assistant learns each of the teacher's answers in both modes, to reason and to explain.
        Without, it has to find the answers of the pool itself, as it does when it is tested; an
        epoch of its training is then half as long.
      retries: completions that are sampled for a question whose rationale is rejected, 64 at most;
        the first that passes the filter is kept (rejection sampling, as in 2308.01825). A blind
        guess among r possible answers passes `gold` with probability 1 - (1 - 1/r)^retries.
      retry_temperature: with which they are sampled.
      rounds: how often the assistant is trained on its own kept rationales before it writes for the
        student, 3 times at most (STaR; ReST, 2308.08998). STaR restarts from the base model each
        time; here training continues (`round_training`).
      min_mean_logprob: of the tokens of a completion, in nats, for `confidence` and `consistency`.
        Our default; see `least_right`.
      least_right: share of the answers kept by `confidence` that are to be right. Then
        `min_mean_logprob` is the lowest value with which so many are among the assistant's answers
        to the dev split; what was expected of it is in the report. 0 takes it as given.
      min_step_logprob: mean over the tokens of the least sure sentence or line, likewise.
      samples: answers of the student to each question, for `consistency`.
      temperature: with which it samples them.
      min_agreement: share of the samples that give the rationale's answer, at least. Our default.
      corruption: share of the rationales that an error is put into before they are filtered, to
        study what hallucination does to the student.
      corruption_kind: `wrong_answer`, another answer of the task, which `gold` finds; or
        `wrong_reasoning`, that of another example before the same answer, which it cannot.
    """

    filter: Literal["gold", "none", "confidence", "consistency"] = "gold"
    rejected: Annotated[Literal["label", "nothing"], UNKEYED] = "label"  # Keyed by `SFTTargets`.
    show_gold: bool = True
    retries: Annotated[int, Range(least=0, most=64)] = 0
    retry_temperature: NotNegative = 1.0
    rounds: Annotated[int, Range(least=0, most=MOST_ROUNDS)] = 0
    min_mean_logprob: LogProbability = -0.5
    least_right: Share = 0.0
    min_step_logprob: LogProbability = -1.0
    samples: Size = 4
    temperature: NotNegative = 0.7
    min_agreement: Share = 0.25
    corruption: Share = 0.0
    corruption_kind: Literal["wrong_answer", "wrong_reasoning"] = "wrong_answer"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Settings of the tests in the report.

    Attributes:
      assistant_examples: test examples put to the assistant, which is slower than the student;
        0 is all.
      student_before: also test the student before its training: as cut, and after the instruction
        warm-up.
      teacher_test: test questions without a gold answer that are put to the teacher, drawn at
        random. Its answers are then their gold; the others without one are not tested. Counts in
        `budget.queries`, and is paid before the questions of the pool.
      teacher_dev: likewise of the dev split, on which a threshold is chosen
        (`rationales.least_right`).
      student_dev: also put the dev split to the trained student, to choose `least_confidence` on
        other questions than those of the test.
      least_confidence: from which the student's answers are to be trusted. Nothing depends on it
        but what the report says and `launch.predict` marks; 0 trusts all.
    """

    assistant_examples: Count = 0
    student_before: bool = True
    teacher_test: Count = 0
    teacher_dev: Count = 0
    student_dev: bool = False
    least_confidence: Annotated[Share, UNKEYED] = 0.0
