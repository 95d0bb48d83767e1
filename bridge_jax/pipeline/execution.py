"""Runs stages: skips finished ones, resumes interrupted ones, reruns those with changed inputs.

The shallow key decides whether a stage is finished (`pipeline.stages`). So if an earlier stage ran
again with an equal result, the stages that read it do not run again.

A stage resumes from the first of these that exists:

1. A complete folder with the same shallow key, whose files are intact or can be repaired: nothing
   runs. If its parameters were deleted, it runs again when another stage needs them.
2. Its own folder, begun with the same shallow key, with the parameters of a training: the training
   is over, and only the rest of the stage is done (`methods.fitting`).
3. Such a folder with the state of a training and its position in the data: training continues
   after the last saved step (`training.loop`).
4. Such a folder with completions: these are kept, and the others are generated
   (`pipeline.models`).
5. Such a folder with shards of scores: these are kept, and the other batches are computed
   (`selection.scores`).
6. Such a folder with anything else: it is computed again. The teacher's replies are on the ledger,
   so none is paid for twice.
7. Otherwise, or if its own folder was complete before and is now damaged or lacks its parameters,
   the folder is emptied and the stage starts over.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.pipeline import files, provenance, storage
from bridge_jax.pipeline.artifacts import Manifest
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.leases import held
from bridge_jax.pipeline.stages import Input, Stage, key_of
from bridge_jax.pipeline.storage import Folder, Store
from bridge_jax.timing import Spans


class StageBusy(Exception):  # noqa: N818 - no error: come back later
    """Another process is running this stage (its name is the message) in the shared store."""


@dataclasses.dataclass(frozen=True)
class StageOutcome:
    """The outcome of one stage.

    Attributes:
      name: the name of the stage.
      cached: whether it was finished before.
      seconds: seconds of work, in this run or an earlier one.
      why: why it was run again, or was used as it is; "" if there is nothing to report.
    """

    name: str
    cached: bool
    seconds: float
    why: str = ""


@dataclasses.dataclass(frozen=True)
class _Finished:
    """A finished stage, as all processes agreed on it."""

    folder: str
    key: str
    content: str
    seconds: float
    damage: str
    dropped: bool


class Execution:
    """Runs the stages of a run, in order.

    Args:
      stages: the stages, in order.
      inputs: the inputs by name.
      workdir: the workdir of the run, which is locked while stages run (`pipeline.leases`).
      store: the folders of the stages.
      hashes: computes the hashes of files.
      deep: the deep key of each stage.
      as_they_are: finished stages that are used even if their keys differ; the stages that they
        read need not be among `stages`.
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
        self._made: dict[str, _Finished] = {}
        self._spans = Spans()

    def run(self) -> Iterator[StageOutcome]:
        """Runs the stages that are not finished, and yields the outcome of each as it ends.

        Raises:
          StageBusy: another process is running the next stage in the store. Results of earlier
            stages are kept.
        """
        try:
            with self._spans.compilations():
                for stage in self._stages.values():
                    yield from self._run_or_skip(stage)
        finally:
            self._hashes.save()

    def _run_or_skip(self, stage: Stage) -> Iterator[StageOutcome]:
        with _disk_errors(stage.name, self._workdir):
            made = self._find_finished(stage)
            if made and not made.damage:
                self._link_result(stage, made)
        if made is None:
            yield from self._make(stage, self._unreadable(stage))
        elif made.damage:
            yield from self._make(stage, made.damage)
        else:
            is_other = made.key != self._deep[stage.name] and stage.name in self._as_they_are
            why = "reused as is, although made with other data or settings" if is_other else ""
            yield StageOutcome(stage.name, True, made.seconds, why)

    def _unreadable(self, stage: Stage) -> str:
        """Returns a note if the stage has a manifest that cannot be read; otherwise ""."""
        folder = self._store.folder(stage.name, self._deep[stage.name])
        is_there = (folder / storage.MANIFEST).exists() and storage.manifest(folder) is None
        return f"{storage.MANIFEST} is damaged" if is_there else ""

    def is_done(self, careful: bool = False) -> bool:
        """Returns whether all stages are finished.

        Args:
          careful: check the files, not only the manifests, and repair damaged ones.
        """
        for stage in self._stages.values():
            made = self._find_finished(stage, careful)
            if made is None or made.damage:
                return False
            self._made[stage.name] = made
        return True

    def done_before(self) -> dict[str, float]:
        """Returns the seconds of work of each finished stage; checks no files and writes nothing.

        A stage that reads an unfinished one is left out. It may still turn out to be finished, if
        the unfinished stage ends in an equal result.
        """
        for stage in self._stages.values():
            read = [name for name in stage.reads.values() if name in self._stages]
            if all(name in self._made for name in read):
                found = self._find_finished(stage, careful=False)
                if found:
                    self._made[stage.name] = found
        done = {name: made.seconds for name, made in self._made.items()}
        self._made.clear()
        return done

    def may_be_finished(self, name: str) -> bool:
        """Returns whether a stage may be finished; exact only if all earlier stages are."""
        found = None
        for stage in self._stages.values():
            found = self._find_finished(stage, careful=False)
            if stage.name == name or found is None:
                break
            self._made[stage.name] = found
        self._made.clear()
        own = storage.manifest(self._store.folder(name, self._deep[name]))
        return found is not None or own is not None

    def _make(
        self, stage: Stage, reason: str, needs_params: bool = False
    ) -> Iterator[StageOutcome]:
        """Runs a stage, and before it the stages that it reads whose parameters were deleted.

        Args:
          stage: the stage to run.
          reason: why it is run again; "" if it has not been run before.
          needs_params: run it even if it is finished, to have its parameters again.
        """
        for name in stage.reads.values():
            if name in self._stages:
                made = self._made[name]
                if made.dropped:
                    why = "its parameters were deleted to save space"
                    yield from self._make(self._stages[name], why, needs_params=True)
        folder = self._store.folder(stage.name, self._deep[stage.name])
        with _disk_errors(stage.name, folder):
            outcome = self._claim_and_run(stage, folder, reason, needs_params)
        yield outcome

    def _claim_and_run(
        self, stage: Stage, folder: Path, reason: str, needs_params: bool
    ) -> StageOutcome:
        is_claimed = self._store.shared and hosts.is_first()
        lease = held(storage.lock_of(folder)) if is_claimed else contextlib.nullcontext(True)
        with lease as ours:
            if not hosts.broadcast(ours):
                raise StageBusy(stage.name)
            made = self._find_finished(stage)  # Another process may have finished it.
            if made and not made.damage and not (made.dropped and needs_params):
                self._link_result(stage, made)
                return StageOutcome(stage.name, True, made.seconds)
            # The same work on the same inputs keeps its content hash: different rounding on
            # another machine must neither rerun later stages nor select other questions to pay
            # for. Only a teacher may answer differently.
            is_same = made is not None and stage.artifact.work != "ask"
            seconds = self._run(stage, folder, made.content if made and is_same else "")
        made = self._find_finished(stage, careful=False)
        assert made, f"{stage.name} was run, but its folder is not found"
        self._link_result(stage, made)
        if hosts.is_first():
            self._store.prune(stage.name, folder)
        return StageOutcome(stage.name, False, seconds, f"{reason}; reran it" if reason else "")

    def _shallow(self, stage: Stage) -> str:
        return key_of(stage, self._inputs, lambda name: self._made[name].content)

    def _find_finished(self, stage: Stage, careful: bool = True) -> _Finished | None:
        """Returns the finished stage; None if it is not finished.

        The first process reads the disk, and sends the result to the others.

        Args:
          stage: the stage to find.
          careful: also check its files, and repair damaged ones if the stage can.
        """
        found = None
        if hosts.is_first() and (place := self._find_folder(stage)):
            folder, made = place
            wrong = storage.damage(folder, made, self._hashes) if careful else {}
            if wrong and (repaired := self._repair(stage, folder, set(wrong))):
                made, wrong = repaired, {}
            found = {
                "folder": str(folder),
                "key": made["key"],
                "content": made["content"],
                "seconds": made["seconds"],
                "damage": next(iter(wrong.values()), ""),
                "dropped": made.get("dropped", False),
            }
        found = hosts.broadcast(found)
        return _Finished(**found) if found else None

    def _find_folder(self, stage: Stage) -> tuple[Path, Manifest] | None:
        if stage.name in self._as_they_are:
            name = self._workdir / stage.name
            found = storage.manifest(name)
            return (name.resolve(), found) if found else None
        return self._store.find(stage.name, self._deep[stage.name], self._shallow(stage))

    def _repair(self, stage: Stage, folder: Path, damaged: set[str]) -> Manifest | None:
        """Repairs a damaged stage; returns its new manifest, or None if it cannot be repaired."""
        place, opened = Folder(folder, stage.artifact), self._opened(stage)
        if not (stage.repair and stage.repair(stage.params, place, damaged, **opened)):
            return None
        before = files.read_json(folder / storage.MANIFEST) or {}
        kept = {name: value for name, value in before.items() if name != "content"}
        storage.commit(place, kept, self._hashes)
        return storage.manifest(folder)

    def _link_result(self, stage: Stage, made: _Finished) -> None:
        self._made[stage.name] = made
        if hosts.is_first():
            storage.link(self._workdir, stage.name, Path(made.folder))
            used = storage.current(self._workdir)
            if used.get(stage.name) != made.key:
                files.write_json(self._workdir / storage.CURRENT, used | {stage.name: made.key})

    def _opened(self, stage: Stage) -> dict[str, Any]:
        """Returns the folders and the opened inputs that a stage reads, by argument."""
        opened = {}
        for argument, name in stage.reads.items():
            if name in self._stages:
                place = Path(self._made[name].folder)
                opened[argument] = Folder(place, self._stages[name].artifact)
            else:
                opened[argument] = self._inputs[name].open()
        return opened

    def _run(self, stage: Stage, place: Path, content: str) -> float:
        """Runs a stage in its folder and commits it; returns its seconds of work.

        `content` is the content hash from an earlier run on the same inputs, which the result
        keeps; "" if there is none.
        """
        began = time.perf_counter()
        key, shallow = self._deep[stage.name], self._shallow(stage)
        record: dict[str, Any] = {"key": key, "shallow": shallow, "seconds": 0.0, "restarts": 0}
        folder = Folder(place, stage.artifact, self._spans)
        try:
            if hosts.is_first():
                record = _begin(place, record)
            hosts.barrier(f"{stage.name} begins")
            self._spans.take()  # Discards the spans of earlier work.
            stage.run(stage.params, folder, **self._opened(stage))
            hosts.barrier(f"{stage.name} ends")
            seconds = record["seconds"] + time.perf_counter() - began
            if hosts.is_first():
                manifest = {"stage": stage.name} | record | {"seconds": seconds}
                manifest |= self._spans.take() | {"made_with": provenance.made_with()}
                manifest |= {"content": content} if content else {}
                storage.commit(folder, manifest, self._hashes)
            return hosts.broadcast(seconds)
        finally:
            # Records the time of an interrupted stage. A disk error here must not hide the cause.
            with contextlib.suppress(OSError):
                if hosts.is_first() and (place / storage.STARTED).is_file():
                    spent = record["seconds"] + time.perf_counter() - began
                    files.write_json(place / storage.STARTED, record | {"seconds": spent})


@contextlib.contextmanager
def _disk_errors(stage: str, place: Path) -> Iterator[None]:
    """Converts an `OSError` in the block into a `UserError` that names the stage."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"stage {stage}: {error.strerror or error} ({error.filename or place}); free some "
            "space or fix the disk, then run the same command again to resume"
        ) from error


def _begin(place: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Creates the stage's folder, or continues an earlier attempt in it; returns its record."""
    # A folder with a manifest was complete: it is damaged, outdated, or lacks its parameters.
    earlier = None if (place / storage.MANIFEST).exists() else storage.started(place)
    if earlier and earlier["shallow"] == fresh["shallow"]:
        record = fresh | earlier | {"restarts": earlier.get("restarts", 0) + 1}
        files.write_json(place / storage.STARTED, record)
        return record
    storage.clear(place)
    files.write_json(place / storage.STARTED, fresh)
    return fresh
