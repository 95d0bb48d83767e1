"""The ledger's tables, and how a ledger of an earlier version becomes one of this version."""

import contextlib
import sqlite3
from pathlib import Path

from bridge_jax.errors import UserError
from bridge_jax.ledger.owner import is_alive

VERSION = 2
APPLICATION = 0x42726467  # "Brdg": `PRAGMA application_id`, which tells our files from others


class EarlierVersion(UserError):  # noqa: N818
    """The ledger is sound, but has to be opened for writing once before it can be read."""


_TABLES = """
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,             -- for people
  registered_at REAL NOT NULL
);
CREATE TABLE jobs (
  name TEXT PRIMARY KEY,          -- ours; the vendor keeps it beside the job
  id TEXT UNIQUE,                 -- the vendor's; NULL: not known to be submitted
  vendor TEXT NOT NULL,
  run TEXT NOT NULL,
  begun_at REAL NOT NULL,
  closed_at REAL
);
CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'unknown')),
  run TEXT NOT NULL,              -- whose caps it counts towards; '': the ledger's own run
  model TEXT NOT NULL,
  example_id TEXT NOT NULL,
  request TEXT NOT NULL,          -- JSON: messages and sampling settings
  reply TEXT,                     -- JSON string
  finish TEXT,                    -- protocol.Finish
  input_tokens INTEGER NOT NULL,  -- estimated until settled
  output_tokens INTEGER NOT NULL, -- the highest possible until settled
  nanodollars INTEGER NOT NULL,
  batch INTEGER NOT NULL,         -- 1: at the price of the vendor's batch mode
  sent INTEGER NOT NULL,          -- 0: while it is reserved, the vendor cannot have billed it
  job TEXT REFERENCES jobs (name),
  owner TEXT,                     -- the process that reserved it
  pid INTEGER,                    -- for people
  reserved_at REAL NOT NULL,      -- seconds since 1970
  settled_at REAL
);
-- A request that was cut off stays beside its repetitions; of these only one is alive.
CREATE UNIQUE INDEX requests_by_key ON requests (key) WHERE state != 'unknown';
CREATE INDEX reserved_by_owner ON requests (owner) WHERE state = 'reserved';
CREATE INDEX requests_by_job ON requests (job) WHERE job IS NOT NULL;

-- The caps are checked at every request: adding up all rows each time would make a long run slow.
CREATE TABLE totals (
  run TEXT, state TEXT,
  queries INTEGER, input_tokens INTEGER, output_tokens INTEGER, nanodollars INTEGER,
  PRIMARY KEY (run, state)
) WITHOUT ROWID;
"""
# Added without a new version: programs that do not know it can use the ledger all the same.
_LATER = """
CREATE TABLE IF NOT EXISTS overruns (
  model TEXT PRIMARY KEY,
  permille INTEGER NOT NULL       -- of its reservation that a request has cost, at most
) WITHOUT ROWID
"""
_COUNT = """
  INSERT INTO totals VALUES ({row}.run, {row}.state, {sign}1, {sign}{row}.input_tokens,
    {sign}{row}.output_tokens, {sign}{row}.nanodollars)
  ON CONFLICT DO UPDATE SET queries = queries + excluded.queries,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    nanodollars = nanodollars + excluded.nanodollars;
"""
_ADD, _TAKE = _COUNT.format(row="NEW", sign="+"), _COUNT.format(row="OLD", sign="-")
_TRIGGERS = (
    f"CREATE TRIGGER total_insert AFTER INSERT ON requests BEGIN {_ADD} END",
    f"CREATE TRIGGER total_delete AFTER DELETE ON requests BEGIN {_TAKE} END",
    f"CREATE TRIGGER total_update AFTER UPDATE ON requests BEGIN {_TAKE} {_ADD} END",
)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables in a new file, or those of version 1 into ours; within a transaction.

    Raises:
      UserError: it is a database of something else, of a later version, or of version 1 and in use.
    """
    version = _version(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        _create(connection)
    elif version == 1 and _is_version_1(connection):
        _migrate(connection, path)
    else:
        check(connection, path)
    connection.execute(_LATER)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises a `UserError` unless the file is a ledger of this version."""
    version, application = _version(connection), _pragma(connection, "application_id")
    if application == APPLICATION and version > VERSION:
        raise UserError(
            f"{path}: a ledger of version {version}, this program reads {VERSION}; update it"
        )
    if version == 1 and _is_version_1(connection):
        raise EarlierVersion(
            f"{path}: a ledger of version 1; the next run that opens it converts it"
        )
    if (application, version) != (APPLICATION, VERSION):
        raise UserError(f"{path}: a SQLite file, but no ledger of this version; give another path")


def _version(connection: sqlite3.Connection) -> int:
    return abs(_pragma(connection, "user_version"))  # Below 0 for a moment: `ledger_wal`.


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _create(connection: sqlite3.Connection) -> None:
    # Not executescript(): that would commit first.
    for statement in (*_TABLES.split(";\n"), *_TRIGGERS):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")


def _is_version_1(connection: sqlite3.Connection) -> bool:
    with contextlib.closing(connection.execute("PRAGMA table_info(requests)")) as columns:
        names = {row[1] for row in columns}
    return {"key", "state", "request", "reply", "nanodollars", "owner"} <= names


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Every answer of version 1 was complete as far as that version knew: `stop`."""
    owners = connection.execute(
        "SELECT DISTINCT owner, pid FROM requests WHERE state = 'reserved' AND owner IS NOT NULL"
    ).fetchall()
    for owner, pid in owners:
        if is_alive(path, owner):
            raise UserError(
                f"{path}: process {pid}, of an earlier version of this program, is using it; "
                "let it end, then run the same command again"
            )
    connection.execute("ALTER TABLE requests RENAME TO requests_of_version_1")
    _create(connection)
    connection.execute(
        "INSERT INTO requests (key, state, run, model, example_id, request, reply, finish,"
        " input_tokens, output_tokens, nanodollars, batch, sent, owner, pid, reserved_at,"
        " settled_at)"
        " SELECT key, iif(state = 'settled', 'settled', 'unknown'), '', model, example_id, request,"
        " reply, iif(state = 'settled', 'stop', NULL), input_tokens, output_tokens, nanodollars,"
        " 0, 1, owner, pid, reserved_at, settled_at"
        " FROM requests_of_version_1 ORDER BY reserved_at"
    )
    connection.execute("DROP TABLE requests_of_version_1")
