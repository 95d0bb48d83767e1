"""Sends many requests to a teacher concurrently, each of them through the ledger.

One event loop makes all calls, in its own thread: an interrupt, which reaches only the main thread,
cannot fall between a reservation and its call. Only that loop changes the state kept here.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, Tally, TeacherReply, TeacherRequest, alike
from bridge_jax.ledger.reservations import Reservations, Stopped, sleep
from bridge_jax.teachers.protocol import Teacher, TeacherError

ATTEMPTS = 6
# The wait before a retry, unless the vendor asks for a longer one.
BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=60)
LONGEST_SECONDS = 600.0  # A vendor that asks for a longer wait ends the run.
_NOTED_SECONDS = 60.0  # The longest backoff: a longer wait comes from the vendor, and is a warning.
# After this many requests given up in a row, with no reply in between, the teacher is down. If this
# many requests are refused alike before the first reply, or this many calls are lost, the config is
# wrong.
_HOPELESS = 10

_log = logging.getLogger(__name__)


def annotate(
    teacher: Teacher,
    ledger: Ledger,
    requests: Sequence[TeacherRequest],
    concurrency: int,
    on_reply: Callable[[int, int], None] | None = None,
    attempts: int = ATTEMPTS,
    limits: "RateLimits | None" = None,
    optional: bool = False,
    tally: Tally | None = None,
) -> list[TeacherReply | Failure]:
    """Returns the reply to each request, or its failure, in order.

    Replies that the ledger already holds are free. Requests are started in order. A call that
    failed for a temporary reason is retried with jittered exponential backoff, or when the vendor
    says; if it is unknown whether the failed call is billed, its reservation keeps counting, and
    the retry gets its own. A request that is refused for good, or fails at every attempt, becomes a
    `Failure`. A request that does not fit the caps waits for those in flight, which may cost less
    than they reserve. The first fatal error, or an interrupt (Ctrl-C), stops new calls; those in
    flight are settled before it is raised.

    Args:
      teacher: answers the requests.
      ledger: pays for them.
      requests: the requests; equal ones are asked once.
      concurrency: the most calls in flight.
      on_reply: called with (requests done, requests in all), one call at a time, from a thread that
        is not the caller's.
      attempts: the most calls per request.
      limits: the vendor's rate limits; None for none.
      optional: whether a request that no longer fits the caps is a `Failure` instead of an error.
      tally: counts the outcomes; updated before each call of `on_reply`.

    Raises:
      BudgetExceeded: a cap is reached and nothing is in flight that could free room.
      UserError: the teacher failed for good, the first requests fail alike, the vendor asks for a
        long wait, an open batch job has a request, or the ledger cannot be written. The message
        says how many requests are answered, and the most common reason why others are not.
    """
    outcomes = Outcomes(requests, on_reply, tally or Tally())
    work = _Work(
        teacher, ledger, outcomes, max(1, concurrency), attempts, limits or RateLimits(), optional
    )
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()
    with ThreadPoolExecutor(1, "annotate") as thread:
        try:
            return thread.submit(work.run_on, runner).result()
        except UserError:
            raise
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # The loop is closed if the error is its own.
                loop.call_soon_threadsafe(work.stop.set)
            thread.shutdown()
            error.add_note(work.progress())
            raise


class Outcomes:
    """Collects the replies and failures of a list of requests, some of which may be equal.

    Args:
      requests: the requests, in the order that `in_order` returns.
      on_reply: called with (requests done, requests in all) by `report`.
      tally: counts the outcomes.

    Attributes:
      requests: the requests by key, without duplicates.
      answered: number of requests with a reply, duplicates included.
    """

    def __init__(
        self,
        requests: Sequence[TeacherRequest],
        on_reply: Callable[[int, int], None] | None,
        tally: Tally,
    ):
        self._keys = [request.key for request in requests]
        self._copies = Counter(self._keys)
        self._on_reply, self.tally = on_reply, tally
        self._found: dict[str, TeacherReply | Failure] = {}
        self.requests = dict(zip(self._keys, requests))
        self.done = self.answered = 0

    def record(self, key: str, outcome: TeacherReply | Failure) -> None:
        """Adds an outcome; it is not counted if its request is not in the list."""
        if key in self.requests and key not in self._found:
            self.tally.add(outcome, self._copies[key])
            self.done += self._copies[key]
            self.answered += self._copies[key] * isinstance(outcome, TeacherReply)
        self._found[key] = outcome

    def report(self, in_jobs: int = 0) -> None:
        """Calls `on_reply`; also counts requests done in batch jobs that are not collected yet."""
        if self._on_reply:
            self._on_reply(self.done + in_jobs, len(self._keys))

    def missing(self) -> list[str]:
        """Returns the keys of requests without an outcome, in order."""
        return [key for key in self.requests if key not in self._found]

    def in_order(self) -> list[TeacherReply | Failure]:
        """Returns the outcomes in the order of the requests."""
        return [self._found[key] for key in self._keys if key in self._found]

    def progress(self, teacher: str) -> str:
        """Describes the progress of the run, for an error message."""
        failures = self.tally.failures()
        return (
            f"{self.answered} of {len(self._keys)} requests to {teacher} are answered and "
            f"kept{f' ({failures})' if failures else ''}; run the same command again to continue"
        )


class RateLimits:
    """Spaces requests evenly, to stay within a vendor's limits per minute.

    The vendors' limits are token buckets that refill continuously. Taking from them without bursts
    keeps every minute, wherever it begins, within the limits.

    Args:
      requests_per_minute, tokens_per_minute: the limits; 0 is no limit.
      clock: returns monotonic time in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self._per_second = (requests_per_minute / 60, tokens_per_minute / 60)
        self._free_at = [clock(), clock()]

    def take(self, tokens: int) -> float:
        """Books the next slot for a request of at most `tokens`; returns the seconds until then."""
        now = self._clock()
        limited = [i for i, rate in enumerate(self._per_second) if rate]
        start = max([now] + [self._free_at[i] for i in limited])
        for i in limited:
            self._free_at[i] = start + (1, tokens)[i] / self._per_second[i]
        return start - now

    def give_back(self, tokens: int, requests: int = 0) -> None:
        """Gives back tokens and requests that were booked and not used."""
        for i, amount in enumerate((requests, tokens)):
            if self._per_second[i]:
                self._free_at[i] -= amount / self._per_second[i]


