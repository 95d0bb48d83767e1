"""A config in a workdir, ready to be run: what `launch.run`, `launch.study` and others share."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from bridge_jax import methods, shown
from bridge_jax.config import RunConfig
from bridge_jax.config_io import to_json
from bridge_jax.errors import UserError
from bridge_jax.methods import budget, start
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.checks import idle_rows, validate
from bridge_jax.methods.inputs import CACHE, Inputs
from bridge_jax.methods.teacher import check_key, selected_count
from bridge_jax.parallel import hosts
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.pipeline import keys, storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.execution import Execution, Outcome
from bridge_jax.pipeline.files import read_json, write_json, write_rows
from bridge_jax.pipeline.leases import WorkdirBusy, held
from bridge_jax.pipeline.storage import Store
from bridge_jax.progress import duration
from bridge_jax.studies import report
from bridge_jax.tasks import task
from bridge_jax.tasks.bad_rows import BadRows, BadRowsError
from bridge_jax.text import prompts

BAD_ROWS = "bad_rows.jsonl"  # In the workdir: file, row and reason of each.


class Job:
    """A run that may be begun, or gone on with.

    Args:
      config: of the run; it is checked.
      workdir: of the run.
      shared: the folder of the study whose runs share their stages; None for a run of its own.
      phase: how far to go.
      devices: of the mesh, by default all.

    Attributes:
      config: with the text of its task file in place of the file.
      workdir: of the run.
      stages: of the phase, in order.
      inputs: what they read from outside.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        shared: Path | None = None,
        phase: str = "all",
        devices: Any = None,
    ):
        self.config = dataclasses.replace(validate(config), data=task.with_text(config.data))
        self.workdir, self._phase = workdir, phase
        root = shared or workdir
        self._store = Store(root / storage.STAGES, bool(shared))
        self._hashes = Hashes(root / CACHE / "hashes.json")
        self._plan = methods.stages(self.config)
        self._as_they_are = self._models() if phase == "evaluate" else frozenset()
        self.stages = methods.stages(self.config, phase, self._as_they_are)
        self.inputs = Inputs(self.config, workdir, root / CACHE, self._hashes, devices)

    @functools.cached_property
    def deep(self) -> dict[str, str]:
        """The deep key of every stage, also of those after the phase."""
        return keys.deep_keys(self._plan, self.inputs.table)

    @property
    def asks(self) -> bool:
        """Whether a teacher is asked."""
        return any(stage.name == ANNOTATIONS.name for stage in self._plan)

    def execution(self) -> Execution:
        """Returns what carries out the stages."""
        return Execution(
            self.stages,
            self.inputs.table,
            self.workdir,
            self._store,
            self._hashes,
            self.deep,
            self._as_they_are,
        )

    def _models(self) -> frozenset[str]:
        """Returns the finished stages that are evaluated as they are, whatever made them."""
        read = {
            name for s in self._plan if s.artifact.work == "evaluate" for name in s.reads.values()
        }
        found = []
        for name in sorted(read & {stage.name for stage in self._plan}):
            record = storage.manifest(self.workdir / name)
            if record is None or record.dropped:
                continue
            if not storage.damage(self.workdir / name, record, self._hashes):
                found.append(name)
        return frozenset(hosts.agree(found))

    def check(self) -> None:
        """Raises a `UserError` for what would stop the run later, before anything is trained.

        Bad rows are listed in the workdir.
        """
        with bad_rows_listed(self.workdir):
            splits = self.inputs.splits
        _list_bad_rows(self.workdir, splits.bad)
        start.compare_hosts(self._plan, self.inputs, self.deep)
        to_run = [stage for stage in self.stages if stage.name not in self._as_they_are]
        checked = to_run if self._as_they_are else self._plan
        start.check(self.config, checked, self.inputs)
        self._hashes.save()

    def is_whole(self, careful: bool = False) -> bool:
        """Returns whether every stage is done, and the report written, with this config.

        Args:
          careful: look at the files of the stages too; what can be mended is.
        """
        same = read_json(self.workdir / "config.json") == to_json(self.config)
        there = same and (self.workdir / "report.json").is_file()
        return hosts.agree(there) and self.execution().is_done(careful)

    def check_teacher(self) -> str:
        """Finds what would stop the teacher before anything is trained, if it has yet to be asked.

        That is a missing key, or a budget that cannot pay for one request. Returns a note for
        people where the budget may not pay for all of them.
        """
        asking = next((s for s in self.stages if s.name == ANNOTATIONS.name), None)
        if asking is None or self.execution().may_be_done(ANNOTATIONS.name):
            return ""
        if not hosts.is_first():
            return ""
        check_key(self.config.teacher)
        selected, inputs = selected_count(self.config), self.inputs
        return budget.check(asking.params, selected, inputs.pool, inputs.count, self.workdir)

    def run(self, console: Console, quiet: bool = False) -> dict[str, Any]:
        """Runs what is not done and returns the report; `quiet` speaks of what is run alone.

        Raises:
          WorkdirBusy: another process is at this run.
          StageBusy: another process is making a stage that this run needs next.
          UserError: the run cannot work.
        """
        with self._held():
            note = self.check_teacher()
            if not quiet:
                self.tell(console)
            if note:
                shown.say(console, (note, "yellow"))
            self._begin()
            for outcome in self.execution().run():
                _tell(outcome, console, quiet)
            return hosts.agree(
                report.write(self.workdir, self._hashes) if hosts.is_first() else None
            )

    def tell(self, console: Console) -> None:
        """Prints what is about to be run, and what a user would want to know of it."""
        inputs = self.inputs
        queries = self.config.budget.queries if self.asks else 0
        shown.say(
            console,
            (self.config.name, "bold"),
            f": {len(inputs.pool):,} examples in the pool, "
            f"{queries} teacher queries at most, {len(inputs.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
            f"{f', {jax.process_count()} hosts' * (jax.process_count() > 1)}",
        )
        self.tell_of_data(console)

    def tell_of_data(self, console: Console) -> None:
        """Prints what a user would want to know of data and prompts before the run begins."""
        for note in self._notes():
            shown.say(console, (note, "yellow"))

    def _notes(self) -> Iterator[str]:
        if note := idle_rows(self.config, self._plan, batch_devices(self.inputs.mesh)):
            yield note
        for note, roles in self._of_prompts().items():
            yield f"{' and '.join(roles)}: {note}"
        splits, instruct = self.inputs.splits, self.config.instruct
        if splits.bad.rows:
            yield (
                f"{len(splits.bad.rows):,} of {splits.bad.total:,} rows are bad and were skipped: "
                f"{splits.bad.counts()} ({self.workdir / BAD_ROWS})"
            )
        if splits.bad.cause:
            yield splits.bad.cause
        for name, there in splits.cut.items():
            kept = len(getattr(splits, name))
            yield f"data.{name}={kept}: the first {kept:,} of {there:,} rows are read; 0 reads all"
        if splits.replaced:
            yield (
                "rows with what is no character (half a surrogate pair, or NUL), now U+FFFD: "
                f"{splits.replaced:,}"
            )
        is_practice = self.config.data.source == "practice"
        if not is_practice and (count := sum(map(prompts.untold, splits.pool))):
            yield (
                f"{count:,} of {len(splits.pool):,} questions of the pool do not name their "
                "labels or options, and assistant and student are not told them: "
                "data.instruction says what is asked, and with it the labels"
            )
        drawn = self.inputs.instructions
        if drawn.left_out:
            yield (
                f"{drawn.left_out:,} instructions longer than instruct.train.row_tokens="
                f"{instruct.train.row_tokens} or the student's context were left out"
            )
        if drawn.skipped:
            yield f"{drawn.skipped:,} bad rows of instruct.path were skipped"

    def _of_prompts(self) -> dict[str, list[str]]:
        """Returns notes on how prompts are made, each with the roles that it concerns."""
        found: dict[str, list[str]] = {}
        for role in start.roles(self._plan):
            for note in self.inputs.model(role).tokenizer.notes:
                found.setdefault(note, []).append(role)
        return found

    def _begin(self) -> None:
        write_json(self.workdir / "config.json", to_json(self.config))
        # How prompts differ from what the checkpoints' templates alone would write.
        write_json(self.workdir / "prompts.json", self._of_prompts())
        # The whole plan, also when a phase stops early: the report leaves out what is not of it.
        kept = storage.current(self.workdir) if self._as_they_are else {}
        tests = {stage.name for stage in self._plan if stage.artifact.work == "evaluate"}
        used = {name: key for name, key in kept.items() if name not in tests}
        write_json(self.workdir / storage.CURRENT, self.deep | used)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Holds the workdir for all processes of this run, or raises `WorkdirBusy` on all."""
        place = self.workdir / ".lock"
        with held(place) if hosts.is_first() else contextlib.nullcontext(True) as ours:
            if not hosts.agree(ours):
                raise WorkdirBusy(
                    f"--workdir={self.workdir}: another run is writing here; wait for it or choose "
                    "another"
                )
            yield


@contextlib.contextmanager
def bad_rows_listed(workdir: Path) -> Iterator[None]:
    """Lists all bad rows in `workdir` if the block raises a `BadRowsError`, and says where."""
    try:
        yield
    except BadRowsError as error:
        _list_bad_rows(workdir, error.bad)
        if not error.bad.rows:
            raise
        raise UserError(f"{error}\nthe whole list is in {workdir / BAD_ROWS}") from None


def _tell(outcome: Outcome, console: Console, quiet: bool) -> None:
    if outcome.why:
        shown.say(console, (f"  {outcome.name}: {outcome.why}", "yellow"))
    if outcome.cached and quiet:
        return
    note = "done before" if outcome.cached else duration(outcome.seconds)
    shown.say(console, f"  {outcome.name:<28} {note}")


def _list_bad_rows(workdir: Path, bad: BadRows) -> None:
    if not hosts.is_first():
        return
    if bad.rows:
        workdir.mkdir(parents=True, exist_ok=True)
        write_rows(workdir / BAD_ROWS, bad.listed())
    else:
        (workdir / BAD_ROWS).unlink(missing_ok=True)
