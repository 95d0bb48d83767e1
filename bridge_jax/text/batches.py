"""Packed rows into batches, one a training step: shuffled, sharded by process, resumable.

The batch of a step is a function of (rows, seed, step), so a resumed run continues where it
stopped by starting at its step.
"""

from typing import Any

import grain
import jax
import numpy as np

from bridge_jax.text.packing import Rows


def steps_per_epoch(rows: Rows, batch_rows: int) -> int:
    """Returns how many batches cover all rows; the last is filled with empty rows."""
    return -(-len(rows.tokens) // batch_rows)


def batches(rows: Rows, batch_rows: int, epochs: int, seed: int) -> grain.MapDataset:
    """Returns the batches of all epochs: `batches(...)[step]` is a `Rows` of `batch_rows` rows.

    Each process holds its contiguous part of every batch.
    """
    total = steps_per_epoch(rows, batch_rows) * batch_rows
    padded = Rows(
        *(np.concatenate([a, np.zeros((total - len(a), *a.shape[1:]), a.dtype)]) for a in rows)
    )
    part = batch_rows // jax.process_count()
    first = jax.process_index() * part

    def assemble(indices: Any) -> Any:
        mine = np.asarray(indices)[first : first + part]
        return Rows(*(a[mine] for a in padded))

    order = grain.MapDataset.range(total).seed(seed).shuffle().repeat(epochs)
    return order.batch(batch_rows, drop_remainder=True, batch_fn=assemble)
