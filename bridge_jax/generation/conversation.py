"""A conversation: renders the turns so far as a prompt, and streams the reply token by token.

The same forward pass and choice of tokens as in `engine`, but each token leaves the device at
once. Shapes are rounded up, so that the turns of a growing conversation rarely compile: prompts to
32, 64, 128 ... tokens, caches to multiples of 512 slots.
Left out: keeping the cache between turns; every turn reads its whole prompt.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation import engine
from bridge_jax.generation.engine import check_context, check_ids
from bridge_jax.models.config import DecoderConfig
from bridge_jax.text.tokenizer import Tokenizer

SLOTS = 512

_HALF = "\ufffd"  # Bytes that are no whole character decode to this.


_prefill = jax.jit(engine.prefill, static_argnames=("config", "slots", "settings"))
_step = jax.jit(engine.decode, static_argnames=("config", "settings"), donate_argnames="cache")


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
    """Turns tokens into text piece by piece; holds back a character until it is complete."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """Returns the text that `token` completes; often a word, sometimes nothing."""
        self._ids.append(token)
        return self._new_text(self._tokenizer.decode(self._ids).rstrip(_HALF))

    def finish(self) -> str:
        """Returns the text that was held back: a replacement character, if bytes are missing."""
        return self._new_text(self._tokenizer.decode(self._ids))

    def _new_text(self, text: str) -> str:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return new


class Conversation:
    """Questions and replies; the oldest are dropped when the context is full.

    Attributes:
      turns: (question, reply) that the next prompt will have, in order.
    """

    def __init__(self, tokenizer: Tokenizer, system: str, room: int):
        """Begins a conversation.

        Args:
          tokenizer: renders the prompts.
          system: the system message; empty is none.
          room: tokens that a prompt may have.

        Raises:
          UserError: the system message alone needs more.
        """
        self.turns: list[tuple[str, str]] = []
        self._tokenizer, self._room = tokenizer, room
        self._system = [{"role": "system", "content": system}] if system else []
        empty = len(self._render(""))
        if empty > room:
            raise UserError(
                f"an empty question already needs {empty} tokens, and the context leaves "
                f"{max(room, 0)}; shorten the system message or lower max_new_tokens"
            )

    def prompt(self, question: str) -> tuple[list[int], int]:
        """Returns the ids of the prompt that asks `question`, and how many turns were dropped.

        Raises:
          UserError: the question alone is too long; nothing is dropped.
        """
        alone = len(self._render(question))
        if alone > self._room:
            raise UserError(
                f"the question has {alone} tokens, and the context leaves {self._room}; shorten "
                "it or lower max_new_tokens"
            )
        before = len(self.turns)
        while len(ids := self._render(question, self.turns)) > self._room:
            del self.turns[0]
        return ids, before - len(self.turns)

    def _render(self, question: str, turns: list[tuple[str, str]] | None = None) -> list[int]:
        messages = list(self._system)
        for asked, replied in turns or ():
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": replied})
        return self._tokenizer.render_chat([*messages, {"role": "user", "content": question}])


@dataclasses.dataclass
class ChatReply:
    """A reply while it is written, as far as it goes.

    Attributes:
      text: whole characters only.
      tokens: how many.
      first, last: when the first and the last token came, in seconds.
      note: why it ends there, if not by an end token.
    """

    text: str = ""
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        """Tokens per second after the first, which took the prompt; 0 if there are none."""
        return (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 else 0.0


@dataclasses.dataclass
class ChatModel:
    """A model, its tokenizer, and the settings of its replies."""

    config: DecoderConfig
    params: Any
    tokenizer: Tokenizer
    settings: GenerationConfig

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        return self.config.max_positions - self.settings.max_new_tokens

    def write(self, prompt: list[int], key: jax.Array, reply: ChatReply) -> Iterator[str]:
        """Yields the text of a reply in pieces, and updates `reply`."""
        words = Detokenizer(self.tokenizer)
        end_ids, pad_id = self.tokenizer.end_ids, self.tokenizer.pad_id
        for token in stream(self.config, self.params, prompt, key, self.settings, end_ids, pad_id):
            reply.last = time.perf_counter()
            reply.first = reply.first or reply.last
            reply.tokens += 1
            piece = words.add(token)
            reply.text += piece
            yield piece
        piece = words.finish()
        reply.text += piece
        yield piece
        if reply.tokens == self.settings.max_new_tokens:
            reply.note = f"cut at max_new_tokens={reply.tokens}"
