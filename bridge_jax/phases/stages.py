"""Stages: what is done is skipped, what was interrupted continues, what has changed runs again.

A stage writes into `<name>.partial` and is renamed to `<name>` when it is whole. Its manifest
holds a fingerprint of the config that it read and of the stages before it.

Runs may share a store: there a stage lies under `<name>/<fingerprint>`, is made once for all of
them, and a run's folder has links to it.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge_jax import config_io, timing
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.phases.files import read_json, write_json
from bridge_jax.phases.workdir import held

FORMAT = 1  # Raised when the files of a stage change their meaning.
MANIFEST = "manifest.json"  # Marks a folder that is whole.
STARTED = "started.json"  # Marks one that is not.


@dataclasses.dataclass(frozen=True)
class Stage:
    """One arrow of the picture.

    Attributes:
      name: also its folder under the workdir.
      run: writes the stage's files into the folder it is given; called again with the same
        folder after an interruption.
      reads: keys of the config that its result depends on.
      after: stages whose files it reads.
      is_whole: given the folder of a stage that was done before, returns whether its files still
        are what they were; it may mend them. Otherwise the stage runs again.
    """

    name: str
    run: Callable[[Any, Path], None]
    reads: tuple[str, ...]
    after: tuple[str, ...] = ()
    is_whole: Callable[[Any, Path], bool] | None = None


class StageBusy(Exception):  # noqa: N818 - no error: come back later
    """Another process is making the stage of this name in the shared store."""


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
      describe: config key -> JSON value, file contents behind a path included; None is left
        out, so that an option that is not used changes no fingerprint.
    """
    known: dict[str, str] = {}
    for stage in stages:
        known[stage.name] = config_io.digest(
            {
                "format": FORMAT,
                "stage": stage.name,
                "config": {
                    key: value for key in stage.reads if (value := describe(key)) is not None
                },
                "after": {name: known[name] for name in stage.after},
            }
        )
    return known


def execute(
    stages: Sequence[Stage],
    context: Any,
    workdir: Path,
    describe: Callable[[str], Any],
    store: Path | None = None,
) -> Iterator[Outcome]:
    """Runs the stages in order, yielding each one's outcome as it ends.

    Args:
      stages: in order.
      context: what each of them is given.
      workdir: where their folders are; held by this process.
      describe: as in `fingerprints`.
      store: where runs share their stages, if they do.

    Raises:
      StageBusy: another process is making the next stage in the store. Nothing is lost: what was
        done before it stays.
    """
    prints = fingerprints(stages, describe)
    folders = {
        stage.name: store / stage.name / prints[stage.name] if store else workdir / stage.name
        for stage in stages
    }
    read = set(hosts.agree(sorted(_read_later(stages, folders, prints))))
    for stage in stages:
        final, fingerprint = folders[stage.name], prints[stage.name]
        outcome = _reach(stage, context, final, fingerprint, stage.name in read, bool(store))
        if store and hosts.is_first():
            _link(workdir / stage.name, final)
        yield outcome


def finished(workdir: Path, stage: str) -> bool:
    """Returns whether a stage's folder is whole, and of the config that ran last."""
    made = _record(workdir / stage / MANIFEST)
    expected = read_json(workdir / "stages.json") or {}
    return made is not None and made["fingerprint"] == expected.get(stage)


def is_done(workdir: Path, stage: str, fingerprint: str) -> bool:
    """Returns whether a stage is whole and of this fingerprint, so that it is not run again."""
    folders = (workdir / stage, workdir / f"{stage}.partial")
    records = [_record(folder / MANIFEST) for folder in folders]
    return any(record and record["fingerprint"] == fingerprint for record in records)


def drop_model(folder: Path) -> None:
    """Removes the parameters of a finished stage, which is made again when they are needed."""
    manifest = _record(folder / MANIFEST)
    if manifest and (folder / "params").is_dir():
        # First, so that a kill between the two leaves no model that is believed to be whole.
        write_json(folder / MANIFEST, manifest | {"dropped": True})
        shutil.rmtree(folder / "params", ignore_errors=True)


