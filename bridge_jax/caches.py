"""Keeps results on disk under the hash of their sources.

An entry consists of some files and a JSON file, which is written last and holds their SHA-256. An
entry that is damaged, incomplete or from another version of the code is not used, and is made
again. Several processes may use one folder; in a run of several processes, only the first one
writes.
"""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from bridge_jax import atomic, display
from bridge_jax.parallel import hosts

_FORMAT = 1


def name_of(*made_from: Any) -> str:
    """Returns the name of the entry that is made from these JSON values."""
    return hashlib.sha256(json.dumps([_FORMAT, *made_from]).encode()).hexdigest()[:32]


@functools.cache
def code_of(*parts: str) -> str:
    """Returns the SHA-256 of our code in `parts`, folders of this package such as "data"."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for part in parts:
        files = sorted((root / part).glob("*.py"))
        assert files, f"there is no code in {part}"
        for file in files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def versions_of(*libraries: str) -> tuple[str, ...]:
    """Returns the versions of libraries; "" for one that is not installed."""
    return tuple(map(_version_of, libraries))


def _version_of(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def path_of(folder: Path, name: str, part: str) -> Path:
    """Returns the path of an entry's file `part`."""
    return folder / f"{name}.{part}"


def read(folder: Path, name: str, parts: tuple[str, ...]) -> dict[str, Any] | None:
    """Returns the facts of an entry; None if it is missing or its files have changed."""
    try:
        entry = json.loads(path_of(folder, name, "json").read_bytes())
        whole = all(_digest(path_of(folder, name, p)) == entry["sha256"][p] for p in parts)
        return dict(entry["facts"]) if whole and entry["format"] == _FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write(
    folder: Path,
    name: str,
    parts: Mapping[str, Callable[[IO[bytes]], Any]],
    facts: Mapping[str, Any],
) -> None:
    """Writes an entry, replacing an older one; a disk error is reported but not raised.

    Args:
      folder: the folder of the cache, created if necessary.
      name: the entry's name, from `name_of`.
      parts: for each file, the end of its name and the function that writes it.
      facts: small JSON values that `read` returns.
    """
    if not hosts.is_first():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {}
        for part, save in parts.items():
            path = path_of(folder, name, part)
            with atomic.written(path, atomic.part_of(path), sync=False, mode="xb") as file:
                save(file)
            digests[part] = _digest(path)
        entry = {"format": _FORMAT, "facts": dict(facts), "sha256": digests}
        atomic.replace(path_of(folder, name, "json"), json.dumps(entry, indent=2))
    except OSError as error:
        display.print_error(
            f"{folder}: {error.strerror or error}; nothing can be cached there, so the next "
            "start recomputes it"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
