"""What a vendor's batch mode is to the rest: jobs that are submitted, watched and collected."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from bridge_jax.teachers.calls import UNREADABLE
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


class Rows:
    """Collects the results of a job that has ended, row by row.

    What cannot be read may be billed, so nothing is said of its request. Where not even the name of
    the request can be read, that may be any of those without a row.

    Args:
      requests: those that are waited for, by key.

    Attributes:
      found: what came of them, by key.
    """

    def __init__(self, requests: Mapping[str, Request]):
        self._requests = requests
        self._named: set[str] = set()
        self._nameless = False
        self.found: dict[str, Reply | TeacherError] = {}

    @contextlib.contextmanager
    def reading(self) -> Iterator[Callable[[str], Request | None]]:
        """Yields what is told the key of a row as soon as it is read, and returns its request.

        That is None where nobody waits for it. What cannot be read ends the block, not the job.
        """
        named = False

        def about(key: str) -> Request | None:
            nonlocal named
            if not isinstance(key, str):
                raise TypeError(f"no key: {key!r}")
            named = True
            self._named.add(key)
            return self._requests.get(key)

        try:
            yield about
        except (*UNREADABLE, TeacherError):
            self._nameless = self._nameless or not named

    def release_the_rest(self, why: str) -> None:
        """Says that those without a row are not billed and may be asked again."""
        if not self._nameless:
            for key in self._requests.keys() - self._named:
                self.found[key] = TeacherError(why, "transient")


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
