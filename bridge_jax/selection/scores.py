"""Computes the difficulty and embedding of every example by local inference, which uses no budget.

Each example is the answer-only prompt followed by its gold answer. A run scores only the answer's
own tokens, without mark and end token (`prompts.TrainingSequence.own_answer`). Examples share
packed rows, and one jitted step is compiled for each batch shape (`selection.batches`).

Gradient embeddings cost a second pass through the vocabulary head, so they are computed separately
and only for the strategy that needs them.
"""

import collections
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bridge_jax.models import decoder, head
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel import preemption
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import constrain, shard_batch
from bridge_jax.selection.batches import PlannedBatch, ScoreBatch, fill, plan
from bridge_jax.text import prompts

Array = Any  # A NumPy array outside of jit, a JAX array inside.
Arrays = dict[str, Any]
Advance = Callable[[int], None]
Step = Callable[[ScoreBatch], Arrays]

PROJECTED = 512  # K, the size of a projected gradient. Our default.
AHEAD = 1  # Batches that are dispatched before the previous one is fetched.
SHARD_SECONDS = 30.0  # A kill loses about this much work at most. Our default.


class Scores(NamedTuple):
    """The scores of N examples, in the order of the examples.

    Attributes:
      nll: f32[N], nats per answer token: length-normalized -log p(gold answer).
      entropy: f32[N], nats: mean entropy of the predictions of the answer tokens.
      margin: f32[N], 0 to 1: mean of 1 - (p1 - p2) over the answer tokens, where p1 and p2 are the
        probabilities of the two likeliest tokens (margin sampling, Scheffer et al. 2001). A high
        value means uncertain.
      embeddings: f32[N, D], mean final hidden state over the prompt, L2-normalized.
    """

    nll: Array
    entropy: Array
    margin: Array
    embeddings: Array


class ScoreParts(Protocol):
    """Stores parts of the results, so that an interrupted scoring run resumes after the last."""

    def read(self) -> Iterable[Arrays]:
        """Returns the parts written so far."""
        ...

    def write(self, part: Arrays) -> None:
        """Adds a part."""
        ...


@functools.partial(jax.jit, static_argnames="config")
def score_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> Scores:
    """Returns the scores of the sequences of a batch, [P, G, ...] each, replicated on all devices.

    Besides the model, the largest array in memory is one chunk of the logits.
    """
    hidden, picked = _states(config, params, batch)
    stats = head.token_statistics(
        picked.reshape(-1, picked.shape[-1]),
        decoder.output_head(config, params),
        batch.target.reshape(-1),
    )
    values = jnp.stack([stats.nll, stats.entropy, stats.margin], -1)  # PT 3
    means = _means(values.reshape(*batch.target.shape, 3), batch.target_of, batch)  # P G 3
    prompt = jnp.take_along_axis(batch.prompt_length, _of_parts(batch.segments, batch), axis=1)
    in_prompt = _of_parts(batch.positions, batch) < prompt  # P RS/P
    where = jnp.where(in_prompt, _of_parts(batch.segments, batch), 0)
    embeddings = _means(hidden, where, batch)  # P G D
    norms = jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
    nll, entropy, margin = jnp.moveaxis(means, -1, 0)
    found = Scores(nll, entropy, margin, embeddings / jnp.maximum(norms, 1e-12))
    return jax.tree.map(_everywhere, found)


@functools.partial(jax.jit, static_argnames="config")
def gradient_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> jax.Array:
    """Returns f32[P, G, K], each sequence's mean projected gradient, replicated on all devices.

    The mean is over the answer tokens. The gradient, f[V, D], is that of -log p(y) with respect to
    the head's table, where y is the model's own prediction (BADGE, 1906.03671, eq. 1): the outer
    product of p - e_y (times the slope of a soft cap) and the hidden state h. The gold answer is
    read, but does not determine y. The gradient is projected to the K = `PROJECTED` numbers
    ((p - e_y) R) * (h S) / sqrt(K), with random signs R and S. In expectation, squared distances
    between projections equal those between gradients.
    """
    _, picked = _states(config, params, batch)
    table = decoder.output_head(config, params)
    flat = picked.reshape(-1, picked.shape[-1]).astype(jnp.float32)
    predicted = head.token_statistics(flat, table, batch.target.reshape(-1)).predicted
    of_vocab, of_width = projections(*table.table.shape)
    wide = head.Head(jnp.concatenate([table.table, of_vocab], axis=1), table.softcap)

    def loss(more: jax.Array) -> jax.Array:
        # Zeros for `more` leave the logits unchanged, and its gradient is (p - e_y) R.
        hidden = jnp.concatenate([flat, more], axis=1)
        return head.token_statistics(hidden, wide, predicted).nll.sum()

    by_logits = jax.grad(loss)(jnp.zeros((len(flat), PROJECTED)))
    projected = by_logits * (flat @ of_width) / math.sqrt(PROJECTED)
    projected = projected.reshape(*picked.shape[:-1], PROJECTED)
    return _everywhere(_means(projected, batch.target_of, batch))


