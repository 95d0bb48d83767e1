"""From the results of a study to one HTML page that needs nothing else."""

from typing import Any

from markupsafe import Markup

from bridge_jax.progress import duration
from bridge_jax.report import numbers, page
from bridge_jax.report.workdir import Row
from bridge_jax.study import resampling, study_figures, study_words

LOCAL_TOKENS = ("trained_tokens", "written_tokens")


def render(result: Row, runs: list[tuple[str, str]]) -> str:
    """Returns the page; the same result gives the same bytes.

    Args:
      result: what `study.json` holds.
      runs: (folder, link to its report) of the runs that have one.
    """
    points = result["points"]
    wide, narrow = (
        {drawing.name: Markup(drawing.svg()) for drawing in study_figures.figures(result, width)}
        for width in (page.WIDE, page.NARROW)
    )
    advice = {
        name: wide[key]
        for name in result["advice"]
        if (key := study_figures.advice_name(name)) in wide
    }
    return (
        page.environment()
        .get_template("study.html")
        .render(
            result=result,
            wide=wide,
            narrow=narrow,
            advice=advice,
            advice_words=study_words.advice(result),
            findings=study_words.findings(result),
            progress=study_words.progress(result),
            bill=study_words.bill(result),
            failures=study_words.failures(result),
            seconds={name: duration(value) for name, value in result["seconds"].items()},
            seeds=sorted({seed for point in points for seed in point["seeds"]}),
            questions=max((point["questions"] for point in points), default=0),
            on_annotations=any(point["teacher_on_annotations"] for point in points),
            rows=[_row(point) for point in points],
            replicates=resampling.REPLICATES,
            runs=runs,
            has_axis=study_figures.has_axis(result),
            only_last=len(study_figures.with_gaps(result)) < sum(bool(p["gaps"]) for p in points),
        )
    )


def _row(point: Row) -> dict[str, Any]:
    def mean(role: str) -> str:
        value = point["accuracy"].get(role)
        return numbers.percent(value["mean"]) if value else ""

    cost, parse = point["cost"], point["compliance"].get("student")
    return {
        "variant": point["variant"],
        "x": study_words.x(point),
        "student": mean("student"),
        "interval": study_words.with_interval(point["accuracy"].get("student")).partition(" ")[2],
        "difference": study_words.difference(point).partition(" ")[0],
        "bounds": study_words.difference(point).partition(" ")[2],
        "assistant": mean("assistant"),
        "teacher": mean("teacher"),
        "parse": "" if parse is None else numbers.percent(parse),
        "queries": f"{cost['queries']:,.0f}",
        "usd": numbers.dollars(cost["usd"]),
        "teacher_tokens": f"{cost['teacher_tokens']:,.0f}",
        "local_tokens": f"{sum(cost[part] for part in LOCAL_TOKENS):,.0f}",
        "seeds": len(point["seeds"]),
    }
