"""From the numbers and artifacts of a run to one HTML page that needs nothing else."""

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bridge_jax import methods
from bridge_jax.report import examples, numbers, plots, wording
from bridge_jax.report.workdir import Run

NARROW, WIDE = 350, 720  # CSS pixels of the accuracy plot on a telephone and on a desk


def environment() -> jinja2.Environment:
    """Returns what turns a template of this folder into a page."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=numbers.percent, interval=numbers.interval)
    return made


def render(run: Run, report: dict[str, Any]) -> str:
    """Returns the page; the same artifacts give the same bytes."""
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=wording.headline(report),
            comparison=wording.comparison(report),
            roles=list(report["accuracy"]),
            # Also what is not measured here may have written an example.
            models=methods.measured() | methods.measured(run.method),
            flow=wording.flow(report),
            chosen=wording.CHOSEN[report.get("selection", {}).get("strategy", "random")],
            spend=wording.spend_rows(report["spend"]) if "spend" in report else [],
            spend_notes=wording.spend_notes(report["spend"]) if "spend" in report else [],
            times=wording.time_rows(report, run.table),
            time=wording.time(report["time"]),
            made_with=wording.made_with(report["made_with"]),
            examples=examples.choose(run),
            curve_names=[name for _, name, _, _ in plots.CURVES],
            config=json.dumps(run.config, indent=2, ensure_ascii=False) if run.config else "",
            **_drawings(run, report),
        )
    )


def _drawings(run: Run, report: dict[str, Any]) -> dict[str, Any]:
    titles = wording.titles(run.method)
    accuracy = {
        size: Markup(plots.accuracy(report["accuracy"], report["accuracy_interval"], titles, width))
        for size, width in (("narrow", NARROW), ("wide", WIDE))
        if report["accuracy"]
    }
    curves = [
        (run.table[stage].title, Markup(plots.curve(rows, stage)))
        for stage, rows in run.curves.items()
    ]
    return {"accuracy_plot": accuracy, "curves": curves, "selection": _selection(run)}


def _selection(run: Run) -> dict[str, Any]:
    """Returns the drawings of what was selected, those that the artifacts allow."""
    if not run.selection or not run.scores:
        return {}
    position = {row["id"]: i for i, row in enumerate(run.scores)}
    selected = [position[key] for key in run.selection["ids"] if key in position]
    measure = run.config.get("selection", {}).get("difficulty", "nll")
    difficulty = [float(row[measure]) for row in run.scores]
    pool_shares = _shares([row["domain"] for row in run.scores])
    selected_shares = _shares([run.scores[i]["domain"] for i in selected])
    name = {
        "nll": "nats per token of the gold answer",
        "entropy": "entropy, nats per token",
        "margin": "margin, 1 − (p₁ − p₂)",
    }
    drawn = {
        "measure": "loss on the gold answer" if measure == "nll" else measure,
        "difficulties": Markup(
            plots.difficulties(difficulty, [difficulty[i] for i in selected], name[measure])
        ),
        "domains": Markup(plots.domains(pool_shares, selected_shares))
        if len(pool_shares) > 1
        else "",
        "map": "",
        "points": min(len(run.scores), plots.MOST_POINTS),
        "rings": min(len(selected), plots.MOST_RINGS),
        "of_points": len(run.scores),
        "of_rings": len(selected),
    }
    if run.embeddings is not None and min(run.embeddings.shape) >= 2:
        drawn["map"] = Markup(plots.embedding_map(run.embeddings, difficulty, selected))
    return drawn


def _shares(names: list[str]) -> dict[str, float]:
    return {name: names.count(name) / len(names) for name in sorted(set(names))}
