"""Cuts packed rows into batches, one for each training step: shuffled and resumable.

The batch of a step is a function of (rows, seed, step). Every process makes the same rows;
`shard_batch` places its part.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import grain
import jax
import numpy as np

from bridge_jax.config import TrainConfig
from bridge_jax.text.packing import Rows


class BatchIterator(Protocol):
    """An endless or finite iterator of batches whose position can be saved (grain's iterators)."""

    def __next__(self) -> Any:
        """Returns the next batch."""
        ...

    def get_state(self) -> Any:
        """Returns the position as JSON values: after the batches that were taken, not fetched."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        ...


def steps_of(rows: Rows, how: TrainConfig) -> int:
    """Returns how many batches a training takes; the last of an epoch is filled with empty rows."""
    return how.steps or math.ceil(len(rows.tokens) / how.batch_rows) * how.epochs


def batches(rows: Rows, batch_rows: int, steps: int, seed: int) -> grain.DatasetIterator[Rows]:
    """Returns at least `steps` batches, in whole epochs: `Rows` of `batch_rows` rows each."""
    padded = _filled(rows, batch_rows)
    epochs = math.ceil(steps * batch_rows / len(padded.tokens))

    def assemble(indices: Any) -> Any:
        return jax.tree.map(lambda a: a[np.asarray(indices)], padded)

    order = grain.MapDataset.range(len(padded.tokens)).seed(seed).shuffle().repeat(epochs)
    cut = order.batch(batch_rows, drop_remainder=True, batch_fn=assemble)
    # The rows are in memory: threads that fetch ahead would cost more than they save.
    return iter(cut.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def batches_in_order(rows: Rows, batch_rows: int) -> Iterator[Rows]:
    """Yields all rows once, in order, `batch_rows` at a time."""
    padded = _filled(rows, batch_rows)
    for start in range(0, len(padded.tokens), batch_rows):
        yield jax.tree.map(lambda a, at=start: a[at : at + batch_rows], padded)


def _filled(rows: Rows, batch_rows: int) -> Rows:
    """Returns the rows and as many empty ones as the last batch lacks."""
    missing = -len(rows.tokens) % batch_rows
    return jax.tree.map(
        lambda a: np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]), rows
    )
