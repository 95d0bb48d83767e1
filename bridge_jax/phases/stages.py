"""Stages: what is done is skipped, what was interrupted continues, what has changed runs again.

A stage writes into `<name>.partial` and is renamed to `<name>` when it is whole. Its manifest
holds a fingerprint of the config that it read and of the stages before it.
"""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge_jax import config_io, timing
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.phases.files import read_json, write_json

FORMAT = 1  # Raised when the files of a stage change their meaning.
STARTED = "started.json"  # Marks a folder that is not whole.


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
        before = hosts.agree(_done_before(partial, final, prints[stage.name]))
        if before is not None:
            yield Outcome(stage.name, True, before)
            continue
        yield Outcome(stage.name, False, _run(stage, context, partial, final, prints[stage.name]))


def finished(workdir: Path, stage: str) -> bool:
    """Returns whether a stage's folder is whole, and of the config that ran last."""
    manifest = read_json(workdir / stage / "manifest.json")
    expected = read_json(workdir / "stages.json") or {}
    return manifest is not None and manifest["fingerprint"] == expected.get(stage)


def is_done(workdir: Path, stage: str, fingerprint: str) -> bool:
    """Returns whether a stage is whole and of this fingerprint, so that it is not run again."""
    folders = (workdir / stage, workdir / f"{stage}.partial")
    manifests = [read_json(folder / "manifest.json") or {} for folder in folders]
    return any(manifest.get("fingerprint") == fingerprint for manifest in manifests)


def _done_before(partial: Path, final: Path, fingerprint: str) -> float | None:
    """Returns the seconds that a stage has taken, if it is whole and of this config."""
    if hosts.is_first():
        _finish_rename(partial, final, fingerprint)
    manifest = read_json(final / "manifest.json")
    matches = manifest is not None and manifest.get("fingerprint") == fingerprint
    return manifest["seconds"] if manifest and matches else None


def _run(stage: Stage, context: Any, partial: Path, final: Path, fingerprint: str) -> float:
    began = time.perf_counter()
    started = {"fingerprint": fingerprint, "seconds": 0.0, "restarts": 0}
    try:
        if hosts.is_first():
            started = _begin(partial, started)
        hosts.meet(f"{stage.name} begins")
        timing.take()  # What came before is not the stage's.
        stage.run(context, partial)
        hosts.meet(f"{stage.name} ends")
        started["seconds"] += time.perf_counter() - began
        if hosts.is_first():
            manifest = {"stage": stage.name} | started | timing.take()
            write_json(partial / "manifest.json", manifest)
            (partial / STARTED).unlink()
            _finish_rename(partial, final, fingerprint)
        return hosts.agree(started["seconds"])
    except OSError as error:
        raise UserError(
            f"stage {stage.name}: {error.strerror or error} ({error.filename or partial}); "
            "free some space or mend the disk, and run the same command: it goes on from here"
        ) from error
    finally:
        # The time of an interrupted stage is kept, unless that would hide why it was interrupted.
        with contextlib.suppress(OSError):
            if hosts.is_first() and (partial / STARTED).is_file():
                spent = started["seconds"] + time.perf_counter() - began
                write_json(partial / STARTED, started | {"seconds": spent})


def _begin(partial: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Makes the stage's folder, or goes on in that of an earlier attempt; returns its record."""
    earlier = read_json(partial / STARTED) or {}
    if earlier.get("fingerprint") == fresh["fingerprint"]:
        return fresh | earlier | {"restarts": earlier.get("restarts", 0) + 1}
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / STARTED, fresh)
    return fresh


def _finish_rename(partial: Path, final: Path, fingerprint: str) -> None:
    """Puts a whole partial folder in place; also after a kill between its last two steps."""
    manifest = read_json(partial / "manifest.json")
    if manifest and manifest["fingerprint"] == fingerprint:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
