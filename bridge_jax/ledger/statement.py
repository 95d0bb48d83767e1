"""What a ledger holds, for people and for spreadsheets. Nothing is written to the ledger."""

import csv
import dataclasses
import datetime
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bridge_jax import atomic, shown
from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger_file import connect_to_read, explained
from bridge_jax.ledger.owner import is_alive
from bridge_jax.ledger.prices import NANO

# How a request ended, in the order in which they are listed.
OUTCOMES = {
    "stop": "answered",
    "length": "cut at limit",
    "refused": "refused",
    "empty": "empty",
    "malformed": "malformed",
    "unknown": "unknown",
    "reserved": "in flight",
    "job": "in a job",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One request.

    Attributes:
      run: who pays, as `runs` of the statement has it.
      outcome: a key of `OUTCOMES`; a reservation of a dead process is `unknown`.
      nanodollars: its cost, or the highest possible one until it is settled.
      reserved_at, settled_at: seconds since 1970.
    """

    id: int
    run: str
    model: str
    outcome: str
    batch: bool
    job: str | None
    example_id: str
    key: str
    input_tokens: int
    output_tokens: int
    nanodollars: int
    reserved_at: float
    settled_at: float | None


@dataclasses.dataclass(frozen=True)
class Line:
    """The sum over requests of one kind."""

    queries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    nanodollars: int = 0

    def plus(self, entry: Entry) -> "Line":
        """Returns the line with one more request."""
        return Line(
            self.queries + 1,
            self.input_tokens + entry.input_tokens,
            self.output_tokens + entry.output_tokens,
            self.nanodollars + entry.nanodollars,
        )


@dataclasses.dataclass(frozen=True)
class Statement:
    """A ledger as it is now.

    Attributes:
      path: of the ledger.
      entries: its requests, in the order in which they were reserved.
      runs: what people call each run that shares it; '' is the run whose own ledger it is.
    """

    path: Path
    entries: list[Entry]
    runs: dict[str, str]

    def of(self, run: str | None) -> list[Entry]:
        """Returns the entries of a run; of all runs if it is None."""
        return [entry for entry in self.entries if run in (None, entry.run)]

    def lines(self, run: str | None) -> dict[tuple[str, bool, str], Line]:
        """Returns the sums of a run, or of all, by (model, batch, outcome), sorted."""
        found: dict[tuple[str, bool, str], Line] = {}
        for entry in self.of(run):
            key = (entry.model, entry.batch, entry.outcome)
            found[key] = found.get(key, Line()).plus(entry)
        order = list(OUTCOMES)
        return dict(sorted(found.items(), key=lambda item: (*item[0][:2], order.index(item[0][2]))))


def read(path: Path) -> Statement:
    """Returns what is on the ledger at `path`.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such ledger; nothing has been asked of a teacher here")
    with explained(path), closing(connect_to_read(path)) as connection:
        rows = connection.execute(
            "SELECT id, run, model, state, finish, owner, batch, job, example_id, key,"
            " input_tokens, output_tokens, nanodollars, reserved_at, settled_at"
            " FROM requests ORDER BY id"
        ).fetchall()
        runs = dict(connection.execute("SELECT id, name FROM runs ORDER BY registered_at"))
    alive = {owner: is_alive(path, owner) for owner in {row[5] for row in rows} if owner}
    entries = [
        Entry(*row[:3], _outcome(row, alive), bool(row[6]), *row[7:])  # pyright: ignore
        for row in rows
    ]
    # The run whose own ledger this is has no entry among those that share it.
    own = {"": str(path.parent)} if not runs or any(entry.run == "" for entry in entries) else {}
    return Statement(path, entries, own | runs)


def _outcome(row: sqlite3.Row, alive: dict[str, bool]) -> str:
    state, finish, owner, job = row[3], row[4], row[5], row[7]
    if state == "settled":
        return finish
    if state == "reserved" and job is not None:
        return "job"
    return "reserved" if state == "reserved" and alive.get(owner) else "unknown"


def exact_usd(nanodollars: int) -> str:
    """Returns US dollars with all nine decimals."""
    return f"{nanodollars // NANO}.{nanodollars % NANO:09d}"


def write_csv(statement: Statement, path: Path) -> None:
    """Writes a row per request, all runs; whole or not at all.

    Columns: those of `Entry`, with `usd` (exact) in place of nanodollars, the run's name, and times
    in UTC. What was said is not in it: the ledger has that. No cell is a formula.

    Raises:
      UserError: `path` cannot be written.
    """
    try:
        with atomic.written(path, atomic.part_of(path), sync=False) as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            for row in _csv_rows(statement):
                writer.writerow({k: shown.csv_value(v) for k, v in row.items()})
    except OSError as error:
        raise UserError(f"--csv={path}: {error.strerror or error}; give another path") from error


_COLUMNS = (
    *("id", "run", "model", "outcome", "batch", "job", "example_id", "key"),
    *("input_tokens", "output_tokens", "usd", "reserved_at", "settled_at"),
)


def _csv_rows(statement: Statement) -> Iterator[dict[str, object]]:
    for entry in statement.entries:
        row = dataclasses.asdict(entry)
        row["usd"] = exact_usd(row.pop("nanodollars"))
        row["run"] = statement.runs.get(entry.run, entry.run)
        row["batch"] = int(entry.batch)
        row["reserved_at"] = utc(entry.reserved_at)
        row["settled_at"] = "" if entry.settled_at is None else utc(entry.settled_at)
        yield row


def utc(seconds: float) -> str:
    """Returns a time since 1970 as 2026-01-31T12:00:00Z."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
