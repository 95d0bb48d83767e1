"""Requests to teachers, their replies, and the interfaces of a teacher."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from bridge_jax.errors import UserError
from bridge_jax.text.markers import whole_characters

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refused", "empty", "malformed"]
Trouble = Literal["fatal", "rejected", "transient", "unknown"]
Kind = Literal["failed", "refused", "not_asked"]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat. Lone surrogates in `content` become U+FFFD."""

    role: Role
    content: str

    def __post_init__(self):
        object.__setattr__(self, "content", whole_characters(self.content))


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher.

    Attributes:
      example_id: what it is about. It does not identify the request: the same words are paid once.
      model: the model's name, as the vendor and the ledger know it.
      messages: the chat so far.
      max_output_tokens: the longest reply, tokens.
      temperature: of sampling; 0 is greedy, None the vendor's default.
      sample: which of several replies to the same words.
      structured: whether the reply is JSON of `teachers.replies.SCHEMA`.
      server: who is asked (`teachers.http.server_of`); "" is the vendor's own.
      recorded: the SHA-256 of what a recorded teacher says, so that a corrected text is another
        request; "" of an API, whose reply nobody knows.
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
        if self.sample:
            value["sample"] = self.sample
        if self.structured:
            value["structured"] = self.structured
        if self.server:
            value["server"] = self.server
        if self.recorded:
            value["recorded"] = self.recorded
        return _CANONICAL.encode(value)


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a teacher said, and the tokens that it bills.

    Attributes:
      text: lone surrogates become U+FFFD, in what a ledger of an older version holds too.
      finish: `stop`, or why the text is no answer: cut off at `length`, `refused`, `empty` or
        `malformed`. It is paid for all the same.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finish: Finish = "stop"

    def __post_init__(self):
        object.__setattr__(self, "text", whole_characters(self.text).replace("\0", "\ufffd"))


class Teacher(Protocol):
    """An expensive model. `ask` is awaited many times at once, by one event loop until `aclose`."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the input tokens to reserve, better too many than too few; costs nothing."""
        ...

    async def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call, which it makes once.

        Raises:
          TeacherError: no reply. Unless its `trouble` is unknown, there is nothing to pay.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections of this event loop; asked again, it opens others."""
        ...


class TeacherError(UserError):
    """A call that failed.

    Attributes:
      trouble: `fatal`: every further call would fail too (no key, a wrong one), so the run stops.
        `rejected`: this request is given up, and the run goes on. `transient`: nothing to pay, and
        the same call may succeed later (rate limit, overload, no connection). `unknown`: it was
        sent, and may be billed; it may be made again, as a further request.
      retry_after: the wait that the vendor asks for, seconds.
    """

    def __init__(self, message: str, trouble: Trouble = "fatal", retry_after: float = 0.0):
        super().__init__(whole_characters(message))
        self.trouble: Trouble = trouble
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Failure:
    """A request that has no reply and will have none in this run.

    Attributes:
      reason: for people.
      kind: `failed` at every attempt, `refused` by the vendor, or `not_asked` for want of budget.
    """

    reason: str
    kind: Kind = "failed"


class JobRefused(TeacherError):  # noqa: N818
    """The vendor refused a batch job as a whole: none of it is billed."""


@dataclasses.dataclass(frozen=True)
class JobState:
    """How far a batch job is.

    Attributes:
      words: the vendor's own for it.
      done: requests done, as far as the vendor says.
      ended: whether its results can be collected.
    """

    words: str
    done: int = 0
    ended: bool = False


class BatchTeacher(Protocol):
    """A teacher that takes batch jobs. Every method raises `TeacherError`, as `Teacher.ask` does.

    Attributes:
      name: for messages.
      vendor: the owner of its jobs; another vendor's jobs are not collected.
    """

    name: str
    vendor: str

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the input tokens to reserve."""
        ...

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job `name` with these requests by key."""
        ...

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`, if there is one."""
        ...

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job."""
        ...

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns the results of the requests, by key, of a job that has ended.

        A request without a result may be billed; one with an error is not, unless its trouble is
        unknown.

        Raises:
          JobRefused: nothing of the job is billed.
        """
        ...
