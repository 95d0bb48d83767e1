"""A study's points as a table: in the terminal, for a spreadsheet, and for a paper."""

import csv
import io
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge_jax import methods, shown
from bridge_jax.progress import duration
from bridge_jax.report import numbers
from bridge_jax.report.workdir import Row
from bridge_jax.study import study_words

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "–": "--",
}


def to_csv(result: Row) -> str:
    """Returns a row a point, every number of it in full; shares as shares, not per cent."""
    rows = [_csv_row(point, result["measure"]) for point in result["points"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: shown.csv_value(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def _csv_row(point: Row, measure: str) -> dict[str, Any]:
    row = {"variant": point["variant"], "x": point["x"], "seeds": len(point["seeds"])}
    parts = {f"{measure}_{role}": point["accuracy"].get(role) for role in methods.measured()}
    parts |= {"difference": point["difference"]}
    parts |= {f"gap_{name}": gap for name, gap in point["gaps"].items()}
    for name, value in parts.items():
        for key in ("mean", "low", "high", "t_low", "t_high") if value else ():
            row[name if key == "mean" else f"{name}_{key}"] = value[key]
    row |= {f"compliance_{role}": share for role, share in point["compliance"].items()}
    return row | point["cost"]


def to_latex(result: Row) -> str:
    r"""Returns a `tabular` for booktabs: the measure and differences with their 95% intervals."""
    axis = bool(result["axis"])
    student = "Student" if result["measure"] == "accuracy" else f"Student, {result['measure']}"
    names = ["Variant", *([result["axis"]] if axis else []), student, "Difference", "Assistant",
             "US dollars", "Teacher tokens"]  # fmt: skip
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
        r"\toprule",
        " & ".join(map(_tex, names)) + r" \\",
        r"\midrule",
    ]
    for point in result["points"]:
        accuracy, cost = point["accuracy"], point["cost"]
        cells = [point["variant"], *([study_words.x(point)] if axis else [])]
        cells += [
            study_words.with_interval(accuracy.get("student")),
            study_words.difference(point),
            study_words.with_interval(accuracy.get("assistant")),
            f"{cost['usd']:.4f}",
            f"{cost['teacher_tokens']:,.0f}",
        ]
        lines.append(" & ".join(map(_tex, cells)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in shown.line(text))


def print_study(result: Row, console: Console) -> None:
    """Prints the points, the bill, the time and what was found."""

    def say(*parts: shown.Part) -> None:
        shown.say(console, *parts)

    say("")
    say(result["question"])
    if result["measure"] != "accuracy":
        say(f"Measured is {result['measure']}, of 100%.")
    console.width = max(console.width, 132)  # A row is not broken, wherever it is printed.
    if result["points"]:
        console.print(_table(result))
    for sentence in study_words.findings(result):
        say(sentence)
    say(f"Paid     {study_words.bill(result)}")
    seconds = result["seconds"]
    shared, alone = duration(seconds["shared"]), duration(seconds["alone"])
    say(f"Time     {shared} of work; each run alone, together, {alone}")
    for sentence in study_words.failures(result):
        say(("Sign", "bold"), f"     {sentence}")
    say(f"Runs     {study_words.progress(result)}")
    say(f"Page     {result['page']}")


def _table(result: Row) -> Table:
    table = Table(box=None, header_style="", pad_edge=False, padding=(0, 2, 0, 0))
    names = ["variant", *([result["axis"]] if result["axis"] else []), "student (95%)",
             f"minus {result['reference']} (95%)", "assistant", "parse", "dollars", "tokens",
             "seeds"]  # fmt: skip
    for i, name in enumerate(names):
        long = name == result["axis"] or name.startswith("minus")
        table.add_column(shown.cell(name), justify="right" if i else "left", no_wrap=not long)
    for point in result["points"]:
        assistant = point["accuracy"].get("assistant")
        compliance = point["compliance"].get("student")
        table.add_row(
            shown.cell(point["variant"]),
            *([study_words.x(point)] if result["axis"] else []),
            study_words.with_interval(point["accuracy"].get("student")),
            study_words.difference(point),
            numbers.percent(assistant["mean"]) if assistant else "",
            "" if compliance is None else numbers.percent(compliance),
            numbers.dollars(point["cost"]["usd"]),
            f"{point['cost']['tokens']:,.0f}",
            str(len(point["seeds"])),
            style="bold" if point["variant"] == result["reference"] else None,
        )
    return table
