"""What a vendor's batch mode is to the rest: jobs that are submitted, watched and collected."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

from bridge_jax.teachers.protocol import Reply, Request, TeacherError


class JobRefused(TeacherError):  # noqa: N818
    """The vendor says that a job as a whole came to nothing: none of it is billed."""


@dataclasses.dataclass(frozen=True)
class State:
    """Where a job is.

    Attributes:
      words: the vendor's own for it.
      done: requests done, as far as the vendor says.
      ended: whether its results can be collected.
    """

    words: str
    done: int = 0
    ended: bool = False


class BatchTeacher(Protocol):
    """A teacher that takes jobs. Every method raises `TeacherError`, as `Teacher.ask` does."""

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def vendor(self) -> str:
        """Who works on a job; one vendor's job is not for another to collect."""
        ...

    def estimate_input_tokens(self, request: Request) -> int:
        """Returns the input tokens to reserve."""
        ...

    def submit(self, name: str, requests: Mapping[str, Request]) -> str:
        """Returns the id of a new job `name` with these requests by key."""
        ...

    def find(self, name: str) -> str | None:
        """Returns the id of the job that was submitted as `name`, if there is one."""
        ...

    def state(self, job_id: str) -> State:
        """Returns where a job is."""
        ...

    def results(
        self, job_id: str, requests: Mapping[str, Request]
    ) -> Mapping[str, Reply | TeacherError]:
        """Returns what came of the requests of a job that has ended.

        What is not among them may be billed; an error is not, unless its trouble is unknown.

        Raises:
          JobRefused: nothing of the job is billed.
        """
        ...
