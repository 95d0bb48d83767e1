"""Runs a study: `python -m launch.study --config=configs/studies/NAME.py --workdir=DIR`.

A study is a Python file with `get_study() -> {name: RunConfig}`. Each run gets its own folder; a
run that is done is not run again.
"""

from pathlib import Path

from absl import flags, logging

from launch import cluster
from launch.overrides import run_main

_CONFIG = flags.DEFINE_string("config", None, "A Python file with get_study().", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the study's files go.", required=True)


def main(assignments: list[str]) -> None:
    """Runs every config of the study, with the overrides applied to each, and compares them."""
    cluster.join()
    from rich.console import Console

    from bridge_jax import config_io
    from bridge_jax.config_checks import validate
    from bridge_jax.parallel import hosts
    from bridge_jax.phases.files import write_json
    from bridge_jax.studies import comparison
    from launch.runner import run_to_report

    logging.set_verbosity(logging.WARNING)
    console = Console(highlight=False, quiet=not hosts.is_first())
    workdir = Path(_WORKDIR.value)
    runs = {
        name: validate(config_io.override(config, assignments))
        for name, config in config_io.load(_CONFIG.value, "get_study").items()
    }
    with cluster.together(workdir):
        reports = {
            name: run_to_report(config, workdir / name, "all", console)
            for name, config in runs.items()
        }
    result = comparison.compare(reports)
    write_json(workdir / "study.json", result)
    comparison.print_table(result, console)


if __name__ == "__main__":
    run_main(main, on_interrupt="the same command goes on from here")
