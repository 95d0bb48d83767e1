"""Records requests with their replies and costs, and enforces caps, even across crashes.

The ledger is one SQLite file, shared by the threads of a process and by any number of processes on
one machine. Each row is a request. It is *reserved* at its highest possible cost before the call,
and *settled* with the answer and the actual cost afterwards. If the call was cut off (the process
died, the connection broke), the request is *unknown*: the vendor may have billed it, so it keeps
counting at its highest possible cost and stays listed, even when the same request is made again.
No secrets are stored, only the messages that were exchanged.

**Batch jobs** are reservations that outlive their process, because the vendor keeps working. A
crash between submitting a job and recording its id must not lose answers that are paid for. So:

1. `reserve(..., batch=True)` each request. Nothing is sent: a crash here voids the reservations.
2. `begin_job` under a new name of ours, which is submitted to the vendor along with the job.
3. Submit the job, then `record_job` the vendor's id.
4. On every start, call `open_jobs`. A job without an id was cut off in step 3. If the vendor has a
   job of that name, `record_job`. If not, it was never submitted: `release` its requests and
   `close_job`.
5. When the vendor has finished the job, `settle` the requests that it answered, `release` those
   that it says it has not billed, and `close_job`: requests that are still waiting become unknown.
"""

import contextlib
import dataclasses
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from bridge_jax.errors import UserError
from bridge_jax.ledger.database import Database, Owner, clear_owners, explained, is_alive
from bridge_jax.ledger.prices import (
    MAX_PERMILLE,
    PERMILLE,
    BudgetExceeded,
    Prices,
    Spend,
    cap_in_nanodollars,
    in_usd,
    overrun_in_words,
    worst_case,
)
from bridge_jax.ledger.requests import TeacherReply, TeacherRequest

# A held request is reserved by this process, or in a batch job of this run. It is looked up by key
# with exactly the condition of the index `requests_by_key`; otherwise SQLite would read every
# reserved row.
_ALIVE = "key = :key AND state != 'unknown'"
_HELD = f"{_ALIVE} AND state = 'reserved' AND (owner = :owner OR (job IS NOT NULL AND run = :run))"
_STORED = "reply, input_tokens, output_tokens, finish, run, nanodollars"

_log = logging.getLogger(__name__)


class RequestInFlight(UserError):  # noqa: N818
    """Another thread, process or batch job is answering the same request."""


