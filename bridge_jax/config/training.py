"""How models are trained."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from bridge_jax.config.fields import (
    UNKEYED,
    Count,
    NotNegative,
    OneOf,
    Place,
    Positive,
    Share,
    Size,
)

# What a file of instructions may have a column for (`data.sources`).
INSTRUCT_COLUMNS = ("question", "answer", "context", "split")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training stage.

    Attributes:
      epochs: passes over the rows.
      batch_rows: packed rows a step.
      row_tokens: tokens a packed row; a longer sequence is an error.
      accumulate: micro-batches a step; divides batch_rows.
      learning_rate: the peak; linear warm-up over `warmup_fraction` of the steps, then a
        cosine to a tenth of it.
      weight_decay, clip_norm: AdamW's decay of matrices; global gradient norm at most.
      rationale_weight: a in L = a * L_rationale + (1 - a) * L_answer.
      checkpoint_every: steps between checkpoints.
      remat: what the backward pass recomputes instead of keeping it: the `full` layer, all but
        its matrix products (`dots`), or `none`.
    """

    epochs: Size = 3
    batch_rows: Size = 8
    row_tokens: Size = 256
    accumulate: Size = 1
    learning_rate: Positive = 3e-4
    warmup_fraction: Share = 0.1
    weight_decay: NotNegative = 0.01
    clip_norm: Positive = 1.0
    rationale_weight: Share = 0.5
    checkpoint_every: Annotated[Size, UNKEYED] = 50
    remat: Annotated[Literal["full", "dots", "none"], UNKEYED] = "full"


@dataclasses.dataclass(frozen=True)
class WarmupConfig:
    """The assistant's label-only warm-up.

    Attributes:
      fraction: share of the pool, drawn at random.
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
      source: `generated` (here, offline), `jsonl` (one file) or `hf` (a dataset of the hub). A row
        is trained on as a chat of its own, question and answer as they are, without the run's
        task; one that is longer than `train.row_tokens` is left out and counted.
      path: the JSONL file, or the hub's dataset name.
      columns: one of our `INSTRUCT_COLUMNS` -> the file's column.
      on_bad_row: a malformed row is an error, or is skipped and counted.
    """

    examples: Count = 300
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))
    source: Literal["generated", "jsonl", "hf"] = "generated"
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
