"""Defines a teacher's interfaces, for single calls and batch jobs, and the error of a call."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import TeacherReply, TeacherRequest
from bridge_jax.text.markers import whole_characters

ErrorKind = Literal["fatal", "rejected", "transient", "unknown"]


class Teacher(Protocol):
    """An expensive model. Until `aclose`, one event loop awaits many calls of `ask` at once."""

    @property
    def name(self) -> str:
        """The teacher's name, for messages."""
        ...

    def estimate_input_tokens(self, request: TeacherRequest) -> int:
        """Returns the input tokens to reserve, rather too many than too few; makes no paid call."""
        ...

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Makes one paid call, without retries, and returns the reply.

        Raises:
          TeacherError: there is no reply. Unless its `trouble` is unknown, nothing is billed.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections of this event loop; a later `ask` opens new ones."""
        ...


class TeacherError(UserError):
    """A call that failed.

    Attributes:
      trouble: `fatal`: every further call would fail too (no key, a wrong key), so the run stops.
        `rejected`: this request is given up, and the run continues. `transient`: nothing is billed,
        and the same call may succeed later (rate limit, overload, no connection). `unknown`: the
        call was sent and may be billed; it may be repeated, as a further request.
      retry_after: the wait that the vendor asks for, in seconds.
    """

    def __init__(self, message: str, trouble: ErrorKind = "fatal", retry_after: float = 0.0):
        super().__init__(whole_characters(message))
        self.trouble: ErrorKind = trouble
        self.retry_after = retry_after


class JobRefused(TeacherError):  # noqa: N818
    """The vendor refused a whole batch job: nothing of it is billed."""


@dataclasses.dataclass(frozen=True)
class JobState:
    """The progress of a batch job.

    Attributes:
      words: the vendor's name for the state.
      done: number of requests done, as far as the vendor reports it.
      ended: whether its results can be collected.
    """

    words: str
    done: int = 0
    ended: bool = False


class BatchTeacher(Protocol):
    """A teacher that takes batch jobs. Every method raises `TeacherError`, as `Teacher.ask` does.

    Attributes:
      name: the teacher's name, for messages.
      vendor: the owner of its jobs; jobs of other vendors are not collected.
    """

    name: str
    vendor: str

    def estimate_input_tokens(self, request: TeacherRequest) -> int:
        """Returns the input tokens to reserve."""
        ...

    def submit(self, name: str, requests: Mapping[str, TeacherRequest]) -> str:
        """Submits a job `name` with these requests, by key; returns the vendor's id."""
        ...

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`, if there is one."""
        ...

    def state(self, job_id: str) -> JobState:
        """Returns the state of a job."""
        ...

    def results(
        self, job_id: str, requests: Mapping[str, TeacherRequest]
    ) -> Mapping[str, TeacherReply | TeacherError]:
        """Returns the results of a job that has ended, by the key of the request.

        A request without a result may be billed; one with an error is not billed, unless its
        trouble is unknown.

        Raises:
          JobRefused: the job was refused; nothing of it is billed.
        """
        ...
