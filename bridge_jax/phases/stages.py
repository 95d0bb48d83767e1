"""Stages: what is done is skipped, what was interrupted continues, what has changed runs again.

A stage writes into `<name>.partial` and is renamed to `<name>` when it is whole. Its manifest
holds a fingerprint of the config that it read and of the stages before it.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge_jax import config_io
from bridge_jax.errors import UserError

FORMAT = 1  # Raised when the files of a stage change their meaning.


@dataclasses.dataclass(frozen=True)
class Stage:
    """One arrow of the picture.

    Attributes:
      name: also its folder under the workdir.
      run: writes the stage's files into the folder it is given; called again with the same
        folder after an interruption.
      reads: keys of the config that its result depends on.
      after: stages whose files it reads.
    """

    name: str
    run: Callable[[Any, Path], None]
    reads: tuple[str, ...]
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened to a stage: whether it was done before, and its seconds of work."""

    name: str
    cached: bool
    seconds: float


def fingerprints(stages: Sequence[Stage], describe: Callable[[str], Any]) -> dict[str, str]:
    """Returns the fingerprint of each stage.

    Args:
      stages: in order.
      describe: config key -> JSON value, file contents behind a path included.
    """
    known: dict[str, str] = {}
    for stage in stages:
        known[stage.name] = config_io.digest(
            {
                "format": FORMAT,
                "stage": stage.name,
                "config": {key: describe(key) for key in stage.reads},
                "after": {name: known[name] for name in stage.after},
            }
        )
    return known


def execute(
    stages: Sequence[Stage], context: Any, workdir: Path, describe: Callable[[str], Any]
) -> Iterator[Outcome]:
    """Runs the stages in order, yielding each one's outcome as it ends."""
    prints = fingerprints(stages, describe)
    for stage in stages:
        final = workdir / stage.name
        partial = final.with_name(final.name + ".partial")
        _finish_rename(partial, final, prints[stage.name])
        manifest = _read(final / "manifest.json")
        if manifest and manifest.get("fingerprint") == prints[stage.name]:
            yield Outcome(stage.name, True, manifest["seconds"])
            continue
        yield Outcome(stage.name, False, _run(stage, context, partial, final, prints[stage.name]))


def finished(workdir: Path, stage: str) -> bool:
    """Returns whether a stage's folder is whole, and of the config that ran last."""
    manifest = _read(workdir / stage / "manifest.json")
    expected = _read(workdir / "stages.json") or {}
    return manifest is not None and manifest["fingerprint"] == expected.get(stage)


def _run(stage: Stage, context: Any, partial: Path, final: Path, fingerprint: str) -> float:
    started = _read(partial / "started.json") or {}
    if started.get("fingerprint") != fingerprint:
        shutil.rmtree(partial, ignore_errors=True)
        started = {"fingerprint": fingerprint, "seconds": 0.0}
    began = time.perf_counter()
    try:
        partial.mkdir(parents=True, exist_ok=True)
        write_json(partial / "started.json", started)
        stage.run(context, partial)
        seconds = started["seconds"] + time.perf_counter() - began
        write_json(
            partial / "manifest.json",
            {"stage": stage.name, "fingerprint": fingerprint, "seconds": seconds},
        )
        (partial / "started.json").unlink()
        _finish_rename(partial, final, fingerprint)
        return seconds
    except OSError as error:
        raise UserError(
            f"stage {stage.name}: {error.strerror or error} ({error.filename or partial}); "
            "free some space or mend the disk, and run the same command: it goes on from here"
        ) from error
    finally:
        started["seconds"] += time.perf_counter() - began
        # The time of an interrupted stage is kept, unless that would hide why it was interrupted.
        with contextlib.suppress(OSError):
            if (partial / "started.json").is_file():
                write_json(partial / "started.json", started)


def _finish_rename(partial: Path, final: Path, fingerprint: str) -> None:
    """Puts a whole partial folder in place; also after a kill between its last two steps."""
    manifest = _read(partial / "manifest.json")
    if manifest and manifest["fingerprint"] == fingerprint:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` whole or not at all."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
