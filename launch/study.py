"""Runs a study.

python -m launch.study --config=configs/studies/NAME.py --workdir=DIR

The same command resumes after any interruption. It may run several times at once, on all hosts that
share the disk: each process takes runs that no other process is running, and shared stages run
once. The last process to finish writes the result. Every field of the runs' configs is a flag.
"""

import fnmatch
from contextlib import nullcontext

from absl import flags, logging

from launch import cluster, consent, settings
from launch.overrides import run_main

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the study's files.", required=True)
_ONLY = flags.DEFINE_string("only", "*", "Run only matching folders, e.g. 'random-*-seed0'.")
_KEEP = flags.DEFINE_bool("keep_models", True, "Keep the models that no run needs any more.")


def main(assignments: list[str]) -> None:
    """Executes the runs of the study that are not done, and writes its result."""
    from bridge_jax.pipeline import storage
    from bridge_jax.study import RUNS_FILE
    from bridge_jax.study import study as studies

    workdir = storage.local(_WORKDIR.value, "--workdir")
    study = studies.in_folder(studies.load(settings.file(), settings.changes(assignments)), workdir)
    cluster.join()
    # These imports take seconds, so a mistake in the config is reported before them.
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.errors import UserError
    from bridge_jax.parallel import hosts
    from bridge_jax.pipeline.files import write_json
    from bridge_jax.pipeline.leases import held
    from bridge_jax.runs import bad_rows_listed
    from launch.study_runs import Runs, take_turns

    logging.set_verbosity(logging.WARNING)
    console = Console(highlight=False, quiet=not hosts.is_first())
    cluster.keep_compilations(workdir)
    with bad_rows_listed(workdir):
        studies.check_tests(study)
    chosen = [run for run in study.runs if fnmatch.fnmatch(run.folder, _ONLY.value)]
    if not chosen:
        raise UserError(
            f"--only={_ONLY.value}: no run matches; a match would be {study.runs[0].folder}"
        )
    with held(workdir / ".lock", wait=True) if hosts.is_first() else nullcontext():
        write_json(workdir / RUNS_FILE, study.to_json())
    with cluster.together(workdir):
        runs = Runs(study, workdir, _KEEP.value, console)
        runs.confirm(chosen, consent.make_confirm(workdir, console))
        taken = take_turns(chosen, runs.attempt)
        if taken:
            display.say(
                console,
                f"other processes are still running {len(taken)} runs; the last one to finish "
                "writes the final result",
            )
        runs.write_result()
    if runs.failed:
        first, why = next(iter(runs.failed.items()))
        raise UserError(f"{len(runs.failed)} of {len(chosen)} runs failed; {first}: {why}")


if __name__ == "__main__":
    run_main(main, on_interrupt="run the same command again to resume")
