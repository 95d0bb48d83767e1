"""One run from its config to its report; what `launch.run` and `launch.study` share."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from bridge_jax import shown
from bridge_jax.config import RunConfig
from bridge_jax.config_checks import idle_rows, validate
from bridge_jax.config_io import to_json
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.phases import budget, logits, plan
from bridge_jax.phases.apprenticeship import ANNOTATIONS
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import read_json, write_json, write_rows
from bridge_jax.phases.stages import execute, fingerprints, is_done
from bridge_jax.phases.teacher import check_key
from bridge_jax.phases.workdir import WorkdirBusy, held, lock
from bridge_jax.progress import duration
from bridge_jax.studies import report, terminal
from bridge_jax.tasks.bad_rows import BadRows, BadRowsError
from bridge_jax.text import prompts

BAD_ROWS = "bad_rows.jsonl"  # In the workdir: file, row and reason of each.


def run_to_report(config: RunConfig, workdir: Path, phase: str, console: Console) -> dict[str, Any]:
    """Runs the stages of `phase` that are not done yet and returns the report."""
    began = time.perf_counter()
    with lock(workdir) if hosts.is_first() else contextlib.nullcontext():
        run = Run(validate(config), workdir)
        check(run)
        teachers_note = _check_teacher(run)
        splits = run.splits
        queries = config.budget.queries if config.asks_teacher else 0
        shown.say(
            console,
            (config.name, "bold"),
            f": {len(splits.pool):,} examples in the pool, "
            f"{queries} teacher queries at most, {len(splits.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
            f"{f', {jax.process_count()} hosts' * (jax.process_count() > 1)}",
        )
        if teachers_note:
            shown.say(console, (teachers_note, "yellow"))
        if note := idle_rows(config, batch_devices(run.mesh)):
            shown.say(console, (note, "yellow"))
        tell_of_data(run, console)
        _begin(run)
        for outcome in execute(plan.stages(config, phase), run, workdir, run.describe):
            note = "done before" if outcome.cached else duration(outcome.seconds)
            shown.say(console, f"  {outcome.name:<28} {note}")
        result = hosts.agree(report.write(workdir) if hosts.is_first() else None)
        terminal.print_summary(result, console)
    shown.say(console, f"this command took {duration(time.perf_counter() - began)}")
    return result


def run_shared(run: Run, store: Path, console: Console) -> dict[str, Any]:
    """Runs what is left of a study's run, sharing stages with the others; returns its report.

    Raises:
      WorkdirBusy: another process is at this run.
      StageBusy: another process is making a stage that this run needs next.
      UserError: the run cannot work.
    """
    with _held_together(run.workdir):
        if note := _check_teacher(run):
            shown.say(console, (f"  {note}", "yellow"))
        _begin(run)
        stages = plan.stages(run.config)
        for outcome in execute(stages, run, run.workdir, run.describe, store):
            if not outcome.cached:
                shown.say(console, f"  {outcome.name:<28} {duration(outcome.seconds)}")
        return hosts.agree(report.write(run.workdir) if hosts.is_first() else None)


def check(run: Run) -> None:
    """Raises a `UserError` for what would stop the run later, before anything is trained.

    Bad rows are listed in the workdir.
    """
    with bad_rows_listed(run.workdir):
        run.splits  # noqa: B018 - read here for the first time
    _list_bad_rows(run.workdir, run.splits.bad)
    run.check_inputs()
    if run.config.logits.weight:
        logits.check(run)


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


def tell_of_data(run: Run, console: Console) -> None:
    """Prints what a user would want to know of the data before the run begins."""
    for note in _notes(run):
        shown.say(console, (note, "yellow"))


def _notes(run: Run) -> Iterator[str]:
    for note, roles in run.notes().items():
        yield f"{' and '.join(roles)}: {note}"
    bad, replaced = run.splits.bad, run.splits.replaced
    if bad.rows:
        yield (
            f"{len(bad.rows):,} of {bad.total:,} rows are bad and were skipped: {bad.counts()} "
            f"({run.workdir / BAD_ROWS})"
        )
    if bad.cause:
        yield bad.cause
    for name, there in run.splits.cut.items():
        kept = len(getattr(run.splits, name))
        yield f"data.{name}={kept}: the first {kept:,} of {there:,} rows are read; 0 reads all"
    if replaced:
        yield (
            "rows with what is no character (half a surrogate pair, or NUL), now U+FFFD: "
            f"{replaced:,}"
        )
    if run.config.data.source != "practice":
        pool = run.splits.pool
        if count := sum(map(prompts.untold, pool)):
            yield (
                f"{count:,} of {len(pool):,} questions of the pool do not name their labels or "
                "options, and assistant and student are not told them: data.instruction says what "
                "is asked, and with it the labels"
            )
    drawn = run.instructions(run.config.instruct.examples)
    if drawn.left_out:
        yield (
            f"{drawn.left_out:,} instructions longer than instruct.train.row_tokens="
            f"{run.config.instruct.train.row_tokens} or the student's context were left out"
        )
    if drawn.skipped:
        yield f"{drawn.skipped:,} bad rows of instruct.path were skipped"


def prints_of(run: Run) -> dict[str, str]:
    """Returns the fingerprint of each stage of a run."""
    return fingerprints(plan.stages(run.config), run.describe)


def is_whole(run: Run) -> bool:
    """Returns whether every stage of a run is done, and its report written, with this config."""
    done = all(is_done(run.workdir, name, key) for name, key in prints_of(run).items())
    same = read_json(run.workdir / "config.json") == to_json(run.config)
    return done and same and (run.workdir / "report.json").is_file()


def is_sound(run: Run) -> bool:
    """Returns whether the files of a run that is done are what they were; mends what it can."""
    return all(
        stage.is_whole is None or stage.is_whole(run, run.workdir / stage.name)
        for stage in plan.stages(run.config)
    )


def _check_teacher(run: Run) -> str:
    """Finds what would stop the teacher before anything is trained, if it has yet to be asked.

    That is a missing key, or a budget that cannot pay for one request. Returns a note for people
    where the budget may not pay for all of them.
    """
    if not run.config.asks_teacher or not hosts.is_first():
        return ""
    if is_done(run.workdir, ANNOTATIONS, prints_of(run)[ANNOTATIONS]):
        return ""
    check_key(run.config.teacher)
    return budget.check(run)


def _list_bad_rows(workdir: Path, bad: BadRows) -> None:
    if not hosts.is_first():
        return
    if bad.rows:
        workdir.mkdir(parents=True, exist_ok=True)
        write_rows(workdir / BAD_ROWS, bad.listed())
    else:
        (workdir / BAD_ROWS).unlink(missing_ok=True)


def _begin(run: Run) -> None:
    write_json(run.workdir / "config.json", to_json(run.config))
    # How prompts differ from what the checkpoints' templates alone would write.
    write_json(run.workdir / "prompts.json", run.notes())
    # The whole plan, also when a phase stops early: the report leaves out what is not of it.
    write_json(run.workdir / "stages.json", prints_of(run))


@contextlib.contextmanager
def _held_together(workdir: Path) -> Iterator[None]:
    """Holds the workdir for all processes of this run, or raises `WorkdirBusy` on all of them."""
    with held(workdir / ".lock") if hosts.is_first() else contextlib.nullcontext(True) as ours:
        if not hosts.agree(ours):
            raise WorkdirBusy(f"{workdir}: another process is at this run")
        yield
