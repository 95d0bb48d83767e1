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

from bridge_jax.ledger.ledger_file import code_of
from bridge_jax.ledger.ledger_wal import Log

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
Waiting = tuple[Operation, "Future[Any] | asyncio.Future[Any]"]
Outcome = tuple[Any, BaseException | None]

MOMENT = 0.001  # seconds


class Writer:
    """The only thread that changes the file through `connection`.

    An operation is a function of the connection. What it has written before it raises is kept, so
    that its failure leaves the others of its transaction alone; an error of the database undoes
    them all, and each is called again alone.

    Attributes:
      log: of the ledger; only while nobody calls.
    """

    def __init__(self, connection: sqlite3.Connection):
        self._connection, self.log = connection, Log(connection)
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
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
        self.put([(operation, future)])
        return future.result()

    def put(self, batch: Sequence[Waiting]) -> None:
        """Queues operations, and tells their futures; those of an event loop in that loop."""
        with self._lock:
            if self._open:
                for waiting in batch:
                    self._queue.put(waiting)
                return
        closed = sqlite3.ProgrammingError("the ledger is closed")
        _tell(batch, [(None, closed)] * len(batch))

    def close(self) -> None:
        """Ends the thread after what is queued; a second call does nothing."""
        with self._lock:
            if self._open:
                self._open = False
                self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        batch: list[Waiting] = []
        while self._open or not self._queue.empty():
            if batch := self._next(len(batch) > 1):
                _tell(batch, self._commit([operation for operation, _ in batch]))

    def _next(self, wait: bool) -> list[Waiting]:
        """Returns what is queued, after a moment for those who have just been answered.

        They come back within microseconds, but not before this thread: without the moment a commit
        would hold one change and the next one all the others. A single caller is never made to
        wait. (PostgreSQL's `commit_delay` is the same.)
        """
        batch = [self._queue.get()]
        if wait:
            time.sleep(MOMENT)
        with contextlib.suppress(queue.Empty):
            while True:
                batch.append(self._queue.get_nowait())
        return [waiting for waiting in batch if waiting is not None]

    def _commit(self, operations: Sequence[Operation]) -> list[Outcome]:
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

    def _transact(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Returns (value, error) of each operation after one commit that holds them all."""
        try:
            outcomes = carry_out(self._connection, operations)
            self.log.commit()
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return outcomes


def carry_out(connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Outcome]:
    """Returns (value, error) of each operation, in a transaction that is to be committed."""
    outcomes: list[Outcome] = []
    connection.execute("BEGIN IMMEDIATE")
    for operation in operations:
        try:
            outcomes.append((operation(connection), None))
        except sqlite3.Error:
            raise
        except Exception as error:
            outcomes.append((None, error))
    return outcomes


def _tell(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    """Gives the callers their outcomes. Waking an event loop takes time: one is woken once."""
    of_loops: dict[asyncio.AbstractEventLoop | None, list[tuple[Any, Outcome]]] = {}
    for (_, future), outcome in zip(batch, outcomes):
        loop = future.get_loop() if isinstance(future, asyncio.Future) else None
        of_loops.setdefault(loop, []).append((future, outcome))
    for loop, answers in of_loops.items():
        if loop is None:
            resolve(answers)
            continue
        with contextlib.suppress(RuntimeError):  # It is closed: nobody waits any more.
            loop.call_soon_threadsafe(resolve, answers)


def resolve(answers: Sequence[tuple[Any, Outcome]]) -> None:
    """Gives futures their outcomes."""
    for future, (value, error) in answers:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
