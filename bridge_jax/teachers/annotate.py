"""Asks a teacher many questions at once, every one of them through the ledger.

Threads, not asyncio: the ledger blocks until its writes are on disk, and the vendors' SDKs are no
faster asynchronously (`benchmarks/teachers.py` measures both).
"""

import contextlib
import dataclasses
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NoReturn

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.teachers import retrying
from bridge_jax.teachers.ledger import (
    BudgetExceeded,
    Ledger,
    RequestInBatchJob,
    RequestInFlight,
)
from bridge_jax.teachers.pacing import Pace
from bridge_jax.teachers.protocol import Failure, Reply, Request, Teacher, TeacherError

_POLL_SECONDS = 0.1
# So many requests in a row given up, none answered between: the teacher is down, not a request bad.
_HOPELESS = 10

_log = logging.getLogger(__name__)


def annotate(
    teacher: Teacher,
    ledger: Ledger,
    requests: Sequence[Request],
    concurrency: int,
    on_reply: Callable[[int, int], None] | None = None,
    attempts: int = retrying.ATTEMPTS,
    pace: Pace | None = None,
    optional: bool = False,
) -> list[Reply | Failure]:
    """Returns what came of each request, in order. What the ledger already holds is free.

    Requests are begun in order. A failure that may pass is tried again with jittered exponential
    backoff, or when the vendor says; where it is unknown whether the failed call is billed, it goes
    on counting and the next one is reserved beside it. A request that is refused for good, or
    fails at every attempt, becomes a `Failure`. When a request does not fit the caps, it waits for
    those in flight, which may cost less than they reserve. The first fatal error, or an interrupt
    (Ctrl-C), stops new calls; those in flight are settled before it is raised.

    Args:
      teacher: who is asked.
      ledger: who pays.
      requests: equal ones are asked once.
      concurrency: calls in flight at most.
      on_reply: called with (requests done, requests in all), one call at a time, from threads that
        are not the caller's.
      attempts: calls per request at most.
      pace: the vendor's limits; None for none.
      optional: a request that no longer fits the caps is a `Failure`, not an error.

    Raises:
      BudgetExceeded: a cap is reached and nothing is in flight that could leave room.
      UserError: the teacher failed for good or asks for a long wait, an open batch job has a
        request, or the ledger cannot be written. The message says how many are answered.
    """
    work = _Work(
        *(teacher, ledger, requests, max(1, concurrency)),
        *(on_reply, attempts, pace or Pace(), optional),
    )
    # It has its own thread: an interrupt, which only reaches the main one, cannot fall between a
    # reservation and its call.
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


class _Stopped(Exception):  # noqa: N818
    """The run is stopping: what was about to be tried is not."""