def seconds_to_wait(state: tenacity.RetryCallState) -> float:
    """Returns the seconds until the next attempt: a backoff, or the vendor's wait if longer."""
    error = state.outcome and state.outcome.exception()
    return max(BACKOFF(state), getattr(error, "retry_after", 0.0))


def _log_wait(state: tenacity.RetryCallState) -> None:
    """Logs a wait before a retry, as a warning if it exceeds a minute."""
    seconds = state.next_action.sleep if state.next_action else 0.0
    level = logging.INFO if seconds <= _NOTED_SECONDS else logging.WARNING
    error = state.outcome and state.outcome.exception()
    _log.log(level, "%s; trying again in %.0f s", error, seconds)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, TeacherError) and error.trouble in ("transient", "unknown")


def _bounded(error: TeacherError) -> TeacherError:
    """Returns the error, or a fatal one if the vendor asks for a longer wait than we accept."""
    if not _may_pass(error) or error.retry_after <= LONGEST_SECONDS:
        return error
    wait = datetime.timedelta(seconds=min(round(error.retry_after), 10**9))
    when = datetime.datetime.now(datetime.UTC) + wait
    return TeacherError(
        f"{error}; it asks to retry in {wait}, at {when:%Y-%m-%d %H:%M} UTC: run the same command "
        "again then",
        "fatal",
    )


