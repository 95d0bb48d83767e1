"""Batch jobs: reservations that outlive their process, because the vendor goes on working.

A crash between submitting a job and writing down its id must not lose what is paid for. So:

1. `reserve(..., batch=True)` each request. Nothing is sent: after a crash here they are forgotten.
2. `begin_job` under a new name of ours, which the vendor is given with the job.
3. Submit it, then `record_job` the vendor's id.
4. In every start, `open_jobs`. One without an id was cut off in step 3: if the vendor has a job of
   that name, `record_job`; if not, it was never submitted: `release` its requests and `close_job`.
5. When the vendor has done it, `settle` what it answered, `release` what it says it has not billed,
   and `close_job`: what then still waits is unknown.
"""

import dataclasses
import json
import sqlite3
import time

from bridge_jax.teachers.protocol import Message, Request


@dataclasses.dataclass(frozen=True)
class Job:
    """A batch job of a run that has not been closed.

    Attributes:
      name: ours, unique; the vendor keeps it beside the job (metadata, display name).
      id: the vendor's. None: the process died while it submitted the job, or is doing so; ask the
        vendor whether it has a job of that name.
      vendor: who works on it.
      keys: of its requests, those settled meanwhile included.
      submitted_at: when it was begun, seconds since 1970.
      waiting: its requests that have no answer yet, as they were made: the config may have changed
        since, and their answers are paid for all the same.
    """

    name: str
    id: str | None
    vendor: str
    keys: tuple[str, ...]
    submitted_at: float
    waiting: tuple[Request, ...] = ()


def begin(connection: sqlite3.Connection, job: Job, run: str, owner: str) -> None:
    """Writes a new job and hands it its requests, which `owner` has reserved.

    Raises:
      ValueError: a job has this name or id already, or a key is not reserved by `owner`.
    """
    if connection.execute(
        "SELECT 1 FROM jobs WHERE name = ? OR id = ?", (job.name, job.id)
    ).fetchone():
        raise ValueError(f"a batch job {job.name!r} is on the ledger already")
    for key in job.keys:
        row = connection.execute(
            "SELECT owner, job FROM requests WHERE key = ? AND state = 'reserved'", (key,)
        ).fetchone()
        if row != (owner, None):
            raise ValueError(f"batch job {job.name!r} holds a request without a reservation: {key}")
    connection.execute(
        "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL)",
        (job.name, job.id, job.vendor, run, job.submitted_at),
    )
    connection.executemany(
        "UPDATE requests SET job = ?, sent = 1 WHERE key = ? AND state = 'reserved'",
        [(job.name, key) for key in job.keys],
    )


def record(connection: sqlite3.Connection, name: str, job_id: str, run: str) -> None:
    """Writes the vendor's id of a job that was begun; the same id again does nothing.

    Raises:
      ValueError: no such job of this run is open, or it has another id.
    """
    row = connection.execute(
        "SELECT id FROM jobs WHERE name = ? AND run = ? AND closed_at IS NULL", (name, run)
    ).fetchone()
    if row is None or row[0] not in (None, job_id):
        raise ValueError(f"batch job {name!r} is not open, or has another id than {job_id!r}")
    connection.execute("UPDATE jobs SET id = ? WHERE name = ?", (job_id, name))


def still_open(connection: sqlite3.Connection, run: str) -> list[Job]:
    """Returns the open jobs of a run, oldest first."""
    rows = connection.execute(
        "SELECT name, id, vendor, begun_at FROM jobs WHERE run = ? AND closed_at IS NULL"
        " ORDER BY begun_at, name",
        (run,),
    ).fetchall()
    jobs = []
    for name, job_id, vendor, begun_at in rows:
        requests = connection.execute(
            "SELECT key, state, example_id, request FROM requests WHERE job = ? ORDER BY id",
            (name,),
        ).fetchall()
        waiting = tuple(_request(*row[2:]) for row in requests if row[1] == "reserved")
        jobs.append(Job(name, job_id, vendor, tuple(r[0] for r in requests), begun_at, waiting))
    return jobs


def _request(example_id: str, words: str) -> Request:
    """Returns the request of which `words` is the JSON."""
    value = json.loads(words)
    value["messages"] = tuple(Message(**message) for message in value["messages"])
    return Request(example_id, **value)


def close(connection: sqlite3.Connection, name: str, run: str) -> int:
    """Closes a job; what is still reserved for it becomes unknown. Returns how many that are."""
    closed = connection.execute(
        "UPDATE jobs SET closed_at = ? WHERE name = ? AND run = ? AND closed_at IS NULL",
        (time.time(), name, run),
    ).rowcount
    if not closed:
        return 0
    return connection.execute(
        "UPDATE requests SET state = 'unknown' WHERE job = ? AND state = 'reserved'", (name,)
    ).rowcount
