"""Opens the ledger's SQLite file: its tables, its write-ahead log and the locks of its owners.

SQLite commits to the write-ahead log `ledger.sqlite-wal`, and now and then moves the log's content
into `ledger.sqlite` (a checkpoint). While a ledger is in use, or after its process was killed, a
copy of `ledger.sqlite` alone lacks the last answers, and SQLite does not report that. So the
database file itself is marked as incomplete:

1. `PRAGMA user_version` is set to the negative version, and a checkpoint moves that into the file.
2. It is set back to the positive version. This change is only in the log.

A program that reads both files gets the positive version, and so does every program that moves the
log into the file. A program that reads the file alone gets the negative version. An automatic
checkpoint after step 2 would break this, so automatic checkpoints are off: `Database.checkpoint`
does the two steps when the log has grown. A log that is present, but older than the file or
truncated, is not detected.
"""

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import tenacity

from bridge_jax import atomic
from bridge_jax.errors import UserError

VERSION = 2
APPLICATION = 0x42726467  # "Brdg": `PRAGMA application_id` of our files
BUSY_SECONDS = 60.0  # How long to wait for other processes.
LOG_BYTES = 4_000_000  # Log size that triggers a checkpoint, about SQLite's own 1,000 pages.
LOG_COMMITS = 50  # Fewest commits between checkpoints: a reader may keep the log from shrinking.
MOUNTS = Path("/proc/self/mounts")

_CHECKPOINT_SECONDS = 5.0  # How long a checkpoint waits for other processes.
_NO_LOCKS = "this disk does not support file locks; put the ledger on another with budget.ledger"
_NETWORK_DISK = re.compile(
    "nfs4?|cifs|smb3|smbfs|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|orangefs|pvfs2|wekafs|ocfs2"
    "|gfs2|virtiofs|vboxsf|fuse[.](sshfs|gcsfuse|s3fs|glusterfs|juicefs|ceph)"
)

