"""Describes the work of a stage for the planner, as far as it is known before it runs."""

import dataclasses
from typing import Literal

from bridge_jax.text.prompts import Mode

Of = Literal["pool", "test", "selected", "instructions"]


@dataclasses.dataclass(frozen=True)
class Padded:
    """Batches of sequences of similar length, padded: `tokens` in each, at most."""

    tokens: int


@dataclasses.dataclass(frozen=True)
class Packed:
    """Batches of `rows` rows of `tokens`; a row holds as many sequences as it has room for."""

    rows: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class Load:
    """Examples, and what is read or written of each.

    Attributes:
      of: which examples.
      count: how many, where that does not follow from the data; 0 otherwise.
      text: what is read beside the prompt: an `answer`, a `rationale` with its answer, or in `both`
        passes each by itself.
      modes: how the model is asked; each example once in each mode.
      samples: of each example.
      soft: the most probable tokens of another model beside each target.
      share: fraction of the examples, where their number follows from the data; at least one.
      batch: how a scoring forms its batches; a training has `Fit` for it, what writes its
        `GenerationConfig`.
    """

    of: Of
    count: int = 0
    text: Literal["answer", "rationale", "both"] = "rationale"
    modes: tuple[Mode, ...] = ("reason",)
    samples: int = 1
    soft: int = 0
    share: float = 1.0
    batch: Padded | Packed | None = None

    @property
    def passes(self) -> int:
        """How many sequences there are of each example."""
        return self.samples * (len(self.modes) + (self.text == "both"))
