"""The shared parts of trainings on a model's own replies: questions, replies and packed rows.

The feed of such a training (`training.batches.Feed`) gives the engine the current parameters in
each step, so the training is on-policy. Replies are numbered. The number determines the question
and the random stream, so a resumed training asks exactly the questions that would have come next.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion
from bridge_jax.methods.fitting import TrainSpec
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import packing, prompts
from bridge_jax.training.batches import filled

ROLLOUTS = "rollouts.jsonl"
WIDTH = 128  # Targets per row are padded to a multiple of this, so that few shapes are compiled.


def question(pool: Sequence[Example], seed: int, number: int) -> Example:
    """Returns question `number`; the pool is reshuffled after every pass over it."""
    epoch, at = divmod(number, len(pool))
    rng = np.random.default_rng([seed, epoch])
    return pool[int(rng.permutation(len(pool))[at])]


def drawn_tokens(completion: Completion) -> list[int]:
    """Returns the tokens that the model sampled, including the end token if there is one."""
    return completion.ids if completion.end is None else [*completion.ids, completion.end]


def packed_rows(
    spec: TrainSpec, sequences: Sequence[prompts.TrainingSequence], pad_id: int
) -> packing.Rows:
    """Returns the packed rows of one training step, in one of few shapes.

    Args:
      spec: the parameters of the training.
      sequences: at least one.
      pad_id: the token that pads the rows.
    """
    found = packing.pack(sequences, spec.train.row_tokens, pad_id)
    more = -found.target.shape[1] % min(WIDTH, spec.train.row_tokens)

    def widened(array: np.ndarray) -> np.ndarray:
        sizes = np.zeros((array.ndim, 2), int)
        sizes[1, 1] = more
        return np.pad(array, sizes)

    by_target = {
        name: jax.tree.map(widened, getattr(found, name))
        for name in ("target_at", "target", "rationale_weight", "answer_weight", "extra_targets")
    }
    return filled(found._replace(**by_target), spec.train.batch_rows)


class Record:
    """Appends the replies of each step to a stage's file.

    Args:
      out: the folder of the stage; None keeps nothing.
    """

    def __init__(self, out: Folder | None):
        self._out = out
        self._is_cut = False  # Whether rows left by an interruption were removed from the file.

    def add(self, step: int, replies: Sequence[Mapping[str, Any]]) -> None:
        """Appends the replies of a step, each with the number of the step."""
        if not self._out:
            return
        if not self._is_cut:  # An interruption may leave rows of this step or later ones.
            before = [row for row in self._out.appended(ROLLOUTS) if row["step"] < step]
            self._out.write_rows(ROLLOUTS, before)
            self._is_cut = True
        self._out.append_rows(ROLLOUTS, [{"step": step, **reply} for reply in replies])