# A request that was cut off ('unknown') keeps its row when the same request is made again; the
# unique index allows one other row per key. Triggers maintain the totals, which are checked against
# the caps at every request: summing all rows each time would make a long run slow.
_TABLES = """
CREATE TABLE runs (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,             -- for people
  registered_at REAL NOT NULL
);
CREATE TABLE jobs (
  name TEXT PRIMARY KEY,          -- ours; the vendor keeps it with the job
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
  finish TEXT,                    -- requests.Finish
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
CREATE UNIQUE INDEX requests_by_key ON requests (key) WHERE state != 'unknown';
CREATE INDEX reserved_by_owner ON requests (owner) WHERE state = 'reserved';
CREATE INDEX requests_by_job ON requests (job) WHERE job IS NOT NULL;
CREATE TABLE totals (
  run TEXT, state TEXT,
  queries INTEGER, input_tokens INTEGER, output_tokens INTEGER, nanodollars INTEGER,
  PRIMARY KEY (run, state)
) WITHOUT ROWID;
CREATE TABLE overruns (
  model TEXT PRIMARY KEY,
  permille INTEGER NOT NULL       -- of its reservation that a request has cost, at most
) WITHOUT ROWID;
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


class Database:
    """A ledger's file, open for writing on one connection that threads use in turn.

    Args:
      path: the file's path; the file is created if there is none.

    Attributes:
      connection: the connection, for tests only; all other code uses `transaction`.

    Raises:
      UserError: the file is not a ledger of this version, or was copied without its log.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._commits = 0
        self._is_locked = False  # Whether another process held the file at the last attempt.
        had_log = log_of(path).exists()
        self.connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(had_log)
            mode = _set_journal(self.connection, "DELETE" if on_network(path) else "WAL")
            self._log = log_of(path) if mode == "wal" else None
            if self._log:
                self.connection.execute("PRAGMA wal_autocheckpoint = 0")
                # Truncates the log's file when SQLite restarts the log.
                self.connection.execute("PRAGMA journal_size_limit = 0")
            self.checkpoint()
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, had_log: bool) -> None:
        """Checks that the file is sound and of this version; creates the tables in a new file."""
        execute = self.connection.execute
        execute("PRAGMA synchronous = FULL")
        (verdict,) = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.replace("\n", " "))
        execute("BEGIN IMMEDIATE")
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if _pragma(self.connection, "user_version") == tables == 0:
            # Not executescript(), which would commit first.
            for statement in (*_TABLES.strip().split(";\n"), *_TRIGGERS):
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION}")
        else:
            _check(self.connection, self._path, had_log)
        # This write fails at once if the file is not writable; BEGIN alone would not.
        execute(f"PRAGMA user_version = {VERSION}")
        execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection in a transaction, which is on disk after the block.

        An exception in the block rolls the transaction back.

        Raises:
          UserError: the file could not be written, or another process has held it for too long.
          sqlite3.ProgrammingError: the ledger is closed.
        """
        with explained(self._path), self._lock:
            # After one thread has waited in vain, the threads queued behind it do not wait again.
            self._wait_for_others(0.0 if self._is_locked else BUSY_SECONDS)
            self._is_locked = True
            self.connection.execute("BEGIN IMMEDIATE")
            self._is_locked = False
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            self._commits += 1
            if self._log and self._commits >= LOG_COMMITS:
                with contextlib.suppress(FileNotFoundError):
                    if self._log.stat().st_size >= LOG_BYTES:
                        self.checkpoint()

    def checkpoint(self) -> None:
        """Moves the log into the file, and marks the file as incomplete without its log.

        If the disk is full or another process holds the file, this is left to the next call.
        """
        self._commits = 0
        if not self._log:
            return
        with contextlib.suppress(sqlite3.Error):
            self._wait_for_others(_CHECKPOINT_SECONDS)
            self.connection.execute(f"PRAGMA user_version = {-VERSION}")
            try:
                # PASSIVE does not wait: pages that a reader still needs stay in the log.
                self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Closes the connection; a second call does nothing.

        When the last connection closes, SQLite moves the log into the file, which is then complete.
        """
        with self._lock:
            if self._log:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute(f"PRAGMA user_version = {VERSION}")
            self.connection.close()

    def _wait_for_others(self, seconds: float) -> None:
        self.connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yields a connection for reading a ledger; the file need not be writable.

    Raises:
      UserError: the file cannot be read, is not a ledger of this version, or was copied without
        its log.
    """
    with explained(path):
        had_log = log_of(path).exists()
        # mode=rw creates no database, and falls back to reading if the file is not writable.
        # (mode=ro would leave the files of the WAL behind.) `as_uri` quotes the characters of the
        # path that have a meaning in a URI.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        with contextlib.closing(connection):
            _check(connection, path, had_log)
            yield connection


def log_of(path: Path) -> Path:
    """Returns the path of the log that SQLite keeps for a database."""
    path = path.resolve()
    return path.with_name(path.name + "-wal")


def _check(connection: sqlite3.Connection, path: Path, had_log: bool) -> None:
    """Raises a `UserError` unless the file is a complete ledger of this version.

    Args:
      connection: a connection to the ledger, which creates a log on first use.
      path: the ledger's path.
      had_log: whether there was a log before the connection was opened.
    """
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") != APPLICATION:
        raise UserError(
            f"{path}: a SQLite file, but not a ledger of this program; give another path"
        )
    if abs(version) != VERSION:
        raise UserError(
            f"{path}: a ledger of version {abs(version)}, but this program reads {VERSION}; use "
            "the version of the program that wrote it, or give another path"
        )
    log = log_of(path)
    # (A log that is not empty was written by a process that opened the ledger since.)
    if version < 0 and not had_log and not (log.exists() and log.stat().st_size):
        raise UserError(
            f"{path}: copied without {log.name}, which holds the latest answers and payments: "
            "copy that file too, from where the ledger was in use. If it is lost, run "
            f"'touch {log}' and the same command again: its requests no longer count, and will be "
            "asked and paid for again"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


# SQLite's busy timeout does not cover this switch when several processes open a new file at once.
@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: _code_of(error) == sqlite3.SQLITE_BUSY),
    stop=tenacity.stop_after_delay(BUSY_SECONDS),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _set_journal(connection: sqlite3.Connection, mode: str) -> str:
    """Sets the journal mode; returns the mode that is now in effect, in lower case."""
    return connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0]


def _code_of(error: BaseException) -> int:
    """Returns SQLite's primary result code, or 0 if the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns SQLite and file errors into `UserError`s that say what the user can do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        match _code_of(error):
            case sqlite3.SQLITE_NOTADB:
                remedy = "it is not a ledger; give another path"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                remedy = f"another process has held it for {BUSY_SECONDS:.0f} s; end that process"
            case sqlite3.SQLITE_CORRUPT | 0 if type(error) is sqlite3.DatabaseError:
                remedy = "it is damaged; restore a copy, or move it away and pay again"
            case sqlite3.SQLITE_PROTOCOL:
                remedy = _NO_LOCKS
            case 0 if getattr(error, "errno", 0) in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                remedy = _NO_LOCKS
            case _:
                remedy = (
                    "free disk space or make the folder writable, then run the same command "
                    "again: all answers settled so far are kept"
                )
        raise UserError(f"{path}: {error}: {remedy}") from error