class RequestInBatchJob(RequestInFlight):
    """An open batch job has the request: the answer arrives only when that job is collected."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """The reply to a settled request, the run that paid for it, and its cost."""

    reply: TeacherReply
    run: str
    nanodollars: int


@dataclasses.dataclass(frozen=True)
class BatchJob:
    """A batch job of a run that has not been closed.

    Attributes:
      name: our name for the job, unique; the vendor stores it with the job (metadata, display
        name).
      id: the vendor's id. None: the process died while submitting the job, or is still submitting
        it; ask the vendor whether it has a job of that name.
      vendor: the vendor that works on the job.
      waiting: its requests that have no answer yet, as they were made: the config may have changed
        since then, but their answers are paid for all the same.
    """

    name: str
    id: str | None
    vendor: str
    waiting: tuple[TeacherRequest, ...] = ()


class Ledger:
    """The open ledger of a run; a context manager.

    Each method is one transaction, which is on disk when the method returns. Methods may be called
    from many threads; coroutines use `Reservations` instead. A forked child must open its own
    ledger. A ledger may be reopened with other caps and prices: settled requests keep their cost,
    which still counts.

    Several runs may share a file: an answer that one run paid for is free for all others, and a
    run's payments count towards its own caps only.

    Args:
      path: the SQLite file; it is created, with its folders, if there is none.
      queries_cap: the most requests of this run: settled, reserved and unknown together.
      usd_cap: the most US dollars of this run, for the same requests.
      prices: the price list for requests made from now on.
      run: id of the run that pays, if runs share the file (see `accounts.open_ledger`).
      local: whether the teacher runs in this process, so that no vendor bills its calls: a call
        that is cut off is then deleted instead of counted.

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
        self._queries_cap, self._usd_cap = queries_cap, usd_cap
        self._prices, self._local = prices, local
        self._of_others: dict[str, Stored] = {}  # Answers found here that others paid for, by key.
        self._pid = os.getpid()
        with explained(self.path), contextlib.ExitStack() as undo:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = undo.enter_context(contextlib.closing(Database(self.path)))
            clear_owners(self.path)
            self._owner = undo.enter_context(contextlib.closing(Owner(self.path)))
            with self._transaction() as connection:
                count = self._sweep(connection)
            undo.pop_all()
        if count:
            _log.warning(
                "%s: %d requests were cut off when a process died; the vendor may have billed "
                "them, so they count towards the caps. launch.report --ledger lists them.",
                self.path,
                count,
            )

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Open reservations become unknown, except those in batch jobs."""
        if os.getpid() != self._pid:
            return
        with explained(self.path):
            self._owner.close()
            # If this fails on a full disk, the next opening does it. A second `close` has nothing
            # to do: the database is closed.
            with (
                contextlib.suppress(UserError, sqlite3.ProgrammingError),
                self._transaction() as connection,
            ):
                self._sweep(connection)
            self._database.close()

    def reserve(
        self, request: TeacherRequest, input_tokens_estimate: int, batch: bool = False
    ) -> TeacherReply | None:
        """Returns the stored reply, or reserves the request's highest possible cost.

        If it returns None, the caller makes the call and then `settle`s, `release`s or `abandon`s
        the request; or it puts the request into a batch job, and sends nothing before `begin_job`.

        Args:
          request: the request; its `max_output_tokens` are reserved.
          input_tokens_estimate: tokens to reserve for the input.
          batch: whether the request goes into a batch job, at the vendor's batch price.

        Raises:
          BudgetExceeded: this request would exceed a cap, given what already counts towards it.
          RequestInFlight: a live process, this one included, has reserved the same request.
          RequestInBatchJob: an open batch job has the same request.
        """
        listed = self._prices.cost(input_tokens_estimate, request.max_output_tokens, batch)
        with self._transaction() as connection:
            stored = self._find(connection, request)
            if stored is not None:
                if stored.run != self.run:
                    self._of_others[request.key] = stored
                return stored.reply
            row = {
                "key": request.key,
                "state": "reserved",
                "run": self.run,
                "model": request.model,
                "example_id": request.example_id,
                "request": request.to_json(),
                "input_tokens": input_tokens_estimate,
                "output_tokens": request.max_output_tokens,
                "nanodollars": self._cost_to_reserve(connection, request.model, listed),
                "batch": batch,
                "sent": not (batch or self._local),
                "owner": self._owner.token,
                "pid": self._pid,
                "reserved_at": time.time(),
            }
            names = ", ".join(row)
            values = ", ".join(f":{name}" for name in row)
            connection.execute(f"INSERT INTO requests ({names}) VALUES ({values})", row)
        return None

    def settle(self, request: TeacherRequest, reply: TeacherReply) -> None:
        """Writes the answer and its actual cost; on return both are on disk.

        A cost above the reservation is still recorded, since it is already paid. From then on more
        is reserved for the model (see `prices`). Requests of a batch job may be settled by any
        process of the run; those that are settled already are left unchanged.

        Raises:
          UserError: the answer could not be written. The reservation still counts; settle again, or
            this answer is lost.
          ValueError: this ledger holds no reservation for the request.
        """
        with self._transaction() as connection:
            held = connection.execute(
                f"SELECT input_tokens, output_tokens, batch FROM requests WHERE {_HELD}",
                self._held(request),
            ).fetchone()
            if held is None:
                collected = connection.execute(
                    f"SELECT 1 FROM requests WHERE {_ALIVE} AND state = 'settled'"
                    " AND job IS NOT NULL AND run = :run",
                    self._held(request),
                ).fetchone()
                if not collected:
                    raise ValueError(f"settled without a reservation: {request.example_id!r}")
                return
            most = self._prices.cost(*held)
            cost = self._prices.cost(reply.input_tokens, reply.output_tokens, held[2])
            settled = self._held(request) | {
                "reply": json.dumps(reply.text),
                "finish": reply.finish,
                "input_tokens": reply.input_tokens,
                "output_tokens": reply.output_tokens,
                "nanodollars": cost,
                "settled_at": time.time(),
            }
            connection.execute(
                "UPDATE requests SET state = 'settled', reply = :reply, finish = :finish,"
                " input_tokens = :input_tokens, output_tokens = :output_tokens,"
                f" nanodollars = :nanodollars, settled_at = :settled_at WHERE {_HELD}",
                settled,
            )
            permille = min(-(-cost * PERMILLE // max(1, most)), MAX_PERMILLE)
            if cost > most and permille > _permille(connection, request.model):
                self._note_overrun(connection, request.model, permille)
                _log.warning(
                    "%s billed %.6f US dollars for a request that reserved %.6f (%d input and %d "
                    "output tokens, where %d and %d were expected at most): from now on %.2f times "
                    "as much is reserved for each, and the run stops when a cap does not allow it",
                    request.model,
                    in_usd(cost),
                    in_usd(most),
                    reply.input_tokens,
                    reply.output_tokens,
                    held[0],
                    held[1],
                    permille / PERMILLE,
                )

    def release(self, request: TeacherRequest) -> None:
        """Deletes a reservation whose call failed and costs nothing."""
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM requests WHERE {_HELD}", self._held(request))

    def abandon(self, request: TeacherRequest) -> None:
        """Makes a reservation unknown: its call may be billed, so it stays listed and counts."""
        with self._transaction() as connection:
            _cut_off(connection, _HELD, self._held(request))

    def begin_job(self, name: str, vendor: str, keys: Sequence[str]) -> None:
        """Assigns reserved requests to a batch job that is about to be submitted.

        From now on the reservations outlive their process, and any process of this run may settle,
        release or abandon them.

        Args:
          name: a new, unique name, such as a UUID.
          vendor: the vendor that gets the job.
          keys: the keys of requests that this ledger has reserved.

        Raises:
          ValueError: the name is taken, or a request is not reserved.
        """
        with self._transaction() as connection:
            begun = connection.execute(
                "INSERT OR IGNORE INTO jobs VALUES (?, NULL, ?, ?, ?, NULL)",
                (name, vendor, self.run, time.time()),
            ).rowcount
            if not begun:
                raise ValueError(f"a batch job {name!r} is on the ledger already")
            handed = connection.executemany(
                f"UPDATE requests SET job = :job, sent = 1 WHERE {_ALIVE} AND state = 'reserved'"
                " AND owner = :owner AND job IS NULL",
                [{"job": name, "key": key, "owner": self._owner.token} for key in keys],
            ).rowcount
            if handed != len(keys):
                raise ValueError(
                    f"batch job {name!r}: {len(keys) - handed} requests without a reservation"
                )

    def record_job(self, name: str, job_id: str) -> None:
        """Records the vendor's id of a submitted job; recording the same id again does nothing.

        Args:
          name: the name that was passed to `begin_job`.
          job_id: the vendor's id.

        Raises:
          ValueError: this run has no open job of that name, or the job has another id.
        """
        with self._transaction() as connection:
            recorded = connection.execute(
                "UPDATE jobs SET id = ? WHERE name = ? AND run = ? AND closed_at IS NULL"
                " AND ifnull(id, ?) = ?",
                (job_id, name, self.run, job_id, job_id),
            ).rowcount
        if not recorded:
            raise ValueError(f"batch job {name!r} is not open, or has another id than {job_id!r}")

    def open_jobs(self) -> list[BatchJob]:
        """Returns the jobs of this run that are not closed, oldest first."""
        with self._transaction() as connection:
            jobs = connection.execute(
                "SELECT name, id, vendor FROM jobs WHERE run = ? AND closed_at IS NULL"
                " ORDER BY begun_at, name",
                (self.run,),
            ).fetchall()
            found = []
            for name, job_id, vendor in jobs:
                waiting = connection.execute(
                    "SELECT example_id, request FROM requests"
                    " WHERE job = ? AND state = 'reserved' ORDER BY id",
                    (name,),
                )
                requests = tuple(TeacherRequest.from_json(*row) for row in waiting)
                found.append(BatchJob(name, job_id, vendor, requests))
        return found

    def close_job(self, name: str) -> int:
        """Closes a job if it is open; returns the number of its requests that become unknown.

        Those were neither settled nor released, so their cost is not known.
        """
        with self._transaction() as connection:
            closed = connection.execute(
                "UPDATE jobs SET closed_at = ? WHERE name = ? AND run = ? AND closed_at IS NULL",
                (time.time(), name, self.run),
            ).rowcount
            if not closed:
                return 0
            return _cut_off(connection, "job = ? AND state = 'reserved'", (name,))

    def spend(self, state: Literal["settled", "reserved", "unknown"] = "settled") -> Spend:
        """Returns the sums over this run's requests in one state.

        Requests that are not settled count at their highest possible cost.
        """
        with self._transaction() as connection:
            return total(connection, self.run, state)

    def bill(self) -> dict[str, Any]:
        """Returns the bill of this run (see `bill_of`)."""
        with self._transaction() as connection:
            return bill_of(connection, self.run, self._of_others.values())

    def register(self, name: str) -> bool:
        """Records the name of this run; returns whether the run was already on the ledger."""
        with self._transaction() as connection:
            known = connection.execute("SELECT 1 FROM runs WHERE id = ?", (self.run,)).fetchone()
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name",
                (self.run, name, time.time()),
            )
        return known is not None

    def _transaction(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self.path}: opened before a fork; open it again in this process")
        return self._database.transaction()

    def _held(self, request: TeacherRequest) -> dict[str, Any]:
        """Returns the values of the parameters in `_HELD`."""
        return {"key": request.key, "owner": self._owner.token, "run": self.run}

    def _cost_to_reserve(self, connection: sqlite3.Connection, model: str, listed: int) -> int:
        """Returns the nanodollars to reserve for one more request.

        Args:
          connection: a connection to the ledger.
          model: the model that is asked.
          listed: the request's highest cost at list prices, in nanodollars.

        Raises:
          BudgetExceeded: the amount does not fit the caps.
        """
        permille = _permille(connection, model)
        cost = worst_case(listed, permille)
        settled, reserved, unknown = (
            total(connection, self.run, state) for state in ("settled", "reserved", "unknown")
        )
        counted = Spend.of((settled, reserved, unknown))
        if counted.queries + 1 > self._queries_cap:
            name, exceeded = "budget.queries", f"budget.queries={self._queries_cap} is reached"
        elif counted.nanodollars + cost > cap_in_nanodollars(self._usd_cap):
            name = "budget.usd"
            exceeded = (
                f"the next request may cost up to {in_usd(cost):.6f} US dollars, which "
                f"budget.usd={self._usd_cap} no longer covers"
            )
        else:
            return cost
        cut_off = ""
        if unknown.queries:
            cut_off = (
                f", {unknown.usd:.6f} for {unknown.queries} that were cut off and may have been "
                "billed"
            )
        raise BudgetExceeded(
            f"{self.path}: {exceeded}: spent {settled.usd:.6f} US dollars on {settled.queries} "
            f"answers, reserved {reserved.usd:.6f} for {reserved.queries} requests{cut_off}; raise "
            f"{name} to continue: answered requests are not paid for twice"
            f"{overrun_in_words(model, permille)}"
        )

    def _note_overrun(self, connection: sqlite3.Connection, model: str, permille: int) -> None:
        """Raises a model's unsettled and future reservations to `permille` of the list price."""
        connection.execute("INSERT OR REPLACE INTO overruns VALUES (?, ?)", (model, permille))
        for row, *listed in connection.execute(
            "SELECT id, input_tokens, output_tokens, batch FROM requests"
            " WHERE run = ? AND model = ? AND state != 'settled'",
            (self.run, model),
        ).fetchall():
            connection.execute(
                "UPDATE requests SET nanodollars = max(nanodollars, ?) WHERE id = ?",
                (worst_case(self._prices.cost(*listed), permille), row),
            )

    def _find(self, connection: sqlite3.Connection, request: TeacherRequest) -> Stored | None:
        """Returns the answer to a request; None if the request may be reserved.

        Raises:
          RequestInFlight: a process or a batch job is working on it.
        """
        row = connection.execute(
            f"SELECT state, owner, pid, job, {_STORED} FROM requests WHERE {_ALIVE}",
            {"key": request.key},
        ).fetchone()
        if row is None:
            return None
        state, owner, pid, job, *stored = row
        if state == "settled":
            return _stored(stored)
        at_work = (
            f"{self.path}: the request about example {request.example_id!r} is being answered by"
        )
        if job is not None:
            vendor, run, name = connection.execute(
                "SELECT vendor, run, (SELECT name FROM runs WHERE id = run) FROM jobs"
                " WHERE name = ?",
                (job,),
            ).fetchone()
            whose = "this run" if run == self.run else f"the run in {name or run}"
            raise RequestInBatchJob(
                f"{at_work} {vendor}'s batch job {job!r} of {whose}; start that run again with "
                "that vendor to collect the job"
            )
        if owner == self._owner.token or is_alive(self.path, owner):
            raise RequestInFlight(f"{at_work} process {pid}; wait for it to end")
        self._sweep(connection)
        return None

    def _sweep(self, connection: sqlite3.Connection) -> int:
        """Ends the reservations of processes that have died; returns how many become unknown."""
        owners = connection.execute(
            "SELECT DISTINCT owner FROM requests WHERE state = 'reserved' AND job IS NULL"
        ).fetchall()
        which = "state = 'reserved' AND job IS NULL AND owner = ?"
        dead = [owner for owner in owners if not is_alive(self.path, *owner)]
        return sum(_cut_off(connection, which, owner) for owner in dead)


