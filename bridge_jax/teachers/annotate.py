"""Asks a teacher many questions at once, every one of them through the ledger.

One event loop asks, in a thread of its own: an interrupt, which only reaches the main thread,
cannot fall between a reservation and its call. What is below is changed by that loop alone.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger, Reservations, Stopped, sleep
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Tally, alike
from bridge_jax.teachers import retrying
from bridge_jax.teachers.pacing import Pace
from bridge_jax.teachers.protocol import Failure, Reply, Request, Teacher, TeacherError

# So many requests in a row given up, none answered between: the teacher is down, not a request bad.
# And so many at the beginning that are refused alike, or lost: it is the config that is bad.
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
    tally: Tally | None = None,
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
      on_reply: called with (requests done, requests in all), one call at a time, from a thread that
        is not the caller's.
      attempts: calls per request at most.
      pace: the vendor's limits; None for none.
      optional: a request that no longer fits the caps is a `Failure`, not an error.
      tally: counts the outcomes, before each call of `on_reply`.

    Raises:
      BudgetExceeded: a cap is reached and nothing is in flight that could leave room.
      UserError: the teacher failed for good, the first requests fail alike, it asks for a long
        wait, an open batch job has a request, or the ledger cannot be written. The message says
        how many are answered, and why most of the others are not.
    """
    work = _Work(
        *(teacher, ledger, requests, max(1, concurrency)),
        *(on_reply, attempts, pace or Pace(), optional, tally or Tally()),
    )
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()
    with ThreadPoolExecutor(1, "annotate") as thread:
        try:
            return thread.submit(work.run_on, runner).result()
        except UserError:
            raise
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # The error is of the loop, which has ended.
                loop.call_soon_threadsafe(work.stop.set)
            thread.shutdown()
            error.add_note(work.progress())
            raise


