"""Difficulty and embeddings of every example, by free local inference.

Each example is the answer-only prompt followed by its gold answer, of which a run scores the
answer's own tokens alone (`prompts.TrainingSequence.own_answer`). Examples share packed rows, and
one jitted step is compiled for each shape of a batch (`selection.batches`).

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

PROJECTED = 512  # Numbers of a projected gradient, K. Our default.
AHEAD = 1  # Batches that are sent before the last one is fetched.
SHARD_SECONDS = 30.0  # A kill loses no more work than this. Our default.


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


class ScoreParts(Protocol):
    """Keeps parts of the results, so that an interrupted scoring goes on after the last one."""

    def read(self) -> Iterable[Arrays]:
        """Returns the parts that were written before."""
        ...

    def write(self, part: Arrays) -> None:
        """Adds a part."""
        ...


@functools.partial(jax.jit, static_argnames="config")
def score_batch(config: DecoderConfig, params: Any, batch: ScoreBatch) -> Scores:
    """Returns the scores of the sequences of a batch, [P, G] each, on every device.

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
    """Returns the means of the answer tokens' projected gradients, f32[P, G, K], on every device.

    The gradient is that of -log p(y) with respect to the head's table, the outer product of p - e_y
    (times the slope of a soft cap) and the hidden state h, f[V, D], where y is the model's own
    prediction (BADGE, 1906.03671, eq. 1). The gold answer is not used. It is projected to K =
    `PROJECTED` numbers, ((p - e_y) R) * (h S) / sqrt(K) with random signs R and S, whose distances
    are those of the gradients in expectation.
    """
    _, picked = _states(config, params, batch)
    table = decoder.output_head(config, params)
    flat = picked.reshape(-1, picked.shape[-1]).astype(jnp.float32)
    predicted = head.token_statistics(flat, table, batch.target.reshape(-1)).predicted
    of_vocab, of_width = projections(*table.table.shape)
    wide = head.Head(jnp.concatenate([table.table, of_vocab], axis=1), table.softcap)

    def loss(more: jax.Array) -> jax.Array:
        # With zeros for `more` the logits are the same, and its gradient is (p - e_y) R.
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
    """Returns the final hidden states f[P, RS / P, D], and those that predict f[P, T, D]."""
    hidden = decoder.hidden_states(config, params, batch.tokens, batch.positions, batch.segments)
    hidden = hidden.reshape(batch.target.shape[0], -1, hidden.shape[-1])
    hidden = constrain(hidden, "batch", None, None)
    return hidden, jnp.take_along_axis(hidden, batch.target_at[..., None], axis=1)


def _of_parts(values: Array, batch: ScoreBatch) -> jax.Array:
    """Returns [P, RS / P] from [R, S]."""
    return jnp.asarray(values).reshape(batch.target.shape[0], -1)


def _means(values: jax.Array, numbers: jax.Array, batch: ScoreBatch) -> jax.Array:
    """Returns f32[P, G, D], the mean of each sequence's values f[P, N, D].

    `numbers` int32[P, N] says whose each one is; 0 is nobody's. The means of sequences without any
    are 0.
    """
    sequences = 1 + jnp.arange(batch.prompt_length.shape[1] - 1)
    member = numbers[..., None] == sequences  # P N G
    # With this precision a TPU rounds no f32 to bf16.
    exact: Any = {"precision": "highest", "preferred_element_type": jnp.float32}
    sums = jnp.einsum("PND,PNG->PGD", values, member.astype(values.dtype), **exact)
    return sums / jnp.maximum(member.sum(1), 1)[..., None]


def _everywhere(x: jax.Array) -> jax.Array:
    """Puts a small result on every device, so that each host can fetch it by itself."""
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
      config: of the (warmed-up) assistant.
      params: of the same model.
      sequences: prompt and gold answer; a rationale, if there is one, is read and not scored.
      batch_tokens: the most tokens in a batch, padding included.
      pad_id: the token that fills the batches.
      mesh: the rows of a batch are split over it.
      advance: called after each batch with its number of sequences.
      shards: what was computed before, and where the rest is kept as it is computed.
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
    """Returns f32[N, K]: the gradient embeddings of all `sequences`; arguments as in `score`."""

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
    """Yields the results of each batch, and the `index` of its sequences.

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
