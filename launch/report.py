"""Rebuilds the report of a run, or of a study, from the files in its workdir.

python -m launch.report --workdir=runs/quickstart

With `--ledger` it prints the payments instead, even during the run, and the requests that were cut
off before an answer. `--csv=FILE` writes every request on the ledger to a CSV file, and
`--write_off=JOB` gives up a batch job that its vendor has deleted. For a study over budgets,
`--target_accuracy` prints the budget needed to reach it, and `--target_budget` the accuracy it
buys.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from bridge_jax import display
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts
from bridge_jax.ledger.accounts import OUTCOMES, Entry, LedgerBill
from bridge_jax.pipeline.leases import lock
from bridge_jax.study import RUNS_FILE
from launch.overrides import run_main

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run or study.", required=True)
LEDGER = flags.DEFINE_bool("ledger", False, "Print the payments; the report is not rebuilt.")
ACCURACY = flags.DEFINE_float("target_accuracy", None, "Print the budget that it needs (studies).")
QUERIES = flags.DEFINE_float("target_budget", None, "Print the accuracy it buys (studies).")
WRITE_OFF = flags.DEFINE_string("write_off", None, "Give up a batch job; it may have been billed.")
CSV = flags.DEFINE_string("csv", None, "Write every request of the ledger to this file.")
_PAID = ("stop", "length", "refused", "empty", "malformed")
_MOST_LISTED = 20


def main(assignments: list[str]) -> None:
    """Writes both report files and prints the summary, or does what the flags ask for instead."""
    if assignments:
        raise UserError(f"unexpected --{assignments[0]}: the run's own config is reported")
    workdir = Path(WORKDIR.value)
    asked = ACCURACY.value is not None or QUERIES.value is not None
    if WRITE_OFF.value:
        _write_off(workdir, WRITE_OFF.value)
    elif (workdir / RUNS_FILE).is_file() and not (LEDGER.value or CSV.value):
        _show_study(workdir, Console())
    elif asked:
        raise UserError(
            f"--workdir={workdir}: not a study; only a study over budgets can answer that"
        )
    elif LEDGER.value or CSV.value:
        _show_ledger(workdir, Console())
    else:
        from bridge_jax.report import (  # Takes seconds, and the ledger does not need it.
            formatting,
            page,
        )

        formatting.print_summary(page.write(workdir), Console())


def _show_study(workdir: Path, console: Console) -> None:
    from bridge_jax.study import study_page  # Takes seconds.

    result = study_page.write(workdir)
    study_page.print_study(result, console)
    if ACCURACY.value is None and QUERIES.value is None:
        return
    if not result["advice"]:
        raise UserError(f"--workdir={workdir}: its x is not a budget, or it has too few runs")
    for sentence in study_page.answers(result, ACCURACY.value, QUERIES.value):
        display.say(console, f"Advice   {sentence}")


def _write_off(workdir: Path, job_id: str) -> None:
    account = _account(workdir)
    with lock(workdir):
        count = accounts.write_off(account, job_id)
    display.say(
        Console(),
        f"{job_id} is closed: {count:,} of its requests have no answer. They count as "
        "possibly billed; the run asks them again if its caps have room.",
    )


def _account(workdir: Path) -> accounts.Account:
    if not workdir.is_dir():
        raise UserError(f"--workdir={workdir}: no such folder; pass the workdir of a run")
    return accounts.account_of(workdir)  # A study's ledger is in the place of a run's own.


def _show_ledger(workdir: Path, console: Console) -> None:
    account = _account(workdir)
    entries = accounts.read_bill(account.ledger)
    run = None if (workdir / RUNS_FILE).is_file() else account.run
    print_ledger(entries, run, _budget(workdir / "config.json"), console)
    if CSV.value:
        accounts.write_csv(entries, Path(CSV.value))
        display.say(console, f"\n{len(entries.entries):,} requests written to {CSV.value}")


def _budget(config: Path) -> dict[str, Any]:
    """Returns the caps; {} if they are not known."""
    try:
        budget = json.loads(config.read_text(encoding="utf-8"))["budget"]
        return {name: budget[name] for name in ("queries", "usd")}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{config}: damaged ({error}); the next run rewrites it") from None


def print_ledger(
    bill: LedgerBill, run: str | None, budget: Mapping[str, Any], console: Console
) -> None:
    """Prints the bill of a run or a study, its unknown requests, and the runs on its ledger.

    Args:
      bill: the bill of the ledger.
      run: the run to print; None prints all runs, for a study.
      budget: the run's `BudgetConfig` as JSON values; empty if it is not known.
      console: where to print.
    """
    display.say(console, f"Ledger   {bill.path}")
    if bill.of(run):
        console.print(_bill(bill, run))
    else:
        name = "This study" if run is None else "This run"
        display.say(console, f"{name} has sent no requests yet.")
    paid, rest = _by_payment(bill, run)
    queries, usd = _queries(len(paid)), f"${_usd(paid)}"
    if budget:
        queries = f"{len(paid):,} of {budget['queries']:,} queries"
        usd += f" of ${budget['usd']:,.2f}"
    display.say(console, f"\nPaid     {queries}, {usd}")
    if rest:
        display.say(
            console,
            f"Also     {_queries(len(rest))} without an answer, up to ${_usd(rest)}; "
            "the caps count them",
        )
    _print_unknown([entry for entry in rest if entry.outcome == "unknown"], console)
    if len(bill.runs) > 1:
        table = display.table("Run", "Answers", "US dollars", "Without an answer")
        for key, name in bill.runs.items():
            paid, rest = _by_payment(bill, key)
            formatting = display.cell(f"{name} (this run)" if key == run else name)
            table.add_row(formatting, f"{len(paid):,}", _usd(paid), f"{len(rest):,}")
        display.say(console, "\nRuns that share this ledger")
        console.print(table)


def _bill(bill: LedgerBill, run: str | None) -> Table:
    columns = ("Teacher", "Outcome", "Queries", "Tokens in", "Tokens out", "US dollars")
    table, before = display.table(*columns, words=2), None
    for (model, batch, outcome), line in bill.lines(run).items():
        name = f"{model} (batch)" if batch else model
        counts = (line.queries, line.input_tokens, line.output_tokens)
        usd = f"{line.nanodollars / 10**9:,.6f}"
        table.add_row(
            display.cell("" if name == before else name),
            OUTCOMES[outcome],
            *(f"{count:,}" for count in counts),
            usd if outcome in _PAID else f"≤ {usd}",
            style=None if outcome in _PAID else "dim",
        )
        before = name
    return table


def _print_unknown(unknown: Sequence[Entry], console: Console) -> None:
    if not unknown:
        return
    console.print(
        "\nUnknown: cut off before the answer, possibly billed. The vendor's own list of\n"
        "requests shows whether; they were sent at these times.",
        highlight=False,
    )
    table = display.table("Example", "Teacher", "Sent (UTC)", "US dollars", words=2)
    for entry in unknown[:_MOST_LISTED]:
        formatting = (display.cell(entry.example_id), display.cell(entry.model))
        table.add_row(*formatting, accounts.utc(entry.reserved_at), f"≤ {_usd([entry])}")
    console.print(table)
    if (more := len(unknown) - _MOST_LISTED) > 0:
        display.say(console, f"and {more:,} more; --csv=FILE lists all of them")


def _by_payment(bill: LedgerBill, run: str | None) -> tuple[list[Entry], list[Entry]]:
    """Returns the paid entries of a run, or of all runs, and the entries without an answer."""
    entries = bill.of(run)
    paid = [entry for entry in entries if entry.outcome in _PAID]
    return paid, [entry for entry in entries if entry.outcome not in _PAID]


def _queries(count: int) -> str:
    return f"{count:,} {'query' if count == 1 else 'queries'}"


def _usd(entries: Sequence[Entry]) -> str:
    return f"{sum(entry.nanodollars for entry in entries) / 10**9:,.6f}"


if __name__ == "__main__":
    run_main(main, takes_config=False)
