"""Draws the figures of a study: accuracy, differences, gaps, cost, and the advisor's curves."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bridge_jax import methods
from bridge_jax.evaluation.metrics import GAPS
from bridge_jax.report import figures as drawing
from bridge_jax.report.figures import PANEL, Drawing, Palette
from bridge_jax.report.workdir import Json
from bridge_jax.study import advisor

ROW = 26  # CSS pixels of a row with a label
MARKERS = "osD^vPX"
COST_NAMES = {
    "usd": "US dollars to the teacher per run",
    "tokens": "tokens read or written per run",
}


def label(point: Json) -> str:
    """Returns a point's name: its variant, and its x if it has one."""
    return point["variant"] if point["x"] is None else f"{point['variant']}, {point['x']:g}"


def advice_name(variant: str) -> str:
    """Returns the name of the drawing of a variant's learning curve, also used for its files."""
    return "advice-" + re.sub(r"[^\w.+]+", "-", variant).strip("-")


def has_axis(result: Json) -> bool:
    """Returns whether the points have several values of x, so that accuracy is drawn over x."""
    return len({p["x"] for p in _students(result) if p["x"] is not None}) > 1


def figures(result: Json, width: int) -> list[Drawing]:
    """Returns the figures for which the result has numbers.

    Args:
      result: the content of `study.json`.
      width: CSS pixels of the accuracy and the differences; gaps take 340 to 660, others 340.
    """
    found = []
    if points := _students(result):
        title = f"{result['measure']} of the student"
        if has_axis(result):
            found.append(_over_x(result, points, width, title))
        else:
            levels = [(point, point["accuracy"]["student"]) for point in points]
            found.append(_rows(result, "accuracy", levels, width, title))
        for cost in COST_NAMES:
            costs = [point["cost"][cost] for point in points]
            if max(costs) > 1.01 * min(costs):
                found.append(_frontier(result, points, cost))
    if differences := [(p, p["difference"]) for p in result["points"] if p["difference"]]:
        title = f"student, points against {result['reference']}"
        found.append(_rows(result, "differences", differences, width, title, signed=True))
    if gaps := with_gaps(result):
        found.append(_gaps(gaps))
    fitted = {k: advice for k, advice in result["advice"].items() if advice["status"] == "fitted"}
    return found + [_advice(result, name, advice) for name, advice in fitted.items()]


def _students(result: Json) -> list[Json]:
    return [point for point in result["points"] if "student" in point["accuracy"]]


def _text_width(texts: Sequence[str]) -> int:
    """Estimates the width of the longest text in pixels."""
    return 7 * max(map(len, texts))


def _looks(result: Json, palette: Palette) -> dict[str, tuple[str, str]]:
    """Returns variant -> (colour, marker); the reference has the ink colour."""
    looks = {result["reference"]: (palette.ink, MARKERS[0])}
    for point in result["points"]:
        i = len(looks) - 1
        colour, marker = palette.series[i % len(palette.series)], MARKERS[(i + 1) % len(MARKERS)]
        looks.setdefault(point["variant"], (colour, marker))
    return looks