@dataclasses.dataclass
class _Work:
    """One call of `annotate`."""

    teacher: Teacher
    ledger: Ledger
    outcomes: Outcomes
    concurrency: int
    attempts: int
    limits: RateLimits
    optional: bool
    failure: BaseException | None = None

    def __post_init__(self):
        self.waiting = deque(self.outcomes.requests.values())
        self.stop = asyncio.Event()
        self.settling: set[asyncio.Task[None]] = set()
        self.given_up_in_a_row = 0
        # Whether there was a reply; the refusals, by `alike` of the message, and the number of lost
        # calls matter only until then.
        self.heard = False
        self.refusals: Counter[str] = Counter()
        self.lost = 0

    def run_on(self, runner: asyncio.Runner) -> list[TeacherReply | Failure]:
        """Does all work on the runner's loop, and closes it."""
        with runner:
            runner.run(self._run())
        if isinstance(self.failure, UserError):
            kind = BudgetExceeded if isinstance(self.failure, BudgetExceeded) else UserError
            raise kind(f"{self.failure}; {self.progress()}") from self.failure
        if self.failure:
            raise self.failure
        return self.outcomes.in_order()

    def progress(self) -> str:
        """Describes the progress of the run, for an error message."""
        return self.outcomes.progress(self.teacher.name)

    async def _run(self) -> None:
        """Keeps up to `concurrency` calls in flight until all are done or `stop` is set."""
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

    async def _ask(self, request: TeacherRequest) -> None:
        try:
            await self._try(request)
        except TeacherError as error:
            if error.trouble == "fatal":
                raise
            self._record(request, self._give_up(error))
        except BudgetExceeded as error:
            if not self.optional:
                raise
            self._record(request, Failure(f"not asked: {error}", "not_asked"))

    async def _try(self, request: TeacherRequest) -> None:
        """Makes attempts while the error may be temporary; raises the error of the last one."""
        # tenacity takes a tenth of the CPU time of a call, so only failures go through it.
        try:
            return await self._attempt(request)
        except TeacherError as error:
            failed = [error]

        async def again() -> None:
            if failed:
                raise failed.pop()
            await self._attempt(request)

        await tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=seconds_to_wait,
            sleep=self._sleep,
            before_sleep=_log_wait,
            reraise=True,
        )(again)

    async def _attempt(self, request: TeacherRequest) -> None:
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
            error = _bounded(failure)
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
        self.limits.give_back(max(0, most - reply.input_tokens - reply.output_tokens))
        # The worker starts the next request while this reply is written to disk.
        written = self.reservations.settle(request, reply)
        settling = asyncio.create_task(self._settle(request, reply, written))
        self.settling.add(settling)
        settling.add_done_callback(self.settling.discard)

    async def _settle(
        self, request: TeacherRequest, reply: TeacherReply, written: Awaitable[None]
    ) -> None:
        """Waits until a paid reply is on the ledger; only then is it an outcome."""
        try:
            await written
            self._record(request, reply)
        except BaseException as error:
            await self._lose(request, error)

    async def _lose(self, request: TeacherRequest, error: BaseException) -> None:
        """Stops the run on an unexpected error; whether the call is billed is unknown."""
        self._fail(error)
        # (This may fail too, on a full disk; closing the ledger then has the same effect.)
        with contextlib.suppress(UserError):
            await self.reservations.abandon(request)

    async def _in_turn(
        self, request: TeacherRequest, estimate: int, most: int
    ) -> TeacherReply | None:
        """Reserves the request once the rate limits allow the call, or returns the stored reply."""
        stored = await self.reservations.reserve(request, estimate)
        if stored is not None:
            return stored
        if seconds := self.limits.take(most):
            # No reservation is held while waiting: after a crash it would count as possibly billed.
            await self.reservations.release(request)
            await self._sleep(seconds)
            stored = await self.reservations.reserve(request, estimate)
            if stored is not None:
                self.limits.give_back(most, requests=1)
        return stored

    async def _sleep(self, seconds: float) -> None:
        await sleep(seconds, self.stop)

    def _record(self, request: TeacherRequest, outcome: TeacherReply | Failure) -> None:
        if isinstance(outcome, TeacherReply):
            self.given_up_in_a_row = 0
        self.outcomes.record(request.key, outcome)
        self.outcomes.report()

    def _give_up(self, error: TeacherError) -> Failure:
        if error.trouble == "rejected":
            self.refusals[alike(str(error))] += 1
            count = self.refusals.total()
            if not self.heard and count >= _HOPELESS and len(self.refusals) == 1:
                raise UserError(
                    f"the first {count} requests were all refused for the same reason: {error}"
                )
            return Failure(str(error), "refused")
        self.given_up_in_a_row += 1
        if self.given_up_in_a_row >= _HOPELESS:
            raise UserError(
                f"{self.given_up_in_a_row} requests in a row had no answer after "
                f"{self.attempts} attempts each; the last error: {error}"
            )
        return Failure(f"given up after {self.attempts} attempts: {error}")

    def _lost(self, error: TeacherError) -> None:
        """Counts a lost call; stops a run whose first calls are all lost, as each may be billed."""
        self.lost += 1
        if not self.heard and self.lost >= _HOPELESS:
            raise UserError(
                f"the first {self.lost} calls had no usable answer, and each may be billed; the "
                f"last error: {error}"
            )

    def _fail(self, error: BaseException) -> None:
        """Stops new calls and retries, and keeps the first error to raise it later."""
        self.failure = self.failure or error
        self.stop.set()
