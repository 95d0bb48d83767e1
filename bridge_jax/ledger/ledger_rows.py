"""What happens to a row of the ledger, each within somebody's transaction."""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from bridge_jax.ledger.owner import is_alive
from bridge_jax.teachers.protocol import Reply, Request


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who reserves: a process, for a run. Batch jobs belong to the run, the rest to the process."""

    owner: str
    pid: int
    run: str


# With the very condition of the index `requests_by_key`, or SQLite reads all that is reserved.
_ALIVE = "key = ? AND state != 'unknown'"
_HELD = f"{_ALIVE} AND state = 'reserved' AND (owner = ? OR (job IS NOT NULL AND run = ?))"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A request that is settled, and who paid what for it."""

    reply: Reply
    run: str
    nanodollars: int


@dataclasses.dataclass(frozen=True)
class InFlight:
    """A request that somebody alive has reserved, or an open batch job."""

    by: str
    in_job: bool = False


def find(
    connection: sqlite3.Connection, path: Path, key: str, holder: Holder
) -> Stored | InFlight | None:
    """Returns the answer to `key` or who is at work on it; None if it may be reserved."""
    row = connection.execute(
        "SELECT state, reply, input_tokens, output_tokens, finish, run, nanodollars, owner, pid,"
        f" job FROM requests WHERE {_ALIVE}",
        (key,),
    ).fetchone()
    if row is None:
        return None
    state, text, input_tokens, output_tokens, finish, run, nanodollars, owner, pid, job = row
    if state == "settled":
        reply = Reply(json.loads(text), input_tokens, output_tokens, finish)
        return Stored(reply, run, nanodollars)
    if job is not None:
        return InFlight(_job_in_words(connection, job, run, holder), True)
    if owner == holder.owner or is_alive(path, owner):
        return InFlight(f"process {pid}")
    sweep(connection, path)
    return None


def settled(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Stored]:
    """Returns the answers that are there, by key, in the order of `keys`."""
    found = {}
    for key in keys:
        row = connection.execute(
            "SELECT reply, input_tokens, output_tokens, finish, run, nanodollars FROM requests"
            f" WHERE {_ALIVE} AND state = 'settled'",
            (key,),
        ).fetchone()
        if row:
            text, *tokens_and_finish, run, nanodollars = row
            found[key] = Stored(Reply(json.loads(text), *tokens_and_finish), run, nanodollars)
    return found


def _job_in_words(connection: sqlite3.Connection, job: str, run: str, holder: Holder) -> str:
    (vendor,) = connection.execute("SELECT vendor FROM jobs WHERE name = ?", (job,)).fetchone()
    if run == holder.run:
        return f"{vendor}'s batch job {job!r} of this run"
    known = connection.execute("SELECT name FROM runs WHERE id = ?", (run,)).fetchone()
    return f"{vendor}'s batch job {job!r} of the run in {known[0] if known else run}"


def reserve(
    connection: sqlite3.Connection,
    request: Request,
    holder: Holder,
    input_tokens: int,
    nanodollars: int,
    batch: bool,
    sent: bool,
) -> None:
    """Adds a reservation."""
    connection.execute(
        "INSERT INTO requests (key, state, run, model, example_id, request, input_tokens,"
        " output_tokens, nanodollars, batch, sent, owner, pid, reserved_at)"
        " VALUES (?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(request.key, holder.run, request.model, request.example_id, request.to_json()),
            *(input_tokens, request.max_output_tokens, nanodollars, batch, sent),
            *(holder.owner, holder.pid, time.time()),
        ),
    )


def reserved_tokens(
    connection: sqlite3.Connection, key: str, holder: Holder
) -> tuple[int, int, bool] | None:
    """Returns (input tokens, output tokens, in a batch job) of a reservation, if there is one."""
    row = connection.execute(
        f"SELECT input_tokens, output_tokens, batch FROM requests WHERE {_HELD}",
        (key, holder.owner, holder.run),
    ).fetchone()
    return row and (row[0], row[1], bool(row[2]))


def settle(
    connection: sqlite3.Connection,
    key: str,
    reply: Reply,
    holder: Holder,
    nanodollars: int,
    in_batch: int,
) -> bool:
    """Writes an answer at its cost, which depends on how it was asked.

    Returns whether there was a reservation, or another process had collected the same batch job.
    """
    written = connection.execute(
        "UPDATE requests SET state = 'settled', reply = ?, finish = ?, input_tokens = ?,"
        " output_tokens = ?, nanodollars = iif(batch, ?, ?), settled_at = ?"
        f" WHERE {_HELD}",
        (
            *(json.dumps(reply.text), reply.finish, reply.input_tokens, reply.output_tokens),
            *(in_batch, nanodollars, time.time(), key, holder.owner, holder.run),
        ),
    ).rowcount
    collected = (
        f"SELECT 1 FROM requests WHERE {_ALIVE} AND state = 'settled' AND job IS NOT NULL"
        " AND run = ?"
    )
    return bool(written) or connection.execute(collected, (key, holder.run)).fetchone() is not None


def release(connection: sqlite3.Connection, key: str, holder: Holder) -> None:
    """Removes a reservation that costs nothing."""
    connection.execute(f"DELETE FROM requests WHERE {_HELD}", (key, holder.owner, holder.run))


def abandon(connection: sqlite3.Connection, key: str, holder: Holder) -> None:
    """Ends a reservation whose outcome is unknown."""
    _cut_off(connection, _HELD, (key, holder.owner, holder.run))


def sweep(connection: sqlite3.Connection, path: Path) -> int:
    """Ends the reservations of processes that have died. Returns how many are unknown now."""
    owners = connection.execute(
        "SELECT DISTINCT owner FROM requests WHERE state = 'reserved' AND job IS NULL"
    ).fetchall()
    which = "state = 'reserved' AND job IS NULL AND owner = ?"
    dead = [owner for owner in owners if not is_alive(path, *owner)]
    return sum(_cut_off(connection, which, owner) for owner in dead)


def register(connection: sqlite3.Connection, run: str, name: str) -> bool:
    """Writes down what people call a run; returns whether it was known before."""
    known = connection.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is not None
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET name = excluded.name",
        (run, name, time.time()),
    )
    return known


def _cut_off(connection: sqlite3.Connection, which: str, values: tuple[str, ...]) -> int:
    """Makes reservations unknown; forgets those that the vendor cannot have billed."""
    connection.execute(f"DELETE FROM requests WHERE NOT sent AND {which}", values)
    return connection.execute(
        f"UPDATE requests SET state = 'unknown' WHERE {which}", values
    ).rowcount
