"""Asks a teacher many questions at once, every one of them through the ledger."""

import contextlib
import dataclasses
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NoReturn

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.teachers.ledger import BudgetExceeded, Ledger, RequestInFlight
from bridge_jax.teachers.protocol import Reply, Request, Teacher, TeacherError

_ATTEMPTS = 6
_BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=60)
_POLL_SECONDS = 0.1

_log = logging.getLogger(__name__)


def annotate(
    teacher: Teacher,
    ledger: Ledger,
    requests: Sequence[Request],
    concurrency: int,
    on_reply: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """Returns a reply for each request, in order. What the ledger already holds is free.

    Requests are reserved in order. A transient failure is tried again with exponential backoff.
    When a request does not fit the caps, it waits for those in flight, which may cost less than
    they reserve. The first fatal error, or an interrupt (Ctrl-C), stops new calls; those in flight
    are settled before it is raised.

    Args:
      teacher: who is asked.
      ledger: who pays.
      requests: equal ones are asked once.
      concurrency: calls in flight at most.
      on_reply: called with (requests answered, requests in all), from one thread, not the caller's.

    Raises:
      BudgetExceeded: a cap is reached and nothing is in flight that could leave room.
      UserError: the teacher failed for good, or the ledger cannot be written. The message says
        how many are answered.
    """
    work = _Work(teacher, ledger, requests, max(1, concurrency), on_reply)
    # The loop has its own thread: an interrupt, which only reaches the main one, cannot fall
    # between a reservation and its call.
    with ThreadPoolExecutor(1, "annotate") as loop:
        done = loop.submit(work.run)
        try:
            return done.result()
        except UserError:
            raise
        except BaseException as error:
            work.stop.set()
            loop.shutdown()
            error.add_note(work.progress())
            raise


@dataclasses.dataclass
class _Work:
    """One call of `annotate`. Only the loop's thread changes it, apart from `_fail` and `stop`."""

    teacher: Teacher
    ledger: Ledger
    requests: Sequence[Request]
    concurrency: int
    on_reply: Callable[[int, int], None] | None
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    replies: dict[str, Reply] = dataclasses.field(default_factory=dict)
    failure: BaseException | None = None

    def __post_init__(self):
        self.keys = [request.key for request in self.requests]
        self.copies = Counter(self.keys)
        self.answered = 0
        self.failing = threading.Lock()

    def run(self) -> list[Reply]:
        """Keeps up to `concurrency` calls in flight until all is answered, or `stop` is set."""
        waiting = deque(dict(zip(self.keys, self.requests)).items())
        in_flight: dict[Future[Reply], str] = {}
        with ThreadPoolExecutor(self.concurrency, "teacher") as pool:
            while in_flight or (waiting and not self.stop.is_set()):
                with self._stopping_on_failure():
                    while waiting and len(in_flight) < self.concurrency:
                        if self.stop.is_set() or not self._start(*waiting[0], pool, in_flight):
                            break
                        waiting.popleft()
                if in_flight:
                    finished, _ = wait(in_flight, _POLL_SECONDS, FIRST_COMPLETED)
                else:
                    finished = ()
                    if waiting:
                        self.stop.wait(_POLL_SECONDS)
                for future in finished:
                    with self._stopping_on_failure():
                        self._record(in_flight.pop(future), future.result())
        if self.failure:
            self._raise(self.failure)
        return [self.replies[key] for key in self.keys if key in self.replies]

    def progress(self) -> str:
        """Returns how far it came, for an error message."""
        return (
            f"{self.answered} of {len(self.keys)} requests to {self.teacher.name} are answered "
            f"and kept; run the same command again to continue"
        )

    def _start(
        self,
        key: str,
        request: Request,
        pool: ThreadPoolExecutor,
        in_flight: dict[Future[Reply], str],
    ) -> bool:
        """Takes the stored reply or sends the request; False if it has to wait for others."""
        try:
            stored = self.ledger.reserve(request, self.teacher.estimate_input_tokens(request))
        except RequestInFlight:
            return False
        except BudgetExceeded:
            if not in_flight:
                raise
            return False
        if stored is None:
            in_flight[pool.submit(self._answer, request)] = key
        else:
            self._record(key, stored)
        return True

    def _answer(self, request: Request) -> Reply:
        """Makes the paid call and writes what came of it to the ledger."""
        try:
            reply = self._retrying()(self.teacher.ask, request)
            self.ledger.settle(request, reply)
        except TeacherError as error:
            self._fail(error)
            self.ledger.release(request)
            raise
        except BaseException as error:
            self._fail(error)
            # Whether this was billed is unknown. (A full disk may refuse this too: then closing
            # the ledger does the same.)
            with contextlib.suppress(UserError):
                self.ledger.abandon(request)
            raise
        return reply

    def _retrying(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, TeacherError) and error.transient
            ),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=_BACKOFF,
            sleep=self._sleep,
            before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise TeacherError("not tried again: the run is stopping")

    def _record(self, key: str, reply: Reply) -> None:
        self.replies[key] = reply
        self.answered += self.copies[key]
        if self.on_reply:
            self.on_reply(self.answered, len(self.keys))

    @contextlib.contextmanager
    def _stopping_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Stops new calls and retries; what they raise because of it hides no first error."""
        with self.failing:
            self.failure = self.failure or error
        self.stop.set()

    def _raise(self, error: BaseException) -> NoReturn:
        if isinstance(error, BudgetExceeded):
            raise BudgetExceeded(f"{error}; {self.progress()}") from error
        if isinstance(error, UserError):
            raise UserError(f"{error}; {self.progress()}") from error
        raise error
