"""Runs a config.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

The same command resumes an interrupted run. After a change of the config, it reruns exactly what
depends on the change. Every field of the config is a flag: `--config.budget.queries=40`.
"""

import time

from absl import flags, logging

from launch import cluster, consent, settings
from launch.overrides import run_main

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the run's files.", required=True)
_STOP_AFTER = flags.DEFINE_string(
    "stop_after",
    "all",
    "What to stop after: a stage, such as selection; a role, such as teacher; or a phase: "
    "apprenticeship, tutoring, budgets. evaluate tests the existing models as they are.",
)
flags.DEFINE_alias("phase", "stop_after")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Show what would run, and its cost and time; nothing is run, paid or written."
)


def main(assignments: list[str]) -> None:
    """Loads the config, runs the stages and writes the report."""
    from bridge_jax.config.fields import check
    from bridge_jax.config.io import load, override

    config = override(load(settings.file()), settings.changes(assignments))
    check(config)
    # These imports take seconds, so a mistyped flag is reported before them.
    from bridge_jax.methods.checks import validate
    from bridge_jax.pipeline import storage

    validate(config)
    workdir = storage.local(_WORKDIR.value, "--workdir")
    cluster.join()
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.parallel import hosts
    from bridge_jax.planning import dry_run
    from bridge_jax.progress import duration
    from bridge_jax.report import formatting
    from bridge_jax.runs import Run

    began = time.perf_counter()
    logging.set_verbosity(logging.WARNING)
    console = Console(highlight=False, quiet=not hosts.is_first())
    if _DRY_RUN.value:
        run = Run(config, workdir, phase=_STOP_AFTER.value, keeps=False)
        dry_run.show(run.dry_run(), console, run.heading(), run.notes())
        return
    cluster.keep_compilations(workdir)
    confirm = consent.make_confirm(workdir, console)
    with cluster.together(workdir):
        run = Run(config, workdir, phase=_STOP_AFTER.value)
        formatting.print_summary(run.run(console, run.heading, confirm=confirm), console)
    display.say(console, f"this command took {duration(time.perf_counter() - began)}")


if __name__ == "__main__":
    run_main(main, on_interrupt="run the same command again to resume")
