"""Cuts packed rows into batches, one for each training step: shuffled and resumable.

The batch of a step is a function of (rows, seed, step). Every process makes the same rows;
`shard_batch` places its part.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import grain
import jax
import numpy as np

from bridge_jax.config import TrainConfig


class Feed(Protocol):
    """Gives the batches of a training; its position can be saved."""

    def next_batch(self, params: Any) -> tuple[Any, Mapping[str, float]]:
        """Returns the next batch, and what was measured while it was made, to be logged.

        Args:
          params: all parameters of the model as they are now, to sample from it; valid until the
            next step.
        """
        ...

    def get_state(self) -> Any:
        """Returns the position as JSON values: after the batches that were taken."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        ...


class Shuffled:
    """Batches of rows in a random order, in whole epochs.

    Attributes:
      steps: how many there are.
    """

    def __init__(self, rows: Any, batch_rows: int, steps: int, seed: int):
        """Takes the rows of a batch, and how many batches there are at least."""
        padded = filled(rows, batch_rows)
        size = _count(padded)
        epochs = math.ceil(steps * batch_rows / size)

        def assemble(indices: Any) -> Any:
            return jax.tree.map(lambda a: a[np.asarray(indices)], padded)

        order = grain.MapDataset.range(size).seed(seed).shuffle().repeat(epochs)
        cut = order.batch(batch_rows, drop_remainder=True, batch_fn=assemble)
        self.steps = len(cut)
        # The rows are in memory: threads that fetch ahead would cost more than they save.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator = iter(cut.to_iter_dataset(options))

    def next_batch(self, params: Any = None) -> tuple[Any, Mapping[str, float]]:
        """Returns the next batch; nothing is measured."""
        return next(self._iterator), {}

    def get_state(self) -> Any:
        """Returns the position: after the batches that were taken, not fetched."""
        return self._iterator.get_state()

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        self._iterator.set_state(state)


def steps_of(rows: Any, how: TrainConfig) -> int:
    """Returns how many batches a training takes; the last of an epoch is filled with empty rows."""
    return how.steps or math.ceil(_count(rows) / how.batch_rows) * how.epochs


def batches_in_order(rows: Any, batch_rows: int) -> Iterator[Any]:
    """Yields all rows once, in order, `batch_rows` at a time."""
    padded = filled(rows, batch_rows)
    for start in range(0, _count(padded), batch_rows):
        yield jax.tree.map(lambda a, at=start: a[at : at + batch_rows], padded)


def _count(rows: Any) -> int:
    return len(jax.tree.leaves(rows)[0])


def filled(rows: Any, batch_rows: int) -> Any:
    """Returns the rows and as many empty ones as the last batch lacks."""
    missing = -_count(rows) % batch_rows
    return jax.tree.map(
        lambda a: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]), rows
    )
