"""What `launch.report --ledger` prints: who cost what."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax import shown
from bridge_jax.ledger.accounts import OUTCOMES, LedgerBill, Line, utc
from bridge_jax.report.numbers import count

_PAID = ("stop", "length", "refused", "empty", "malformed")
_MOST_LISTED = 20


def print_ledger(
    bill: LedgerBill, run: str | None, budget: Mapping[str, Any], console: Console
) -> None:
    """Prints the bill of a run or a study, what was cut off in it, and the runs on its ledger.

    Args:
      bill: of the ledger.
      run: whose bill; None for that of all runs, a study's.
      budget: the run's `BudgetConfig` as JSON values; empty if it is not known.
      console: where to.
    """

    def say(text: str) -> None:
        shown.say(console, text)

    say(f"Ledger   {bill.path}")
    lines = bill.lines(run)
    if lines:
        console.print(_bill(lines))
    else:
        say(f"{'This study' if run is None else 'This run'} has asked nothing yet.")
    paid = _sum(line for (_, _, outcome), line in lines.items() if outcome in _PAID)
    rest = _sum(line for (_, _, outcome), line in lines.items() if outcome not in _PAID)
    say(f"\nPaid     {_of_caps(paid, budget)}")
    if rest.queries:
        say(
            f"Besides  {count(rest.queries, 'query', 'queries')} without an answer, "
            f"up to ${_usd(rest)}; the caps count them"
        )
    _print_unknown(bill, run, console)
    if len(bill.runs) > 1:
        say("\nRuns that share this ledger")
        console.print(_runs(bill, run))


def _bill(lines: Mapping[tuple[str, bool, str], Line]) -> Table:
    table = _table("Teacher", "Outcome", *("Queries", "Tokens in", "Tokens out", "US dollars"))
    before = None
    for (model, batch, outcome), line in lines.items():
        name = f"{model} (batch)" if batch else model
        upper = "" if outcome in _PAID else "≤ "
        table.add_row(
            shown.cell("" if name == before else name),
            OUTCOMES[outcome],
            *(f"{line.queries:,}", f"{line.input_tokens:,}", f"{line.output_tokens:,}"),
            upper + _usd(line),
            style=None if outcome in _PAID else "dim",
        )
        before = name
    return table


def _print_unknown(bill: LedgerBill, run: str | None, console: Console) -> None:
    unknown = [entry for entry in bill.of(run) if entry.outcome == "unknown"]
    if not unknown:
        return
    console.print(
        "\nUnknown: cut off before the answer, maybe billed. The vendor's own list of\n"
        "requests says whether; they were sent at these times.",
        highlight=False,
    )
    table = _table("Example", "Teacher", "Sent (UTC)", "US dollars")
    for entry in unknown[:_MOST_LISTED]:
        cost = "≤ " + _usd(Line().plus(entry))
        words = (shown.cell(entry.example_id), shown.cell(entry.model))
        table.add_row(*words, utc(entry.reserved_at), cost)
    console.print(table)
    if len(unknown) > _MOST_LISTED:
        more = len(unknown) - _MOST_LISTED
        shown.say(console, f"and {more:,} more; --csv=FILE lists all of them")


def _runs(bill: LedgerBill, run: str | None) -> Table:
    table = _table("Run", "Answers", "US dollars", "Without an answer", numbers=1)
    for key, name in bill.runs.items():
        lines = bill.lines(key)
        paid = _sum(line for (_, _, outcome), line in lines.items() if outcome in _PAID)
        rest = _sum(line for (_, _, outcome), line in lines.items() if outcome not in _PAID)
        table.add_row(
            shown.cell(f"{name} (this run)" if key == run else name),
            f"{paid.queries:,}",
            _usd(paid),
            f"{rest.queries:,}",
        )
    return table


def _table(*columns: str, numbers: int = 2) -> Table:
    """Returns an empty table; the first `numbers` columns are words, the others numbers."""
    table = Table(box=None, header_style="", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        words = i < numbers
        table.add_column(
            name, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    return table


def _of_caps(paid: Line, budget: Mapping[str, Any]) -> str:
    usd = f"${_usd(paid)}"
    if not budget:
        return f"{count(paid.queries, 'query', 'queries')}, {usd}"
    return f"{paid.queries:,} of {budget['queries']:,} queries, {usd} of ${budget['usd']:,.2f}"


def _sum(lines: Any) -> Line:
    columns = zip(*((x.queries, x.input_tokens, x.output_tokens, x.nanodollars) for x in lines))
    return Line(*map(sum, columns))


def _usd(line: Line) -> str:
    return f"{line.nanodollars / 10**9:,.6f}"
