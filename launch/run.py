"""Runs a config: `python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart`.

The same command continues an interrupted run, and with a changed config runs again exactly what
depends on the change. Any field of the config is a flag: `--config.budget.queries=40`.
"""

from pathlib import Path

from absl import flags, logging

from launch import cluster, compilations
from launch.overrides import run_main

_CONFIG = flags.DEFINE_string("config", None, "A Python file with get_config().", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's files go.", required=True)
_PHASE = flags.DEFINE_enum(
    "phase", "all", ["all", "apprenticeship", "tutoring", "evaluate"], "How far to go."
)


def main(assignments: list[str]) -> None:
    """Loads the config, runs the stages, writes the report."""
    from bridge_jax import config_io
    from bridge_jax.config_checks import validate

    config = config_io.override(config_io.load(_CONFIG.value), assignments)
    validate(config)
    cluster.join()
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax.parallel import hosts
    from launch.runner import run_to_report

    logging.set_verbosity(logging.WARNING)
    console = Console(highlight=False, quiet=not hosts.is_first())
    workdir = Path(_WORKDIR.value)
    compilations.keep(workdir)
    with cluster.together(workdir):
        run_to_report(config, workdir, _PHASE.value, console)


if __name__ == "__main__":
    run_main(main, on_interrupt="the same command goes on from here")
