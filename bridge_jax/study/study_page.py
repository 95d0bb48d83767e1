"""Writes the results of a study: numbers, figures, tables, and one HTML page."""

import json
from pathlib import Path

from markupsafe import Markup

from bridge_jax.atomic import replace
from bridge_jax.evaluation.intervals import REPLICATES
from bridge_jax.progress import duration
from bridge_jax.report import page
from bridge_jax.report.workdir import Json
from bridge_jax.study import RUNS, results, study_figures, tables


def write(folder: Path) -> Json:
    """Writes study.json, study.html, table.csv, table.tex and figures/, and returns the first.

    Raises:
      UserError: there is no study, or a file of it is damaged.
    """
    result = results.compute(folder)
    result["page"] = str(folder / "study.html")
    drawings = study_figures.figures(result, page.WIDE)
    (folder / "figures").mkdir(exist_ok=True)
    for drawing in drawings:
        drawing.save(folder / "figures")
    for path in (folder / "figures").iterdir():
        if path.stem not in {drawing.name for drawing in drawings}:
            path.unlink()  # Of an earlier state of the study.
    links = {}
    for run in results.read_study(folder)["runs"]:
        link = f"{RUNS}/{run['folder']}/report.html"
        if (folder / link).is_file():
            links[run["folder"]] = link
    replace(folder / "study.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    replace(folder / "table.csv", tables.to_csv(result))
    replace(folder / "table.tex", tables.to_latex(result))
    replace(folder / "study.html", _page(result, links))
    return result


def _page(result: Json, links: dict[str, str]) -> str:
    """Returns the page; the same result gives the same bytes.

    Args:
      result: the content of `study.json`.
      links: folder of a run -> its report, of those that have one.
    """
    points = result["points"]
    wide, narrow = (
        {drawing.name: Markup(drawing.svg()) for drawing in study_figures.figures(result, width)}
        for width in (page.WIDE, page.NARROW)
    )
    advice = {name: wide.get(study_figures.advice_name(name)) for name in result["advice"]}
    return page.template("study.html").render(
        result=result,
        wide=wide,
        narrow=narrow,
        advice={name: drawing for name, drawing in advice.items() if drawing},
        advice_words=tables.advice(result),
        findings=tables.findings(result),
        progress=tables.progress(result),
        bill=tables.bill(result),
        failures=tables.failures(result),
        seconds={name: duration(value) for name, value in result["seconds"].items()},
        seeds={seed for point in points for seed in point["seeds"]},
        questions=max((point["questions"] for point in points), default=0),
        on_annotations=any(point["teacher_on_annotations"] for point in points),
        rows=[tables.row(point) for point in points],
        replicates=REPLICATES,
        links=links,
        has_axis=study_figures.has_axis(result),
        only_last=len(study_figures.with_gaps(result)) < sum(bool(p["gaps"]) for p in points),
    )
