"""Difficulty and embeddings of every example, by free local inference.

Each example is the answer-only prompt followed by its gold answer. One jitted step per batch
shape returns sums and weights over the answer tokens; batches are bucketed by length.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bridge_jax.models import decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import preemption
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import batch_devices, shard_batch
from bridge_jax.text import prompts

Array = Any  # NumPy's outside of jit, JAX's inside.

BUCKET = 32  # Lengths are rounded up to multiples of this.
TARGETS = 8  # The number of answer tokens is rounded up to multiples of this.


class Scores(NamedTuple):
    """Of N examples, in their order.

    Attributes:
      nll: f32[N], nats per answer token: length-normalised -log p(gold answer).
      entropy: f32[N], nats: mean entropy of the predictions of the answer tokens.
      embeddings: f32[N, D], mean final hidden state of the prompt, L2-normalised.
    """

    nll: np.ndarray
    entropy: np.ndarray
    embeddings: np.ndarray


class ScoreSums(NamedTuple):
    """What the jitted step returns, unnormalised: f32[B] sums and weights, f32[B, D] hidden."""

    nll: jax.Array
    entropy: jax.Array
    weight: jax.Array
    hidden: jax.Array
    hidden_weight: jax.Array


class ScoreBatch(NamedTuple):
    """Padded sequences.

    Attributes:
      tokens: int32[B, S].
      length, prompt_length: int32[B], of the whole sequence and of its prompt.
      target: int32[B, T], the answer tokens.
    """

    tokens: Array
    length: Array
    prompt_length: Array
    target: Array


@functools.partial(jax.jit, static_argnames="config")
def score_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> ScoreSums:
    """Scores one batch; its largest array beside the model's is B*T x a chunk of V."""
    rows, width = batch.tokens.shape
    slots = jnp.broadcast_to(jnp.arange(width), (rows, width))
    segments = (slots < batch.length[:, None]).astype(jnp.int32)
    hidden = decoder.hidden_states(config, params, batch.tokens, slots, segments)

    offsets = jnp.arange(batch.target.shape[1])
    at = batch.prompt_length[:, None] - 1 + offsets
    weight = (at + 1 < batch.length[:, None]).astype(jnp.float32)
    picked = jnp.take_along_axis(hidden, jnp.minimum(at, width - 1)[..., None], axis=1)
    stats = head.token_statistics(
        picked.reshape(-1, picked.shape[-1]),
        decoder.output_head(config, params),
        batch.target.reshape(-1),
    )
    in_prompt = (slots < batch.prompt_length[:, None]).astype(jnp.float32)
    return ScoreSums(
        (stats.nll.reshape(at.shape) * weight).sum(1),
        (stats.entropy.reshape(at.shape) * weight).sum(1),
        weight.sum(1),
        jnp.einsum("BSD,BS->BD", hidden.astype(jnp.float32), in_prompt),
        in_prompt.sum(1),
    )


def score(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Callable[[int], None] = lambda n: None,
) -> Scores:
    """Scores `sequences`, similar lengths together.

    Args:
      config, params: the (warmed) assistant.
      sequences: prompt and gold answer; a rationale, if there is one, counts as prompt.
      batch_tokens: tokens a batch at most, padding included.
      pad_id: fills the batches.
      mesh: the rows of a batch are split over it.
      advance: is told how many sequences were scored.
    """
    count = len(sequences)
    nll, entropy = np.zeros(count, np.float32), np.zeros(count, np.float32)
    embeddings = np.zeros((count, config.model_dim), np.float32)
    for members, batch in _batches(sequences, batch_tokens, pad_id, mesh):
        with jax.set_mesh(mesh):
            sums = fetch(score_batch(config, params, shard_batch(batch, mesh)))
        keep = slice(0, len(members))
        nll[members] = (sums.nll / np.maximum(sums.weight, 1))[keep]
        entropy[members] = (sums.entropy / np.maximum(sums.weight, 1))[keep]
        embeddings[members] = (sums.hidden / np.maximum(sums.hidden_weight, 1)[:, None])[keep]
        advance(len(members))
        preemption.stop_together()
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Scores(nll, entropy, embeddings / np.maximum(norms, 1e-12))


def rows_a_batch(batch_tokens: int, width: int, mesh: Mesh) -> int:
    """Returns how many sequences of `width` tokens are scored together: the devices divide it."""
    parts = batch_devices(mesh)
    return max(1, batch_tokens // width // parts) * parts


def _batches(sequences: Sequence[prompts.Sequence], batch_tokens: int, pad_id: int, mesh: Mesh):
    targets = -(-max(len(s.answer) for s in sequences) // TARGETS) * TARGETS
    widths = [-(-s.length // BUCKET) * BUCKET for s in sequences]
    for width in sorted(set(widths)):
        inside = [i for i, w in enumerate(widths) if w == width]
        rows = rows_a_batch(batch_tokens, width, mesh)
        for start in range(0, len(inside), rows):
            members = inside[start : start + rows]
            batch = ScoreBatch(
                np.full((rows, width), pad_id, np.int32),
                np.zeros(rows, np.int32),
                np.ones(rows, np.int32),
                np.zeros((rows, targets), np.int32),
            )
            for row, index in enumerate(members):
                s = sequences[index]
                batch.tokens[row, : s.length] = s.prompt + s.rationale + s.answer
                batch.length[row] = s.length
                batch.prompt_length[row] = s.length - len(s.answer)
                batch.target[row, : len(s.answer)] = s.answer
            yield members, batch