@dataclasses.dataclass
class _Work:
    """One call of `annotate`."""

    teacher: Teacher
    ledger: Ledger
    requests: Sequence[Request]
    concurrency: int
    on_reply: Callable[[int, int], None] | None
    attempts: int
    pace: Pace
    optional: bool
    tally: Tally
    outcomes: dict[str, Reply | Failure] = dataclasses.field(default_factory=dict)
    failure: BaseException | None = None

    def __post_init__(self):
        self.keys = [request.key for request in self.requests]
        self.copies = Counter(self.keys)
        self.waiting = deque(dict(zip(self.keys, self.requests)).values())
        self.stop = asyncio.Event()
        self.settling: set[asyncio.Task[None]] = set()
        self.answered = self.done = self.given_up_in_a_row = 0
        # Until the first reply: what was refused, and how many calls were lost.
        self.heard = False
        self.refusals: Counter[str] = Counter()
        self.lost = 0

    def run_on(self, runner: asyncio.Runner) -> list[Reply | Failure]:
        """Does everything on the runner's loop, and closes it."""
        with runner:
            runner.run(self._run())
        if self.failure:
            self._raise(self.failure)
        return [self.outcomes[key] for key in self.keys if key in self.outcomes]

    def progress(self) -> str:
        """Returns how far it came, for an error message."""
        failures = self.tally.failures()
        return (
            f"{self.answered} of {len(self.requests)} requests to {self.teacher.name} are answered "
            f"and kept{f' ({failures})' if failures else ''}; run the same command again to "
            "continue"
        )

    async def _run(self) -> None:
        """Keeps `concurrency` calls in flight until all is done, or `stop` is set."""
        with ThreadPoolExecutor(1, "ledger") as thread:
            self.reservations = Reservations(self.ledger, thread, self.stop)
            async with contextlib.aclosing(self.teacher):
                at_once = min(self.concurrency, len(self.waiting))
                await asyncio.gather(*[self._work() for _ in range(at_once)])
                await asyncio.gather(*self.settling)

    async def _work(self) -> None:
        try:
            while self.waiting and not self.stop.is_set():
                await self._ask(self.waiting.popleft())
        except Stopped:
            pass
        except BaseException as error:
            self._fail(error)

    async def _ask(self, request: Request) -> None:
        try:
            await retrying.while_it_may_pass(
                self._attempt, request, self.attempts, self._sleep, _log
            )
        except TeacherError as error:
            if error.trouble == "fatal":
                raise
            self._record(request, self._give_up(error))
        except BudgetExceeded as error:
            if not self.optional:
                raise
            self._record(request, Failure(f"not asked: {error}", "not_asked"))

    async def _attempt(self, request: Request) -> None:
        """Takes the stored reply, or makes the paid call."""
        estimate = self.teacher.estimate_input_tokens(request)
        most = estimate + request.max_output_tokens
        stored = await self._in_turn(request, estimate, most)
        if stored is not None:
            self.heard = True
            self._record(request, stored)
            return
        try:
            reply = await self.teacher.ask(request)
        except TeacherError as failure:
            error = retrying.bounded(failure)
            if error.trouble == "fatal":
                self._fail(error)
            unknown = failure.trouble == "unknown"
            await (self.reservations.abandon if unknown else self.reservations.release)(request)
            if unknown:
                self._lost(error)
            raise error from failure.__cause__
        except BaseException as error:
            await self._lose(request, error)
            raise
        self.heard = True
        self.pace.give_back(max(0, most - reply.input_tokens - reply.output_tokens))
        # Who asks goes on while this waits for the disk.
        written = self.reservations.settle(request, reply)
        settling = asyncio.create_task(self._settle(request, reply, written))
        self.settling.add(settling)
        settling.add_done_callback(self.settling.discard)

    async def _settle(self, request: Request, reply: Reply, written: Awaitable[None]) -> None:
        """Waits until a paid reply is on the ledger; only then is it an outcome."""
        try:
            await written
            self._record(request, reply)
        except BaseException as error:
            await self._lose(request, error)

    async def _lose(self, request: Request, error: BaseException) -> None:
        """Stops the run at an error that nobody foresaw; whether the call is billed is unknown."""
        self._fail(error)
        # (A full disk may refuse this too: then closing the ledger does the same.)
        with contextlib.suppress(UserError):
            await self.reservations.abandon(request)

    async def _in_turn(self, request: Request, estimate: int, most: int) -> Reply | None:
        """Reserves when the vendor's limits let the request be sent, or returns the reply."""
        stored = await self.reservations.reserve(request, estimate)
        if stored is not None:
            return stored
        if seconds := self.pace.take(most):
            # No reservation is held while waiting: a crash would count it as maybe billed.
            await self.reservations.release(request)
            await self._sleep(seconds)
            stored = await self.reservations.reserve(request, estimate)
            if stored is not None:
                self.pace.give_back(most, requests=1)
        return stored

    async def _sleep(self, seconds: float) -> None:
        await sleep(seconds, self.stop)

    def _record(self, request: Request, outcome: Reply | Failure) -> None:
        self.outcomes[request.key] = outcome
        self.tally.add(outcome, self.copies[request.key])
        self.done += self.copies[request.key]
        if isinstance(outcome, Reply):
            self.answered += self.copies[request.key]
            self.given_up_in_a_row = 0
        if self.on_reply:
            self.on_reply(self.done, len(self.requests))

    def _give_up(self, error: TeacherError) -> Failure:
        if error.trouble == "rejected":
            self.refusals[alike(str(error))] += 1
            count = self.refusals.total()
            if not self.heard and count >= _HOPELESS and len(self.refusals) == 1:
                raise UserError(f"the first {count} requests are refused alike: {error}")
            return Failure(str(error), "refused")
        self.given_up_in_a_row += 1
        if self.given_up_in_a_row >= _HOPELESS:
            raise UserError(
                f"{self.given_up_in_a_row} requests in a row had no answer after "
                f"{self.attempts} attempts each, the last of them: {error}"
            )
        return Failure(f"given up after {self.attempts} attempts: {error}")

    def _lost(self, error: TeacherError) -> None:
        """Stops a run whose first calls are all lost: each of them may be billed."""
        self.lost += 1
        if not self.heard and self.lost >= _HOPELESS:
            raise UserError(
                f"the first {self.lost} calls have no usable answer, and each may be billed; the "
                f"last of them: {error}"
            )

    def _fail(self, error: BaseException) -> None:
        """Stops new calls and retries; what they raise because of it hides no first error."""
        self.failure = self.failure or error
        self.stop.set()

    def _raise(self, error: BaseException) -> NoReturn:
        if isinstance(error, BudgetExceeded):
            raise BudgetExceeded(f"{error}; {self.progress()}") from error
        if isinstance(error, UserError):
            raise UserError(f"{error}; {self.progress()}") from error
        raise error
