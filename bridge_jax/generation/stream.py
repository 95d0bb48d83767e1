"""Writes one reply token by token, for a chat.

The same forward pass and choice of tokens as in `engine`, but each token leaves the device at
once. Shapes are rounded up, so that the turns of a growing conversation rarely compile: prompts to
32, 64, 128 ... tokens, caches to multiples of 512 slots.
Left out: keeping the cache between turns; every turn reads its whole prompt.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bridge_jax.config import GenerationConfig
from bridge_jax.generation.engine import check_context, check_ids, draw, forward, read_prompts
from bridge_jax.models import decoder
from bridge_jax.models.config import DecoderConfig
from bridge_jax.text.tokenizer import Tokenizer

SLOTS = 512

_HALF = "\ufffd"  # Bytes that are no whole character decode to this.


class _Written(NamedTuple):
    """The last token, not yet in the cache, its position, and the key for the next ones."""

    token: jax.Array
    position: jax.Array
    key: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "slots", "settings"))
def _prefill(
    config: DecoderConfig,
    params: Any,
    prompt: jax.Array,
    length: jax.Array,
    key: jax.Array,
    slots: int,
    settings: GenerationConfig,
) -> tuple[decoder.KVCache, _Written]:
    logits, cache = read_prompts(config, params, prompt, length, slots)
    token, _, key = draw(logits, key, settings)
    return cache, _Written(token, length, key)


@functools.partial(jax.jit, static_argnames=("config", "settings"), donate_argnames="cache")
def _step(
    config: DecoderConfig,
    params: Any,
    cache: decoder.KVCache,
    last: _Written,
    settings: GenerationConfig,
) -> tuple[decoder.KVCache, _Written]:
    logits, cache = forward(config, params, last.token[:, None], last.position[:, None], cache)
    token, _, key = draw(logits, last.key, settings)
    return cache, _Written(token, last.position + 1, key)


def stream(
    config: DecoderConfig,
    params: Any,
    prompt: Sequence[int],
    key: jax.Array,
    settings: GenerationConfig,
    end_ids: Sequence[int],
    pad_id: int,
) -> Iterator[int]:
    """Yields the tokens of a completion, without the end token.

    They are those that `engine.generate_batch` writes for the same prompt and key; there are
    `settings.max_new_tokens` of them only if the completion was cut.

    Args:
      config, params: the model.
      prompt: token ids.
      key: random key for sampling.
      settings: how to write; `batch_size` has no meaning here.
      end_ids: the tokens that end a completion.
      pad_id: any token; it fills the prompt on the left and is not seen.

    Raises:
      UserError: prompt and completion exceed the model's context, or a token has no row in its
        embedding table; raised at the first token.
    """
    check_context(len(prompt), settings.max_new_tokens, config.max_positions)
    check_ids(prompt, config.vocab_size)
    width = bucket(len(prompt))
    slots = -(-(width + settings.max_new_tokens) // SLOTS) * SLOTS
    tokens = np.full((1, width), pad_id, np.int32)
    tokens[0, width - len(prompt) :] = prompt
    length = np.asarray([len(prompt)], np.int32)
    cache, last = _prefill(config, params, tokens, length, key, slots, settings)
    try:
        for left in reversed(range(settings.max_new_tokens)):
            token = last.token
            if left:
                # Started before this token is read, so that the device is never idle; and the one
                # compilation comes before the first token, not between two.
                cache, last = _step(config, params, cache, last, settings)
            written = int(token[0])
            if written in end_ids:
                return
            yield written
    finally:  # A process that ends while a step is computed may crash.
        jax.block_until_ready(last.token)


def bucket(length: int) -> int:
    """Returns the width of a prompt of `length` tokens: a power of two, 32 at least."""
    return max(32, 1 << (length - 1).bit_length())


class Detokenizer:
    """Turns tokens into text piece by piece; a character is held back until it is complete."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """Returns the text that `token` completes; often a word, sometimes nothing."""
        self._ids.append(token)
        return self._new_text(self._tokenizer.decode(self._ids).rstrip(_HALF))

    def finish(self) -> str:
        """Returns what is held back: the mark of half a character, if the text ends in one."""
        return self._new_text(self._tokenizer.decode(self._ids))

    def _new_text(self, text: str) -> str:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return new
