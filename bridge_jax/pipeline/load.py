"""What a stage puts through its model, as far as it is known before it runs: for the planner."""

import dataclasses
from typing import Literal

from bridge_jax.text.prompts import Mode

Of = Literal["pool", "test", "selected", "warmup", "instructions"]


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
    """

    of: Of
    count: int = 0
    text: Literal["answer", "rationale", "both"] = "rationale"
    modes: tuple[Mode, ...] = ("reason",)
    samples: int = 1
    soft: int = 0