def _over_x(result: Json, points: Sequence[Json], width: int, title: str) -> Drawing:
    """Draws accuracy over x, a line per variant; a variant without x is a horizontal line."""
    names = list(dict.fromkeys(point["variant"] for point in points))
    named = [*names, *_levels(result)]
    columns = max(1, min(2 if width < 500 else 3, width // (_text_width(named) + 45)))
    height = 300 + 18 * math.ceil(len(named) / columns)

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        xs = sorted({p["x"] for p in points if p["x"] is not None})
        shift = drawing.log_scale(axes, xs)
        drawing.plain_ticks(axes, xs)
        for i, name in enumerate(names):
            colour, marker = looks[name]
            mine = [p for p in points if p["variant"] == name]  # sorted by x
            students = [p["accuracy"]["student"] for p in mine]
            mean, low, high = ([s[key] for s in students] for key in ("mean", "low", "high"))
            if mine[0]["x"] is None:
                axes.axhline(mean[0], color=colour, linestyle=(0, (5, 3)), label=name)
                axes.axhspan(low[0], high[0], color=colour, alpha=0.1, linewidth=0)
                continue
            at = [shift(p["x"], i - (len(names) - 1) / 2) for p in mine]
            for x, student in zip(at, students):
                _seeds(axes, [x] * len(student["seeds"]), student["seeds"].values(), colour)
            line = {"marker": marker, "markersize": 6, "linewidth": 1.8, "label": name}
            axes.plot(at, mean, color=colour, **line)
            axes.vlines(at, low, high, color=colour, linewidth=1.4)
        for name, (share, style) in _levels(result).items():
            axes.axhline(share, color=palette.muted, linestyle=style, linewidth=1.2, label=name)
        axes.set_xlabel(result["axis"])
        axes.set_ylabel(title)
        drawing.percent_axis(axes.yaxis)
        axes.grid(axis="y", color=palette.rule, linewidth=0.6)
        _legend(axes, ncols=columns, handlelength=1.6, columnspacing=1.4)

    return Drawing("accuracy", width, height, draw)


def _seeds(axes: Axes, xs: Iterable[float], ys: Iterable[float], colour: str) -> None:
    """Draws each seed as a small pale point."""
    look = {"markersize": 4.5, "markeredgewidth": 0, "alpha": 0.7, "zorder": 1}
    axes.plot(list(xs), list(ys), "o", color=colour, **look)


def _levels(result: Json) -> dict[str, tuple[float, Any]]:
    """Returns the accuracies to compare students with: name -> (accuracy, line style)."""
    if result["measure"] != "accuracy":
        return {}
    looks = {"constant": ("constant answer", (0, (1, 2))), "labels": ("labels alone", (0, (6, 3)))}
    return {looks[key][0]: (share, looks[key][1]) for key, share in result["levels"].items()}


def _legend(axes: Axes, **looks: Any) -> None:
    """Puts the legend above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0, **looks)


def _rows(
    result: Json,
    name: str,
    rows: Sequence[tuple[Json, Json]],
    width: int,
    title: str,
    signed: bool = False,
) -> Drawing:
    """Draws (point, estimate) rows: mean, interval, and a small point per seed."""

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        for y, (point, value) in enumerate(rows):
            colour, marker = looks[point["variant"]]
            axes.plot([value["low"], value["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(value["mean"], y, marker, color=colour, markersize=7)
            seeds = value["seeds"].values()
            _seeds(axes, seeds, [y + 0.3] * len(seeds), colour)
        levels = {} if signed else _levels(result)
        for name_of, (share, style) in levels.items():
            line = {"linestyle": style, "linewidth": 1.2, "label": name_of}
            axes.axvline(share, color=palette.muted, **line)
        if levels:
            _legend(axes, ncols=2, handlelength=1.6, columnspacing=1.4)
        drawing.rows(axes, [label(point) for point, _ in rows], palette)
        axes.grid(axis="x", color=palette.rule, linewidth=0.6)
        axes.set_axisbelow(True)
        drawing.percent_axis(axes.xaxis, signed)
        if signed:
            axes.axvline(0, color=palette.ink, linewidth=1, zorder=1)
        axes.set_xlabel(title)

    head = 0 if signed or not _levels(result) else 20
    return Drawing(name, width, ROW * len(rows) + 50 + head, draw)


def _frontier(result: Json, points: Sequence[Json], cost: str) -> Drawing:
    """Draws accuracy over cost; efficient points are filled, joined, and labeled if room allows."""
    best = [result["points"][i] for i in result["frontier"][cost]]

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        drawing.log_scale(axes, sorted({point["cost"][cost] for point in points}))
        front = []
        for point in points:
            colour, marker = looks[point["variant"]]
            at = point["cost"][cost], point["accuracy"]["student"]["mean"]
            face = colour if point in best else "none"
            look = {"markersize": 7, "markeredgewidth": 1.4, "markerfacecolor": face, "zorder": 3}
            axes.plot(*at, marker, color=colour, **look)
            if point in best:
                front.append((*at, label(point)))
        front.sort()
        xs, means, names = zip(*front)
        axes.step(xs, means, where="post", color=palette.muted, linewidth=1)
        axes.margins(0.08, 0.16)
        # Labels go to the upper left of an efficient point, where there is no other point.
        drawing.make_room(axes, min(_text_width(names) / PANEL, 0.4))
        drawing.few_ticks(axes)
        axes.xaxis.set_major_formatter(_dollars if cost == "usd" else _count)
        axes.set_xlabel(COST_NAMES[cost])
        drawing.percent_axis(axes.yaxis)
        for x, mean, name in reversed(front):  # The most accurate first.
            axes.annotate(
                name, (x, mean), xytext=(-7, 5), textcoords="offset points",
                ha="right", size=11, color=palette.ink,
            )  # fmt: skip
        drawing.drop_overlapping(axes)

    return Drawing(f"frontier-{cost}", PANEL, 260, draw)


def _dollars(value: float, _: float) -> str:
    """Returns a tick such as "$0.03"."""
    return f"${value:g}" if value >= 1e-4 or value == 0 else f"${value:.0e}"


def _count(value: float, _: float) -> str:
    """Returns a tick such as "12k"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def with_gaps(result: Json) -> list[Json]:
    """Returns the points with gaps; if more than six, only each variant's at its largest x."""
    points = [point for point in result["points"] if point["gaps"]]
    if len(points) <= 6:
        return points
    return list({point["variant"]: point for point in points}.values())  # They are sorted by x.


def _gaps(points: Sequence[Json]) -> Drawing:
    names = [label(point) for point in points]

    def draw(axes: Axes, palette: Palette) -> None:
        colours = (palette.series[4], palette.series[5], palette.muted)
        models = methods.measured()
        for i, (between, colour) in enumerate(zip((g for g in GAPS if g.in_study), colours)):
            first, second = (models[n].title.lower() for n in (between.first, between.second))
            axes.barh(0, 0, color=colour, label=f"{first} − {second}")
            for y, point in enumerate(points):
                if gap := point["gaps"].get(between.name):
                    at = y + 0.25 * (i - 1)
                    axes.barh(at, gap["mean"], height=0.2, color=colour)
                    axes.plot([gap["low"], gap["high"]], [at, at], color=palette.ink, linewidth=1)
        axes.axvline(0, color=palette.ink, linewidth=1)
        drawing.rows(axes, names, palette)
        _legend(axes, ncols=1, handlelength=1)
        drawing.percent_axis(axes.xaxis, signed=True)
        axes.set_xlabel("difference of accuracies")

    width = min(max(230 + _text_width(names), PANEL), 660)
    return Drawing("gaps", width, 62 * len(points) + 110, draw)


def _advice(result: Json, name: str, advice: Json) -> Drawing:
    budgets = np.array(advice["budgets"])

    def draw(axes: Axes, palette: Palette) -> None:
        colour, marker = _looks(result, palette)[name]
        grid = np.geomspace(budgets[0] + 1, 2 * budgets[-1] + 1, 60)
        curve = advisor.band(advice, (grid - 1).tolist())
        axes.fill_between(grid, curve[:, 1], curve[:, 2], color=colour, alpha=0.18, linewidth=0)
        axes.plot(grid, curve[:, 0], color=colour, linewidth=1.6)
        axes.plot(budgets + 1, advice["accuracy"], marker, color=colour, markersize=6)
        if held := advice["held_out"]:
            at = 1.06 * (held["queries"] + 1)
            axes.plot([at, at], [held["low"], held["high"]], color=palette.muted, linewidth=1.6)
            axes.plot(at, held["predicted"], "_", color=palette.muted, markersize=9)
        axes.axvline(budgets[-1] + 1, color=palette.rule, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xscale("log")
        axes.set_xticks(budgets + 1, [f"{budget:g}" for budget in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("teacher queries")
        drawing.percent_axis(axes.yaxis)

    return Drawing(advice_name(name), PANEL, 230, draw)
