"""The ledger's writer for an event loop: the loop carries out, and a thread waits for the disk.

A thread that did both would wait for Python's lock after every statement, since a busy loop rarely
gives it up. What cannot be written here at once (somebody else is writing, the disk is full) is
left to the other writer, which waits, or says why, without holding up the loop.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bridge_jax.ledger.ledger_wal import Log
from bridge_jax.ledger.ledger_writer import MOMENT, Operation, Waiting, Writer, carry_out, resolve

T = TypeVar("T")
Soon = Callable[[Operation], Awaitable[Any]]  # From an operation to what it returns.


class LoopWriter:
    """Writes what the coroutines of one event loop ask for at the same time, with one commit.

    Args:
      connection: its own, which waits for nobody (`ledger_file.connect_at_once`).
      other: for what cannot be written at once.
    """

    def __init__(self, connection: sqlite3.Connection, other: Writer):
        self._connection, self._log, self._other = connection, Log(connection), other
        self._disk = ThreadPoolExecutor(1, "ledger's disk")
        self._waiting: list[Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def soon(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queues `operation`, and returns the future of what `Writer.run` does.

        Unless the other writer has to step in, operations are carried out in the order of these
        calls.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append((operation, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        return future

    def close(self) -> None:
        """Closes the connection."""
        self._disk.shutdown()
        self._connection.close()

    async def _work(self) -> None:
        loop, batch = asyncio.get_running_loop(), []
        while self._waiting:
            if len(batch) > 1:
                await asyncio.sleep(MOMENT)
            batch, self._waiting = self._waiting, []
            try:
                outcomes = carry_out(self._connection, [operation for operation, _ in batch])
                await loop.run_in_executor(self._disk, self._log.commit)
            except Exception:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.rollback()
                self._other.put(batch)
            else:
                resolve([(future, outcome) for (_, future), outcome in zip(batch, outcomes)])
