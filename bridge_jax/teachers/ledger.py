"""The ledger: what was asked, what it cost, and the caps that hold whatever happens.

One SQLite file, shared by the threads of a process and by any number of processes of one machine.
A row is a request: *reserved* at its highest possible cost before the call, *settled* with the
answer and its actual cost after it. No secrets are stored, only the words that were exchanged.

What it leaves out: a cap cannot know what a vendor bills for a call whose answer never arrived.
Such a reservation stays, and counts, until the same request is made again.
"""

import dataclasses
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge_jax.errors import UserError
from bridge_jax.teachers.ledger_file import connect, explained
from bridge_jax.teachers.owner import Owner, is_alive
from bridge_jax.teachers.prices import Prices, cap_in_nanodollars, in_usd
from bridge_jax.teachers.protocol import Reply, Request


class BudgetExceeded(UserError):  # noqa: N818
    """The next request could exceed a cap. Nothing was sent."""


class RequestInFlight(UserError):  # noqa: N818
    """The same request is being answered now, by another thread or process."""


@dataclasses.dataclass(frozen=True)
class Spend:
    """Totals. `usd` is for reading; the ledger adds up whole nanodollars."""

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float


class Ledger:
    """The open ledger of a run; a context manager.

    It may be used from several threads, but not in a forked child: each process opens its own.
    On reopening, caps and prices may differ: what is settled keeps its cost, and counts.

    A process that died (or was closed) between `reserve` and `settle` leaves an orphan. The vendor
    may have billed it, so it goes on counting towards both caps; when the same request is reserved
    again, the new reservation takes its place, so that it counts once.

    Args:
      path: the SQLite file; made if there is none, with its folders.
      queries_cap: requests at most, settled and reserved together.
      usd_cap: US dollars at most, settled and reserved together.
      prices: what requests made from now on cost.

    Raises:
      UserError: no ledger can be opened at `path`.
    """

    def __init__(self, path: str | Path, queries_cap: int, usd_cap: float, prices: Prices):
        self.path = Path(path).absolute()
        self.queries_cap = queries_cap
        self.usd_cap = usd_cap
        self.prices = prices
        self._nano_cap = cap_in_nanodollars(usd_cap)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(self.path)
            try:
                self._owner = Owner(self.path)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. What is still reserved becomes an orphan."""
        if os.getpid() != self._pid:
            return
        with self._lock, explained(self.path):
            self._owner.close()
            self._connection.close()

    def reserve(self, request: Request, input_tokens_estimate: int) -> Reply | None:
        """Returns the stored reply, or reserves the request's highest possible cost.

        After None the caller makes the call, then `settle`s, `release`s or `abandon`s it.

        Args:
          request: its `max_output_tokens` are reserved.
          input_tokens_estimate: tokens to reserve for the input.

        Raises:
          BudgetExceeded: spent + reserved + this one would exceed a cap.
          RequestInFlight: somebody alive has reserved the same request.
        """
        tokens = (input_tokens_estimate, request.max_output_tokens)
        cost = self.prices.cost(*tokens)
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT state, reply, input_tokens, output_tokens, owner, pid"
                " FROM requests WHERE key = ?",
                (request.key,),
            ).fetchone()
            if row and row[0] == "settled":
                return Reply(json.loads(row[1]), row[2], row[3])
            if row and self._is_alive(row[4]):
                raise RequestInFlight(
                    f"{self.path}: the request about example {request.example_id!r} is being "
                    f"answered by process {row[5]}; wait for it to end"
                )
            self._check_caps(request.key, cost)
            connection.execute(
                "INSERT OR REPLACE INTO requests VALUES (?,'reserved',?,?,?,NULL,?,?,?,?,?,?,NULL)",
                (
                    request.key,
                    request.model,
                    request.example_id,
                    request.to_json(),
                    *tokens,
                    cost,
                    self._owner.token,
                    self._pid,
                    time.time(),
                ),
            )
        return None

    def settle(self, request: Request, reply: Reply) -> None:
        """Writes the answer and its actual cost; on return both are on disk.

        A cost above what was reserved is written all the same: paid is paid.

        Raises:
          UserError: it could not be written. The reservation still counts; settle again, or lose
            this answer.
          ValueError: this ledger holds no reservation for the request.
        """
        cost = self.prices.cost(reply.input_tokens, reply.output_tokens)
        with self._transaction() as connection:
            written = connection.execute(
                "UPDATE requests SET state = 'settled', reply = ?, input_tokens = ?,"
                " output_tokens = ?, nanodollars = ?, settled_at = ?"
                " WHERE key = ? AND state = 'reserved' AND owner = ?",
                (
                    json.dumps(reply.text),
                    reply.input_tokens,
                    reply.output_tokens,
                    cost,
                    time.time(),
                    request.key,
                    self._owner.token,
                ),
            ).rowcount
            if not written:
                raise ValueError(f"settled without a reservation: {request.example_id!r}")

    def release(self, request: Request) -> None:
        """Takes back a reservation whose call failed and costs nothing."""
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM requests WHERE key = ? AND state = 'reserved' AND owner = ?",
                (request.key, self._owner.token),
            )

    def abandon(self, request: Request) -> None:
        """Leaves a reservation whose call has an unknown outcome: it counts until made again."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE requests SET owner = NULL"
                " WHERE key = ? AND state = 'reserved' AND owner = ?",
                (request.key, self._owner.token),
            )

    def spend(self) -> Spend:
        """Returns what is settled."""
        return self._total("settled")

    def reserved(self) -> Spend:
        """Returns what is reserved, orphans included, at its highest possible cost."""
        return self._total("reserved")

    def _total(self, state: str) -> Spend:
        with self._lock, explained(self.path):
            queries, inputs, outputs, nano = self._connection.execute(
                "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),"
                " coalesce(sum(nanodollars), 0) FROM requests WHERE state = ?",
                (state,),
            ).fetchone()
        return Spend(queries, inputs, outputs, in_usd(nano))

    def _check_caps(self, key: str, cost: int) -> None:
        """Raises if one more request of `cost` nanodollars does not fit beside all but `key`."""
        totals = {"settled": (0, 0), "reserved": (0, 0)}
        totals |= {
            state: (queries, nano)
            for state, queries, nano in self._connection.execute(
                "SELECT state, count(*), sum(nanodollars) FROM requests WHERE key != ?"
                " GROUP BY state",
                (key,),
            )
        }
        (settled, spent), (reserved, held) = totals["settled"], totals["reserved"]
        if settled + reserved + 1 > self.queries_cap:
            name, exceeded = "budget.queries", f"budget.queries={self.queries_cap} is reached"
        elif spent + held + cost > self._nano_cap:
            name = "budget.usd"
            exceeded = (
                f"the next request may cost up to {in_usd(cost):.6f} US dollars, which "
                f"budget.usd={self.usd_cap} no longer covers"
            )
        else:
            return
        raise BudgetExceeded(
            f"{self.path}: {exceeded}: spent {in_usd(spent):.6f} US dollars on {settled} answers, "
            f"reserved {in_usd(held):.6f} for {reserved} requests"
            f"{self._orphans_in_words(key)}; raise {name} to go on: what is answered is "
            f"not paid twice"
        )

    def _orphans_in_words(self, key: str) -> str:
        rows = self._connection.execute(
            "SELECT owner, count(*) FROM requests WHERE state = 'reserved' AND key != ?"
            " GROUP BY owner",
            (key,),
        ).fetchall()
        orphans = sum(count for owner, count in rows if not self._is_alive(owner))
        return f" ({orphans} of them cut off before the answer, maybe billed)" if orphans else ""

    def _is_alive(self, owner: str | None) -> bool:
        return owner is not None and (owner == self._owner.token or is_alive(self.path, owner))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Holds the file's write lock; commits to disk, or leaves everything as it was."""
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self.path}: opened before a fork; open it again in this process")
        with self._lock, explained(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
