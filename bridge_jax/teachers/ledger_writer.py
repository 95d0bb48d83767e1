"""Many threads, one writer: what they ask of the ledger at the same time shares one commit.

A commit waits for the disk. Were there one for each change, 64 threads would wait for 64 of them in
turn; so whatever has queued up during a commit goes into the next one (group commit, as in
DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from bridge_jax.teachers.ledger_file import code_of

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[Operation, "Future[Any]"]


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
        with self._lock:
            if not self._open:
                raise sqlite3.ProgrammingError("the ledger is closed")
            self._queue.put((operation, future))
        return future.result()

    def close(self) -> None:
        """Ends the thread after what is queued; a second call does nothing."""
        with self._lock:
            if self._open:
                self._open = False
                self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        size = 1
        while self._open or not self._queue.empty():
            if batch := self._next(size):
                size = len(batch)
                self._commit(batch)

    def _next(self, expected: int) -> list[_Waiting]:
        """Returns what is queued, after a moment for those who have just been answered.

        They come back within microseconds, but not before this thread: without the moment a commit
        would hold one change and the next one all the others. A single caller is never made to
        wait. (PostgreSQL's `commit_delay` is the same.)
        """
        batch: list[_Waiting] = []
        deadline = None
        while len(batch) < expected or not self._queue.empty():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                waiting = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if waiting is None:
                break
            batch.append(waiting)
            deadline = deadline or time.monotonic() + _MOMENT
        return batch

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = self._transact([operation for operation, _ in batch])
        except sqlite3.Error as error:
            # One of them may be too large for the disk: the others need not fail with it. (Nobody
            # gets a locked file, and each would wait for it in turn.)
            if len(batch) > 1 and code_of(error) != sqlite3.SQLITE_BUSY:
                for waiting in batch:
                    self._commit([waiting])
            else:
                for _, future in batch:
                    future.set_exception(error)
            return
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), (value, error) in zip(batch, outcomes):
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _transact(self, operations: list[Operation]) -> list[tuple[Any, Exception | None]]:
        """Returns (value, error) of each operation after one commit that holds them all."""
        outcomes: list[tuple[Any, Exception | None]] = []
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
