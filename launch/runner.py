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
from bridge_jax.parallel import hosts
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.phases import logits, plan
from bridge_jax.phases.apprenticeship import ANNOTATIONS
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import read_json, write_json
from bridge_jax.phases.stages import execute, fingerprints, is_done
from bridge_jax.phases.teacher import check_key
from bridge_jax.phases.workdir import WorkdirBusy, held, lock
from bridge_jax.progress import duration
from bridge_jax.studies import report, terminal


def run_to_report(config: RunConfig, workdir: Path, phase: str, console: Console) -> dict[str, Any]:
    """Runs the stages of `phase` that are not done yet and returns the report."""
    began = time.perf_counter()
    with lock(workdir) if hosts.is_first() else contextlib.nullcontext():
        run = Run(validate(config), workdir)
        check(run)
        _check_key(run)
        splits = run.splits
        queries = config.budget.queries if config.asks_teacher else 0
        shown.say(
            console,
            (config.name, "bold"),
            f": {len(splits.pool):,} examples in the pool, "
            f"{queries} teacher queries, {len(splits.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
            f"{f', {jax.process_count()} hosts' * (jax.process_count() > 1)}",
        )
        if note := idle_rows(config, batch_devices(run.mesh)):
            shown.say(console, (note, "yellow"))
        if splits.skipped:
            shown.say(console, (f"{splits.skipped} bad rows were skipped", "yellow"))
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
        _check_key(run)
        _begin(run)
        stages = plan.stages(run.config)
        for outcome in execute(stages, run, run.workdir, run.describe, store):
            if not outcome.cached:
                shown.say(console, f"  {outcome.name:<28} {duration(outcome.seconds)}")
        return hosts.agree(report.write(run.workdir) if hosts.is_first() else None)


def check(run: Run) -> None:
    """Raises a `UserError` for what would stop the run later, before anything is trained."""
    run.check_inputs()
    if run.config.logits.weight:
        logits.check(run)


def prints_of(run: Run) -> dict[str, str]:
    """Returns the fingerprint of each stage of a run."""
    return fingerprints(plan.stages(run.config), run.describe)


def is_whole(run: Run) -> bool:
    """Returns whether every stage of a run is done, and its report written, with this config."""
    done = all(is_done(run.workdir, name, key) for name, key in prints_of(run).items())
    same = read_json(run.workdir / "config.json") == to_json(run.config)
    return done and same and (run.workdir / "report.json").is_file()


def _check_key(run: Run) -> None:
    """Finds a missing key before anything is trained, if the teacher has yet to be asked."""
    if not run.config.asks_teacher or not hosts.is_first():
        return
    if not is_done(run.workdir, ANNOTATIONS, prints_of(run)[ANNOTATIONS]):
        check_key(run.config.teacher)


def _begin(run: Run) -> None:
    write_json(run.workdir / "config.json", to_json(run.config))
    # The whole plan, also when a phase stops early: the report leaves out what is not of it.
    write_json(run.workdir / "stages.json", prints_of(run))


@contextlib.contextmanager
def _held_together(workdir: Path) -> Iterator[None]:
    """Holds the workdir for all processes of this run, or raises `WorkdirBusy` on all of them."""
    with held(workdir / ".lock") if hosts.is_first() else contextlib.nullcontext(True) as ours:
        if not hosts.agree(ours):
            raise WorkdirBusy(f"{workdir}: another process is at this run")
        yield
