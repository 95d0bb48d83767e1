"""Computes a model's most probable tokens at the targets of sequences, for soft targets."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bridge_jax.models import head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import preemption
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.text.packing import Rows, first_fit, pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import batches_in_order
from bridge_jax.training.objectives.sft import at_targets
from bridge_jax.training.objectives.soft_targets import SoftTargets


@functools.partial(jax.jit, static_argnames=("config", "k", "among"))
def predict_batch(config: DecoderConfig, params: Any, rows: Rows, k: int, among: int) -> head.Top:
    """Returns the K most probable tokens at each target of packed rows: [R, T, K] each."""
    hidden, output, _ = at_targets(config, params, rows)
    found = head.top(hidden, output, k, among)
    return jax.tree.map(lambda a: a.reshape(*rows.target.shape, k), found)


def predict(
    config: DecoderConfig,
    params: Any,
    sequences: list[TrainingSequence],
    k: int,
    among: int,
    batch_rows: int,
    row_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Callable[[int], None] = lambda n: None,
) -> SoftTargets:
    """Returns a model's predictions at the targets of all sequences, one after the other.

    Args:
      config, params: the assistant.
      sequences: the student's targets, under the assistant's prompts.
      k: K.
      among: tokens that both models have, the first ones.
      batch_rows, row_tokens: of the packed rows.
      pad_id: fills them.
      mesh: the rows of a batch are split over it.
      advance: is told how many rows were done.
    """
    rows, made = pack(sequences, row_tokens, pad_id), []
    for batch in batches_in_order(rows, batch_rows):
        with jax.set_mesh(mesh):
            found = fetch(predict_batch(config, params, shard_batch(batch, mesh), k, among))
        made.append(jax.tree.map(lambda a: a[:batch_rows], found))
        advance(batch_rows)
        preemption.stop_together()
    ids, logprobs = (np.concatenate(part) for part in zip(*made))
    # A row holds the targets of its sequences one after the other.
    slots: list[Any] = [None] * len(sequences)
    for row, members in enumerate(first_fit([s.length for s in sequences], row_tokens)):
        start = 0
        for index in members:
            end = start + sequences[index].targets
            slots[index] = row, slice(start, end)
            start = end
    ids, logprobs = (np.concatenate([part[slot] for slot in slots]) for part in (ids, logprobs))
    return SoftTargets(ids, logprobs, np.ones(len(ids), np.float32))
