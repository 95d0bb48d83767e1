"""Words the results of a study, and writes its points as tables: terminal, CSV, LaTeX."""

import csv
import io
from collections.abc import Sequence

from rich.console import Console

from bridge_jax import methods, shown
from bridge_jax.progress import duration
from bridge_jax.report import words
from bridge_jax.report.workdir import Json
from bridge_jax.study import advisor

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "–": "--",
}


def row(point: Json) -> dict[str, str]:
    """Returns a point in words, by column; empty where there is no number.

    A role has its mean and interval, such as "48% (42–53)"; the `difference` to the reference is
    in points, such as "+4.1 (−0.2 to +8.0)".
    """
    accuracy, cost, parse = point["accuracy"], point["cost"], point["compliance"].get("student")
    local = cost["trained_tokens"] + cost["written_tokens"]
    return {
        "variant": point["variant"],
        "x": _x(point),
        "student": _with_interval(accuracy.get("student")),
        "assistant": _with_interval(accuracy.get("assistant")),
        "teacher": _with_interval(accuracy.get("teacher")),
        "difference": difference(point),
        "parse": "" if parse is None else words.percent(parse),
        "queries": f"{cost['queries']:,.0f}",
        "usd": words.dollars(cost["usd"]),
        "teacher_tokens": f"{cost['teacher_tokens']:,.0f}",
        "local_tokens": f"{local:,.0f}",
        "tokens": f"{cost['tokens']:,.0f}",
        "seeds": str(len(point["seeds"])),
    }


def _x(point: Json) -> str:
    return "" if point["x"] is None else f"{point['x']:g}"


def _with_interval(value: Json | None) -> str:
    if value is None:
        return ""
    bounds = f"{100 * value['low']:.0f}–{100 * value['high']:.0f}"
    return f"{words.percent(value['mean'])} ({bounds})"


