"""Writes files whole or not at all, and opens lock files.

The names of our temporary files can be guessed. Another user of the folder could put a symbolic
link under such a name, so links are never followed: writing would empty or overwrite the file that
the link points to.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def written(path: Path, beside: Path, sync: bool, mode: str = "x") -> Iterator[IO[Any]]:
    """Yields a new file that replaces `path` atomically if the block raises nothing.

    Args:
      path: the file to replace.
      beside: the temporary name, in the same folder; an existing file of that name is removed.
      sync: wait until the file is on the disk.
      mode: "x" for text, "xb" for bytes.
    """
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    beside.unlink(missing_ok=True)
    try:
        with beside.open(mode, encoding=encoding, newline=newline) as file:  # "x" follows no link.
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` atomically, and waits until it is on the disk."""
    with written(path, path.with_name(path.name + ".tmp"), sync=True) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON atomically, and waits until it is on the disk."""
    write_text(path, json.dumps(value, indent=2))


def replace(path: Path, text: str) -> None:
    """Writes `text` atomically without waiting for the disk, for files that can be recomputed."""
    with written(path, part_of(path), sync=False) as file:
        file.write(text)


def part_of(path: Path) -> Path:
    """Returns this process's temporary name for a file that is to replace `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def open_lock(path: Path) -> IO[str]:
    """Opens a lock file, creating it if necessary; its content is kept.

    Raises:
      OSError: it cannot be opened, or is a symbolic link (`errno.ELOOP`).
    """
    # Also for writing, because NFS grants an exclusive lock only on such a file.
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    return os.fdopen(file, "r+")
