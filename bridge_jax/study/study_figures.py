"""The figures of a study: accuracy, differences, gaps, cost, and what the advisor foretells."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bridge_jax import methods
from bridge_jax.evaluation.gaps import GAPS
from bridge_jax.report.drawing import Drawing, Palette
from bridge_jax.report.workdir import Row
from bridge_jax.study import advisor, study_axes

ROW = 26  # CSS pixels of a row with a label
FRONTIER_WIDTH = 340
MARKERS = "osD^vPX"
COST_NAMES = {
    "usd": "US dollars to the teacher, a run",
    "tokens": "tokens read or written, a run",
}


def label(point: Row) -> str:
    """Returns a point's name: its variant, and its x if it has one."""
    return point["variant"] if point["x"] is None else f"{point['variant']}, {point['x']:g}"


def advice_name(variant: str) -> str:
    """Returns the name of the drawing of a variant's curve, which is a file's too."""
    return "advice-" + re.sub(r"[^\w.+]+", "-", variant).strip("-")


def has_axis(result: Row) -> bool:
    """Returns whether accuracy can be drawn over x."""
    return len({p["x"] for p in _students(result) if p["x"] is not None}) > 1


def figures(result: Row, width: int) -> list[Drawing]:
    """Returns the figures that the result has the numbers for.

    Args:
      result: what `study.json` holds.
      width: of the accuracy and of the differences, CSS pixels; the others are panels of 340.
    """
    found = []
    if points := _students(result):
        found.append(_accuracy(result, points, width))
        found += [_frontier(result, points, cost) for cost in COST_NAMES if _differs(points, cost)]
    if differing := [point for point in result["points"] if point["difference"]]:
        found.append(_differences(result, differing, width))
    if gaps := with_gaps(result):
        found.append(_gaps(gaps))
    fitted = {k: advice for k, advice in result["advice"].items() if advice["status"] == "fitted"}
    return found + [_advice(result, name, advice) for name, advice in fitted.items()]


def _students(result: Row) -> list[Row]:
    return [point for point in result["points"] if "student" in point["accuracy"]]


def _text_width(texts: Sequence[str]) -> int:
    """Returns about how many pixels the longest text is wide."""
    return 7 * max(map(len, texts))


def _looks(result: Row, palette: Palette) -> dict[str, tuple[str, str]]:
    """Returns the colour and the marker of each variant; the reference has the ink's."""
    names = list(dict.fromkeys(point["variant"] for point in result["points"]))
    others = [name for name in names if name != result["reference"]]
    looks = {
        name: (palette.series[i % len(palette.series)], MARKERS[(i + 1) % len(MARKERS)])
        for i, name in enumerate(others)
    }
    return {name: looks.get(name, (palette.ink, MARKERS[0])) for name in names}


def _accuracy(result: Row, points: Sequence[Row], width: int) -> Drawing:
    if not has_axis(result):
        rows = [(label(p), p["variant"], p["accuracy"]["student"]) for p in points]
        rows_drawn = _rows(
            result, rows, lambda axes, _: axes.set_xlabel(f"{result['measure']} of the student")
        )
        return Drawing("accuracy", width, ROW * len(rows) + 50, rows_drawn)
    names = list(dict.fromkeys(point["variant"] for point in points))
    columns = max(1, min(2 if width < 500 else 3, width // (_text_width(names) + 45)))
    height = 300 + 18 * math.ceil(len(names) / columns)

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        xs = sorted({p["x"] for p in points if p["x"] is not None})
        shift = study_axes.scale(axes, xs)
        for i, name in enumerate(names):
            colour, marker = looks[name]
            mine = [p for p in points if p["variant"] == name]
            level = [p["accuracy"]["student"] for p in mine if p["x"] is None]
            for student in level:
                axes.axhline(student["mean"], color=colour, linestyle=(0, (5, 3)), label=name)
                axes.axhspan(student["low"], student["high"], color=colour, alpha=0.1, linewidth=0)
            if level:
                continue
            mine.sort(key=lambda p: p["x"])
            values = [p["accuracy"]["student"] for p in mine]
            at = [shift(p["x"], i - (len(names) - 1) / 2) for p in mine]
            mean, low, high = (np.array([v[k] for v in values]) for k in ("mean", "low", "high"))
            axes.plot(
                at, mean, color=colour, marker=marker, markersize=6, linewidth=1.8, label=name
            )
            axes.vlines(at, low, high, color=colour, linewidth=1.4)
        axes.set_xlabel(result["axis"])
        axes.set_ylabel(f"{result['measure']} of the student")
        study_axes.percent(axes.yaxis)
        axes.grid(axis="y", color=palette.rule, linewidth=0.6)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderpad=0,
            handlelength=1.6, columnspacing=1.4,
        )  # fmt: skip

    return Drawing("accuracy", width, height, draw)


def _differences(result: Row, points: Sequence[Row], width: int) -> Drawing:
    rows = [(label(p), p["variant"], p["difference"]) for p in points]

    def finish(axes: Axes, palette: Palette) -> None:
        axes.axvline(0, color=palette.ink, linewidth=1, zorder=1)
        axes.set_xlabel(f"student, points against {result['reference']}")

    return Drawing(
        "differences", width, ROW * len(rows) + 50, _rows(result, rows, finish, signed=True)
    )


def _rows(
    result: Row,
    rows: Sequence[tuple[str, str, Row]],
    finish: Callable[[Axes, Palette], Any],
    signed: bool = False,
) -> Callable[[Axes, Palette], None]:
    """Returns a drawing of (label, variant, estimate) rows: mean, interval, and a tick a seed."""

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        for y, (_, variant, value) in enumerate(rows):
            colour, marker = looks[variant]
            axes.plot([value["low"], value["high"]], [y, y], color=colour, linewidth=2)
            axes.plot(value["mean"], y, marker, color=colour, markersize=7)
            seeds = list(value["seeds"].values())
            axes.plot(seeds, [y + 0.3] * len(seeds), "|", color=palette.muted, markersize=5)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.tick_params("y", length=0, labelcolor=palette.ink)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=palette.rule, linewidth=0.6)
        axes.set_axisbelow(True)
        study_axes.percent(axes.xaxis, signed)
        finish(axes, palette)

    return draw


