"""Holds a conversation: renders its turns as a prompt, and streams the reply token by token."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from bridge_jax.config import GenerationConfig
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Cap, capped
from bridge_jax.generation.engine import Engine, Request
from bridge_jax.models.config import DecoderConfig
from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.text.tokenizer import Tokenizer

_HALF = "\ufffd"  # Bytes that are no whole character decode to this.


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
        seconds = self.last - self.first
        return (self.tokens - 1) / seconds if seconds > 0 else 0.0


class ChatModel:
    """A model, its tokenizer, and the settings of its replies.

    A conversation's next prompt begins as the last one did: without windowed layers, only the last
    reply and the new question are read.
    """

    def __init__(
        self,
        config: DecoderConfig,
        params: Any,
        tokenizer: Tokenizer,
        settings: GenerationConfig,
        seed: int = 0,
        cap: Cap | None = None,
    ):
        """Takes a model; it generates on the devices where its parameters are.

        With `cap` the thinking of each reply is cut off.
        """
        self._cap = cap
        self.config, self.tokenizer, self.settings = config, tokenizer, settings
        mesh = make_mesh(devices=list(params["embedding"].devices()))
        ends, pad_id = tokenizer.end_ids, tokenizer.pad_id
        self._engine = Engine(config, params, ends, pad_id, settings, mesh, seed)

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        return self.config.max_positions - self.settings.max_new_tokens

    def write(self, prompt: list[int], number: int, reply: ChatReply) -> Iterator[str]:
        """Yields the text of a reply in pieces, and updates `reply`.

        Args:
          prompt: token ids.
          number: of the question; it makes the random numbers of the reply its own.
          reply: as far as it goes.
        """
        words = Detokenizer(self.tokenizer)
        request = capped(prompt, self._cap) if self._cap else Request(prompt)
        most = min(self.settings.max_new_tokens, request.limit or self.settings.max_new_tokens)
        for token in self._engine.stream(request._replace(limit=most, stream=number)):
            reply.last = time.perf_counter()
            reply.first = reply.first or reply.last
            reply.tokens += 1
            piece = words.add(token)
            reply.text += piece
            yield piece
        piece = words.finish()
        reply.text += piece
        yield piece
        if reply.tokens == most:
            is_whole = most == self.settings.max_new_tokens
            reply.note = f"cut at max_new_tokens={most}" if is_whole else f"cut after {most} tokens"
