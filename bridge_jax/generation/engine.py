"""Writes completions of prompts: a jitted prefill and decode loop over length-bucketed batches.

Prompts are padded on the left, so every row writes the same cache slot at each step. The loop
ends when all rows have ended. Left out: refilling finished rows (continuous batching).
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch

WIDTH_STEP = 16  # Tokens between the widths of short prompts.


class Completion(NamedTuple):
    """The tokens that a model wrote for a prompt.

    Attributes:
      ids: the tokens, without the end token.
      logprobs: nats, of each id and of the end token, if it was written.
      end: the end token that was written; None if the completion was cut.
    """

    ids: list[int]
    logprobs: list[float]
    end: int | None

    @property
    def ended(self) -> bool:
        """Whether the model ended it, with an end token."""
        return self.end is not None


class Drawn(NamedTuple):
    """The last token of each row, which is not in the cache yet, and what the next one needs.

    Attributes:
      token: int32[B].
      logprob: f32[B], nats.
      position: int32[B], of the token.
      key: random key for the tokens after it.
    """

    token: jax.Array
    logprob: jax.Array
    position: jax.Array
    key: jax.Array


class _Loop(NamedTuple):
    cache: decoder.KVCache
    last: Drawn
    done: jax.Array
    tokens: jax.Array
    logprobs: jax.Array
    step: jax.Array


def sample(
    logits: jax.Array, key: jax.Array, temperature: float, top_p: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the token int32[B] and its log-probability f32[B] under the model itself.

    The log-probability is that of the untempered, untruncated distribution, so that it can be
    compared over sampling settings.

    Args:
      logits: f32[B, V].
      key: random key; unused when greedy.
      temperature: 0 takes the most probable token.
      top_p: keeps the smallest set of tokens whose probability reaches it (nucleus, 1904.09751).
    """
    logprobs = jax.nn.log_softmax(logits)
    if temperature == 0:
        token = jnp.argmax(logits, -1)
    else:
        scaled = logits / temperature
        if top_p < 1:
            scaled = jnp.where(_nucleus(scaled, top_p), scaled, -jnp.inf)
        token = jax.random.categorical(key, scaled)
    return token, jnp.take_along_axis(logprobs, token[:, None], axis=1)[:, 0]


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Returns bool[B, V]: the tokens that top_p keeps, the most probable one always."""
    probabilities = jax.nn.softmax(logits)
    descending = jnp.sort(probabilities, descending=True)
    before = jnp.cumsum(descending, -1) - descending
    kept = jnp.where(before < top_p, descending, jnp.inf)
    return probabilities >= kept.min(-1, keepdims=True)


def prefill(
    config: DecoderConfig,
    params: Any,
    prompts: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    slots: int,
    settings: GenerationConfig,
) -> tuple[decoder.KVCache, Drawn]:
    """Returns a cache that holds the prompts, and the first token after each.

    Args:
      config, params: the model.
      prompts: int32[B, S], padded on the left.
      lengths: int32[B], tokens of each prompt.
      key: random key for sampling.
      slots: of the cache: S and the tokens to be written, at least.
      settings: of sampling.
    """
    batch, width = prompts.shape
    pad = width - lengths
    cache = decoder.init_cache(config, batch, slots)
    cache = cache._replace(mask=(jnp.arange(slots) >= pad[:, None]))
    positions = jnp.maximum(jnp.arange(width) - pad[:, None], 0)
    return _forward(config, params, prompts, positions, cache, lengths, key, settings)


def decode(
    config: DecoderConfig,
    params: Any,
    cache: decoder.KVCache,
    last: Drawn,
    settings: GenerationConfig,
) -> tuple[decoder.KVCache, Drawn]:
    """Returns the cache with the last tokens in it, and the next ones."""
    tokens, at = last.token[:, None], last.position
    return _forward(config, params, tokens, at[:, None], cache, at + 1, last.key, settings)


def _forward(
    config: DecoderConfig,
    params: Any,
    tokens: jax.Array,
    positions: jax.Array,
    cache: decoder.KVCache,
    next_position: jax.Array,
    key: jax.Array,
    settings: GenerationConfig,
) -> tuple[decoder.KVCache, Drawn]:
    """Applies the model to tokens int32[B, S], and draws the next one of each row."""
    visible = decoder.in_cache(cache, tokens.shape[1])
    out: Any = decoder.Decoder(config).apply({"params": params}, tokens, positions, visible, cache)
    hidden, cache = out
    logits = decoder.output_head(config, params).logits(hidden[:, -1])
    key, used = jax.random.split(key)
    token, logprob = sample(logits, used, settings.temperature, settings.top_p)
    return cache, Drawn(token, logprob, next_position, key)


@functools.partial(jax.jit, static_argnames=("config", "settings"))
def generate_batch(
    config: DecoderConfig,
    params: Any,
    prompts: jax.Array,
    lengths: jax.Array,
    key: jax.Array,
    settings: GenerationConfig,
    end_ids: jax.typing.ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Writes up to `settings.max_new_tokens` tokens for each row.

    Args:
      config, params: the model.
      prompts: int32[B, S], padded on the left.
      lengths: int32[B], tokens of each prompt; 0 marks a row that only fills the batch.
      key: random key for sampling.
      settings: of sampling, and the longest completion.
      end_ids: int32[E], the tokens that end a completion; or one of them.

    Returns:
      int32[B, M] tokens (the first of `end_ids` after the end) and f32[B, M] log-probabilities (0
      after it).
    """
    batch, width = prompts.shape
    limit = settings.max_new_tokens
    ends = jnp.atleast_1d(jnp.asarray(end_ids, jnp.int32))

    def written(loop: _Loop) -> _Loop:
        """Stores the token that was drawn."""
        token, logprob = loop.last.token, loop.last.logprob
        return loop._replace(
            tokens=loop.tokens.at[:, loop.step].set(jnp.where(loop.done, ends[0], token)),
            logprobs=loop.logprobs.at[:, loop.step].set(jnp.where(loop.done, 0.0, logprob)),
            done=loop.done | (token[:, None] == ends).any(1),
            step=loop.step + 1,
        )

    def advance(loop: _Loop) -> _Loop:
        cache, last = decode(config, params, loop.cache, loop.last, settings)
        return written(loop._replace(cache=cache, last=last))

    cache, last = prefill(config, params, prompts, lengths, key, width + limit, settings)
    out = jnp.full((batch, limit), ends[0], jnp.int32)
    logprobs = jnp.zeros((batch, limit))
    first = written(_Loop(cache, last, lengths == 0, out, logprobs, jnp.int32(0)))
    # Nothing is computed after the last token.
    loop = jax.lax.while_loop(lambda loop: (loop.step < limit) & ~loop.done.all(), advance, first)
    return loop.tokens, loop.logprobs