def difference(point: Json) -> str:
    """Returns the difference to the reference in points, such as "+4.1 (−0.2 to +8.0)"."""
    value = point["difference"]
    if value is None:
        return ""
    mean, low, high = (_signed(value[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}".replace("-", "−")
    return "0" if text in ("+0.0", "−0.0") else text


def verdict(value: Json) -> str:
    """Returns the conclusion from an interval of a difference."""
    better = sum(seed > 0 for seed in value["seeds"].values())
    found = "no clear difference"
    if value["low"] > 0 or value["high"] < 0:
        found = "ahead" if value["low"] > 0 else "behind"
    return f"{found}; better for {better} of {words.count(len(value['seeds']), 'seed')}"


def findings(result: Json) -> list[str]:
    """Returns a sentence for each variant against the reference, at the largest x that it has."""
    last: dict[str, Json] = {}
    for point in result["points"]:  # by x
        if point["difference"]:
            last[point["variant"]] = point
    sentences = []
    for name, point in last.items():
        at = "" if point["x"] is None else f" ({result['axis']}: {_x(point)})"
        sentences.append(
            f"{name}: {difference(point)} points against {result['reference']}, "
            f"{verdict(point['difference'])}{at}."
        )
    return sentences


def bill(result: Json) -> str:
    """Returns the sum that was really paid, and the sum that the runs would have paid alone."""
    paid, rest = result["bill"], result["bill"]["unsettled"]
    alone = sum(point["cost"]["usd"] * len(point["seeds"]) for point in result["points"])
    text = (
        f"{words.dollars(paid['usd'])} for {words.count(paid['queries'], 'query', 'queries')} "
        f"in all; each run alone would have paid, together, {words.dollars(alone)}"
    )
    if rest["queries"]:
        calls = words.count(rest["queries"], "query", "queries")
        text += f"; besides up to {words.dollars(rest['usd'])} for {calls} unsettled"
    return text


def progress(result: Json) -> str:
    """Returns how many runs are done, and which are not."""
    runs = result["cells"]
    if not runs["missing"]:
        return f"all {runs['total']} are done"
    names = ", ".join(runs["missing"][:4])
    more = f" and {len(runs['missing']) - 4} more" if len(runs["missing"]) > 4 else ""
    return f"{runs['done']} of {runs['total']} are done; not yet: {names}{more}"


def failures(result: Json) -> list[str]:
    """Returns a sentence for each failure signature: in how many runs, and at which points."""
    where: dict[str, list[Json]] = {}
    for point in result["points"]:
        for name in point["failures"]:
            where.setdefault(name, []).append(point)
    runs = words.count(result["cells"]["done"], "run")
    sentences = []
    for name, points in where.items():
        seeds = [len(point["failures"][name]) for point in points]
        places = []
        for variant in dict.fromkeys(point["variant"] for point in points):
            mine = [point for point in points if point["variant"] == variant]
            everywhere = len(mine) == sum(p["variant"] == variant for p in result["points"])
            at = "" if everywhere else " at " + ", ".join(map(_x, mine))
            places.append(f"{variant}{at} ({sum(len(p['failures'][name]) for p in mine)})")
        sentences.append(f"{name} in {sum(seeds)} of {runs}: {', '.join(places)}.")
    return sentences


def advice(result: Json) -> list[str]:
    """Returns the advisor's check of each variant, or why it gives no advice."""
    sentences = []
    for name, found in result["advice"].items():
        held = found.get("held_out")
        if found["status"] != "fitted":
            text = _no_curve(found)
        elif held is None:
            text = f"too few budgets ({len(found['budgets'])}) to check the curve on one held out."
        else:
            text = (
                f"from the smaller budgets, {words.percent(held['predicted'])} was predicted for "
                f"{held['queries']:g} queries (90% {_bounds(held)}); measured was "
                f"{words.percent(held['measured'])}, "
                f"{'inside' if held['inside'] else 'outside'} the interval."
            )
        sentences.append(f"{name}: {text}")
    return sentences


def answers(result: Json, accuracy: float | None, queries: float | None) -> list[str]:
    """Returns the advisor's answers to a target accuracy and to a target budget, by variant."""
    sentences = []
    for name, found in result["advice"].items():
        if accuracy is not None:
            sentences.append(f"{name}: {_budget_for(found, accuracy)}")
        if queries is not None:
            sentences.append(f"{name}: {_accuracy_for(found, queries)}")
    return sentences


def _no_curve(advice: Json) -> str:
    budgets = advice["budgets"]
    if advice["status"] == "few":
        return f"{words.count(len(budgets), 'budget')} measured, a curve needs {advisor.FEWEST}."
    return (
        f"between {budgets[0]:g} and {budgets[-1]:g} queries no gain with the budget can be told "
        "from chance: measure more seeds or larger budgets."
    )


def _budget_for(advice: Json, accuracy: float) -> str:
    found = advisor.budget_for(advice, accuracy)
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    target, most = words.percent(accuracy), f"{advice['budgets'][-1]:g}"
    low, high = (
        "no bound" if found[key] is None else f"{found[key]:,.0f}" for key in ("low", "high")
    )
    if found["status"] == "never":
        chance = "" if found["low"] is None else f"; at the best {low} queries might do"
        return f"{target} is not reachable: the curve levels off below it{chance}."
    needed = f"{target} takes about {found['queries']:,.0f} queries (90%: {low} to {high})"
    if found["status"] == "beyond":
        return (
            f"{target} is not reached within what was measured (up to {most} queries); if the "
            f"curve goes on as it does, {needed}."
        )
    return f"{needed}."


def _accuracy_for(advice: Json, queries: float) -> str:
    found = advisor.accuracy_for(advice, queries)
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    beyond = ", beyond what was measured" if found["status"] == "beyond" else ""
    share = f"{words.percent(found['accuracy'])} (90%: {_bounds(found)})"
    return f"{queries:g} queries buy about {share}{beyond}."


def _bounds(found: Json) -> str:
    return words.interval([found["low"], found["high"]])


def to_csv(result: Json) -> str:
    """Returns a row per point, every number of it in full; shares as shares, not per cent."""
    rows = []
    for point in result["points"]:
        values = {"variant": point["variant"], "x": point["x"], "seeds": len(point["seeds"])}
        parts = {
            f"{result['measure']}_{role}": point["accuracy"].get(role)
            for role in methods.measured()
        }
        parts["difference"] = point["difference"]
        parts |= {f"gap_{name}": gap for name, gap in point["gaps"].items()}
        for name, part in parts.items():
            for key in ("mean", "low", "high", "t_low", "t_high") if part else ():
                values[name if key == "mean" else f"{name}_{key}"] = part[key]
        values |= {f"compliance_{role}": share for role, share in point["compliance"].items()}
        rows.append(values | point["cost"])
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: shown.csv_value(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def to_latex(result: Json) -> str:
    r"""Returns a `tabular` for booktabs: the measure and differences with their 95% intervals."""
    student = "Student" if result["measure"] == "accuracy" else f"Student, {result['measure']}"
    columns = {
        "variant": "Variant",
        "x": result["axis"],
        "student": student,
        "difference": "Difference",
        "assistant": "Assistant",
        "usd": "US dollars",
        "teacher_tokens": "Teacher tokens",
    }
    if not result["axis"]:
        del columns["x"]
    rows = []
    for point in result["points"]:
        found = row(point) | {"usd": f"{point['cost']['usd']:.4f}"}
        rows.append(_latex([found[key] for key in columns]))
    head = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        _latex(list(columns.values())),
        r"\midrule",
    ]
    return "\n".join([*head, *rows, r"\bottomrule", r"\end{tabular}", ""])


def _latex(cells: Sequence[str]) -> str:
    """Returns a row of a `tabular`; no text in it is a command."""
    escaped = ("".join(_LATEX.get(sign, sign) for sign in shown.line(cell)) for cell in cells)
    return " & ".join(escaped) + r" \\"


def print_study(result: Json, console: Console) -> None:
    """Prints the points, the bill, the time and the findings."""

    def say(*parts: shown.Part) -> None:
        shown.say(console, *parts)

    say("")
    say(result["question"])
    if result["measure"] != "accuracy":
        say(f"Measured is {result['measure']}, of 100%.")
    console.width = max(console.width, 132)  # A row is not broken, wherever it is printed.
    columns = {
        "variant": "variant",
        "x": result["axis"],
        "student": "student (95%)",
        "difference": f"minus {result['reference']} (95%)",
        "assistant": "assistant",
        "parse": "parse",
        "usd": "dollars",
        "tokens": "tokens",
        "seeds": "seeds",
    }
    if not result["axis"]:
        del columns["x"]
    table = shown.table(*columns.values())
    for column in table.columns[1:4]:  # Their headers may be long.
        column.no_wrap = False
    for point in result["points"]:
        found = row(point)
        found["assistant"] = found["assistant"].partition(" ")[0]
        style = "bold" if point["variant"] == result["reference"] else None
        table.add_row(*(shown.cell(found[key]) for key in columns), style=style)
    if result["points"]:
        console.print(table)
    for sentence in findings(result):
        say(sentence)
    say(f"Paid     {bill(result)}")
    seconds = result["seconds"]
    shared, alone = duration(seconds["shared"]), duration(seconds["alone"])
    say(f"Time     {shared} of work; each run alone, together, {alone}")
    for sentence in failures(result):
        say(("Sign", "bold"), f"     {sentence}")
    say(f"Runs     {progress(result)}")
    say(f"Page     {result['page']}")
