"""Runs stages: skips what is done, goes on with what was interrupted, repeats what has changed.

Whether a stage is done is decided by its shallow key (`pipeline.keys`), so a stage before it that
ran again with an equal result makes nothing after it run.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_jax import timing
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.pipeline import files, keys, made_with, storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.leases import held
from bridge_jax.pipeline.stages import Input, Stage
from bridge_jax.pipeline.storage import Folder, Store


class StageBusy(Exception):  # noqa: N818 - no error: come back later
    """Another process is making the stage of this name in the shared store."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What happened to a stage.

    Attributes:
      name: of the stage.
      cached: whether it was done before.
      seconds: of work, whenever it was done.
      why: what a user should know of it, in words.
    """

    name: str
    cached: bool
    seconds: float
    why: str = ""


@dataclasses.dataclass(frozen=True)
class _Made:
    """A finished stage as all processes know it."""

    folder: str
    key: str
    content: str
    seconds: float
    damage: str
    dropped: bool


class Execution:
    """The stages of a run, carried out in order.

    Args:
      stages: in order.
      inputs: by name.
      workdir: of the run; held by this process.
      store: where the stages lie.
      hashes: of files.
      deep: the deep key of each stage.
      as_they_are: finished stages that are taken as they are, whatever their keys; what they read
        need not be among `stages`.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        inputs: Mapping[str, Input],
        workdir: Path,
        store: Store,
        hashes: Hashes,
        deep: Mapping[str, str],
        as_they_are: frozenset[str] = frozenset(),
    ):
        self._stages = {stage.name: stage for stage in stages}
        self._inputs, self._workdir, self._store = inputs, workdir, store
        self._hashes, self._as_they_are = hashes, as_they_are
        self._deep = deep
        self._made: dict[str, _Made] = {}

    def run(self) -> Iterator[Outcome]:
        """Runs what is not done, yielding the outcome of each stage as it ends.

        Raises:
          StageBusy: another process is making the next stage in the store. Nothing is lost: what
            was done before it stays.
        """
        try:
            for stage in self._stages.values():
                with _disk_errors(stage.name):
                    made = self._look(stage)
                    if made and not made.damage:
                        self._settle(stage, made)
                if made and not made.damage:
                    yield Outcome(stage.name, True, made.seconds, self._taken(stage, made))
                else:
                    yield from self._make(stage, made.damage if made else "")
        finally:
            with contextlib.suppress(OSError):  # They are computed again.
                self._hashes.save()

    def _taken(self, stage: Stage, made: _Made) -> str:
        """Returns what to say of a stage that is taken as it is, though it would run otherwise."""
        is_other = stage.name in self._as_they_are and made.key != self._deep[stage.name]
        return "taken as it is, made of other data or settings" if is_other else ""

    def is_done(self, careful: bool = False) -> bool:
        """Returns whether nothing is to be run.

        Args:
          careful: look at the files too, not at the manifests alone, and mend what can be mended.
        """
        for stage in self._stages.values():
            made = self._look(stage, careful)
            if made is None or made.damage:
                return False
            self._made[stage.name] = made
        return True

    def may_be_done(self, name: str) -> bool:
        """Returns whether a stage is finished, as far as can be known before the ones before it."""
        found = None
        for stage in self._stages.values():
            found = self._look(stage, careful=False)
            if stage.name == name or found is None:
                break
            self._made[stage.name] = found
        self._made.clear()
        own = storage.manifest(self._store.folder(name, self._deep[name]))
        return found is not None or own is not None

    def _make(self, stage: Stage, why: str) -> Iterator[Outcome]:
        """Runs a stage, and before it what it reads and is not whole any more."""
        for name in stage.reads.values():
            if name in self._stages:
                made = self._made[name]
                if made.dropped:
                    yield from self._make(self._stages[name], "its model was deleted")
        with _disk_errors(stage.name):
            outcome = self._claim_and_run(stage, why)
        yield outcome

    def _claim_and_run(self, stage: Stage, why: str) -> Outcome:
        folder = self._store.folder(stage.name, self._deep[stage.name])
        with _claim(folder.with_name(folder.name + ".lock"), self._store.shared) as ours:
            if not hosts.agree(ours):
                raise StageBusy(stage.name)
            made = self._look(stage)  # It may have been finished since.
            if made and not made.damage and not (made.dropped and self._is_wanted(stage)):
                self._settle(stage, made)
                return Outcome(stage.name, True, made.seconds)
            seconds = self._run(stage, folder)
        made = self._look(stage, careful=False)
        assert made, f"{stage.name} is made, but not found"
        self._settle(stage, made)
        if hosts.is_first():
            self._store.prune(stage.name, folder)
        return Outcome(stage.name, False, seconds, f"{why}; made again" if why else "")

    def _is_wanted(self, stage: Stage) -> bool:
        """Whether the parameters of a stage that were dropped are read, since it is made again."""
        return stage.name in self._made

    def _shallow(self, stage: Stage) -> str:
        return keys.shallow_key(stage, self._inputs, lambda name: self._made[name].content)

    def _look(self, stage: Stage, careful: bool = True) -> _Made | None:
        """Returns the finished stage, if it is; `careful` looks at its files too, and mends them.

        The first process looks, and all take its word.
        """
        found = None
        if hosts.is_first():
            place = self._place(stage)
            if place:
                folder, record = place
                damage = storage.damage(folder, record, self._hashes) if careful else ""
                if damage and (mended := self._mend(stage, folder)):
                    record, damage = mended, ""
                found = [str(folder), record.key, record.content]
                found += [record.seconds, damage, record.dropped]
        found = hosts.agree(found)
        return _Made(*found) if found else None

    def _place(self, stage: Stage) -> tuple[Path, storage.Record] | None:
        if stage.name in self._as_they_are:
            name = self._workdir / stage.name
            found = storage.manifest(name)
            return (name.resolve(), found) if found else None
        return self._store.find(stage.name, self._deep[stage.name], self._shallow(stage))

    def _mend(self, stage: Stage, folder: Path) -> storage.Record | None:
        """Returns what the manifest of a damaged stage says once mended; None if it is not."""
        place = Folder(folder, stage.artifact)
        if not (stage.mend and stage.mend(stage.params, place, **self._opened(stage))):
            return None
        storage.commit(place, files.read_json(folder / storage.MANIFEST) or {}, self._hashes)
        return storage.manifest(folder)

    def _settle(self, stage: Stage, made: _Made) -> None:
        self._made[stage.name] = made
        if hosts.is_first():
            storage.link(self._workdir, stage.name, Path(made.folder))
            used = storage.current(self._workdir)
            if used.get(stage.name) != made.key:
                files.write_json(self._workdir / storage.CURRENT, used | {stage.name: made.key})

    def _opened(self, stage: Stage) -> dict[str, Any]:
        """Returns what a stage reads, by argument."""
        opened = {}
        for argument, name in stage.reads.items():
            if name in self._stages:
                place = Path(self._made[name].folder)
                opened[argument] = Folder(place, self._stages[name].artifact)
            else:
                opened[argument] = self._inputs[name].open()
        return opened

    def _run(self, stage: Stage, place: Path) -> float:
        """Runs a stage in its folder and commits it; returns its seconds of work."""
        began = time.perf_counter()
        key, shallow = self._deep[stage.name], self._shallow(stage)
        record = {"key": key, "shallow": shallow, "seconds": 0.0, "restarts": 0}
        folder = Folder(place, stage.artifact)
        try:
            if hosts.is_first():
                record = _begin(place, record)
            hosts.meet(f"{stage.name} begins")
            timing.take()  # What came before is not the stage's.
            stage.run(stage.params, folder, **self._opened(stage))
            hosts.meet(f"{stage.name} ends")
            record["seconds"] += time.perf_counter() - began
            if hosts.is_first():
                manifest = {"stage": stage.name} | record | timing.take() | made_with.describe()
                storage.commit(folder, manifest, self._hashes)
            return hosts.agree(record["seconds"])
        finally:
            # The time of an interrupted stage is kept, unless that would hide why it was.
            with contextlib.suppress(OSError):
                if hosts.is_first() and (place / storage.STARTED).is_file():
                    spent = record["seconds"] + time.perf_counter() - began
                    files.write_json(place / storage.STARTED, record | {"seconds": spent})


@contextlib.contextmanager
def _disk_errors(stage: str) -> Iterator[None]:
    """Raises a `UserError` for what the disk says in the block."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"stage {stage}: {error.strerror or error} ({error.filename}); free some space or mend "
            "the disk, and run the same command: it goes on from here"
        ) from error


def _claim(file: Path, shared: bool) -> contextlib.AbstractContextManager[bool]:
    return held(file) if shared and hosts.is_first() else contextlib.nullcontext(True)


def _begin(place: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Makes the stage's folder, or goes on in that of an earlier attempt; returns its record."""
    earlier = storage.started(place)
    if earlier and earlier["shallow"] == fresh["shallow"]:
        return fresh | earlier | {"restarts": earlier.get("restarts", 0) + 1}
    storage.clear(place)
    files.write_json(place / storage.STARTED, fresh)
    return fresh
