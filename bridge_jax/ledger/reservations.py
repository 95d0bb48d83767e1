"""The ledger as the coroutines of one event loop use it: they wait for room, and for the disk."""

import asyncio
import contextlib
from collections.abc import Awaitable

from bridge_jax.ledger.ledger import BudgetExceeded, RequestInBatchJob, RequestInFlight, Soon
from bridge_jax.ledger.ledger_operations import Operations
from bridge_jax.teachers.protocol import Reply, Request

_POLL_SECONDS = 0.1


class Stopped(Exception):  # noqa: N818
    """The run is stopping: what was about to be tried is not."""


async def sleep(seconds: float, stop: asyncio.Event) -> None:
    """Waits; raises `Stopped` as soon as the run is."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
        raise Stopped


class Reservations:
    """Makes and ends reservations.

    What is called first is written first, whatever is awaited when.

    Args:
      operations: of the ledger.
      soon: what waits for them (`Ledger.on_loop`).
      stop: set when the run is stopping.
    """

    def __init__(self, operations: Operations, soon: Soon, stop: asyncio.Event):
        self._operations, self._soon, self._stop = operations, soon, stop
        self._held = self._ended = 0  # Those that are only about to be made are held too.
        self._room = asyncio.Event()

    async def reserve(self, request: Request, input_tokens_estimate: int) -> Reply | None:
        """Does what `Ledger.reserve` does; waits while others of ours may leave room for it.

        Raises:
          BudgetExceeded: none of ours is held that could.
          RequestInBatchJob: an open batch job has the request.
          Stopped: the run is stopping.
        """
        while not self._stop.is_set():
            ended = self._ended
            self._held += 1
            try:
                reserving = self._operations.reserve(request, input_tokens_estimate)
                stored = await self._soon(reserving)
            except RequestInBatchJob:
                raise
            except (RequestInFlight, BudgetExceeded) as refusal:
                self._held -= 1
                room_may_come = self._held or self._ended != ended
                if isinstance(refusal, BudgetExceeded) and not room_may_come:
                    raise
            else:
                self._held -= stored is not None
                return stored
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _POLL_SECONDS)
        raise Stopped

    def settle(self, request: Request, reply: Reply) -> Awaitable[None]:
        """Does what `Ledger.settle` does."""
        return self._end(self._soon(self._operations.settle(request, reply)))

    def release(self, request: Request) -> Awaitable[None]:
        """Does what `Ledger.release` does."""
        return self._end(self._soon(self._operations.release(request)))

    def abandon(self, request: Request) -> Awaitable[None]:
        """Does what `Ledger.abandon` does."""
        return self._end(self._soon(self._operations.abandon(request)))

    async def _end(self, written: Awaitable[None]) -> None:
        await written
        self._held -= 1
        self._ended += 1
        self._room.set()
