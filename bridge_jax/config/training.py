"""How models are trained."""

import dataclasses
from typing import Literal

from bridge_jax.config.fields import Count, NotNegative, Positive, Share, Size


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
    checkpoint_every: Size = 50
    remat: Literal["full", "dots", "none"] = "full"


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
      examples: how many generated instructions; 0 leaves the warm-up out.
      train: how it is trained.
    """

    examples: Count = 300
    train: TrainConfig = dataclasses.field(default_factory=lambda: TrainConfig(epochs=1))


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
