"""Many callers, one writer: what they ask of the ledger at the same time shares one commit.

A commit waits for the disk. Were there one for each change, 64 callers would wait for 64 of them in
turn; so whatever has queued up during a commit goes into the next one (group commit, as in
DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from bridge_jax.teachers.ledger_file import code_of

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[Operation, "Future[Any] | asyncio.Future[Any]"]
_Outcome = tuple[Any, BaseException | None]

_MOMENT = 0.001  # seconds


class Writer:
    """The only thread that changes the file through `connection`.

    An operation is a function of the connection. What it has written before it raises is kept, so
    that its failure leaves the others of its transaction alone; an error of the database undoes
    them all, and each is called again alone.
    """

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Returns what `operation` returns, once what it wrote is on disk.

        Raises:
          sqlite3.Error: it is not on disk, and the file is as it was before.
          Exception: whatever the operation raises.
        """
        future: Future[T] = Future()
        self._put(operation, future)
        return future.result()

    def soon(self, operation: Callable[[sqlite3.Connection], T]) -> "asyncio.Future[T]":
        """Queues `operation`; the running event loop is told what `run` would return or raise.

        Operations are carried out in the order in which they were queued.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(operation, future)
        return future

    def close(self) -> None:
        """Ends the thread after what is queued; a second call does nothing."""
        with self._lock:
            if self._open:
                self._open = False
                self._queue.put(None)
        self._thread.join()

    def _put(self, operation: Operation, future: "Future[Any] | asyncio.Future[Any]") -> None:
        with self._lock:
            if not self._open:
                raise sqlite3.ProgrammingError("the ledger is closed")
            self._queue.put((operation, future))

    def _work(self) -> None:
        batch: list[_Waiting] = []
        while self._open or not self._queue.empty():
            if batch := self._next(len(batch) > 1):
                _tell(batch, self._commit([operation for operation, _ in batch]))

    def _next(self, wait: bool) -> list[_Waiting]:
        """Returns what is queued, after a moment for those who have just been answered.

        They come back within microseconds, but not before this thread: without the moment a commit
        would hold one change and the next one all the others. A single caller is never made to
        wait. (PostgreSQL's `commit_delay` is the same.)
        """
        batch = [self._queue.get()]
        if wait:
            time.sleep(_MOMENT)
        with contextlib.suppress(queue.Empty):
            while True:
                batch.append(self._queue.get_nowait())
        return [waiting for waiting in batch if waiting is not None]

    def _commit(self, operations: Sequence[Operation]) -> list[_Outcome]:
        """Returns (value, error) of each operation, once all that was written is on disk."""
        try:
            return self._transact(operations)
        except BaseException as error:
            # One of them may be too large for the disk: the others need not fail with it. (Nobody
            # gets a locked file, and each would wait for it in turn.)
            alone = isinstance(error, sqlite3.Error) and code_of(error) != sqlite3.SQLITE_BUSY
            if alone and len(operations) > 1:
                return [self._commit([operation])[0] for operation in operations]
            return [(None, error)] * len(operations)

    def _transact(self, operations: Sequence[Operation]) -> list[_Outcome]:
        """Returns (value, error) of each operation after one commit that holds them all."""
        outcomes: list[_Outcome] = []
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for operation in operations:
                try:
                    outcomes.append((operation(connection), None))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    outcomes.append((None, error))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return outcomes


def _tell(batch: Sequence[_Waiting], outcomes: Sequence[_Outcome]) -> None:
    """Gives the callers their outcomes. Waking an event loop takes time: one is woken once."""
    of_loops: dict[asyncio.AbstractEventLoop | None, list[tuple[Any, _Outcome]]] = {}
    for (_, future), outcome in zip(batch, outcomes):
        loop = future.get_loop() if isinstance(future, asyncio.Future) else None
        of_loops.setdefault(loop, []).append((future, outcome))
    for loop, answers in of_loops.items():
        if loop is None:
            _resolve(answers)
            continue
        with contextlib.suppress(RuntimeError):  # It is closed: nobody waits any more.
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: Sequence[tuple[Any, _Outcome]]) -> None:
    for future, (value, error) in answers:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
