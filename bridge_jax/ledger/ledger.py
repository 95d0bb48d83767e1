"""The ledger: what was asked, what it cost, and the caps that hold whatever happens.

One SQLite file, shared by the threads of a process and by any number of processes of one machine.
A row is a request. It is *reserved* at its highest possible cost before the call, and *settled*
with the answer and its actual cost after it. Where the call was cut off (the process died, the
connection broke), it is *unknown*: the vendor may have billed it, so it goes on counting at its
highest possible cost and stays listed, also when the same request is made again beside it.
No secrets are stored, only the words that were exchanged.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from bridge_jax.ledger import ledger_jobs, ledger_rows, owner
from bridge_jax.ledger.caps import BudgetExceeded as BudgetExceeded
from bridge_jax.ledger.caps import Caps, bill, total
from bridge_jax.ledger.caps import Spend as Spend
from bridge_jax.ledger.ledger_file import connect, connect_at_once, explained
from bridge_jax.ledger.ledger_jobs import Job
from bridge_jax.ledger.ledger_loop import LoopWriter
from bridge_jax.ledger.ledger_loop import Soon as Soon
from bridge_jax.ledger.ledger_operations import Operations
from bridge_jax.ledger.ledger_operations import RequestInBatchJob as RequestInBatchJob
from bridge_jax.ledger.ledger_operations import RequestInFlight as RequestInFlight
from bridge_jax.ledger.ledger_rows import Holder
from bridge_jax.ledger.ledger_writer import Writer
from bridge_jax.ledger.owner import Owner
from bridge_jax.ledger.prices import Prices, in_usd
from bridge_jax.teachers.protocol import Reply, Request

T = TypeVar("T")

_CUT_OFF = (
    "%s: %d requests were cut off when a process died; the vendor may have billed them, so they "
    "count towards the caps. launch.report --ledger lists them."
)
_log = logging.getLogger(__name__)


class Ledger:
    """The open ledger of a run; a context manager.

    Every method may be called from many threads, and returns when what it did is on disk; what is
    called at the same time shares a commit. Coroutines await `operations`, through `on_loop`. A
    forked child opens its own. On reopening, caps and prices may differ: what is settled keeps its
    cost, and counts.

    Several runs may share a file: the answers of all are free for each, and what a run pays
    counts towards its own caps alone.

    Args:
      path: the SQLite file; made if there is none, with its folders.
      queries_cap: requests of this run at most: settled, reserved and unknown together.
      usd_cap: US dollars of this run at most, likewise.
      prices: what requests made from now on cost.
      run: who pays, where runs share the file (`accounts.open_ledger` knows).
      local: the teacher runs in this process and bills nobody: a call that is cut off is
        forgotten, not counted.

    Raises:
      UserError: no ledger can be opened at `path`.
    """

    def __init__(
        self,
        path: str | Path,
        queries_cap: int,
        usd_cap: float,
        prices: Prices,
        run: str = "",
        local: bool = False,
    ):
        self.path = Path(path).absolute()
        self.run = run
        self._closing = threading.Lock()
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(self.path)
            try:
                owner.clear(self.path)
                self._owner = Owner(self.path)
            except BaseException:
                self._connection.close()
                raise
        self._pid = os.getpid()
        holder = Holder(self._owner.token, self._pid, run)
        self.operations = Operations(self.path, Caps(queries_cap, usd_cap), prices, holder, local)
        self._writer = Writer(self._connection)
        try:
            if count := self._do(lambda c: ledger_rows.sweep(c, self.path)):
                _log.warning(_CUT_OFF, self.path, count)
            self._writer.log.checkpoint()  # Nobody else writes through it yet.
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. What is still reserved becomes unknown, batch jobs excepted."""
        if os.getpid() != self._pid:
            return
        with self._closing, explained(self.path):
            self._owner.close()
            # If a full disk refuses this, the next opening does it. A second close finds it done.
            with contextlib.suppress(sqlite3.Error):
                self._writer.run(lambda c: ledger_rows.sweep(c, self.path))
            self._writer.close()
            self._writer.log.close()
            self._connection.close()

    def reserve(
        self, request: Request, input_tokens_estimate: int, batch: bool = False
    ) -> Reply | None:
        """Returns the stored reply, or reserves the request's highest possible cost.

        After None the caller makes the call, then `settle`s, `release`s or `abandon`s it; or it
        puts the request into a batch job, before which nothing of it may be sent.

        Args:
          request: its `max_output_tokens` are reserved.
          input_tokens_estimate: tokens to reserve for the input.
          batch: whether it goes into a batch job, at the price of those.

        Raises:
          BudgetExceeded: what counts towards a cap and this one together would exceed it.
          RequestInFlight: somebody alive has reserved the same request.
          RequestInBatchJob: an open batch job has.
        """
        return self._do(self.operations.reserve(request, input_tokens_estimate, batch))

    def settle(self, request: Request, reply: Reply) -> None:
        """Writes the answer and its actual cost; on return both are on disk.

        A cost above what was reserved is written all the same: paid is paid. From then on more is
        reserved for the model (`overruns`). Requests of a batch job may be settled by any process
        of the run; those that are settled already are left.

        Raises:
          UserError: it could not be written. The reservation still counts; settle again, or lose
            this answer.
          ValueError: this ledger holds no reservation for the request.
        """
        self._do(self.operations.settle(request, reply))

    def release(self, request: Request) -> None:
        """Takes back a reservation whose call failed and costs nothing."""
        self._do(self.operations.release(request))

    def abandon(self, request: Request) -> None:
        """Ends a reservation whose call has an unknown outcome: it stays listed, and counts."""
        self._do(self.operations.abandon(request))

    def begin_job(self, name: str, vendor: str, keys: Sequence[str]) -> None:
        """Hands reserved requests to a batch job that is about to be submitted.

        From now on they outlive their process, and any process of this run may settle, release or
        abandon them. `ledger_jobs` says what a job goes through, and a crash within.

        Args:
          name: new and unique, say a UUID.
          vendor: who gets the job.
          keys: of requests that this ledger has reserved.

        Raises:
          ValueError: the name is taken, or a request is not reserved.
        """
        job = Job(name, None, vendor, tuple(keys), time.time())
        self._do(lambda c: ledger_jobs.begin(c, job, self.run, self._owner.token))

    def record_job(self, name: str, job_id: str) -> None:
        """Writes the vendor's id of a submitted job; `name` is what `begin_job` called it.

        Raises:
          ValueError: there is no such open job, or it has another id.
        """
        self._do(lambda c: ledger_jobs.record(c, name, job_id, self.run))

    def open_jobs(self) -> list[Job]:
        """Returns the jobs of this run that are not closed, oldest first."""
        return self._do(lambda c: ledger_jobs.still_open(c, self.run))

    def close_job(self, name: str) -> int:
        """Closes a job, if it is open. Returns how many requests are now unknown.

        Those are what was neither settled nor released: nobody knows what they cost.
        """
        return self._do(lambda c: ledger_jobs.close(c, name, self.run))

    def spend(self, state: Literal["settled", "reserved", "unknown"] = "settled") -> Spend:
        """Returns what this run has settled, or has in flight or cut off at its highest cost."""
        return self._do(lambda c: total(c, self.run, state))

    def bill(self) -> dict[str, Any]:
        """Returns what this run has to pay, as JSON values.

        `queries`, `input_tokens`, `output_tokens` and `usd` of the answers; and if there are any,
        `no_answer` (by `Reply.finish`, among those paid), `unknown` (`queries`, and `usd` at most,
        beside those paid) and `of_others` (like the answers, of those that were taken from other
        runs since the ledger was opened, free for this one).
        """
        taken = list(self.operations.of_others.values())
        others = Spend(
            len(taken),
            sum(answer.reply.input_tokens for answer in taken),
            sum(answer.reply.output_tokens for answer in taken),
            in_usd(sum(answer.nanodollars for answer in taken)),
        )
        return self._do(lambda c: bill(c, self.run, others))

    def register(self, name: str) -> bool:
        """Writes down what people call this run; returns whether the ledger knew it before."""
        return self._do(lambda c: ledger_rows.register(c, self.run, name))

    @contextlib.contextmanager
    def on_loop(self) -> Iterator[Soon]:
        """Yields what waits for the `operations` without blocking the running event loop.

        It queues one, and returns what is to be awaited, at once or later. They are carried out in
        the order of these calls, unless the disk or another writer gets in the way. What the
        awaiting coroutine gets, or is raised, once it is on disk, is that of the method here which
        has the operation's name.
        """
        self._check_process()

        async def in_words(answer: Awaitable[Any]) -> Any:
            with explained(self.path):
                return await answer

        with explained(self.path):
            writer = LoopWriter(connect_at_once(self.path), self._writer)
        with contextlib.closing(writer):
            yield lambda operation: in_words(writer.soon(operation))

    def _do(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        self._check_process()
        with explained(self.path):
            return self._writer.run(operation)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self.path}: opened before a fork; open it again in this process")
