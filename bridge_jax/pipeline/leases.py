"""Locks a file, so that one process at a time works in a folder.

The lock is the kernel's (`flock`): it is released when the process ends, however it ends, and needs
no cleanup. It works across hosts if their shared file system supports it: NFS (v3 with lockd, v4),
Lustre mounted with `flock`, and Filestore do; a bucket mounted as a folder does not. When a host is
lost, NFS v4 keeps its locks until the lease expires, about 90 seconds.
"""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from bridge_jax import atomic
from bridge_jax.errors import UserError


class WorkdirBusy(UserError):  # noqa: N818
    """Another run is writing in the workdir."""

    def __init__(self, workdir: Path):
        super().__init__(
            f"--workdir={workdir}: another run is writing here; wait for it or choose another"
        )


@contextlib.contextmanager
def held(file: Path, wait: bool = False) -> Iterator[bool]:
    """Yields whether this process holds the lock of a file, and releases it after the block.

    The file is not removed: if it were, two processes could hold the lock.

    Args:
      file: the file to lock; it and its folder are created if they do not exist.
      wait: wait until another process releases the lock.

    Raises:
      UserError: the file cannot be created, or is a symbolic link.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = atomic.open_lock(file)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{file}: a symbolic link, not a lock file; remove it") from None
        raise UserError(
            f"{file.parent}: {error.strerror}; cannot create a lock file there"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_ours = True
        except BlockingIOError:
            is_ours = False
        yield is_ours


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Locks the workdir during the block, for all processes of this run; the first one locks it.

    Raises:
      WorkdirBusy: another run holds the lock; raised in all processes.
      UserError: the lock file or its folder cannot be created.
    """
    from bridge_jax.parallel import hosts  # JAX takes seconds to import; few commands lock.

    taken = held(workdir / ".lock") if hosts.is_first() else contextlib.nullcontext(True)
    with taken as ours:
        if not hosts.broadcast(ours):
            raise WorkdirBusy(workdir)
        yield
