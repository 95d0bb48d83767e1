"""Stores the results of stages: a folder for each stage and key, on mounted disks for now.

    WORKDIR/stages/apprenticeship/warmup/KEY/    the files, and manifest.json, written last
    WORKDIR/apprenticeship/warmup                a link to the folder that the run uses

A folder with a manifest is complete; one without is being written, or was interrupted. Folders are
never renamed. The runs of a study share one `stages` folder, which holds their common results once.
"""

import errno
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from bridge_jax import atomic
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.pipeline import content, files
from bridge_jax.pipeline.artifacts import PARAMS, Artifact, Manifest
from bridge_jax.pipeline.content import Hashes
from bridge_jax.timing import Spans

STAGES = "stages"
MANIFEST = "manifest.json"
STARTED = "started.json"
SHARDS = "shards"
CURRENT = "stages.json"  # In a workdir: stage -> the key of the folder that the run uses.
HINT = "run the same command again: it detects the damage and reruns that stage"
_LONGEST = 1e9  # The longest plausible duration, in seconds: some thirty years.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local(path: str, flag: str) -> Path:
    """Returns the folder that a flag names.

    Raises:
      UserError: it is a URL, such as gs://bucket/run, which cannot be written to yet.
    """
    if found := _SCHEME.match(path):
        raise UserError(
            f"{flag}={path}: {found[0]} cannot be written yet; use a local folder, and copy it "
            "there after the run has finished (gsutil rsync for gs://)"
        )
    return Path(path)


class Folder:
    """The folder of one stage, with the files that its row of the table declares.

    Attributes:
      path: the path of the folder.
      artifact: the stage's row.
      spans: measures the time of parts of the stage's work.
    """

    def __init__(self, path: Path, artifact: Artifact, spans: Spans | None = None):
        self.path, self.artifact, self.spans = path, artifact, spans or Spans()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Returns the rows of a JSON Lines file.

        Raises:
          UserError: the file is missing or damaged.
        """
        return files.read_rows(self.path / name, HINT)

    def record(self, name: str) -> dict[str, Any]:
        """Returns a JSON object.

        Raises:
          UserError: the file is missing, or does not hold a JSON object.
        """
        found = files.read_json(self.path / name)
        if found is None:
            raise UserError(f"{self.path / name}: damaged; {HINT}")
        return found

    def array(self, name: str) -> np.ndarray:
        """Returns the array of a .npy file.

        Raises:
          UserError: it cannot be read.
        """
        try:
            return np.load(self.path / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{self.path / name}: damaged ({error}); {HINT}") from None

    def write_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Writes a JSON Lines file atomically."""
        files.write_rows(self.path / name, rows)

    def append_rows(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to a JSON Lines file, and waits until they are on the disk."""
        files.append_rows(self.path / name, rows)

    def appended(self, name: str) -> list[dict[str, Any]]:
        """Returns the rows that were appended so far, without a last one that a kill cut short."""
        return files.read_appended(self.path / name)

    def write_record(self, name: str, value: Mapping[str, Any]) -> None:
        """Writes a JSON object atomically."""
        files.write_json(self.path / name, value)

    def write_array(self, name: str, value: np.ndarray) -> None:
        """Writes a .npy file."""
        if hosts.is_first():
            np.save(self.path / name, value)

    @property
    def shards(self) -> "Shards":
        """The parts of a result that is still being computed."""
        return Shards(self.path / SHARDS)


class Shards:
    """The parts of a result that is still being computed; each is a file of named arrays.

    An interrupted stage resumes after the last part. `commit` removes the parts.
    """

    def __init__(self, path: Path):
        self._path = path

    def read(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the parts that every process can read."""
        for name in hosts.broadcast(self._names()):
            found = self._load(name)
            if all(hosts.all_gather(found is not None)) and found is not None:
                yield found

    def write(self, part: Mapping[str, np.ndarray]) -> None:
        """Adds a part atomically, and waits until it is on the disk."""
        if not hosts.is_first():
            return
        self._path.mkdir(exist_ok=True)
        number = max((int(Path(name).stem) + 1 for name in self._names()), default=0)
        path = self._path / f"{number:06d}.npz"
        with atomic.written(path, atomic.part_of(path), sync=True, mode="xb") as file:
            arrays: Any = part
            np.savez(file, **arrays)

    def clear(self) -> None:
        """Removes all parts."""
        if hosts.is_first() and self._path.is_dir():
            shutil.rmtree(self._path)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._path.glob("[0-9]*.npz"))

    def _load(self, name: str) -> dict[str, np.ndarray] | None:
        try:
            with np.load(self._path / name, allow_pickle=False) as found:
                return dict(found)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None


def manifest(folder: Path) -> Manifest | None:
    """Returns the manifest of a folder; None if it is missing or damaged."""
    found = files.read_json(folder / MANIFEST)
    return cast(Manifest, found) if found is not None and _is_manifest(found) else None


def _is_manifest(found: dict[str, Any]) -> bool:
    texts = [found.get(name) for name in ("stage", "key", "shallow", "content")]
    counts = [found.get(name) for name in ("restarts", "compilations")]
    durations = [found.get("seconds")]
    for name, values in (("files", texts), ("made_with", texts), ("spans", durations)):
        if not isinstance(part := found.get(name), dict):
            return False
        values += part.values()
    return (
        all(isinstance(text, str) and text.isprintable() for text in texts)
        and all(type(count) is int for count in counts)
        and all(map(_is_duration, durations))
        and isinstance(found.get("dropped", False), bool)
    )


