"""Prepares and runs one config in one workdir."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from bridge_jax import display, methods
from bridge_jax.config import RunConfig
from bridge_jax.config.io import to_json
from bridge_jax.data.example import with_task_text
from bridge_jax.data.rows import BadRows, BadRowsError
from bridge_jax.errors import UserError
from bridge_jax.ledger.consent import Quote
from bridge_jax.methods import checks, data_facts, held_out, input_checks, teacher
from bridge_jax.methods.checks import validate
from bridge_jax.methods.held_out import HELD_OUT_DEV, HeldOut
from bridge_jax.methods.inputs import CACHE, INSTRUCTIONS, Inputs
from bridge_jax.methods.teacher import PlannedRequests
from bridge_jax.parallel import hosts
from bridge_jax.pipeline import leases, provenance, storage
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.execution import Execution, StageOutcome
from bridge_jax.pipeline.files import read_json, write_json, write_rows
from bridge_jax.pipeline.stages import Stage, deep_keys
from bridge_jax.pipeline.storage import Store
from bridge_jax.planning.dry_run import DryRun, dry_run
from bridge_jax.progress import duration
from bridge_jax.report import page
from bridge_jax.text import prompts

BAD_ROWS = "bad_rows.jsonl"  # In the workdir: file, row and reason of each bad row.


class Run:
    """A run of one config in one workdir, either new or resumed.

    Args:
      config: the config of the run, which is checked here.
      shared: the folder of the study whose runs share their stages; None for a run of its own.
      phase: the part of the run after which it stops, a key of `methods.parts`.
      keeps: whether anything is written; False only shows what would be done.

    Attributes:
      config: the config with the text of its task file in place of the file.
      inputs: everything that the stages read from outside the run.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        shared: Path | None = None,
        phase: str = "all",
        keeps: bool = True,
    ):
        self.config = dataclasses.replace(validate(config), data=with_task_text(config.data))
        self.workdir, self._phase, self._keeps = workdir, phase, keeps
        root = shared or workdir
        self._store = Store(root / storage.STAGES, bool(shared))
        self._hashes = Hashes(root / CACHE / "hashes.json")
        self._plan = methods.stages(self.config)
        methods.stages(self.config, phase)  # Raises if there is no such part.
        cache = root / CACHE if keeps else None
        self.inputs = Inputs(self.config, workdir, cache, self._hashes)

    @functools.cached_property
    def deep(self) -> dict[str, str]:
        """The deep key of every stage, including those after the phase."""
        return deep_keys(self._plan, self.inputs.table)

    @functools.cached_property
    def stages(self) -> list[Stage]:
        """The stages of the phase, in order."""
        return methods.stages(self.config, self._phase, self._as_they_are)

    def execution(self) -> Execution:
        """Returns the execution of the stages."""
        return Execution(
            self.stages,
            self.inputs.table,
            self.workdir,
            self._store,
            self._hashes,
            self.deep,
            self._as_they_are,
        )

    @functools.cached_property
    def _as_they_are(self) -> frozenset[str]:
        """The finished stages that are evaluated even if their keys differ."""
        if self._phase != "evaluate":
            return frozenset()
        read = {
            name for s in self._plan if s.artifact.work == "evaluate" for name in s.reads.values()
        }
        # Bought answers belong to one test; for another test they are bought anew.
        trained = {stage.name for stage in self._plan if stage.artifact.work != "ask"}
        found = []
        for name in sorted(read & trained) if hosts.is_first() else ():
            made = storage.manifest(self.workdir / name)
            if made is None or made.get("dropped"):
                continue
            if not storage.damage(self.workdir / name, made, self._hashes):
                found.append(name)
        return frozenset(hosts.broadcast(found))

    def check(self) -> None:
        """Checks data, models and hosts before anything is trained; lists bad rows in the workdir.

        Raises:
          UserError: something would stop the run later.
        """
        with bad_rows_listed(self.workdir) if self._keeps else contextlib.nullcontext():
            splits = self.inputs.splits
            input_checks.compare_hosts(self._plan, self.inputs, self.deep)
        if self._keeps:
            _list_bad_rows(self.workdir, splits.bad)
        input_checks.check_meshes(self.config, self._plan, self.inputs)
        to_run = [stage for stage in self.stages if stage.name not in self._as_they_are]
        input_checks.check_inputs(
            self.config, to_run if self._as_they_are else self._plan, self.inputs
        )
        if self._keeps:
            self._hashes.save()

    def is_whole(self, careful: bool = False) -> bool:
        """Returns whether every stage is done and the report is written, with this config.

        Args:
          careful: check the files of the stages too, and repair damaged ones.
        """
        written = read_json(self.workdir / "config.json") or {}
        written.pop(provenance.FIELD, None)
        there = written == to_json(self.config) and (self.workdir / "report.json").is_file()
        try:
            return hosts.broadcast(there) and self.execution().is_done(careful)
        finally:
            self._hashes.save()

    def quotes(self) -> dict[str, Quote]:
        """Returns the most that a paid teacher may cost, by the deep keys of stages that ask it.

        The result is empty if no teacher has to be paid. All processes of a run call this.
        """
        execution = self.execution()
        asks = methods.teacher_stages(self.stages)
        finished = [execution.may_be_finished(stage.name) for stage in asks]
        if all(finished):
            return {}
        counted = methods.annotation_stages(asks)
        counted += [stage for stage in asks if isinstance(stage.params, HeldOut)]
        plans = self._planned(asks) if len(counted) == len(asks) else []
        found = teacher.quote(self.config, plans, self.inputs.count, self.workdir)
        return {"+".join(self.deep[stage.name] for stage in asks): found} if found else {}

    def _check_teacher(self) -> str:
        """Checks the teacher's key and the budget, unless everything has been asked already.

        Returns:
          A note if the budget may not pay for all requests; else "".

        Raises:
          UserError: the key is missing, or the budget cannot pay for one request.
        """
        execution = self.execution()
        asks = methods.teacher_stages(self.stages)
        to_ask = [stage for stage in asks if not execution.may_be_finished(stage.name)]
        if not to_ask or not hosts.is_first():
            return ""
        teacher.check_key(self.config.teacher)
        plans = self._planned(to_ask)
        return teacher.check_budget(plans, self.inputs.count, self.workdir) if plans else ""

    def _planned(self, asks: Sequence[Stage]) -> list[PlannedRequests]:
        """Returns the plans of stages that ask the teacher; the parts of a selection have one."""
        inputs, plans = self.inputs, []
        of_parts = methods.annotation_stages(asks)
        for stage in asks:
            params = stage.params
            if isinstance(params, HeldOut):
                split = inputs.dev if stage.artifact == HELD_OUT_DEV else inputs.test
                questions = held_out.drawn(params, split)
                plans.append(PlannedRequests(params, len(questions), questions))
            elif of_parts and stage == of_parts[-1]:
                # The selection is not known yet: any example of the pool may be in it.
                new = sum(part.workload.count for part in of_parts if part.workload)
                plans.append(PlannedRequests(params, new, inputs.pool))
        return plans

    def run(
        self,
        console: Console,
        heading: Callable[[], Sequence[display.Part]] | None = None,
        quiet: bool = False,
        confirm: Callable[[Mapping[str, Quote]], None] | None = None,
    ) -> dict[str, Any]:
        """Checks the run, runs the stages that are not done, and returns the report.

        Args:
          console: where progress is printed.
          heading: returns the line that is printed after the checks, before notes on the data; None
            prints neither.
          quiet: print nothing about stages that were finished before.
          confirm: called with the quotes if a teacher has to be paid, after the checks and before
            anything is trained or written; raises a `UserError` if the user does not agree. None
            pays without asking, within the budget.

        Raises:
          WorkdirBusy: another process is running in this workdir.
          StageBusy: another process is running a stage that this run needs next.
          UserError: the run cannot work.
        """
        with leases.lock(self.workdir):
            self.check()
            warning = self._check_teacher()
            if heading:
                display.say(console, *heading())
                for note in self.notes():
                    display.say(console, (note, "yellow"))
            if warning:
                display.say(console, (warning, "yellow"))
            quotes = self.quotes() if confirm else {}
            if confirm and quotes and hosts.is_first():
                confirm(quotes)
            self._begin()
            for outcome in self.execution().run():
                _tell(outcome, console, quiet)
            return hosts.broadcast(
                page.write(self.workdir, self._hashes) if hosts.is_first() else None
            )

    def dry_run(self) -> DryRun:
        """Checks the run and returns what it would do; nothing is written, trained or paid.

        Raises:
          UserError: the run cannot work. A missing key is not detected.
        """
        self.check()
        done = self.execution().done_before()
        to_run = {stage.name for stage in self.stages} - done.keys()
        quotes = list(self.quotes().values())
        return dry_run(self.config, self.stages, self.inputs, done, to_run, quotes)

    def heading(self) -> tuple[display.Part, ...]:
        """Returns a line on the data, the budget and the devices of the run."""
        inputs = self.inputs
        queries = self.config.budget.queries if methods.teacher_stages(self._plan) else 0
        return (
            (self.config.name, "bold"),
            f": {len(inputs.pool):,} examples in the pool, "
            f"{queries} teacher queries at most, {len(inputs.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
            + (f", {jax.process_count()} hosts" if jax.process_count() > 1 else ""),
        )

    def notes(self) -> Iterator[str]:
        """Yields notes on the data and the prompts, for the user to read before the run begins."""
        meshes = checks.meshes_of(self._plan, self.inputs)
        yield from input_checks.notes_on(self.config, self._plan, meshes)
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
            yield (f"data.{name}={kept}: {kept:,} of {there:,} rows, a random sample; 0 takes all")
        if splits.divided:
            yield (
                f"no row has a split, so the rows were divided: {len(splits.pool):,} in the pool, "
                f"{len(splits.dev):,} in dev and {len(splits.test):,} in the test; "
                f"{splits.groups:,} groups of near-duplicate questions stay together"
            )
        bare = sum(example.answer is None for example in splits.test)
        if bare > self.config.evaluation.teacher_test:
            asked = self.config.evaluation.teacher_test
            yield (
                f"evaluation.teacher_test={asked}: of {bare:,} test questions without an "
                f"answer, {asked:,} are sent to the teacher, and no model is tested on the others"
            )
        if splits.replaced:
            yield (
                "rows with invalid characters (lone surrogates or NUL), now replaced by U+FFFD: "
                f"{splits.replaced:,}"
            )
        is_practice = self.config.data.source == "practice"
        if not is_practice and (count := sum(map(prompts.hides_choices, splits.pool))):
            yield (
                f"{count:,} of {len(splits.pool):,} questions of the pool do not name their "
                "labels or options, and assistant and student do not see them: set "
                "data.instruction to the task, and the labels are shown too"
            )
        if not any(INSTRUCTIONS in stage.reads.values() for stage in self._plan):
            return
        drawn = self.inputs.instructions
        if drawn.left_out:
            yield (
                f"{drawn.left_out:,} instructions longer than instruct.train.row_tokens="
                f"{instruct.train.row_tokens} or the student's context were left out"
            )
        if drawn.skipped:
            yield f"{drawn.skipped:,} bad rows of instruct.path were skipped"

    def _of_prompts(self) -> dict[str, list[str]]:
        """Returns notes on how prompts are made, each with the roles that it applies to."""
        found: dict[str, list[str]] = {}
        for role in checks.roles(self._plan):
            for note in self.inputs.model(role).tokenizer.notes:
                found.setdefault(note, []).append(role)
        config = self.config
        if config.on_long_prompt == "error":
            return found
        for role, (count, of) in data_facts.cut_prompts(self._plan, self.inputs).items():
            note = (
                f"{count:,} of {of:,} prompts were longer than max_prompt_tokens="
                f"{config.max_prompt_tokens}: the {config.on_long_prompt.removeprefix('cut_')} of "
                "their question is cut"
            )
            found.setdefault(note, []).append(role)
        return found

    def _begin(self) -> None:
        facts = data_facts.collect(self.config, self._plan, self.inputs)
        made_with = provenance.made_with() | {"data": facts["sha256"]}
        whole = to_json(self.config) | {provenance.FIELD: made_with}
        write_json(self.workdir / "config.json", whole)
        write_json(self.workdir / data_facts.FILE, facts)
        # How prompts differ from those of the checkpoints' own templates, and how many are cut.
        write_json(self.workdir / "prompts.json", self._of_prompts())
        # The whole plan, even if a phase stops early: the report covers only the stages in it.
        kept = storage.current(self.workdir) if self._as_they_are else {}
        tests = {stage.name for stage in self._plan if stage.artifact.work == "evaluate"}
        used = {n: key for n, key in kept.items() if n in self.deep and n not in tests}
        write_json(self.workdir / storage.CURRENT, self.deep | used)


@contextlib.contextmanager
def bad_rows_listed(workdir: Path) -> Iterator[None]:
    """Writes all bad rows to `workdir` if the block raises a `BadRowsError`, and names the file."""
    try:
        yield
    except BadRowsError as error:
        _list_bad_rows(workdir, error.bad)
        if not error.bad.rows:
            raise
        raise UserError(f"{error}\nthe whole list is in {workdir / BAD_ROWS}") from None


def _tell(outcome: StageOutcome, console: Console, quiet: bool) -> None:
    if outcome.why:
        display.say(console, (f"  {outcome.name}: {outcome.why}", "yellow"))
    if outcome.cached and quiet:
        return
    note = "done before" if outcome.cached else duration(outcome.seconds)
    display.say(console, f"  {outcome.name:<33} {note}")


def _list_bad_rows(workdir: Path, bad: BadRows) -> None:
    if not hosts.is_first():
        return
    if bad.rows:
        workdir.mkdir(parents=True, exist_ok=True)
        write_rows(workdir / BAD_ROWS, [row._asdict() for row in bad.rows])
    else:
        (workdir / BAD_ROWS).unlink(missing_ok=True)
