"""Defines requests to teachers, their replies, and a tally of their outcomes."""

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
      example_id: id of the example that the request is about. It is not part of the key: requests
        that are otherwise equal are paid for once.
      model: the model's name, as the vendor and the ledger know it.
      messages: the chat so far.
      max_output_tokens: the longest reply, in tokens.
      temperature: sampling temperature; 0 is greedy, None the vendor's default.
      sample: index of the reply, where several are requested for the same messages.
      structured: whether the reply is to be JSON that follows `teachers.replies.SCHEMA`.
      server: the server that is asked (`teachers.api.server_of`); "" is the vendor's own.
      recorded: SHA-256 of a recorded teacher's reply, so that a corrected text makes a different
        request; "" for an API, whose reply is not known in advance.
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
        """SHA-256 (64 hex digits) of everything that determines the reply (`to_json`)."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Returns everything that determines the reply, as canonical JSON."""
        value: dict[str, Any] = {
            "max_output_tokens": self.max_output_tokens,
            "messages": [{"role": m.role, "content": m.content} for m in self.messages],
            "model": self.model,
            "temperature": None if self.temperature is None else float(self.temperature),
        }
        # Omitted at their defaults: requests made before these fields existed keep their keys.
        for name in ("sample", "structured", "server", "recorded"):
            if getattr(self, name):
                value[name] = getattr(self, name)
        return _CANONICAL.encode(value)

    @classmethod
    def from_json(cls, example_id: str, text: str) -> "TeacherRequest":
        """Returns the request that `to_json` wrote as `text`."""
        value = json.loads(text)
        value["messages"] = tuple(Message(**message) for message in value["messages"])
        return cls(example_id, **value)


@dataclasses.dataclass(frozen=True)
class TeacherReply:
    """The text of a teacher's answer, and the tokens that it bills.

    Attributes:
      text: the reply's text; NUL and lone surrogates become U+FFFD.
      finish: `stop`, or why the text is not an answer: cut off at `length`, `refused`, `empty` or
        `malformed`. Such a reply is paid for too.
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
      reason: the reason, for messages.
      kind: `failed` at every attempt, `refused` by the vendor, or `not_asked` for lack of budget.
    """

    reason: str
    kind: Literal["failed", "refused", "not_asked"] = "failed"


@dataclasses.dataclass
class Tally:
    """Counts the outcomes of requests, for progress bars and messages.

    Attributes:
      counts: number of requests by outcome: `answered`, `no_answer` (a paid reply without an
        answer: cut off, empty, malformed, or declined by the model), and the kinds of `Failure`.
      reasons: number of requests without an answer, by `alike` of the reason.
      examples: one reason in full, by `alike` of the reason.
    """

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, outcome: TeacherReply | Failure, copies: int = 1) -> None:
        """Counts the outcome of `copies` equal requests."""
        if isinstance(outcome, Failure):
            kind, reason = outcome.kind, outcome.reason
        elif outcome.finish != "stop":
            kind, reason = "no_answer", f"a paid reply without an answer ({outcome.finish})"
        else:
            self.counts["answered"] += copies
            return
        self.counts[kind] += copies
        self.reasons[alike(reason)] += copies
        self.examples.setdefault(alike(reason), reason)

    @property
    def replies(self) -> int:
        """The number of requests with a reply, which is paid for and kept."""
        return self.counts["answered"] + self.counts["no_answer"]

    def info(self) -> dict[str, Any]:
        """Returns the counts to show beside a progress bar; omits zeros, except for answers."""
        kinds = ("no_answer", "failed", "refused", "not_asked")
        others = {kind: self.counts[kind] for kind in kinds if self.counts[kind]}
        return {"answered": self.counts["answered"]} | others

    def failures(self) -> str:
        """Describes the unanswered requests, with the most common reason; "" if there are none."""
        if not self.reasons:
            return ""
        _, *counts = [f"{n} {kind.replace('_', ' ')}" for kind, n in self.info().items()]
        key, times = self.reasons.most_common(1)[0]
        return f"{', '.join(counts)}; the most common reason ({times}x): {self.examples[key]}"


def alike(reason: str) -> str:
    """Replaces the numbers in a reason, so that reasons that differ only in them count as one."""
    return _DIGITS.sub("#", reason)
