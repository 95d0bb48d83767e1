"""Runs a config: `python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart`.

The same command continues an interrupted run, and with a changed config runs again exactly what
depends on the change. Any field of the config is a flag: `--config.budget.queries=40`.
"""

import os
import time
from pathlib import Path

from absl import flags, logging

from launch.overrides import run_main

_CONFIG = flags.DEFINE_string("config", None, "A Python file with get_config().", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's files go.", required=True)
_PHASE = flags.DEFINE_enum(
    "phase", "all", ["all", "apprenticeship", "tutoring", "evaluate"], "How far to go."
)


def main(assignments: list[str]) -> None:
    """Loads the config, runs the stages, writes the report."""
    # The imports take seconds, so a mistyped flag is reported before them.
    import jax
    from rich.console import Console

    from bridge_jax import config as configs
    from bridge_jax.phases import plan
    from bridge_jax.phases.context import Run
    from bridge_jax.phases.stages import execute, write_json
    from bridge_jax.phases.workdir import lock
    from bridge_jax.progress import duration
    from bridge_jax.studies import report, terminal

    logging.set_verbosity(logging.WARNING)
    config = configs.validate(configs.override(configs.load(_CONFIG.value), assignments))
    workdir = Path(_WORKDIR.value)
    console = Console(highlight=False)
    began = time.perf_counter()
    with lock(workdir):
        run = Run(config, workdir)
        run.check_inputs()
        splits = run.splits
        console.print(
            f"[bold]{config.name}[/]: {len(splits.pool):,} examples in the pool, "
            f"{config.budget.queries} teacher queries, {len(splits.test):,} test questions; "
            f"{jax.device_count()} {jax.default_backend()} device(s), {os.cpu_count()} cores"
        )
        if splits.skipped:
            console.print(f"[yellow]{splits.skipped} bad rows were skipped[/]")
        write_json(workdir / "config.json", configs.to_json(config))
        stages = plan.stages(config, _PHASE.value)
        for outcome in execute(stages, run, workdir, run.describe):
            note = "done before" if outcome.cached else duration(outcome.seconds)
            console.print(f"  {outcome.name:<28} {note}")
        terminal.print_summary(report.write(workdir), console)
    console.print(f"this command took {duration(time.perf_counter() - began)}")


if __name__ == "__main__":
    run_main(main)
