"""Multi-turn chat: renders the turns as a prompt, and streams the reply token by token."""

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

_HALF = "\ufffd"  # An incomplete UTF-8 sequence decodes to this.


class Detokenizer:
    """Incremental decoder from tokens to text; holds back a character until it is complete."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = 0

    def add(self, token: int) -> str:
        """Returns the text that `token` completes; often a word, sometimes nothing."""
        self._ids.append(token)
        return self._new_text(self._tokenizer.decode(self._ids).rstrip(_HALF))

    def finish(self) -> str:
        """Returns the text held back: a replacement character if bytes are missing."""
        return self._new_text(self._tokenizer.decode(self._ids))

    def _new_text(self, text: str) -> str:
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        return new


class Conversation:
    """Questions and replies; the oldest are dropped when the context is full.

    Attributes:
      turns: (question, reply) pairs of the next prompt, in order.
    """

    def __init__(self, tokenizer: Tokenizer, system: str, room: int):
        """Begins a conversation.

        Args:
          tokenizer: renders the prompts.
          system: the system message; empty for none.
          room: maximum number of prompt tokens.

        Raises:
          UserError: a prompt with the system message and an empty question is longer.
        """
        self.turns: list[tuple[str, str]] = []
        self._tokenizer, self._room = tokenizer, room
        self._system = [{"role": "system", "content": system}] if system else []
        empty = len(self._render(""))
        if empty > room:
            raise UserError(
                f"an empty question already needs {empty} tokens, but the context has room for "
                f"{max(room, 0)}; shorten the system message or lower max_new_tokens"
            )

    def prompt(self, question: str) -> tuple[list[int], int]:
        """Returns the prompt ids for `question`, and the number of turns dropped to fit it.

        Raises:
          UserError: the question alone is too long; then no turn is dropped.
        """
        alone = len(self._render(question))
        if alone > self._room:
            raise UserError(
                f"the question has {alone} tokens, but the context has room for {self._room}; "
                "shorten it or lower max_new_tokens"
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
    """A reply while it is being generated.

    Attributes:
      text: the text so far, in whole characters.
      tokens: number of tokens so far.
      first, last: times of the first and the latest token, in seconds (`time.perf_counter`).
      note: why the reply was cut; empty if it was not.
    """

    text: str = ""
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0
    note: str = ""

    @property
    def rate(self) -> float:
        """Returns the tokens per second after the first token; 0 if there are none.

        The time of the first token includes the prefill.
        """
        seconds = self.last - self.first
        return (self.tokens - 1) / seconds if seconds > 0 else 0.0


class ChatModel:
    """A model, its tokenizer, and the settings of its replies.

    A conversation's next prompt begins with the previous one, which the engine has cached. Without
    sliding-window layers, only the last reply and the new question are prefilled.
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
        """Prepares the model to generate on the devices that hold its parameters.

        With `cap`, the thinking of each reply is cut off.
        """
        self._cap = cap
        self.config, self.tokenizer, self.settings = config, tokenizer, settings
        mesh = make_mesh(devices=list(params["embedding"].devices()))
        ends, pad_id = tokenizer.end_ids, tokenizer.pad_id
        self._engine = Engine(config, params, ends, pad_id, settings, mesh, seed)

    @property
    def room(self) -> int:
        """Returns the maximum number of prompt tokens."""
        return self.config.max_positions - self.settings.max_new_tokens

    def write(self, prompt: list[int], number: int, reply: ChatReply) -> Iterator[str]:
        """Yields the text of a reply in pieces, and updates `reply`.

        Args:
          prompt: token ids.
          number: the number of the question; gives the reply its own random numbers.
          reply: updated in place with each token.
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
