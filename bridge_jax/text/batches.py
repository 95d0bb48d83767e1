"""Packed rows into batches, one a training step: shuffled and resumable.

The batch of a step is a function of (rows, seed, step), so a resumed run continues where it
stopped by starting at its step. Every process names the same rows; `shard_batch` places its part.
"""

from typing import Any

import grain
import numpy as np

from bridge_jax.text.packing import Rows


def steps_per_epoch(rows: Rows, batch_rows: int) -> int:
    """Returns how many batches cover all rows; the last is filled with empty rows."""
    return -(-len(rows.tokens) // batch_rows)


def batches(rows: Rows, batch_rows: int, epochs: int, seed: int) -> grain.MapDataset:
    """Returns the batches of all epochs: `batches(...)[step]` is a `Rows` of `batch_rows` rows."""
    total = steps_per_epoch(rows, batch_rows) * batch_rows
    padded = Rows(
        *(np.concatenate([a, np.zeros((total - len(a), *a.shape[1:]), a.dtype)]) for a in rows)
    )

    def assemble(indices: Any) -> Any:
        return Rows(*(a[np.asarray(indices)] for a in padded))

    order = grain.MapDataset.range(total).seed(seed).shuffle().repeat(epochs)
    return order.batch(batch_rows, drop_remainder=True, batch_fn=assemble)
