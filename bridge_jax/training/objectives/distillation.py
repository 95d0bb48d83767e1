"""Distillation: learning another model's distribution at each target.

For each target, the K most probable tokens of the other model are stored, as is usual for large
vocabularies; the remaining probability is one more outcome, the rest. Both distributions then sum
to one, so their KL divergence is well defined, and exact if K is the whole vocabulary:
KL(p || q) = sum_k p_k log(p_k / q_k) + p_rest log(p_rest / q_rest).

- `SoftTargetSFT` (white-box distillation) learns the assistant's distribution on the assistant's
  texts, together with the tokens themselves: p is the assistant, q the student.
- `ReverseKL` (on-policy distillation) learns it on the learner's own texts: the mean over tokens of
  KL(learner || other), with the gradient taken through the distributions and not through the text
  (GKD, 2306.13649, with the reverse KL). This is the gradient over a whole distribution at each
  token, not an estimate from the sampled token, so its variance is lower.

`predict` computes the other model's probabilities.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bridge_jax.models import head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.models.head import Head, logprobs_at
from bridge_jax.parallel import preemption
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.text.packing import Rows, first_fit, pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import batches_in_order
from bridge_jax.training.objectives import Parts
from bridge_jax.training.objectives.sft import SFT, at_targets, part_sums

FLOOR = 1e-6  # Floor of the rest's probability in logs: it is a difference of f32 numbers near one.


class SoftTargets(NamedTuple):
    """Another model's predictions at targets: its K most probable tokens (`Rows.extra_targets`).

    Attributes:
      ids: int32[..., K].
      logprobs: f32[..., K], in nats, normalised over the whole vocabulary.
      weight: f32[...], 1 where there are predictions, else 0.
    """

    ids: Any
    logprobs: Any
    weight: Any


@dataclasses.dataclass(frozen=True)
class SoftTargetSFT:
    """(1 - w) * NLL + w * KL at targets with soft targets, and the NLL at the others.

    Attributes:
      weight: w.
      rationale_share: a in a * L_rationale + (1 - a) * L_answer, as in SFT.
    """

    weight: float
    rationale_share: float = 0.5
    name: str = "soft_targets"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of tokens of each part."""
        return self._sft.counts(batch)

    def weights(self, counts: Parts) -> Parts:
        """Returns a and 1 - a, or 1 for the only part in the batch."""
        return self._sft.weights(counts)

    @property
    def _sft(self) -> SFT:
        return SFT(self.rationale_share)

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sums of the losses in nats, and the number of tokens without padding."""
        assert batch.extra_targets is not None, "the rows have no soft targets"
        hidden, output, target = at_targets(model, params, batch, dropout)
        soft = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batch.extra_targets)
        return part_sums(token_losses(hidden, output, target, soft, self.weight), batch)


def divergence(p_logprobs: jax.Array, q_logprobs: jax.Array) -> jax.Array:
    """Returns KL(p || q) in nats, f32[...], over K tokens and the rest.

    Args:
      p_logprobs: f32[..., K], log-probabilities of K tokens under p.
      q_logprobs: f32[..., K], log-probabilities of the same tokens under q.
    """
    p = jnp.exp(p_logprobs)
    p_rest = jnp.maximum(1 - p.sum(-1), 0.0)
    q_rest = 1 - jnp.exp(q_logprobs).sum(-1)
    ratio = jnp.log(jnp.maximum(p_rest, FLOOR)) - jnp.log(jnp.maximum(q_rest, FLOOR))
    return (p * (p_logprobs - q_logprobs)).sum(-1) + p_rest * ratio


def token_losses(
    hidden: jax.Array, output: Head, targets: jax.Array, soft: SoftTargets, share: float
) -> jax.Array:
    """Returns (1 - w) * NLL + w * KL of each target, f32[N], in nats.

    Args:
      hidden: f[N, D], after the final norm.
      output: the student's head.
      targets: int32[N].
      soft: predictions of the assistant, flattened to N; a target without them has its NLL alone.
      share: w at targets with soft targets.
    """
    ids, assistant, has_soft = map(jnp.asarray, soft)
    student = logprobs_at(hidden, output, jnp.column_stack([targets, ids]))
    w = share * has_soft
    return (1 - w) * -student[:, 0] + w * divergence(assistant, student[:, 1:])


@dataclasses.dataclass(frozen=True)
class ReverseKL:
    """The reverse KL at the tokens that have soft targets (`Rows.extra_targets`)."""

    name: str = "reverse_kl"

    def counts(self, batch: Rows) -> Parts:
        """Returns the number of tokens that have soft targets."""
        return {"kl": batch.extra_targets.weight.sum()}

    def weights(self, counts: Parts) -> Parts:
        """Returns 1."""
        return {"kl": jnp.float32(1)}

    def loss(
        self, model: DecoderConfig, params: Any, batch: Rows, dropout: jax.Array | None = None
    ) -> tuple[Parts, Parts]:
        """Returns the sum of the KL in nats, and the number of tokens without padding."""
        assert batch.extra_targets is not None, "the rows have no soft targets"
        hidden, output, _ = at_targets(model, params, batch, dropout)
        ids, other, weight = (a.reshape(-1, *a.shape[2:]) for a in batch.extra_targets)
        kl = divergence(logprobs_at(hidden, output, ids), other)
        tokens = (batch.segments > 0).sum().astype(jnp.float32)
        return {"kl": (kl * weight).sum()}, {"tokens": tokens}


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
    """Returns a model's predictions at the targets of all sequences, concatenated in order.

    Args:
      config, params: the assistant.
      sequences: the student's targets, under the assistant's prompts.
      k: K.
      among: number of token ids that both models share; predictions are among the ids below it.
      batch_rows, row_tokens: size of a batch of packed rows.
      pad_id: pads the rows.
      mesh: the mesh that the rows of a batch are sharded over.
      advance: called with the number of rows done.
    """
    rows, made = pack(sequences, row_tokens, pad_id), []
    for batch in batches_in_order(rows, batch_rows):
        with jax.set_mesh(mesh):
            found = fetch(predict_batch(config, params, shard_batch(batch, mesh), k, among))
        made.append(jax.tree.map(lambda a: a[:batch_rows], found))
        advance(batch_rows)
        preemption.stop_together()
    ids, logprobs = (np.concatenate(part) for part in zip(*made))
    # A row holds the targets of its sequences in order.
    slots: list[Any] = [None] * len(sequences)
    for row, members in enumerate(first_fit([s.length for s in sequences], row_tokens)):
        start = 0
        for index in members:
            end = start + sequences[index].targets
            slots[index] = row, slice(start, end)
            start = end
    ids, logprobs = (np.concatenate([part[slot] for slot in slots]) for part in (ids, logprobs))
    return SoftTargets(ids, logprobs, np.ones(len(ids), np.float32))
