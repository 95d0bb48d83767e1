"""Difficulty and embeddings of every example, by free local inference.

Each example is the answer-only prompt followed by its gold answer. One jitted step per batch
shape returns sums and weights over the answer tokens; batches are bucketed by length.

Gradient embeddings cost a second pass through the vocabulary head and are computed on their own,
for the strategy that needs them.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
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
      margin: f32[N], 0 to 1: mean of 1 - (p1 - p2) over the answer tokens, of the two likeliest
        tokens' probabilities (margin sampling, Scheffer et al. 2001); high is unsure.
      embeddings: f32[N, D], mean final hidden state of the prompt, L2-normalised.
    """

    nll: np.ndarray
    entropy: np.ndarray
    margin: np.ndarray
    embeddings: np.ndarray


class ScoreSums(NamedTuple):
    """Unnormalised results of the jitted step: f32[B] sums and weights, f32[B, D] hidden."""

    nll: jax.Array
    entropy: jax.Array
    margin: jax.Array
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


Advance = Callable[[int], None]


@functools.partial(jax.jit, static_argnames="config")
def score_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> ScoreSums:
    """Scores one batch; its largest array beside the model's is a chunk of its logits."""
    hidden, picked, weight = _answer_states(config, params, batch)
    stats = head.token_statistics(
        picked.reshape(-1, picked.shape[-1]),
        decoder.output_head(config, params),
        batch.target.reshape(-1),
    )
    in_prompt = (jnp.arange(hidden.shape[1]) < batch.prompt_length[:, None]).astype(jnp.float32)

    def over_answer(values: jax.Array) -> jax.Array:
        return (values.reshape(weight.shape) * weight).sum(1)

    return ScoreSums(
        over_answer(stats.nll),
        over_answer(stats.entropy),
        over_answer(stats.margin),
        weight.sum(1),
        jnp.einsum("BSD,BS->BD", hidden.astype(jnp.float32), in_prompt),
        in_prompt.sum(1),
    )


@functools.partial(jax.jit, static_argnames="config")
def gradient_batch(
    config: DecoderConfig, params: Any, batch: ScoreBatch
) -> tuple[jax.Array, jax.Array]:
    """Returns f32[B, D], the sum of the answer tokens' gradients, and f32[B], their number.

    That of -log p(y) with respect to the final hidden state, sum_v p_v W_v - W_y, where y is the
    model's own prediction, as BADGE has it (1906.03671, eq. 1); no gold answer is looked at.
    """
    _, picked, weight = _answer_states(config, params, batch)
    table = decoder.output_head(config, params)
    flat = picked.reshape(-1, picked.shape[-1]).astype(jnp.float32)
    predicted = head.token_statistics(flat, table, batch.target.reshape(-1)).predicted

    def loss(hidden: jax.Array) -> jax.Array:
        # The backward pass of the head goes through the chunks too.
        return head.token_statistics(hidden, table, predicted).nll.sum()

    gradients = jax.grad(loss)(flat).reshape(picked.shape)
    return jnp.einsum("BTD,BT->BD", gradients, weight), weight.sum(1)


def _answer_states(
    config: DecoderConfig, params: Any, batch: ScoreBatch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns f[B, S, D] hidden states, f[B, T, D] those that predict the answer; f32[B, T]."""
    rows, width = batch.tokens.shape
    slots = jnp.broadcast_to(jnp.arange(width), (rows, width))
    segments = (slots < batch.length[:, None]).astype(jnp.int32)
    hidden = decoder.hidden_states(config, params, batch.tokens, slots, segments)
    at = batch.prompt_length[:, None] - 1 + jnp.arange(batch.target.shape[1])
    weight = (at + 1 < batch.length[:, None]).astype(jnp.float32)
    picked = jnp.take_along_axis(hidden, jnp.minimum(at, width - 1)[..., None], axis=1)
    return hidden, picked, weight


def score(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance = lambda n: None,
) -> Scores:
    """Scores `sequences`, similar lengths together.

    Args:
      config, params: the (warmed) assistant.
      sequences: prompt and gold answer; a rationale, if there is one, counts as prompt.
      batch_tokens: tokens a batch at most, padding included.
      pad_id: fills the batches.
      mesh: the rows of a batch are split over it.
      advance: called with the number of sequences that were just scored.
    """
    step = functools.partial(score_batch, config, params)
    nll, entropy, margin = np.zeros((3, len(sequences)), np.float32)
    embeddings = np.zeros((len(sequences), config.model_dim), np.float32)
    for members, sums in _on_all(step, sequences, batch_tokens, pad_id, mesh, advance):
        for values, total in ((nll, sums.nll), (entropy, sums.entropy), (margin, sums.margin)):
            values[members] = total / np.maximum(sums.weight, 1)
        embeddings[members] = sums.hidden / np.maximum(sums.hidden_weight, 1)[:, None]
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Scores(nll, entropy, margin, embeddings / np.maximum(norms, 1e-12))


def gradients(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance = lambda n: None,
) -> np.ndarray:
    """Returns f32[N, D], the mean over the answer tokens of `gradient_batch`; as `score`."""
    step = functools.partial(gradient_batch, config, params)
    found = np.zeros((len(sequences), config.model_dim), np.float32)
    for members, sums in _on_all(step, sequences, batch_tokens, pad_id, mesh, advance):
        found[members] = sums[0] / np.maximum(sums[1], 1)[:, None]
    return found


def rows_a_batch(batch_tokens: int, width: int, mesh: Mesh) -> int:
    """Returns how many sequences of `width` tokens are scored together: the devices divide it."""
    parts = batch_devices(mesh)
    return max(1, batch_tokens // width // parts) * parts


def _on_all(
    step: Callable[[ScoreBatch], Any],
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance,
) -> Iterator[tuple[list[int], Any]]:
    """Yields the members of each batch, and the result of `step` for them."""
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
            with jax.set_mesh(mesh):
                found = fetch(step(shard_batch(batch, mesh)))
            count = len(members)
            yield members, jax.tree.map(lambda a, count=count: a[:count], found)
            advance(count)
            preemption.stop_together()