def _frontier(result: Row, points: Sequence[Row], cost: str) -> Drawing:
    """Every point over its cost; what nothing beats is filled, joined and, with room, named."""
    best = {(p["variant"], p["x"]) for p in (result["points"][i] for i in result["frontier"][cost])}

    def draw(axes: Axes, palette: Palette) -> None:
        looks = _looks(result, palette)
        costs = [point["cost"][cost] for point in points]
        front = []
        study_axes.scale(axes, sorted(set(costs)), ticks=False)
        for point, value in zip(points, costs):
            colour, marker = looks[point["variant"]]
            mean = point["accuracy"]["student"]["mean"]
            efficient = (point["variant"], point["x"]) in best
            axes.plot(
                value, mean, marker, color=colour, markersize=7, markeredgewidth=1.4,
                markerfacecolor=colour if efficient else "none", zorder=3,
            )  # fmt: skip
            if efficient:
                front.append((value, mean, label(point)))
        front.sort()
        axes.step(*zip(*[f[:2] for f in front]), where="post", color=palette.muted, linewidth=1)
        axes.margins(0.08, 0.16)
        # Above and to the left of what nothing beats there is nothing else.
        names = _text_width([name for *_, name in front])
        study_axes.make_room(axes, min(names / FRONTIER_WIDTH, 0.4))
        axes.xaxis.set_major_locator(study_axes.few_ticks(axes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(study_axes.dollars if cost == "usd" else study_axes.count)
        axes.set_xlabel(COST_NAMES[cost])
        study_axes.percent(axes.yaxis)
        for value, mean, name in reversed(front):  # The most accurate first.
            axes.annotate(
                name, (value, mean), xytext=(-7, 5), textcoords="offset points",
                ha="right", size=11, color=palette.ink,
            )  # fmt: skip
        study_axes.drop_overlapping(axes)

    return Drawing(f"frontier-{cost}", FRONTIER_WIDTH, 260, draw)


def _differs(points: Sequence[Row], cost: str) -> bool:
    """Returns whether the points cost different amounts, by a hundredth at least."""
    costs = [point["cost"][cost] for point in points]
    return max(costs) > 1.01 * min(costs)


def with_gaps(result: Row) -> list[Row]:
    """Returns the points with gaps; of more than six, each variant's at its largest x."""
    points = [point for point in result["points"] if point["gaps"]]
    if len(points) <= 6:
        return points
    last: dict[str, Row] = {}
    for point in points:
        before = last.setdefault(point["variant"], point)
        if point["x"] is not None and (before["x"] is None or point["x"] > before["x"]):
            last[point["variant"]] = point
    return list(last.values())


def _gaps(points: Sequence[Row]) -> Drawing:
    def draw(axes: Axes, palette: Palette) -> None:
        colours = (palette.series[4], palette.series[5], palette.muted)
        models = methods.measured()
        shown = [gap for gap in GAPS if gap.in_study]
        for i, (between, colour) in enumerate(zip(shown, colours)):
            first, second = (models[name].title.lower() for name in between[1:3])
            axes.barh(0, 0, color=colour, label=f"{first} − {second}")
            for y, point in enumerate(points):
                if not (gap := point["gaps"].get(between.name)):
                    continue
                at = y + 0.25 * (i - 1)
                axes.barh(at, gap["mean"], height=0.2, color=colour)
                axes.plot([gap["low"], gap["high"]], [at, at], color=palette.ink, linewidth=1)
        axes.axvline(0, color=palette.ink, linewidth=1)
        axes.set_yticks(range(len(points)), [label(point) for point in points])
        axes.tick_params("y", length=0, labelcolor=palette.ink)
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, frameon=False, borderpad=0,
                    handlelength=1)  # fmt: skip
        study_axes.percent(axes.xaxis, signed=True)
        axes.set_xlabel("difference of accuracies")

    width = 230 + _text_width([label(point) for point in points])
    return Drawing("gaps", min(max(width, 340), 660), 62 * len(points) + 110, draw)


def _advice(result: Row, name: str, advice: Row) -> Drawing:
    def draw(axes: Axes, palette: Palette) -> None:
        colour, marker = _looks(result, palette)[name]
        budgets = advice["budgets"]
        grid = np.geomspace(budgets[0] + 1, 2 * budgets[-1] + 1, 60) - 1
        curve = advisor.band(advice, grid.tolist())
        axes.fill_between(grid + 1, curve[:, 1], curve[:, 2], color=colour, alpha=0.18, linewidth=0)
        axes.plot(grid + 1, curve[:, 0], color=colour, linewidth=1.6)
        axes.plot(np.array(budgets) + 1, advice["accuracy"], marker, color=colour, markersize=6)
        if held := advice["held_out"]:
            at = 1.06 * (held["queries"] + 1)
            axes.plot([at, at], [held["low"], held["high"]], color=palette.muted, linewidth=1.6)
            axes.plot(at, held["predicted"], "_", color=palette.muted, markersize=9)
        axes.axvline(budgets[-1] + 1, color=palette.rule, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xscale("log")
        axes.set_xticks(np.array(budgets) + 1, [f"{budget:g}" for budget in budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("teacher queries")
        study_axes.percent(axes.yaxis)

    return Drawing(advice_name(name), 340, 230, draw)