def on_network(path: Path) -> bool:
    """Returns whether `path` is on a disk that other machines may mount; False if unknown.

    On such a disk SQLite must not use a write-ahead log: the log's index is in memory shared by the
    processes of one machine, so machines would overwrite each other's pages
    (https://sqlite.org/wal.html). The rollback journal needs only file locks.
    """
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return False
    path = path.resolve()
    kind, depth = "", -1
    for line in lines:
        _, mounted, of_kind, *_ = line.split(" ")
        # Blanks and similar characters are octal escapes; everything else is verbatim.
        place = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), mounted))
        # Of several mounts at the same path, the last one hides the others.
        if len(place.parts) >= depth and path.is_relative_to(place):
            kind, depth = of_kind, len(place.parts)
    return _NETWORK_DISK.fullmatch(kind) is not None


class Owner:
    """Marks this process as the owner of reservations in one ledger, until `close`.

    The owner holds an exclusive `flock` on a small file of its own. The kernel drops the lock when
    the process ends in any way, reboots included. Unlike a process id with its start time, the lock
    cannot be fooled by a reused id, a changed clock, or a container with its own process ids.

    Attributes:
      token: the owner's name, a random UUID that is never reused.
    """

    def __init__(self, ledger: Path):
        self.token = uuid.uuid4().hex
        self._path = _lock_path(ledger, self.token)
        self._file = self._lock()
        _open_owners.add(self)

    def _lock(self) -> IO[str]:
        while True:
            file = atomic.open_lock(self._path)
            fcntl.flock(file, fcntl.LOCK_EX)
            # Before we locked the file, another process may have taken its owner for dead and
            # removed it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    return file
            file.close()

    def close(self) -> None:
        """Releases the lock: open reservations then count as left by a dead process."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def is_alive(ledger: Path, token: str) -> bool:
    """Returns whether the owner's process is alive; removes the lock file of a dead one."""
    path = _lock_path(ledger, token)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        path.unlink(missing_ok=True)  # A symbolic link, which no owner makes.
        return False
    with os.fdopen(file):
        try:
            # Shared: two processes that check at once do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink(missing_ok=True)
        return False


def clear_owners(ledger: Path) -> None:
    """Removes the lock files of dead owners, including those that never reserved anything."""
    prefix = _lock_path(ledger, "")
    for path in list(prefix.parent.iterdir()):
        if path.name.startswith(prefix.name):
            is_alive(ledger, path.name.removeprefix(prefix.name))


def _lock_path(ledger: Path, token: str) -> Path:
    ledger = ledger.resolve()  # One lock file, whichever path or link leads to the ledger.
    return ledger.with_name(f"{ledger.name}-owner-{token}")


def _after_fork() -> None:
    for owner in list(_open_owners):
        owner._file.close()


# A forked child shares the lock; a child that outlives its parent would keep it "alive".
_open_owners: "weakref.WeakSet[Owner]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
