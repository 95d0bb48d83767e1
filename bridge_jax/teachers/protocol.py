"""What makes an expensive model a teacher, and how a call to it fails."""

from typing import Literal, Protocol

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Failure as Failure
from bridge_jax.ledger.requests import Finish as Finish
from bridge_jax.ledger.requests import Message as Message
from bridge_jax.ledger.requests import Reply as Reply
from bridge_jax.ledger.requests import Request as Request
from bridge_jax.text.markers import whole_characters

Trouble = Literal["fatal", "rejected", "transient", "unknown"]


class Teacher(Protocol):
    """An expensive model. `ask` is awaited many times at once, by one event loop until `aclose`."""

    @property
    def name(self) -> str:
        """How messages call it."""
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
      trouble: what to do now. `fatal`: stop, every further call would fail too (no key, a wrong
        one). `rejected`: give this request up, go on with the others. `transient`: nothing to pay,
        the same call may succeed later (rate limit, overload, nobody listens). `unknown`: it was
        sent, and nobody knows whether it is billed; it may be asked again, as a further request.
      retry_after: how long the vendor asks to wait, seconds.
    """

    def __init__(self, message: str, trouble: Trouble = "fatal", retry_after: float = 0.0):
        super().__init__(whole_characters(message))
        self.trouble: Trouble = trouble
        self.retry_after = retry_after
