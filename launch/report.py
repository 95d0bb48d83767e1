"""Rebuilds the report of a run, or of a study, from the files in its workdir.

python -m launch.report --workdir=runs/quickstart

With `--ledger` it prints instead who cost what, also while the run goes on, and what was cut off
before an answer; `--csv=FILE` writes every request of the ledger to a spreadsheet, and
`--write_off=JOB` gives up a batch job that its vendor has deleted. Of a study over budgets,
`--target_accuracy` asks for the budget and `--target_budget` for the accuracy.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console

from bridge_jax import shown
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts
from bridge_jax.pipeline.leases import lock
from bridge_jax.report import ledger_table
from bridge_jax.study.names import CELLS
from launch import overrides

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
LEDGER = flags.DEFINE_bool("ledger", False, "Print who cost what; the report is left as it is.")
ACCURACY = flags.DEFINE_float("target_accuracy", None, "Say which budget reaches it (a study's).")
QUERIES = flags.DEFINE_float("target_budget", None, "Say which accuracy it buys (a study's).")
WRITE_OFF = flags.DEFINE_string("write_off", None, "Give up a batch job: it may have been billed.")
CSV = flags.DEFINE_string("csv", None, "Write every request of the ledger to this file.")


def main(argv: Sequence[str]) -> None:
    """Writes the two files and prints the summary; exits with 2 on a mistake of the user's."""
    overrides.show_plainly()
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}: pass --workdir=DIR")
        workdir = Path(WORKDIR.value)
        asked = ACCURACY.value is not None or QUERIES.value is not None
        if WRITE_OFF.value:
            _write_off(workdir, WRITE_OFF.value)
        elif (workdir / CELLS).is_file() and not (LEDGER.value or CSV.value):
            _show_study(workdir, Console())
        elif asked:
            raise UserError(f"--workdir={workdir}: no study; only one over budgets can answer that")
        elif LEDGER.value or CSV.value:
            _show_ledger(workdir, Console())
        else:
            from bridge_jax.report import (
                report,
                terminal,  # takes seconds: the ledger needs none
            )

            terminal.print_summary(report.write(workdir), Console())
    except UserError as error:
        shown.complain(f"launch.report: {error}")
        sys.exit(2)


def _show_study(workdir: Path, console: Console) -> None:
    from bridge_jax.study import (
        study_report,
        study_tables,
        study_words,  # takes seconds
    )

    result = study_report.write(workdir)
    study_tables.print_study(result, console)
    if ACCURACY.value is None and QUERIES.value is None:
        return
    if not result["advice"]:
        raise UserError(f"--workdir={workdir}: its x is no budget, or one run is too few to ask it")
    for sentence in study_words.answers(result, ACCURACY.value, QUERIES.value):
        shown.say(console, f"Advice   {sentence}")


def _write_off(workdir: Path, job_id: str) -> None:
    account = _account(workdir)
    with lock(workdir):
        count = accounts.write_off(account, job_id)
    shown.say(
        Console(),
        f"{job_id} is closed: {count:,} of its requests have no answer. They count as maybe "
        "billed; the run asks them again where its caps have room.",
    )


def _account(workdir: Path) -> accounts.Account:
    if not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: no such folder; pass the workdir of a run")
    return accounts.account_of(workdir)  # A study's ledger is where a run's own would be.


def _show_ledger(workdir: Path, console: Console) -> None:
    account = _account(workdir)
    bill = accounts.read_bill(account.ledger)
    run = None if (workdir / CELLS).is_file() else account.run
    ledger_table.print_ledger(bill, run, _budget(workdir / "config.json"), console)
    if CSV.value:
        accounts.write_csv(bill, Path(CSV.value))
        shown.say(console, f"\n{len(bill.entries):,} requests written to {CSV.value}")


def _budget(config: Path) -> dict[str, Any]:
    """Returns the caps; none where they are not known."""
    try:
        budget = json.loads(config.read_text(encoding="utf-8"))["budget"]
        return {name: budget[name] for name in ("queries", "usd")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{config}: damaged ({error}); the next run writes it again") from None


if __name__ == "__main__":
    app.run(main)