def check_ids(prompt: Sequence[int], rows: int) -> None:
    """Raises a `UserError` if an id is beyond the embedding table, whose row would be NaN."""
    if (largest := max(prompt, default=0)) >= rows:
        raise UserError(
            f"a prompt has the token {largest}, and the model's embedding table has {rows:,} rows; "
            "use the tokenizer that belongs to the checkpoint"
        )


def check_context(prompt: int, new: int, context: int) -> None:
    """Raises a `UserError` if a prompt and its completion, in tokens, exceed the context."""
    if prompt + new > context:
        raise UserError(
            f"a prompt of {prompt} tokens and generation.max_new_tokens={new} exceed the model's "
            f"context of {context}; lower max_prompt_tokens or max_new_tokens"
        )


def padded_width(length: int) -> int:
    """Returns how wide a batch is whose longest prompt has `length` tokens.

    A multiple of 16, above 128 tokens of an eighth of the next power of two: few widths to compile,
    and from 64 tokens on never more than a quarter of padding.
    """
    step = max(WIDTH_STEP, (1 << (length - 1).bit_length()) // 8)
    return -(-length // step) * step


def rows_a_batch(settings: GenerationConfig, count: int) -> int:
    """Returns how many of `count` prompts are written together: all, where they fit a batch."""
    return max(1, min(settings.batch_size, count))


class Engine:
    """Writes completions in batches, with one model."""

    def __init__(
        self,
        config: DecoderConfig,
        params: Any,
        end_ids: Sequence[int],
        pad_id: int,
        settings: GenerationConfig,
        mesh: Mesh,
        seed: int = 0,
    ):
        """Takes the model, the tokens that end a completion, and one that fills the batches."""
        self._config, self._params, self._mesh = config, params, mesh
        self._end_ids, self._pad_id = np.asarray(end_ids, np.int32), pad_id
        self._settings, self._key = settings, jax.random.key(seed)

    def plan(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Returns the prompts of each batch: similar lengths together, always the same way."""
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        size = rows_a_batch(self._settings, len(prompts))
        return [order[i : i + size] for i in range(0, len(order), size)]

    def complete(
        self, prompts: Sequence[Sequence[int]], skip_batches: int = 0
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Yields (index into `prompts`, completion) batch by batch, in the order of `plan`.

        Args:
          prompts: token ids of each prompt.
          skip_batches: batches done in an earlier, interrupted call.

        Raises:
          UserError: a prompt and its completion exceed the model's context, or a token has no row
            in its embedding table.
        """
        limit, size = self._settings.max_new_tokens, rows_a_batch(self._settings, len(prompts))
        for number, members in enumerate(self.plan(prompts)):
            if number < skip_batches:
                continue
            longest = max(len(prompts[i]) for i in members)
            check_context(longest, limit, self._config.max_positions)
            width = padded_width(longest)
            tokens = np.full((size, width), self._pad_id, np.int32)
            lengths = np.zeros(size, np.int32)
            for row, index in enumerate(members):
                check_ids(prompts[index], self._config.vocab_size)
                tokens[row, width - len(prompts[index]) :] = prompts[index]
                lengths[row] = len(prompts[index])
            with jax.set_mesh(self._mesh):
                written, logprobs = fetch(
                    generate_batch(
                        self._config,
                        self._params,
                        *shard_batch((tokens, lengths), self._mesh),
                        jax.random.fold_in(self._key, number),
                        self._settings,
                        self._end_ids,
                    )
                )
            yield [
                (index, self._completion(written[row], logprobs[row]))
                for row, index in enumerate(members)
            ]

    def _completion(self, tokens: np.ndarray, logprobs: np.ndarray) -> Completion:
        ends = np.flatnonzero(np.isin(tokens, self._end_ids))
        if not len(ends):
            return Completion(tokens.tolist(), logprobs.tolist(), None)
        at = int(ends[0])
        return Completion(tokens[:at].tolist(), logprobs[: at + 1].tolist(), int(tokens[at]))
