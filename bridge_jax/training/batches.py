"""Splits packed rows into batches, one per training step: shuffled and resumable.

The batch of a step is a function of (rows, seed, step). Every process makes the same batches;
`shard_batch` places the process's part of each.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import grain
import jax
import numpy as np

from bridge_jax.config import TrainConfig


class Feed(Protocol):
    """Source of the batches of a training run, with a position that can be saved."""

    def next_batch(self, params: Any) -> tuple[Any, Mapping[str, float]]:
        """Returns the next batch, and metrics from making it, which are logged.

        Args:
          params: all current parameters of the model, to sample from it; valid until the next step.
        """
        ...

    def get_state(self) -> Any:
        """Returns the position after the batches taken so far, as JSON values."""
        ...

    def set_state(self, state: Any) -> None:
        """Moves to a position that `get_state` returned."""
        ...


class Shuffled:
    """Batches of rows in a random order, in whole epochs.

    Attributes:
      steps: number of batches.
    """

    def __init__(self, rows: Any, batch_rows: int, steps: int, seed: int):
        """Shuffles `rows` into at least `steps` batches of `batch_rows`."""
        padded = filled(rows, batch_rows)
        size = _count(padded)
        epochs = math.ceil(steps * batch_rows / size)

        def assemble(indices: Any) -> Any:
            return jax.tree.map(lambda a: a[np.asarray(indices)], padded)

        order = grain.MapDataset.range(size).seed(seed).shuffle().repeat(epochs)
        cut = order.batch(batch_rows, drop_remainder=True, batch_fn=assemble)
        self.steps = len(cut)
        # The rows are in memory: prefetching threads would cost more than they save.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._iterator = iter(cut.to_iter_dataset(options))

    def next_batch(self, params: Any = None) -> tuple[Any, Mapping[str, float]]:
        """Returns the next batch, and no metrics."""
        return next(self._iterator), {}

    def get_state(self) -> Any:
        """Returns the position after the batches that were taken, not prefetched."""
        return self._iterator.get_state()

    def set_state(self, state: Any) -> None:
        """Moves to a position that `get_state` returned."""
        self._iterator.set_state(state)


def steps_of(rows: Any, how: TrainConfig) -> int:
    """Returns the number of training steps; each epoch's last batch is padded with empty rows."""
    return how.steps or math.ceil(_count(rows) / how.batch_rows) * how.epochs


def batches_in_order(rows: Any, batch_rows: int) -> Iterator[Any]:
    """Yields all rows once, in order, in batches of `batch_rows`; the last batch is padded."""
    padded = filled(rows, batch_rows)
    for start in range(0, _count(padded), batch_rows):
        yield jax.tree.map(lambda a, at=start: a[at : at + batch_rows], padded)


def _count(rows: Any) -> int:
    return len(jax.tree.leaves(rows)[0])


def filled(rows: Any, batch_rows: int) -> Any:
    """Returns the rows, padded with empty rows to a multiple of `batch_rows`."""
    missing = -_count(rows) % batch_rows
    return jax.tree.map(
        lambda a: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]), rows
    )
