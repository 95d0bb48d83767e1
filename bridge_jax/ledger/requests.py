"""Defines requests to teachers, their replies, and counts of the outcomes."""

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter
from typing import Any, Literal

from bridge_jax.text.markers import whole_characters

MessageRole = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refused", "empty", "malformed"]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_DIGITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat. Lone surrogates in `content` become U+FFFD."""

    role: MessageRole
    content: str

    def __post_init__(self):
        object.__setattr__(self, "content", whole_characters(self.content))


@dataclasses.dataclass(frozen=True)
class TeacherRequest:
    """One question to a teacher.

    Attributes:
      example_id: of the example it is about. It does not identify the request: the same words are
        paid once.
      model: the model's name, as the vendor and the ledger know it.
      messages: the chat so far.
      max_output_tokens: the longest reply, tokens.
      temperature: of sampling; 0 is greedy, None the vendor's default.
      sample: which of several replies to the same words.
      structured: whether the reply is JSON of `teachers.replies.SCHEMA`.
      server: who is asked (`teachers.api.server_of`); "" is the vendor's own.
      recorded: the SHA-256 of what a recorded teacher says, so that a corrected text is another
        request; "" of an API, whose reply is not known before.
    """

    example_id: str
    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float | None = 0.0
    sample: int = 0
    structured: bool = False
    server: str = ""
    recorded: str = ""

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 (64 hex digits) of server, model, messages, sampling and what is recorded."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Returns everything that determines the reply, as canonical JSON."""
        value: dict[str, Any] = {
            "max_output_tokens": self.max_output_tokens,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "model": self.model,
            "temperature": None if self.temperature is None else float(self.temperature),
        }
        # Left out, they do not change the keys of requests that were made before they existed.
        for name in ("sample", "structured", "server", "recorded"):
            if getattr(self, name):
                value[name] = getattr(self, name)
        return _CANONICAL.encode(value)

    @classmethod
    def from_json(cls, example_id: str, text: str) -> "TeacherRequest":
        """Returns the request of which `text` is the `to_json`."""
        value = json.loads(text)
        value["messages"] = tuple(Message(**message) for message in value["messages"])
        return cls(example_id, **value)


@dataclasses.dataclass(frozen=True)
class TeacherReply:
    """The text of a teacher's answer, and the tokens that it bills.

    Attributes:
      text: NUL and lone surrogates become U+FFFD.
      finish: `stop`, or why the text is no answer: cut off at `length`, `refused`, `empty` or
        `malformed`. It is paid for all the same.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finish: Finish = "stop"

    def __post_init__(self):
        object.__setattr__(self, "text", whole_characters(self.text).replace("\0", "\ufffd"))


@dataclasses.dataclass(frozen=True)
class Failure:
    """A request that has no reply and will have none in this run.

    Attributes:
      reason: for messages.
      kind: `failed` at every attempt, `refused` by the vendor, or `not_asked` for want of budget.
    """

    reason: str
    kind: Literal["failed", "refused", "not_asked"] = "failed"


@dataclasses.dataclass
class Tally:
    """Counts the outcomes of requests, for progress bars and messages.

    Attributes:
      counts: by outcome: `answered`, `no_answer` (a paid reply that is none: cut off, empty,
        malformed, or declined by the model), and the kinds of `Failure`.
      reasons: requests without an answer, counted by `alike` of the reason.
      examples: a reason in full, by `alike`.
    """

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, outcome: TeacherReply | Failure, copies: int = 1) -> None:
        """Counts the outcome of `copies` equal requests."""
        if isinstance(outcome, Failure):
            kind, reason = outcome.kind, outcome.reason
        elif outcome.finish != "stop":
            kind, reason = "no_answer", f"a paid reply that is no answer ({outcome.finish})"
        else:
            self.counts["answered"] += copies
            return
        self.counts[kind] += copies
        self.reasons[alike(reason)] += copies
        self.examples.setdefault(alike(reason), reason)

    @property
    def replies(self) -> int:
        """The number of requests with a reply, which is paid and kept."""
        return self.counts["answered"] + self.counts["no_answer"]

    def info(self) -> dict[str, Any]:
        """Returns the counts to show beside a progress bar; 0 is shown of answers alone."""
        kinds = ("no_answer", "failed", "refused", "not_asked")
        others = {kind: self.counts[kind] for kind in kinds if self.counts[kind]}
        return {"answered": self.counts["answered"]} | others

    def failures(self) -> str:
        """Describes what is not answered, with the commonest reason; "" if all is answered."""
        if not self.reasons:
            return ""
        _, *counts = [f"{n} {kind.replace('_', ' ')}" for kind, n in self.info().items()]
        key, times = self.reasons.most_common(1)[0]
        return f"{', '.join(counts)}; the commonest reason ({times}x): {self.examples[key]}"


def alike(reason: str) -> str:
    """Returns a reason with its numbers replaced, so that equal ones are counted together."""
    return _DIGITS.sub("#", reason)
