"""The ledger's SQLite file: opening it, and its errors in a user's words."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tenacity

from bridge_jax.errors import UserError
from bridge_jax.ledger.disk import on_network
from bridge_jax.ledger.ledger_schema import VERSION, check, prepare
from bridge_jax.ledger.ledger_wal import check_log, log_of

_BUSY_SECONDS = 60.0
_NO_LOCKS = "this disk has no file locks; name a ledger on another with budget.ledger"


def connect(path: Path) -> sqlite3.Connection:
    """Returns a connection to a sound ledger, made now if there was none.

    Raises:
      UserError: it is no ledger of ours, or was copied without its log.
    """
    had_log = log_of(path).exists()
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.replace("\n", " "))
        connection.execute("BEGIN IMMEDIATE")
        check_log(connection, path, had_log)
        prepare(connection, path)
        # Writing something now finds a file that must not be written, which BEGIN does not.
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        _set_journal(connection, "DELETE" if on_network(path) else "WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_at_once(path: Path) -> sqlite3.Connection:
    """Returns a further connection to a ledger that is open; it waits for no other writer."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Returns a connection to a ledger of this version; the file need not be writable."""
    had_log = log_of(path).exists()
    # mode=rw makes no file, and where it must not write it reads. (mode=ro would leave the files
    # of the WAL behind.) The path may hold what means something in a URI: `as_uri` quotes it.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )
    try:
        check_log(connection, path, had_log)
        check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


# SQLite's own waiting does not cover this switch when several processes open a new file at once.
@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: code_of(error) == sqlite3.SQLITE_BUSY),
    stop=tenacity.stop_after_delay(_BUSY_SECONDS),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _set_journal(connection: sqlite3.Connection, mode: str) -> None:
    connection.execute(f"PRAGMA journal_mode = {mode}")


def code_of(error: BaseException) -> int:
    """Returns SQLite's primary result code, 0 where there is none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of the file into errors that a user can act on."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        match code_of(error):
            case sqlite3.SQLITE_NOTADB:
                remedy = "it is no ledger; give another path"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                remedy = f"another process has held it for {_BUSY_SECONDS:.0f} s; end that one"
            case sqlite3.SQLITE_CORRUPT | 0 if type(error) is sqlite3.DatabaseError:
                remedy = "it is damaged; put a copy in its place, or move it away and pay again"
            case sqlite3.SQLITE_PROTOCOL:
                remedy = _NO_LOCKS
            case 0 if getattr(error, "errno", 0) in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                remedy = _NO_LOCKS
            case _:
                remedy = (
                    "free disk space or make the folder writable, then run the same command "
                    "again: every answer settled before is kept"
                )
        raise UserError(f"{path}: {error}: {remedy}") from error
