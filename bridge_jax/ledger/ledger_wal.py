"""The ledger's write-ahead log, and how a ledger is found that was copied without it.

SQLite commits to `ledger.sqlite-wal`, and moves that into `ledger.sqlite` now and then (a
checkpoint). While a ledger is in use, or after its process was killed, a copy of `ledger.sqlite`
alone lacks the last answers, and SQLite cannot tell. So the file says it of itself:

1. `PRAGMA user_version` is set to the negative version, and a checkpoint moves that into the file.
2. It is set back, which is in the log alone.

Whoever reads both files gets the version, and so does every program that moves the log into the
file; whoever reads the file alone gets the negative one. A checkpoint in between would end that, so
SQLite makes none by itself: `Log` does, in these two steps, when the log has grown.

What this does not find: a log that is there, but older than the file or cut short.
"""

import contextlib
import sqlite3
from pathlib import Path

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger_schema import APPLICATION, VERSION

_BYTES = 4_000_000  # As SQLite's own 1,000 pages.
_COMMITS = 50  # Between two checkpoints at least: a reader may keep the log from shrinking.
_BUSY_MILLISECONDS = 5000


def log_of(path: Path) -> Path:
    """Returns where SQLite keeps the log of a database."""
    return path.with_name(path.name + "-wal")


def check_log(connection: sqlite3.Connection, path: Path, had_log: bool) -> None:
    """Raises a `UserError` if the ledger was copied without its log.

    Args:
      connection: to the ledger; opening it has made a log.
      path: of the ledger.
      had_log: whether there was a log before it was opened.
    """
    (version,), (application,) = (
        connection.execute(f"PRAGMA {name}").fetchone()
        for name in ("user_version", "application_id")
    )
    if application == APPLICATION and version == -VERSION and not had_log:
        log = log_of(path)
        raise UserError(
            f"{path}: copied without {log.name}, which has what was answered and paid last: copy "
            f"that file too, from where the ledger was in use. If it is lost, run 'touch {log}' "
            "and the same command again: what it had counts no more, and is asked and paid again"
        )


class Log:
    """The log as one connection writes it.

    Args:
      connection: to the ledger, for writing.
    """

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._commits = 0
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (_, _, file) = connection.execute("PRAGMA database_list").fetchone()
        self._path = log_of(Path(file)) if mode == "wal" else None
        if self._path:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA journal_size_limit = 0")  # Of a log that is begun anew.

    def commit(self) -> None:
        """Commits the transaction, and makes a checkpoint if the log has grown."""
        self._connection.execute("COMMIT")
        self._commits += 1
        if self._path and self._commits >= _COMMITS:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_size >= _BYTES:
                    self.checkpoint()

    def checkpoint(self) -> None:
        """Moves the log into the file, which then says that it is not whole without one.

        What a full disk or another writer forbids is left to the next time.
        """
        self._commits = 0
        if not self._path:
            return
        (before,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            self._connection.execute(f"PRAGMA user_version = {-VERSION}")
            try:
                # It waits for nobody: what a reader still needs stays in the log.
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
        self._connection.execute(f"PRAGMA busy_timeout = {before}")

    def close(self) -> None:
        """Says that the file is whole, which it is once the last connection is closed."""
        if self._path:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute(f"PRAGMA user_version = {VERSION}")
