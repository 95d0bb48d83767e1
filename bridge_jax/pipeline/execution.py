"""Runs stages: skips finished ones, resumes interrupted ones, reruns those with changed inputs.

Whether a stage is done is decided by its shallow key (`pipeline.stages`). So where an earlier stage
ran again with an equal result, the stages that read it do not.

A stage goes on from the first of these that is there:

1. A whole folder with the same shallow key, whose files are as written or can be repaired:
   nothing is run. If its parameters were deleted, it runs again when another stage needs them.
2. Its own folder, begun with the same shallow key, with the parameters of a training: the training
   is over, and only the rest of the stage is done (`methods.fitting`).
3. In such a folder, the state of a training with its position in the data: training continues
   after the last saved step (`training.loop`).
4. In such a folder, completions: these are kept, and the others are generated
   (`pipeline.models`).
5. In such a folder, shards of scores: these are kept, and the other batches are computed
   (`selection.scores`).
6. In such a folder, anything else: it is computed again. The teacher's replies are on the ledger,
   so none is paid for twice.
7. Otherwise, or if its own folder was whole and is damaged, the folder is emptied, and the stage
   begins anew.
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
      name: of the stage.
      cached: whether it was done before.
      seconds: of work, in this run or an earlier one.
      why: why it was run again, or taken as it is; "" if there is nothing to say.
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
    """The stages of a run, carried out in order.

    Args:
      stages: in order.
      inputs: by name.
      workdir: of the run; held by this process.
      store: where the stages lie.
      hashes: of files.
      deep: the deep key of each stage.
      as_they_are: finished stages that are used even if their keys differ; what they read need not
        be among `stages`.
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
        """Runs what is not done, and yields the outcome of each stage as it ends.

        Raises:
          StageBusy: another process is running the next stage in the store. What was done before
            it stays.
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
            why = "used as it is, although it had other data or settings" if is_other else ""
            yield StageOutcome(stage.name, True, made.seconds, why)

    def _unreadable(self, stage: Stage) -> str:
        """Returns a note where the stage has a manifest that cannot be read."""
        folder = self._store.folder(stage.name, self._deep[stage.name])
        is_there = (folder / storage.MANIFEST).exists() and storage.manifest(folder) is None
        return f"{storage.MANIFEST} is damaged" if is_there else ""

    def is_done(self, careful: bool = False) -> bool:
        """Returns whether nothing is to be run.

        Args:
          careful: check the files too, not the manifests alone, and repair damaged ones.
        """
        for stage in self._stages.values():
            made = self._find_finished(stage, careful)
            if made is None or made.damage:
                return False
            self._made[stage.name] = made
        return True

    def done_before(self) -> dict[str, float]:
        """Returns the finished stages with their seconds of work; nothing is checked or written.

        What reads a stage that is to run is not among them. It may turn out to be done: if that
        stage ends in an equal result.
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
        """Returns whether a stage may be finished; exact only if every stage before it is."""
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
        """Runs a stage, after those that it reads whose parameters were deleted.

        Args:
          stage: what is run.
          reason: why it is run again; "" if it has not been run.
          needs_params: whether it is run although it is finished, for its parameters.
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
            if not hosts.agree(ours):
                raise StageBusy(stage.name)
            made = self._find_finished(stage)  # It may have been finished since.
            if made and not made.damage and not (made.dropped and needs_params):
                self._link_result(stage, made)
                return StageOutcome(stage.name, True, made.seconds)
            # The same work on the same inputs: different rounding on another machine must neither
            # run later stages again nor select other questions to pay for. Only a teacher may
            # answer differently.
            is_same = made is not None and stage.artifact.work != "ask"
            seconds = self._run(stage, folder, made.content if made and is_same else "")
        made = self._find_finished(stage, careful=False)
        assert made, f"{stage.name} was run, but its folder is not found"
        self._link_result(stage, made)
        if hosts.is_first():
            self._store.prune(stage.name, folder)
        return StageOutcome(stage.name, False, seconds, f"{reason}; run again" if reason else "")

    def _shallow(self, stage: Stage) -> str:
        return key_of(stage, self._inputs, lambda name: self._made[name].content)

    def _find_finished(self, stage: Stage, careful: bool = True) -> _Finished | None:
        """Returns the finished stage; None if it is not finished.

        The first process reads the disk, and sends the result to the others.

        Args:
          stage: the stage that is looked for.
          careful: check its files too, and repair damaged ones if the stage can.
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
        found = hosts.agree(found)
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
        """Returns what a stage reads, by argument."""
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

        `content` is the hash that its result keeps, from an earlier run on the same inputs; "" if
        there is none.
        """
        began = time.perf_counter()
        key, shallow = self._deep[stage.name], self._shallow(stage)
        record: dict[str, Any] = {"key": key, "shallow": shallow, "seconds": 0.0, "restarts": 0}
        folder = Folder(place, stage.artifact, self._spans)
        try:
            if hosts.is_first():
                record = _begin(place, record)
            hosts.meet(f"{stage.name} begins")
            self._spans.take()  # What came before is not the stage's.
            stage.run(stage.params, folder, **self._opened(stage))
            hosts.meet(f"{stage.name} ends")
            seconds = record["seconds"] + time.perf_counter() - began
            if hosts.is_first():
                manifest = {"stage": stage.name} | record | {"seconds": seconds}
                manifest |= self._spans.take() | {"made_with": provenance.made_with()}
                manifest |= {"content": content} if content else {}
                storage.commit(folder, manifest, self._hashes)
            return hosts.agree(seconds)
        finally:
            # The time of an interrupted stage is kept, unless that would hide why it was.
            with contextlib.suppress(OSError):
                if hosts.is_first() and (place / storage.STARTED).is_file():
                    spent = record["seconds"] + time.perf_counter() - began
                    files.write_json(place / storage.STARTED, record | {"seconds": spent})


@contextlib.contextmanager
def _disk_errors(stage: str, place: Path) -> Iterator[None]:
    """Raises a `UserError` for an error of the disk in the block."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"stage {stage}: {error.strerror or error} ({error.filename or place}); free some "
            "space or mend the disk, and run the same command: it goes on from here"
        ) from error


def _begin(place: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Creates the stage's folder, or continues an earlier attempt in it; returns its record."""
    # A folder with a manifest was whole, and has been damaged since.
    earlier = None if (place / storage.MANIFEST).exists() else storage.started(place)
    if earlier and earlier["shallow"] == fresh["shallow"]:
        record = fresh | earlier | {"restarts": earlier.get("restarts", 0) + 1}
        files.write_json(place / storage.STARTED, record)
        return record
    storage.clear(place)
    files.write_json(place / storage.STARTED, fresh)
    return fresh
