"""What a teacher is asked, what it replies, and what makes it a teacher."""

import dataclasses
import functools
import hashlib
import json
from typing import Literal, Protocol

from bridge_jax.errors import UserError

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refused", "empty", "malformed"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher.

    Attributes:
      example_id: what it is about. It does not identify the request: the same words are paid once.
      model: the model's name, as the vendor and the ledger know it.
      messages: the chat so far.
      max_output_tokens: the longest reply, tokens.
      temperature: of sampling; 0 is greedy.
    """

    example_id: str
    model: str
    messages: tuple[Message, ...]
    max_output_tokens: int
    temperature: float = 0.0

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 (64 hex digits) of the model, the messages and the sampling settings."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Returns everything that determines the reply, as canonical JSON."""
        value = dataclasses.asdict(self)
        del value["example_id"]
        value["temperature"] = float(self.temperature)
        return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclasses.dataclass(frozen=True)
class Reply:
    """What a teacher said, and the tokens that it bills.

    Attributes:
      finish: `stop`, or why the text is no answer: cut off at `length`, `refused`, `empty` or
        `malformed`. It is paid for all the same.
    """

    text: str
    input_tokens: int
    output_tokens: int
    finish: Finish = "stop"


class Teacher(Protocol):
    """An expensive model. Both methods are called from several threads at once."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the input tokens to reserve, better too many than too few; costs nothing."""
        ...

    def ask(self, request: Request) -> Reply:
        """Returns the reply to one paid call.

        Raises:
          TeacherError: no reply, and to the teacher's knowledge nothing to pay.
        """
        ...


class TeacherError(UserError):
    """A call that failed.

    Attributes:
      transient: whether the same call may succeed later (rate limit, timeout, overload).
    """

    def __init__(self, message: str, *, transient: bool = False):
        super().__init__(message)
        self.transient = transient