def started(folder: Path) -> dict[str, Any] | None:
    """Returns the record of a stage that has begun in a folder; None if missing or damaged."""
    found = files.read_json(folder / STARTED)
    if found is None or not isinstance(found.get("shallow"), str):
        return None
    restarts = found.get("restarts", 0)
    if not _is_duration(found.get("seconds")) or type(restarts) is not int:
        return None
    return found


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LONGEST


def commit(folder: Folder, manifest: Mapping[str, Any], hashes: Hashes) -> None:
    """Writes the manifest, which marks the folder as complete.

    A `content` in the manifest is kept: a stage that was run again on the same inputs keeps its
    hash. Otherwise it is computed.

    Raises:
      OSError: `content` is computed, and a declared result is missing.
    """
    there = hashes.of_files(folder.path)
    found = {
        name: there[name]
        for name in there
        if name not in (MANIFEST, STARTED) and not name.startswith(f"{SHARDS}/")
    }
    result = {"content": manifest.get("content") or content_of(folder), "files": found}
    files.write_json(folder.path / MANIFEST, {**manifest, **result})
    (folder.path / STARTED).unlink(missing_ok=True)
    folder.shards.clear()


def content_of(folder: Folder) -> str:
    """Returns the hash of a stage's result: its declared fields and arrays."""
    found = {}
    for file in folder.artifact.files:
        path = folder.path / file.name
        if not file.is_result:
            continue
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "the stage did not write it", str(path))
        if file.kind == "rows":
            found[file.name] = content.of_rows(folder.rows(file.name), file.fields)
        elif file.kind == "record":
            found[file.name] = content.of_rows([folder.record(file.name)], file.fields)
        else:
            found[file.name] = content.of_value(_of_array(folder.array(file.name)))
    return content.of_value(found)


def _of_array(array: np.ndarray) -> list[Any]:
    data = np.ascontiguousarray(array)
    return [str(data.dtype), list(data.shape), content.of_bytes(data)]


def damage(folder: Path, made: Manifest, hashes: Hashes, params: bool = True) -> dict[str, str]:
    """Returns the missing or changed files of a finished stage, each with the reason in words.

    Args:
      folder: the folder of the stage.
      made: its manifest.
      hashes: computes the hashes of files.
      params: also check its parameters, unless they were dropped.
    """
    found = {}
    for name, digest in made["files"].items():
        if name.startswith(f"{PARAMS.name}/") and (made.get("dropped") or not params):
            continue
        if not (folder / name).is_file():
            found[name] = f"{name} is missing"
        elif hashes.of_file(folder / name) != digest:
            found[name] = f"{name} does not match its checksum"
    return found


class Store:
    """The folders of stages.

    Args:
      root: the `stages` folder of a workdir or a study.
      shared: whether other processes may work there too.
    """

    def __init__(self, root: Path, shared: bool = False):
        self.root, self.shared = root, shared

    def folder(self, stage: str, key: str) -> Path:
        """Returns the folder of a stage under a deep key."""
        return self.root / stage / key

    def find(self, stage: str, key: str, shallow: str) -> tuple[Path, Manifest] | None:
        """Returns a complete folder with the shallow key, preferably that of the deep key."""
        own = self.folder(stage, key)
        others = own.parent.glob(f"*/{MANIFEST}") if own.parent.is_dir() else ()
        for folder in [own, *sorted(path.parent for path in others)]:
            found = manifest(folder)
            if found and found["shallow"] == shallow:
                return folder, found
        return None

    def prune(self, stage: str, used: Path) -> None:
        """Removes a stage's other folders, which `used` replaces, unless the store is shared."""
        if self.shared:
            return
        for folder in used.parent.iterdir():
            if folder.is_dir() and folder.name != used.name:
                _remove(folder)


def clear(folder: Path) -> None:
    """Empties a stage's folder."""
    _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _remove(folder: Path) -> None:
    """Deletes a stage's folder, first the files that mark it as complete or resumable."""
    for name in (STARTED, MANIFEST):  # A kill in between leaves nothing to resume.
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        shutil.rmtree(folder)


def drop_model(folder: Path) -> None:
    """Removes the parameters of a finished stage, which runs again when they are needed."""
    found = files.read_json(folder / MANIFEST)
    if found and (folder / PARAMS.name).is_dir():
        # Written first, so that a kill in between leaves no partial model that seems complete.
        files.write_json(folder / MANIFEST, found | {"dropped": True})
        shutil.rmtree(folder / PARAMS.name, ignore_errors=True)


def lock_of(folder: Path) -> Path:
    """Returns the path of the lock file of a stage's folder."""
    return folder.with_name(folder.name + ".lock")


def link(workdir: Path, stage: str, folder: Path) -> None:
    """Points the stage's name in a workdir to its folder, by a relative link, atomically."""
    name, words = workdir / stage, os.path.relpath(folder, (workdir / stage).parent)
    if name.is_symlink() and name.readlink() == Path(words):
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    beside = name.with_name(name.name + ".link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(words)
    if name.is_dir() and not name.is_symlink():
        shutil.rmtree(name)
    beside.replace(name)


def current(workdir: Path) -> dict[str, str]:
    """Returns stage -> key of the folder that the last run of a workdir uses, or will use."""
    return files.read_json(workdir / CURRENT) or {}


def finished(workdir: Path, stage: str) -> bool:
    """Returns whether a stage is complete, and used by the last run."""
    found = manifest(workdir / stage)
    return found is not None and found["key"] == current(workdir).get(stage)
