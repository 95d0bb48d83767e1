"""Whether the process that made a reservation still lives, asked of the kernel.

An owner holds an exclusive `flock` on a small file of its own. The kernel drops the lock when the
process ends, however it ends, reboots included. Unlike a process id with its start time, that
cannot be fooled by a reused id, a clock that is set, or a container with its own ids.
"""

import contextlib
import errno
import fcntl
import os
import uuid
import weakref
from pathlib import Path
from typing import IO

from bridge_jax import atomic


class Owner:
    """This process, as the owner of reservations in one ledger, until `close`.

    Attributes:
      token: its name; unique for ever.
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
            # Before it was locked, somebody may have taken it for that of a dead process.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    return file
            file.close()

    def close(self) -> None:
        """Gives up what is still reserved: it counts as left by a dead process."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _drop_in_forked_child(self) -> None:
        self._file.close()


def is_alive(ledger: Path, token: str) -> bool:
    """Whether the owner's process lives. Removes the file of one that does not."""
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
            # Shared: two that ask at once do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink(missing_ok=True)
        return False


def clear(ledger: Path) -> None:
    """Removes the files of owners that are dead, those who never reserved anything included."""
    prefix = _lock_path(ledger, "").name
    for path in list(ledger.parent.iterdir()):
        if path.name.startswith(prefix):
            is_alive(ledger, path.name.removeprefix(prefix))


def _lock_path(ledger: Path, token: str) -> Path:
    return ledger.with_name(f"{ledger.name}-owner-{token}")


def _after_fork() -> None:
    for owner in list(_open_owners):
        owner._drop_in_forked_child()


# A forked child shares the lock; one that outlives its parent would keep the parent "alive".
_open_owners: "weakref.WeakSet[Owner]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
