"""What a run prints when it ends."""

from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax import shown
from bridge_jax.report import numbers, wording


def print_summary(report: dict[str, Any], console: Console) -> None:
    """Prints the result, a line per model, the bill, the time, the warnings and the page's path."""

    def say(*parts: shown.Part) -> None:
        shown.say(console, *parts)

    say("")
    say(wording.headline(report))
    if report["accuracy"]:
        console.print(_models(report))
    if "spend" in report:
        parts = [
            f"{row['used']} of {row['cap']}" if row["cap"] else row["used"]
            for row in wording.spend_rows(report["spend"])
        ]
        say(f"Spent    {parts[0]} queries, {parts[1]}; {parts[2]} tokens in, {parts[3]} out")
        for note in wording.spend_notes(report["spend"]):
            say(f"         {note}")
    if trained := wording.trained(report):
        say(f"Trained  {trained}")
    if report["seconds"]:
        say(f"Time     {wording.time(report['time'])}")
    for warning in report["warnings"]:
        say(("Warning", "bold"), f"  {warning}")
    say(f"Report   {report['page']}")


def _models(report: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="", pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("model", "accuracy", "95%", "answers that parse"):
        table.add_column(name, justify="left" if name == "model" else "right")
    titles = wording.titles(report["method"])
    for role, value in report["accuracy"].items():
        bold = "bold" if role == "student" else None
        table.add_row(
            titles[role],
            numbers.percent(value),
            numbers.interval(report["accuracy_interval"][role]),
            numbers.percent(report["compliance"][role]),
            style=bold,
        )
    return table
