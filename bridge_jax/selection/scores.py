"""Difficulty and embeddings of every example, by free local inference.

Each example is the answer-only prompt followed by its gold answer. Batches are bucketed by length,
and one jitted step is compiled for each shape of a batch.

Gradient embeddings cost a second pass through the vocabulary head, so they are computed separately
and only for the strategy that needs them.
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

Array = Any  # A NumPy array outside of jit, a JAX array inside.
Advance = Callable[[int], None]

BUCKET = 32  # Lengths are rounded up to multiples of this.
TARGETS = 8  # The number of answer tokens is rounded up to multiples of this.


class Scores(NamedTuple):
    """The scores of N examples, in the order of the examples.

    Attributes:
      nll: f32[N], nats per answer token: length-normalised -log p(gold answer).
      entropy: f32[N], nats: mean entropy of the predictions of the answer tokens.
      margin: f32[N], 0 to 1: mean of 1 - (p1 - p2) over the answer tokens, of the two likeliest
        tokens' probabilities (margin sampling, Scheffer et al. 2001); high is unsure.
      embeddings: f32[N, D], mean final hidden state of the prompt, L2-normalised.
    """

    nll: Array
    entropy: Array
    margin: Array
    embeddings: Array


class ScoreBatch(NamedTuple):
    """A batch of B padded sequences.

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
def score_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> tuple[Scores, Scores]:
    """Returns sums over the tokens of each of B examples, and the weights to divide them by.

    Besides the model, the largest array in memory is one chunk of the logits.
    """
    hidden, picked, weight = _answer_states(config, params, batch)
    stats = head.token_statistics(
        picked.reshape(-1, picked.shape[-1]),
        decoder.output_head(config, params),
        batch.target.reshape(-1),
    )
    in_prompt = (jnp.arange(hidden.shape[1]) < batch.prompt_length[:, None]).astype(jnp.float32)

    def over_answer(values: jax.Array) -> jax.Array:
        return (values.reshape(weight.shape) * weight).sum(1)

    sums = Scores(
        over_answer(stats.nll),
        over_answer(stats.entropy),
        over_answer(stats.margin),
        jnp.einsum("BSD,BS->BD", hidden.astype(jnp.float32), in_prompt),
    )
    tokens = weight.sum(1)
    return sums, Scores(tokens, tokens, tokens, in_prompt.sum(1, keepdims=True))


@functools.partial(jax.jit, static_argnames="config")
def gradient_batch(
    config: DecoderConfig, params: Any, batch: ScoreBatch
) -> tuple[jax.Array, jax.Array]:
    """Returns the sums of the answer tokens' gradients, f32[B, D], and their numbers, f32[B, 1].

    The gradient is that of -log p(y) with respect to the final hidden state, sum_v p_v W_v - W_y,
    where y is the model's own prediction (BADGE, 1906.03671, eq. 1). The gold answer is not used.
    """
    _, picked, weight = _answer_states(config, params, batch)
    table = decoder.output_head(config, params)
    flat = picked.reshape(-1, picked.shape[-1]).astype(jnp.float32)
    predicted = head.token_statistics(flat, table, batch.target.reshape(-1)).predicted

    def loss(hidden: jax.Array) -> jax.Array:
        # The backward pass of the head goes through the chunks too.
        return head.token_statistics(hidden, table, predicted).nll.sum()

    gradients = jax.grad(loss)(flat).reshape(picked.shape)
    return jnp.einsum("BTD,BT->BD", gradients, weight), weight.sum(1, keepdims=True)


def _answer_states(
    config: DecoderConfig, params: Any, batch: ScoreBatch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the final hidden states, those that predict the answer, and the latter's weights.

    The shapes are f[B, S, D], f[B, T, D] and f32[B, T]; the weight is 0 for padding.
    """
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
    """Scores all `sequences`; those of similar length share a batch.

    Args:
      config: of the (warmed-up) assistant.
      params: of the same model.
      sequences: prompt and gold answer; a rationale, if there is one, counts as prompt.
      batch_tokens: the most tokens in a batch, padding included.
      pad_id: the token that fills the batches.
      mesh: the rows of a batch are split over it.
      advance: called after each batch with its number of sequences.
    """
    step = functools.partial(score_batch, config, params)
    found = _in_batches(step, sequences, batch_tokens, pad_id, mesh, advance)
    norms = np.linalg.norm(found.embeddings, axis=1, keepdims=True)
    return found._replace(embeddings=found.embeddings / np.maximum(norms, 1e-12))


def gradients(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance = lambda n: None,
) -> np.ndarray:
    """Returns f32[N, D]: the gradient embeddings of all `sequences`; arguments as in `score`."""
    step = functools.partial(gradient_batch, config, params)
    return _in_batches(step, sequences, batch_tokens, pad_id, mesh, advance)


def rows_a_batch(batch_tokens: int, width: int, mesh: Mesh) -> int:
    """Returns the number of sequences of `width` tokens in a batch, a multiple of the devices."""
    parts = batch_devices(mesh)
    return max(1, batch_tokens // width // parts) * parts


def _in_batches(
    step: Callable[[ScoreBatch], Any],
    sequences: Sequence[prompts.Sequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance,
) -> Any:
    """Returns the means from the sums and weights of `step`: f32[N, ...], in order."""
    targets = -(-max(len(s.answer) for s in sequences) // TARGETS) * TARGETS
    widths = [-(-s.length // BUCKET) * BUCKET for s in sequences]
    kept: Any = None
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
            means = jax.tree.map(lambda sums, weights: sums / np.maximum(weights, 1), *found)
            if kept is None:
                kept = jax.tree.map(
                    lambda a: np.zeros((len(sequences), *a.shape[1:]), a.dtype), means
                )
            for whole, part in zip(jax.tree.leaves(kept), jax.tree.leaves(means)):
                whole[members] = part[: len(members)]  # The rest is padding.
            advance(len(members))
            preemption.stop_together()
    return kept
