"""One process at a time in a workdir."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from bridge_jax.errors import UserError


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir; the lock ends with the process, also when it is killed.

    Raises:
      UserError: another run holds it, or the folder cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir={workdir}: another run is writing here; wait for it or choose another"
            ) from None
        yield
