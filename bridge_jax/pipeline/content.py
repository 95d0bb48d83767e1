"""Hashes files, JSON values and the parameters of models (SHA-256).

A file is read again only if its size, its timestamps or its inode have changed.
"""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bridge_jax import atomic
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts

# The hash of a file that was changed less than this ago is not cached: a second change might leave
# the same timestamps, which some file systems store in whole seconds.
_YOUNG_NS = 2_000_000_000


def of_value(value: Any) -> str:
    """Returns the SHA-256 of a JSON value; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def of_rows(rows: Iterable[Mapping[str, Any]], fields: Iterable[str]) -> str:
    """Returns the SHA-256 of the `fields` of rows, in row order; missing fields are left out."""
    found, names = hashlib.sha256(), sorted(fields)
    for row in rows:
        kept = [[name, row[name]] for name in names if name in row]
        found.update(json.dumps(kept, sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def of_params(params: Any) -> str:
    """Returns the SHA-256 of the values of a pytree of arrays, shard by shard.

    Each process hashes its own shards; of replicated shards only the first replica is hashed.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                index = [part.indices(size)[:2] for part, size in zip(shard.index, leaf.shape)]
                found.append([name, index, str(leaf.dtype), of_bytes(np.asarray(shard.data))])
    return of_value(sorted(part for each in hosts.all_gather(found) for part in each))


def of_bytes(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's values."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


class Hashes:
    """Computes the SHA-256 of files, and caches the hashes in a file.

    Args:
      file: the cache file; None caches only in this process.
    """

    def __init__(self, file: Path | None = None):
        self._file = file
        self._known: dict[str, list[Any]] = {}
        self._new: set[str] = set()

    @functools.cached_property
    def _before(self) -> dict[str, list[Any]]:
        """The entries of the cache file; none if it is damaged: then files are read again."""
        try:
            found = json.loads(self._file.read_text()) if self._file else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def of_file(self, path: Path) -> str:
        """Returns the SHA-256 of a file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            name, stat = str(path.resolve()), path.stat()
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            for known in (self._known, self._before):
                if isinstance(entry := known.get(name), list) and entry[:-1] == state:
                    return str(entry[-1])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _YOUNG_NS:
            self._known[name] = [*state, digest]
            self._new.add(name)
        return digest

    def of_files(self, folder: Path, endings: tuple[str, ...] = ("",)) -> dict[str, str]:
        """Returns the SHA-256 of each file in a folder, by its path there.

        Args:
          folder: searched with all its subfolders.
          endings: name endings of the files to hash; other files are left out.
        """
        inside = sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(endings))
        return {each.relative_to(folder).as_posix(): self.of_file(each) for each in inside}

    def of_place(self, path: Path) -> str:
        """Returns the SHA-256 of a file, or of a folder's files and names; "" if it is neither."""
        if path.is_file():
            return self.of_file(path)
        return of_value(self.of_files(path)) if path.is_dir() else ""

    def save(self) -> None:
        """Adds new entries to those in the cache file; ignores disk errors."""
        if not (self._file and self._new and hosts.is_first()):
            return
        self.__dict__.pop("_before", None)  # Read again: others may have written since.
        with contextlib.suppress(OSError):  # Then the next run reads the files again.
            self._file.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace(self._file, json.dumps(self._before | self._known))
            self._new.clear()
