"""The runs of a study side by side: accuracy of every model, mean over runs."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax.evaluation.metrics import mean_over_seeds


def compare(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns accuracies by role and run, and their means.

    Args:
      reports: `report.json` of each run, by the run's name.

    Returns:
      `accuracy`: role -> {`runs`: {name: value}, `mean`, `low`, `high`} with a 95% t interval over
      the runs, and `bridge_minus_direct` likewise, where the direct student was trained too.
    """
    accuracy = {name: report["accuracy"] for name, report in reports.items()}
    roles = dict.fromkeys(role for values in accuracy.values() for role in values)
    result: dict[str, Any] = {
        "accuracy": {
            role: _summary({n: v[role] for n, v in accuracy.items() if role in v}) for role in roles
        }
    }
    differences = {
        name: values["student"] - values["student_direct"]
        for name, values in accuracy.items()
        if "student_direct" in values and "student" in values
    }
    if differences:
        result["bridge_minus_direct"] = _summary(differences)
    return result


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Prints a row a model, a column a run, and the mean with its interval."""
    rows = dict(result["accuracy"])
    if "bridge_minus_direct" in result:
        rows["bridge minus direct"] = result["bridge_minus_direct"]
    names = list(dict.fromkeys(name for row in rows.values() for name in row["runs"]))
    table = Table("accuracy", *names, "mean", "95%", box=None)
    for role, row in rows.items():
        cells = [f"{row['runs'][n]:.1%}" if n in row["runs"] else "" for n in names]
        interval = "" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(role.replace("_", " "), *cells, f"{row['mean']:.1%}", interval)
    console.print(table)


def _summary(runs: dict[str, float]) -> dict[str, Any]:
    return {"runs": runs, **mean_over_seeds(list(runs.values()))._asdict()}
