"""Lets one process at a time work in a folder.

A lease is behind an interface, so that a bucket can have one of another kind. That of a local file
is the kernel's lock (`flock`): it ends with the process, however that ends, and nothing has to be
cleaned up. Between hosts it holds where their disk passes it on: NFS (v3 with lockd, v4), Lustre
mounted with `flock`, Filestore; not in a bucket that is mounted as a folder. When a host is lost,
NFS v4 keeps its locks until the lease ends, some 90 seconds.
"""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from bridge_jax import atomic
from bridge_jax.errors import UserError


class WorkdirBusy(UserError):  # noqa: N818
    """Another run is writing in the workdir."""

    def __init__(self, workdir: Path):
        super().__init__(
            f"--workdir={workdir}: another run is writing here; wait for it or choose another"
        )


class Lease(Protocol):
    """The right to work somewhere, which one process at a time has."""

    def take(self, wait: bool = False) -> bool:
        """Returns whether this process has it now; it may `wait` for it."""
        ...

    def release(self) -> None:
        """Gives it back, if this process has it."""
        ...


class FileLease:
    """The lock of a local file. The file stays: one that is removed could be locked twice."""

    def __init__(self, file: Path):
        self._file, self._handle = file, None

    _handle: IO[str] | None

    def take(self, wait: bool = False) -> bool:
        """Returns whether this process has the lock; the folder is made if need be.

        Raises:
          UserError: the file cannot be made, or is a symbolic link.
        """
        file = self._file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = atomic.open_lock(file)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UserError(f"{file}: a symbolic link, not a lock file; remove it") from None
            raise UserError(
                f"{file.parent}: {error.strerror}; no lock can be made there"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            handle.close()
            return False
        self._handle = handle
        return True

    def release(self) -> None:
        """Gives the lock back."""
        if self._handle:
            self._handle.close()
            self._handle = None


def lease(place: Path) -> Lease:
    """Returns the lease named by a path, of the kind that its disk has."""
    return FileLease(place)


@contextlib.contextmanager
def held(place: Path, wait: bool = False) -> Iterator[bool]:
    """Yields whether this process has a lease until the block ends; it may `wait` for it.

    Raises:
      UserError: there cannot be one.
    """
    ours = lease(place)
    taken = ours.take(wait)
    try:
        yield taken
    finally:
        ours.release()


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir.

    Raises:
      WorkdirBusy: another run holds it.
      UserError: the folder cannot be made.
    """
    with held(workdir / ".lock") as ours:
        if not ours:
            raise WorkdirBusy(workdir)
        yield
