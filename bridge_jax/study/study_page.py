"""Writes the results of a study: numbers, figures, CSV and LaTeX tables, HTML page, terminal."""

import csv
import functools
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from bridge_jax import display, methods
from bridge_jax.atomic import replace
from bridge_jax.evaluation import intervals
from bridge_jax.evaluation.intervals import REPLICATES
from bridge_jax.progress import duration
from bridge_jax.report import formatting, page
from bridge_jax.report.workdir import Json
from bridge_jax.study import RUNS, advisor, results, study_figures

WIDEST = 132  # columns of the table in a terminal
_WIDE_ALONE = ("assistant", "parse", "tokens")  # Columns left out in a narrower one.
MOST_SEEDS = 100  # more are not suggested
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "–": "--",
}


def write(folder: Path) -> Json:
    """Writes study.json, study.html, table.csv, table.tex and figures/; returns `study.json`.

    Raises:
      UserError: there is no study, or one of its files is damaged.
    """
    result = results.compute(folder)
    result["page"] = str(folder / "study.html")
    drawings = study_figures.figures(result, page.WIDE)
    (folder / "figures").mkdir(exist_ok=True)
    for drawing in drawings:
        drawing.save(folder / "figures")
    for path in (folder / "figures").iterdir():
        if path.stem not in {drawing.name for drawing in drawings}:
            path.unlink()  # It shows an earlier state of the study.
    names = [run["folder"] for run in results.read_study(folder)["runs"]]
    reports = {name: f"{RUNS}/{name}/report.html" for name in names}
    links = {name: link for name, link in reports.items() if (folder / link).is_file()}
    replace(folder / "study.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    replace(folder / "table.csv", to_csv(result))
    replace(folder / "table.tex", to_latex(result))
    replace(folder / "study.html", _page(result, links))
    return result


def _page(result: Json, links: dict[str, str]) -> str:
    """Returns the page; the same result gives the same bytes.

    Args:
      result: the content of `study.json`.
      links: folder of a run -> its report, for the runs that have one.
    """
    points = result["points"]
    wide, narrow = (
        {drawing.name: Markup(drawing.svg()) for drawing in study_figures.figures(result, width)}
        for width in (page.WIDE, page.NARROW)
    )
    curves = {name: wide.get(study_figures.advice_name(name)) for name in result["advice"]}
    rendered = page.template("study.html").render(
        result=result,
        wide=wide,
        narrow=narrow,
        advice={name: drawing for name, drawing in curves.items() if drawing},
        advice_words=advice(result),
        findings=findings(result),
        progress=progress(result),
        bill=bill(result),
        failures=failures(result),
        seconds={name: duration(value) for name, value in result["seconds"].items()},
        seeds={seed for point in points for seed in point["seeds"]},
        questions=max((point["questions"] for point in points), default=0),
        against_teacher=any(point["against_teacher"] for point in points),
        on_annotations=any(point["teacher_on_annotations"] for point in points),
        rows=[row(point) for point in points],
        replicates=REPLICATES,
        links=links,
        has_axis=study_figures.has_axis(result),
        only_last=len(study_figures.with_gaps(result)) < sum(bool(p["gaps"]) for p in points),
        made_with=formatting.made_with(result["made_with"]),
        against=against(result["levels"]),
    )
    return display.plain(rendered)


def row(point: Json) -> dict[str, str]:
    """Returns a point's row of the table: column -> text, empty if there is no number.

    A role's text is its mean with the interval, such as "48% (42–53)"; the `difference` from the
    reference is in percentage points, such as "+4.1 (−0.2 to +8.0)".
    """
    accuracy, cost, parse = point["accuracy"], point["cost"], point["compliance"].get("student")
    local = cost["trained_tokens"] + cost["written_tokens"]
    return {
        "variant": point["variant"],
        "x": _x(point),
        **{
            role: _with_interval(accuracy.get(role)) for role in ("student", "assistant", "teacher")
        },
        "difference": difference(point),
        "parse": "" if parse is None else formatting.percent(parse),
        "queries": f"{cost['queries']:,.0f}",
        "usd": formatting.dollars(cost["usd"]),
        "teacher_tokens": f"{cost['teacher_tokens']:,.0f}",
        "local_tokens": f"{local:,.0f}",
        "labels": _with_interval(accuracy.get("student_labels")),
        "constant": "" if point["constant"] is None else formatting.percent(point["constant"]),
        "questions": f"{point['questions']:,}",
        "tokens": f"{cost['tokens']:,.0f}",
        "seeds": str(len(point["seeds"])),
    }


def _x(point: Json) -> str:
    return "" if point["x"] is None else f"{point['x']:g}"


def _with_interval(value: Json | None) -> str:
    if value is None:
        return ""
    bounds = f"{100 * value['low']:.0f}–{100 * value['high']:.0f}"
    return f"{formatting.percent(value['mean'])} ({bounds})"


def difference(point: Json) -> str:
    """Returns the difference from the reference in points, such as "+4.1 (−0.2 to +8.0)"."""
    value = point["difference"]
    if value is None:
        return ""
    mean, low, high = (formatting.signed(value[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def verdict(value: Json) -> str:
    """Returns the conclusion from a difference, its interval and its seeds.

    A variant is ahead or behind if neither the bootstrap interval over seeds and questions nor
    Student's t interval over the seeds alone includes 0. Otherwise the difference is inconclusive:
    there are too few seeds for it. Both intervals are required (our default) because the bootstrap
    interval is too narrow with few seeds (`evaluation.intervals`).
    """
    seeds = list(value["seeds"].values())
    better, many = sum(seed > 0 for seed in seeds), formatting.count(len(seeds), "seed")
    side = f"better for {better} of {many}"
    if value["t_low"] is not None:
        if min(value["low"], value["t_low"]) > 0:
            return f"ahead; {side}"
        if max(value["high"], value["t_high"]) < 0:
            return f"behind; {side}"
    return f"inconclusive; {side}{_needed(seeds)}"


def _needed(seeds: list[float]) -> str:
    """Returns a phrase: how many seeds would tell such a difference from 0."""
    if len(seeds) == 1:
        return ", and one seed says nothing about others"
    needed = intervals.seeds_needed(seeds)
    if needed is None or needed > MOST_SEEDS:
        return f", and more than {MOST_SEEDS} would be needed"
    return f"; about {max(needed, len(seeds) + 1)} would be needed to tell"


def findings(result: Json) -> list[str]:
    """Returns a sentence per variant: its difference from the reference at its largest x."""
    # Points are sorted by x, so the last one of a variant stays.
    last = {point["variant"]: point for point in result["points"] if point["difference"]}
    sentences = []
    for name, point in last.items():
        at = "" if point["x"] is None else f" ({result['axis']}: {_x(point)})"
        sentences.append(
            f"{name}: {difference(point)} points against {result['reference']}, "
            f"{verdict(point['difference'])}{at}."
        )
    return sentences


def against(levels: Mapping[str, float]) -> str:
    """Returns the levels in words: "the constant answer is right for 13%; labels alone give …"."""
    names = {"constant": "the constant answer is right for", "labels": "labels alone give"}
    return "; ".join(f"{names[name]} {formatting.percent(share)}" for name, share in levels.items())


def bill(result: Json) -> str:
    """Returns the actual bill in words, and what the runs would have paid without sharing."""
    paid, rest = result["bill"], result["bill"]["unsettled"]
    alone = sum(point["cost"]["usd"] * len(point["seeds"]) for point in result["points"])
    text = (
        f"{formatting.dollars(paid['usd'])} for "
        f"{formatting.count(paid['queries'], 'query', 'queries')} in all; "
        f"without a shared ledger it would have been {formatting.dollars(alone)}"
    )
    if rest["queries"]:
        calls = formatting.count(rest["queries"], "query", "queries")
        text += f"; in addition up to {formatting.dollars(rest['usd'])} for {calls} unsettled"
    return text


def progress(result: Json) -> str:
    """Returns the number of finished runs in words, and the names of the others."""
    runs = result["runs"]
    if not runs["missing"]:
        return f"all {runs['total']} are done"
    names = ", ".join(runs["missing"][:4])
    more = f" and {len(runs['missing']) - 4} more" if len(runs["missing"]) > 4 else ""
    return f"{runs['done']} of {runs['total']} are done; missing: {names}{more}"


def failures(result: Json) -> list[str]:
    """Returns a sentence per failure signature: how many runs and which points have it."""
    variants: dict[str, list[Json]] = {}
    for point in result["points"]:
        variants.setdefault(point["variant"], []).append(point)
    sentences = []
    for name in dict.fromkeys(name for point in result["points"] for name in point["failures"]):
        total, places = 0, []
        for variant, points in variants.items():
            if mine := [point for point in points if name in point["failures"]]:
                seeds = sum(len(point["failures"][name]) for point in mine)
                at = "" if len(mine) == len(points) else " at " + ", ".join(map(_x, mine))
                places.append(f"{variant}{at} ({seeds})")
                total += seeds
        runs = formatting.count(result["runs"]["done"], "run")
        sentences.append(f"{name} in {total} of {runs}: {', '.join(places)}.")
    return sentences


def advice(result: Json) -> list[str]:
    """Returns the check of each variant's fitted curve in words, or the reason for having none."""
    sentences = []
    for name, found in result["advice"].items():
        held = found.get("held_out")
        if found["status"] != "fitted":
            text = _no_curve(found)
        elif held is None:
            text = f"too few budgets ({len(found['budgets'])}) to check the curve on one held out."
        else:
            text = (
                f"from the smaller budgets, {formatting.percent(held['predicted'])} was predicted "
                f"for {held['queries']:g} queries (90% {_bounds(held)}); the measured value was "
                f"{formatting.percent(held['measured'])}, "
                f"{'inside' if held['inside'] else 'outside'} the interval."
            )
        sentences.append(f"{name}: {text}")
    return sentences


def answers(result: Json, accuracy: float | None, queries: float | None) -> list[str]:
    """Returns sentences on a target accuracy and on a target budget, by variant."""
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
        measured = formatting.count(len(budgets), "budget")
        return f"{measured} measured, a curve needs {advisor.FEWEST}."
    return (
        f"between {budgets[0]:g} and {budgets[-1]:g} queries no gain with the budget can be "
        "distinguished from chance: measure more seeds or larger budgets."
    )


def _budget_for(advice: Json, accuracy: float) -> str:
    found = advisor.budget_for(advice, accuracy)
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    target, most = formatting.percent(accuracy), f"{advice['budgets'][-1]:g}"
    low, high = (
        "no bound" if found[key] is None else f"{found[key]:,.0f}" for key in ("low", "high")
    )
    if found["status"] == "never":
        chance = "" if found["low"] is None else f"; at best {low} queries might be enough"
        return f"{target} is not reachable: the curve levels off below it{chance}."
    needed = f"{target} takes about {found['queries']:,.0f} queries (90%: {low} to {high})"
    if found["status"] == "beyond":
        return (
            f"{target} is not reached within what was measured (up to {most} queries); if the "
            f"curve continues as fitted, {needed}."
        )
    return f"{needed}."


def _accuracy_for(advice: Json, queries: float) -> str:
    found = advisor.accuracy_for(advice, queries)
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    beyond = ", beyond what was measured" if found["status"] == "beyond" else ""
    share = f"{formatting.percent(found['accuracy'])} (90%: {_bounds(found)})"
    return f"{queries:g} queries buy about {share}{beyond}."


def _bounds(found: Json) -> str:
    return formatting.interval([found["low"], found["high"]])


def to_csv(result: Json) -> str:
    """Returns a CSV table, a row per point; numbers in full precision, shares from 0 to 1."""
    rows = []
    for point in result["points"]:
        values = {"variant": point["variant"], "x": point["x"], "seeds": len(point["seeds"])}
        values |= {"questions": point["questions"], "constant": point["constant"]}
        measure = result["measure"]
        parts = {f"{measure}_{role}": point["accuracy"].get(role) for role in methods.measured()}
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
    writer.writerows({k: display.csv_value(v) for k, v in row.items()} for row in rows)
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
        "labels": "Labels alone",
        "constant": "Constant",
        "usd": "US dollars",
        "teacher_tokens": "Teacher tokens",
        "questions": "n",
        "seeds": "Seeds",
    }
    rows = [row(point) for point in result["points"]]
    optional = {"x": bool(result["axis"])}
    optional |= {name: any(found[name] for found in rows) for name in ("labels", "constant")}
    columns = {key: title for key, title in columns.items() if optional.get(key, True)}
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        r"\toprule",
        _latex(columns.values()),
        r"\midrule",
    ]
    for point in result["points"]:
        found = row(point) | {"usd": f"{point['cost']['usd']:.4f}"}
        lines.append(_latex(found[key] for key in columns))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex(cells: Iterable[str]) -> str:
    """Returns a row of a `tabular`, with special characters escaped."""
    escaped = ("".join(_LATEX.get(sign, sign) for sign in display.line(cell)) for cell in cells)
    return " & ".join(escaped) + r" \\"


def print_study(result: Json, console: Console) -> None:
    """Prints the points, the bill, the time and the findings."""
    say = functools.partial(display.say, console)
    say("")
    say(result["question"])
    if result["measure"] != "accuracy":
        say(f"The measure is {result['measure']}, in percent.")
    if any(point["against_teacher"] for point in result["points"]):
        say("Measured against the teacher’s answers, not against people’s.")
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
    if not console.is_terminal:
        console.width = max(console.width, WIDEST)  # Rows are not wrapped.
    elif console.width < WIDEST:
        columns = {key: title for key, title in columns.items() if key not in _WIDE_ALONE}
    table = display.table(*columns.values())
    for column in table.columns[1:4]:  # Their headers may be long.
        column.no_wrap = False
    for point in result["points"]:
        found = row(point)
        found["assistant"] = found["assistant"].partition(" ")[0]
        style = "bold" if point["variant"] == result["reference"] else None
        table.add_row(*(display.cell(found[key]) for key in columns), style=style)
    if result["points"]:
        console.print(table)
    for sentence in findings(result):
        say(f"- {sentence}", hang=2)
    say = functools.partial(say, hang=9)
    say(f"Paid     {bill(result)}")
    seconds = result["seconds"]
    shared, alone = duration(seconds["shared"]), duration(seconds["alone"])
    say(f"Time     {shared} of work; without shared stages {alone}")
    for sentence in failures(result):
        say(("Sign", "bold"), f"     {sentence}")
    say(f"Runs     {progress(result)}")
    if levels := result["levels"]:
        say(f"Baseline {against(levels)}")
    say(f"Page     {result['page']}")