@dataclasses.dataclass
class _Work:
    """One call of `annotate`. What its threads share is changed under `changed`."""

    teacher: Teacher
    ledger: Ledger
    requests: Sequence[Request]
    concurrency: int
    on_reply: Callable[[int, int], None] | None
    attempts: int
    pace: Pace
    optional: bool
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    outcomes: dict[str, Reply | Failure] = dataclasses.field(default_factory=dict)
    failure: BaseException | None = None

    def __post_init__(self):
        self.keys = [request.key for request in self.requests]
        self.copies = Counter(self.keys)
        self.waiting = deque(dict(zip(self.keys, self.requests)).items())
        self.answered = self.done = self.given_up_in_a_row = 0
        self.changed = threading.Condition()
        self.reserving = self.reserved = self.freed = 0

    def run(self) -> list[Reply | Failure]:
        """Keeps `concurrency` calls in flight until all is done, or `stop` is set."""
        threads = min(self.concurrency, len(self.waiting))
        if threads:
            # Settling waits for the disk; who asks goes on meanwhile.
            with (
                ThreadPoolExecutor(threads, "settle") as settling,
                ThreadPoolExecutor(threads, "teacher") as asking,
            ):
                wait([asking.submit(self._work, settling) for _ in range(threads)])
        if self.failure:
            self._raise(self.failure)
        return [self.outcomes[key] for key in self.keys if key in self.outcomes]

    def progress(self) -> str:
        """Returns how far it came, for an error message."""
        return (
            f"{self.answered} of {len(self.keys)} requests to {self.teacher.name} are answered "
            f"and kept; run the same command again to continue"
        )

    def _work(self, settling: ThreadPoolExecutor) -> None:
        try:
            while not self.stop.is_set():
                with self.changed:
                    if not self.waiting:
                        return
                    key, request = self.waiting.popleft()
                outcome, unsettled = self._outcome(request)
                if unsettled and isinstance(outcome, Reply):
                    settling.submit(self._settle, key, request, outcome)
                else:
                    self._record(key, outcome)
        except _Stopped:
            pass
        except BaseException as error:
            self._fail(error)

    def _outcome(self, request: Request) -> tuple[Reply | Failure, bool]:
        """Returns what came of a request, and whether that is still to be settled."""
        try:
            return self._retrying()(self._attempt, request)
        except TeacherError as error:
            if error.trouble == "fatal":
                raise
            return self._give_up(error), False
        except BudgetExceeded as error:
            if not self.optional:
                raise
            return Failure(f"not asked: {error}"), False

    def _attempt(self, request: Request) -> tuple[Reply, bool]:
        """Returns the stored reply, or makes the paid call; whether the reply is to be settled."""
        estimate = self.teacher.estimate_input_tokens(request)
        most = estimate + request.max_output_tokens
        stored = self._in_turn(request, estimate, most)
        if stored is not None:
            return stored, False
        with self._unknown_if_it_fails(request):
            try:
                reply = self.teacher.ask(request)
            except TeacherError as failure:
                error = retrying.bounded(failure)
                if error.trouble == "fatal":
                    self._fail(error)
                unknown = failure.trouble == "unknown"
                self._free(self.ledger.abandon if unknown else self.ledger.release, request)
                raise error from failure.__cause__
        self.pace.give_back(max(0, most - reply.input_tokens - reply.output_tokens))
        return reply, True

    def _settle(self, key: str, request: Request, reply: Reply) -> None:
        """Writes a paid reply to the ledger; only then is it an outcome."""
        with contextlib.suppress(BaseException), self._unknown_if_it_fails(request):
            self._free(self.ledger.settle, request, reply)
            self._record(key, reply)

    def _in_turn(self, request: Request, estimate: int, most: int) -> Reply | None:
        """Reserves when the vendor's limits let the request be sent, or returns the reply."""
        stored = self._reserve(request, estimate)
        if stored is not None:
            return stored
        if seconds := self.pace.take(most):
            # No reservation is held while waiting: a crash would count it as maybe billed.
            self._free(self.ledger.release, request)
            self._sleep(seconds)
            stored = self._reserve(request, estimate)
            if stored is not None:
                self.pace.give_back(most, requests=1)
        return stored

    @contextlib.contextmanager
    def _unknown_if_it_fails(self, request: Request) -> Iterator[None]:
        """Stops the run at an error that nobody foresaw; whether the call is billed is unknown."""
        try:
            yield
        except TeacherError:
            raise
        except BaseException as error:
            self._fail(error)
            # (A full disk may refuse this too: then closing the ledger does the same.)
            with contextlib.suppress(UserError):
                self._free(self.ledger.abandon, request)
            raise

    def _reserve(self, request: Request, estimate: int) -> Reply | None:
        """Reserves, or returns the stored reply; waits while others leave no room for it."""
        while not self.stop.is_set():
            with self.changed:
                self.reserving += 1
                freed = self.freed
            stored = refusal = None
            try:
                stored = self.ledger.reserve(request, estimate)
            except (RequestInFlight, BudgetExceeded) as error:
                refusal = error
            finally:
                with self.changed:
                    self.reserving -= 1
                    self.reserved += refusal is None and stored is None
            if refusal is None:
                return stored
            if isinstance(refusal, RequestInBatchJob):
                raise refusal
            with self.changed:
                room_may_come = self.reserving or self.reserved or self.freed != freed
                if isinstance(refusal, BudgetExceeded) and not room_may_come:
                    raise refusal
                self.changed.wait(_POLL_SECONDS)
        raise _Stopped

    def _free(self, how: Callable[..., None], *what: object) -> None:
        """Settles, releases or abandons a reservation, which may leave room for others."""
        how(*what)
        with self.changed:
            self.reserved -= 1
            self.freed += 1
            self.changed.notify_all()

    def _retrying(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: (
                    isinstance(error, TeacherError) and error.trouble in ("transient", "unknown")
                )
            ),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=retrying.seconds_to_wait,
            sleep=self._sleep,
            before_sleep=retrying.logs(_log),
            reraise=True,
        )

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise _Stopped

    def _record(self, key: str, outcome: Reply | Failure) -> None:
        with self.changed:
            self.outcomes[key] = outcome
            self.done += self.copies[key]
            if isinstance(outcome, Reply):
                self.answered += self.copies[key]
                self.given_up_in_a_row = 0
            if self.on_reply:
                self.on_reply(self.done, len(self.keys))

    def _give_up(self, error: TeacherError) -> Failure:
        if error.trouble == "rejected":
            return Failure(str(error))
        with self.changed:
            self.given_up_in_a_row += 1
            if self.given_up_in_a_row >= _HOPELESS:
                raise UserError(
                    f"{self.given_up_in_a_row} requests in a row had no answer after "
                    f"{self.attempts} attempts each, the last of them: {error}"
                )
        return Failure(f"given up after {self.attempts} attempts: {error}")

    def _fail(self, error: BaseException) -> None:
        """Stops new calls and retries; what they raise because of it hides no first error."""
        with self.changed:
            self.failure = self.failure or error
            self.stop.set()
            self.changed.notify_all()

    def _raise(self, error: BaseException) -> NoReturn:
        if isinstance(error, BudgetExceeded):
            raise BudgetExceeded(f"{error}; {self.progress()}") from error
        if isinstance(error, UserError):
            raise UserError(f"{error}; {self.progress()}") from error
        raise error
