"""One run from its config to its report; what `launch.run` and `launch.study` share."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from bridge_jax.config import RunConfig
from bridge_jax.config_checks import idle_rows, validate
from bridge_jax.config_io import to_json
from bridge_jax.parallel import hosts
from bridge_jax.parallel.sharding import batch_devices
from bridge_jax.phases import logits, plan
from bridge_jax.phases.apprenticeship import ANNOTATIONS
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import write_json
from bridge_jax.phases.stages import execute, fingerprints, is_done
from bridge_jax.phases.teacher import check_key
from bridge_jax.phases.workdir import lock
from bridge_jax.progress import duration
from bridge_jax.studies import report, terminal


def run_to_report(config: RunConfig, workdir: Path, phase: str, console: Console) -> dict[str, Any]:
    """Runs the stages of `phase` that are not done yet and returns the report."""
    began = time.perf_counter()
    with lock(workdir) if hosts.is_first() else contextlib.nullcontext():
        run = Run(validate(config), workdir)
        run.check_inputs()
        if config.logits.weight:
            logits.check(run)
        prints = fingerprints(plan.stages(config), run.describe)
        asked = not config.asks_teacher or is_done(workdir, ANNOTATIONS, prints[ANNOTATIONS])
        if hosts.is_first() and not asked:
            check_key(run.config.teacher)
        splits = run.splits
        queries = config.budget.queries if config.asks_teacher else 0
        console.print(
            f"[bold]{config.name}[/]: {len(splits.pool):,} examples in the pool, "
            f"{queries} teacher queries, {len(splits.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
            f"{f', {jax.process_count()} hosts' * (jax.process_count() > 1)}",
            soft_wrap=True,
        )
        if note := idle_rows(config, batch_devices(run.mesh)):
            console.print(f"[yellow]{note}[/]", soft_wrap=True)
        if splits.skipped:
            console.print(f"[yellow]{splits.skipped} bad rows were skipped[/]")
        write_json(workdir / "config.json", to_json(config))
        # The whole plan, also when `phase` stops early: the report leaves out what is not of it.
        write_json(workdir / "stages.json", prints)
        for outcome in execute(plan.stages(config, phase), run, workdir, run.describe):
            note = "done before" if outcome.cached else duration(outcome.seconds)
            console.print(f"  {outcome.name:<28} {note}")
        result = hosts.agree(report.write(workdir) if hosts.is_first() else None)
        terminal.print_summary(result, console)
    console.print(f"this command took {duration(time.perf_counter() - began)}")
    return result
