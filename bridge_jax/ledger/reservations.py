"""Gives coroutines access to the ledger: they can await the disk and room under the caps."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeVar

from bridge_jax.ledger.ledger import Ledger, RequestInBatchJob, RequestInFlight
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import TeacherReply, TeacherRequest

T = TypeVar("T")

_POLL_SECONDS = 0.1


class Stopped(Exception):  # noqa: N818
    """The run is stopping, so no further attempt is made."""


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Waits for `seconds`; raises `Stopped` as soon as `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
        raise Stopped


class Reservations:
    """A ledger for the coroutines of one event loop.

    Writes happen in the order in which the methods are called, not the order in which they are
    awaited. A settlement that shows an overrun is thus written before the next reservation.

    Args:
      ledger: the ledger to write to.
      thread: an executor with a single thread, which does the writing.
      stop: set when the run is stopping.
    """

    def __init__(self, ledger: Ledger, thread: Executor, stop: asyncio.Event):
        self._ledger, self._thread, self._stop = ledger, thread, stop
        self._held = self._ended = 0  # Reservations still being written count as held.

    async def reserve(
        self, request: TeacherRequest, input_tokens_estimate: int
    ) -> TeacherReply | None:
        """Calls `Ledger.reserve`; waits while other reservations of ours may still free room.

        Raises:
          BudgetExceeded: there is no room, and no reservation of ours that could free any.
          RequestInBatchJob: an open batch job has the request.
          Stopped: the run is stopping.
        """
        while not self._stop.is_set():
            ended = self._ended
            self._held += 1
            try:
                reply = await self._write(self._ledger.reserve, request, input_tokens_estimate)
            except RequestInBatchJob:
                raise
            except (RequestInFlight, BudgetExceeded) as refusal:
                self._held -= 1
                room_may_come = self._held or self._ended != ended
                if isinstance(refusal, BudgetExceeded) and not room_may_come:
                    raise
            else:
                self._held -= reply is not None
                return reply
            await sleep(_POLL_SECONDS, self._stop)
        raise Stopped

    def settle(self, request: TeacherRequest, reply: TeacherReply) -> Awaitable[None]:
        """Calls `Ledger.settle`."""
        return self._end(self._write(self._ledger.settle, request, reply))

    def release(self, request: TeacherRequest) -> Awaitable[None]:
        """Calls `Ledger.release`."""
        return self._end(self._write(self._ledger.release, request))

    def abandon(self, request: TeacherRequest) -> Awaitable[None]:
        """Calls `Ledger.abandon`."""
        return self._end(self._write(self._ledger.abandon, request))

    def _write(self, method: Callable[..., T], *what: object) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._thread, method, *what)

    async def _end(self, written: Awaitable[None]) -> None:
        await written
        self._held -= 1
        self._ended += 1
