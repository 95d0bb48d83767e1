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

# The fields that a column of an instruction file may supply (`data.sources`).
INSTRUCT_COLUMNS = ("question", "answer", "context", "split")

Curves = Literal["tensorboard", "wandb", "trackio"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of one training stage.

    Attributes:
      epochs: passes over the rows; 0 needs `steps`, except in `labels_training`, which then follows
        `student_training`.
      steps: training steps, used in place of `epochs` and repeating the rows as needed; 0 uses
        `epochs`.
      batch_rows: packed rows per step.
      row_tokens: tokens per packed row; a longer sequence is an error.
      accumulate: micro-batches per step; must divide `batch_rows`.
      learning_rate: the peak, after a linear warm-up over `warmup_fraction` of the steps; then a
        cosine decay to a tenth of it.
      warmup_fraction: share of the steps in which the learning rate rises.
      weight_decay, clip_norm: AdamW's weight decay, of matrices only; and the largest global
        gradient norm.
      rationale_weight: a in L = a * L_rationale + (1 - a) * L_answer.
      ema_decay: decay of a moving average of the parameters, which is kept instead of the last
        parameters; 0 keeps the last ones.
      dev_every: steps between measurements on the dev split, which is also measured after the last
        step; 0 measures nothing.
      dev_metric: what is measured and compared: the `loss` of the gold answers, or the `accuracy`
        of the answers that the model generates, which takes longer.
      keep_best: keep the parameters with the best measurement instead of the last ones.
      patience: stop after this many measurements in a row that do not improve on the best; 0 trains
        to the end.
      checkpoint_every: steps between checkpoints.
      remat: what the backward pass recomputes instead of storing: the `full` layer; all but the
        TPU's attention kernel (`attention`); all but matrix products (`dots`); or `none`.
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
      fraction: share of the pool, drawn at random from the examples with a gold answer; 0 skips the
        warm-up, for example if no example is labelled, and the assistant scores the pool as
        downloaded.
      train: how it is trained.
      domains: draw from these domains alone, to study a shift from them to the pool; empty is all.
    """

    fraction: Share = 0.1
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class InstructConfig:
    """The student's instruction warm-up.

    Attributes:
      examples: number of instructions, drawn at random if a source has more; 0 skips the warm-up.
      train: how it is trained.
      source: `generated` (here, offline); `jsonl`, `csv` or `parquet` (one file); or `hf` (a
        dataset of the hub). Each row is trained on as a separate chat, with question and answer
        unchanged and without the run's task; a row longer than `train.row_tokens` is left out and
        counted.
      path: the file, or the hub's dataset name.
      columns: our field name -> the file's column name.
      on_bad_row: whether a malformed row is an error, or is skipped and counted.
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
    """White-box distillation: the student also learns the assistant's token probabilities.

    Attributes:
      weight: w in (1 - w) * NLL + w * KL, for each token of a rationale and its answer; 0 turns it
        off. Both models need the same vocabulary.
      top_k: how many of the assistant's most probable tokens are stored; the rest is one outcome.
    """

    weight: Share = 0.0
    top_k: Size = 32


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig:
    """On-policy distillation: the student learns the assistant's predictions on its own replies.

    Attributes:
      questions: questions of the pool that the student answers in a step.
      temperature: sampling temperature; the distribution is not truncated.
      top_k: how many of the assistant's most probable tokens are compared; the rest is one outcome.
      train: the training settings; `steps` is the number of steps.
    """

    questions: Size = 16
    temperature: Positive = 1.0
    top_k: Size = 32
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(steps=100, learning_rate=5e-5)
    )


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Settings of text generation.

    Attributes:
      max_new_tokens: the longest completion, in tokens.
      batch_size: the most sequences that are generated together; when some end, others begin.
      temperature: sampling temperature; 0 is greedy.
      top_p: nucleus sampling, with temperature > 0.
      cache: how keys and values are stored: `compute`, in the dtype of computation; `bf16`; or
        `int8`, with a scale per key and value vector, in about half the memory of bf16, and less
        exact.
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
      filter: `gold` keeps a rationale whose answer is the gold one. The others do not use gold
        answers: the student learns the answer as the assistant wrote it, and nothing if the
        rationale is rejected. `none` keeps all that end in an answer; `confidence` those with high
        log-probabilities; `consistency` those of the latter that the student's own samples agree
        with (`methods.rationales.sample`).
      rejected: what the student learns if `gold` rejects a rationale: the gold answer alone
        (`label`), or `nothing`, which is better if answers alone cannot be learned.
      show_gold: if the pool has labels, show them to an assistant that a teacher has taught, under
        any filter: it explains the gold answer. This is the rationalization of STaR (2203.14465),
        which explains only what a model got wrong; explaining everything is our choice. The
        assistant then learns each of the teacher's answers in two modes, to reason and to explain.
        If false, it has to find the answers of the pool itself, as it does in its test, and an
        epoch of its training is half as long.
      retries: completions that are sampled for a question whose rationale is rejected, 64 at most;
        the first that passes the filter is kept (rejection sampling, as in 2308.01825). A blind
        guess among r possible answers passes `gold` with probability 1 - (1 - 1/r)^retries.
      retry_temperature: sampling temperature of the retries.
      rounds: how often the assistant is trained on its own kept rationales before it writes for the
        student, 3 times at most (STaR; ReST, 2308.08998). STaR restarts from the base model each
        time; here training continues (`round_training`).
      min_mean_logprob: the lowest mean log-probability that the tokens of a kept completion may
        have, in nats, for `confidence` and `consistency`. Our default; see `least_right`.
      least_right: the share of the answers kept by `confidence` that should be right.
        `min_mean_logprob` is then set to the lowest value at which this share of the assistant's
        kept answers to the dev split is right; the report says what was measured. 0 uses
        `min_mean_logprob` as given.
      min_step_logprob: the lowest mean log-probability that the least certain sentence or line may
        have, in nats, for the same filters.
      samples: answers of the student to each question, for `consistency`.
      temperature: sampling temperature of the student's answers.
      min_agreement: the smallest share of the student's answers that must equal the rationale's.
        Our default.
      corruption: share of the rationales into which an error is put before they are filtered, to
        study the effect of hallucination on the student.
      corruption_kind: `wrong_answer`, another answer of the task, which `gold` detects; or
        `wrong_reasoning`, the reasoning of another example before the same answer, which it cannot
        detect.
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
      assistant_examples: number of test examples for the assistant, which is slower than the
        student; 0 is all.
      student_before: also test the student before its training: with the layers that are kept, and
        after the instruction warm-up.
      teacher_test: number of test questions without a gold answer, drawn at random, that the
        teacher answers. Its answers then count as gold; the other questions without a gold answer
        are not tested. They count in `budget.queries`, and are paid for before the questions of the
        pool.
      teacher_dev: as `teacher_test`, for the dev split, on which a threshold is chosen
        (`rationales.least_right`).
      student_dev: also test the trained student on the dev split, so that `least_confidence` can be
        chosen on other questions than those of the test.
      least_confidence: the confidence from which the student's answers count as trusted. It affects
        only what the report says and what `launch.predict` marks; 0 trusts all.
    """

    assistant_examples: Count = 0
    student_before: bool = True
    teacher_test: Count = 0
    teacher_dev: Count = 0
    student_dev: bool = False
    least_confidence: Annotated[Share, UNKEYED] = 0.0