def total(connection: sqlite3.Connection, run: str, state: str) -> Spend:
    """Returns the sums over a run's requests that are `settled`, `reserved` or `unknown`."""
    row = connection.execute(
        "SELECT queries, input_tokens, output_tokens, nanodollars FROM totals"
        " WHERE run = ? AND state = ?",
        (run, state),
    ).fetchone()
    return Spend(*row) if row else Spend()


def _permille(connection: sqlite3.Connection, model: str) -> int:
    """Returns the largest ratio of cost to list-price reservation for `model`, in permille."""
    row = connection.execute("SELECT permille FROM overruns WHERE model = ?", (model,)).fetchone()
    return row[0] if row else PERMILLE


def stored(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Stored]:
    """Returns the answers that are on a ledger, by key, in the order of `keys`."""
    found = {}
    for key in keys:
        row = connection.execute(
            f"SELECT {_STORED} FROM requests WHERE {_ALIVE} AND state = 'settled'", {"key": key}
        ).fetchone()
        if row:
            found[key] = _stored(row)
    return found


def bill_of(connection: sqlite3.Connection, run: str, taken: Iterable[Stored]) -> dict[str, Any]:
    """Returns the bill of a run, as JSON values.

    Args:
      connection: a connection to the ledger.
      run: id of the run that pays.
      taken: answers that other runs have paid for, free for this one.

    Returns:
      `queries`, `input_tokens`, `output_tokens` and `usd` of the settled requests. If there are
      any, also `no_answer` (number of settled requests without an answer, by
      `TeacherReply.finish`), `unknown` (`queries` and the highest possible `usd`, not included
      above) and `of_others` (the same four figures for the answers in `taken`).
    """
    of_others = Spend.of(
        Spend(1, answer.reply.input_tokens, answer.reply.output_tokens, answer.nanodollars)
        for answer in taken
    )
    no_answer = connection.execute(
        "SELECT finish, count(*) FROM requests"
        " WHERE run = ? AND state = 'settled' AND finish != 'stop' GROUP BY finish",
        (run,),
    ).fetchall()
    unknown = total(connection, run, "unknown")
    bill: dict[str, Any] = total(connection, run, "settled").to_json()
    if no_answer:
        bill["no_answer"] = dict(no_answer)
    if unknown.queries:
        bill["unknown"] = {"queries": unknown.queries, "usd": unknown.usd}
    if of_others.queries:
        bill["of_others"] = of_others.to_json()
    return bill


def _stored(row: Sequence[Any]) -> Stored:
    """Returns the answer in a row with the columns `_STORED`."""
    text, input_tokens, output_tokens, finish, run, nanodollars = row
    return Stored(
        TeacherReply(json.loads(text), input_tokens, output_tokens, finish), run, nanodollars
    )


def _cut_off(connection: sqlite3.Connection, which: str, values: Any) -> int:
    """Makes reservations unknown; deletes those that the vendor cannot have billed."""
    connection.execute(f"DELETE FROM requests WHERE NOT sent AND {which}", values)
    return connection.execute(
        f"UPDATE requests SET state = 'unknown' WHERE {which}", values
    ).rowcount