def projections(vocab: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns the random signs of the projection, f32[V, K] and f32[D, K]; always the same."""
    first, second = jax.random.split(jax.random.key(0))
    return tuple(
        jax.random.rademacher(key, (size, PROJECTED), jnp.float32)
        for key, size in ((first, vocab), (second, width))
    )  # type: ignore[return-value]


def _states(config: DecoderConfig, params: Any, batch: ScoreBatch) -> tuple[jax.Array, jax.Array]:
    """Returns the final hidden states, f[P, RS / P, D], and the ones at `target_at`, f[P, T, D]."""
    hidden = decoder.hidden_states(config, params, batch.tokens, batch.positions, batch.segments)
    hidden = hidden.reshape(batch.target.shape[0], -1, hidden.shape[-1])
    hidden = constrain(hidden, "batch", None, None)
    return hidden, jnp.take_along_axis(hidden, batch.target_at[..., None], axis=1)


def _of_parts(values: Array, batch: ScoreBatch) -> jax.Array:
    """Reshapes [R, S] to [P, RS / P]."""
    return jnp.asarray(values).reshape(batch.target.shape[0], -1)


def _means(values: jax.Array, numbers: jax.Array, batch: ScoreBatch) -> jax.Array:
    """Returns f32[P, G, D], the mean of each sequence's values among f[P, N, D].

    `numbers`, int32[P, N], holds the number of the sequence that each value belongs to; 0 is none.
    The mean of a sequence without values is 0.
    """
    sequences = 1 + jnp.arange(batch.prompt_length.shape[1] - 1)
    member = numbers[..., None] == sequences  # P N G
    # With a lower precision, a TPU would round f32 to bf16.
    exact: Any = {"precision": "highest", "preferred_element_type": jnp.float32}
    sums = jnp.einsum("PND,PNG->PGD", values, member.astype(values.dtype), **exact)
    return sums / jnp.maximum(member.sum(1), 1)[..., None]


def _everywhere(x: jax.Array) -> jax.Array:
    """Replicates a small result on every device, so that each host can fetch it by itself."""
    return constrain(x, *[None] * x.ndim)


def score(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.TrainingSequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance = lambda n: None,
    shards: ScoreParts | None = None,
) -> Scores:
    """Scores all `sequences`.

    Args:
      config: the config of the (warmed-up) assistant.
      params: the parameters of the same model.
      sequences: prompts with gold answers; a rationale, if there is one, is read but not scored.
      batch_tokens: the maximum number of tokens in a batch, padding included.
      pad_id: the token that fills the batches.
      mesh: the rows of a batch are split over it.
      advance: called after each batch with its number of sequences.
      shards: holds results of an earlier run, which are reused, and stores the others as they are
        computed.
    """

    def step(batch: ScoreBatch) -> Arrays:
        return score_batch(config, params, batch)._asdict()

    return Scores(**_of_all(step, sequences, batch_tokens, pad_id, mesh, advance, shards))


def gradients(
    config: DecoderConfig,
    params: Any,
    sequences: Sequence[prompts.TrainingSequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance = lambda n: None,
    shards: ScoreParts | None = None,
) -> np.ndarray:
    """Returns f32[N, K], the gradient embeddings of all `sequences`; arguments as in `score`."""

    def step(batch: ScoreBatch) -> Arrays:
        return {"gradients": gradient_batch(config, params, batch)}

    found = _of_all(step, sequences, batch_tokens, pad_id, mesh, advance, shards)
    return found["gradients"]


def _of_all(
    step: Step,
    sequences: Sequence[prompts.TrainingSequence],
    batch_tokens: int,
    pad_id: int,
    mesh: Mesh,
    advance: Advance,
    shards: ScoreParts | None,
) -> Arrays:
    """Returns the results of `step` for all N sequences, [N, ...] each, in order."""
    whole: Arrays = {}
    known = np.zeros(len(sequences), bool)

    def take(part: Arrays) -> None:
        index = part["index"]
        for name, values in part.items():
            if name != "index":
                if name not in whole:
                    whole[name] = np.zeros((len(sequences), *values.shape[1:]), values.dtype)
                whole[name][index] = values
        known[index] = True
        advance(len(index))

    for part in shards.read() if shards else ():
        take(part)
    targets = [len(s.answer) for s in sequences]
    planned = plan([s.length for s in sequences], targets, batch_tokens, mesh)
    missing = [b for b in planned if not all(known[i] for part in b.members for i in part)]
    unsaved, saved_at = [], time.monotonic()
    for part in _computed(step, missing, sequences, pad_id, mesh):
        take(part)
        unsaved.append(part)
        if shards and time.monotonic() - saved_at >= SHARD_SECONDS:
            shards.write(jax.tree.map(lambda *each: np.concatenate(each), *unsaved))
            unsaved, saved_at = [], time.monotonic()
        preemption.stop_together()
    return whole


def _computed(
    step: Step,
    batches: Sequence[PlannedBatch],
    sequences: Sequence[prompts.TrainingSequence],
    pad_id: int,
    mesh: Mesh,
) -> Iterator[Arrays]:
    """Yields the results of each batch, with the `index` of its sequences.

    The devices compute the next batch while this one is fetched.
    """
    sent: collections.deque[tuple[PlannedBatch, Arrays]] = collections.deque()
    for batch in batches:
        with jax.set_mesh(mesh):
            sent.append((batch, step(shard_batch(fill(batch, sequences, pad_id), mesh))))
        if len(sent) > AHEAD:
            yield _fetched(*sent.popleft())
    while sent:
        yield _fetched(*sent.popleft())


def _fetched(batch: PlannedBatch, results: Arrays) -> Arrays:
    members = batch.members
    part = np.repeat(np.arange(len(members)), [len(m) for m in members])
    number = np.concatenate([np.arange(len(m)) for m in members])
    found = {name: values[part, number] for name, values in fetch(results).items()}
    return {"index": np.concatenate(members).astype(np.int64)} | found