def _read_later(
    stages: Sequence[Stage], folders: dict[str, Path], prints: dict[str, str]
) -> set[str]:
    """Returns the stages whose files are read by one that has yet to run."""
    read: set[str] = set()
    for stage in reversed(stages):
        if _seconds(folders[stage.name], prints[stage.name], stage.name in read) is None:
            read.update(stage.after)
    return read


def _reach(
    stage: Stage, context: Any, final: Path, fingerprint: str, read: bool, shared: bool
) -> Outcome:
    """Runs a stage, unless it is done."""
    before = _done(stage, context, final, fingerprint, read)
    if before is not None:
        return Outcome(stage.name, True, before)
    partial = final.with_name(final.name + ".partial")
    with _claim(final.with_name(final.name + ".lock"), shared) as ours:
        if not hosts.agree(ours):
            raise StageBusy(stage.name)
        if hosts.is_first():
            _finish_rename(partial, final, fingerprint)
        # It may have been finished since.
        before = _done(stage, context, final, fingerprint, read)
        if before is not None:
            return Outcome(stage.name, True, before)
        return Outcome(stage.name, False, _run(stage, context, partial, final, fingerprint))


def _done(stage: Stage, context: Any, final: Path, fingerprint: str, read: bool) -> float | None:
    """Returns the seconds a stage took, on all processes, if nothing of it is to be done again."""
    seconds = None
    if hosts.is_first():
        seconds = _seconds(final, fingerprint, read)
        if seconds is not None and stage.is_whole and not stage.is_whole(context, final):
            seconds = None
    return hosts.agree(seconds)


def _claim(file: Path, shared: bool) -> contextlib.AbstractContextManager[bool]:
    return held(file) if shared and hosts.is_first() else contextlib.nullcontext(True)


def _seconds(final: Path, fingerprint: str, read: bool) -> float | None:
    """Returns the seconds a stage took, if it is whole, of this config and fit to be `read`."""
    manifest = _record(final / MANIFEST)
    if not manifest or manifest["fingerprint"] != fingerprint:
        return None
    return None if read and manifest.get("dropped") else manifest["seconds"]


def _record(path: Path) -> dict[str, Any] | None:
    """Returns a manifest, or the record of a stage that has begun; None if it is damaged.

    One that is damaged is none: the stage is not whole, and runs again.
    """
    record = read_json(path)
    if record is None or not isinstance(record.get("fingerprint"), str):
        return None
    seconds, restarts = record.get("seconds"), record.get("restarts", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return record if 0 <= seconds < math.inf and type(restarts) is int else None


def _link(link: Path, target: Path) -> None:
    """Makes `link` a relative link to `target`, at once, whatever is there."""
    words = os.path.relpath(target, link.parent)
    if link.is_symlink() and link.readlink() == Path(words):
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(link.name + ".link")
    beside.unlink(missing_ok=True)
    beside.symlink_to(words)
    if not link.is_symlink():
        _remove(link)
    beside.replace(link)


def _remove(folder: Path) -> None:
    """Removes a folder, or the link to one that others may have."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


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
            write_json(partial / MANIFEST, manifest)
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
    earlier = _record(partial / STARTED)
    if earlier and earlier["fingerprint"] == fresh["fingerprint"]:
        return fresh | earlier | {"restarts": earlier.get("restarts", 0) + 1}
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / STARTED, fresh)
    return fresh


def _finish_rename(partial: Path, final: Path, fingerprint: str) -> None:
    """Puts a whole partial folder in place; also after a kill between its last two steps."""
    manifest = _record(partial / MANIFEST)
    if manifest and manifest["fingerprint"] == fingerprint:
        _remove(final)
        partial.rename(final)
