"""Axes of a study's figures: log scales where x spans decades, few ticks, per cent and dollars."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)


def scale(axes: Axes, xs: Sequence[float], ticks: bool = True) -> Callable[[float, float], float]:
    """Sets a log axis where x spans decades; returns how far to the side variants stand."""
    positive = [x for x in xs if x > 0]
    logarithmic = len(positive) > 1 and positive[-1] / positive[0] >= 10
    if logarithmic and xs[0] <= 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    elif logarithmic:
        axes.set_xscale("log")
    if ticks and len(xs) <= 8:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.xaxis.set_minor_locator(NullLocator())
    elif ticks:
        axes.xaxis.set_major_formatter("{x:g}")  # Matplotlib's own are formulas on a log axis.
        axes.xaxis.set_minor_formatter(NullFormatter())
    span = xs[-1] / positive[0] if logarithmic else xs[-1] - xs[0]

    def shift(x: float, steps: float) -> float:
        return x * span ** (0.012 * steps) if logarithmic else x + 0.012 * steps * span

    return shift


def few_ticks(axes: Axes) -> Any:
    """Returns what puts a handful of round numbers, none of them negative, on the x axis."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "linear":
        return FixedLocator([x for x in MaxNLocator(4).tick_values(low, high) if x >= 0])
    decades = math.log10(high / max(low, 1e-9))
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    exponents = range(-8, 16)
    return FixedLocator([0.0, *(step * 10.0**e for e in exponents for step in steps)])


def dollars(value: float, _: float) -> str:
    """Returns a tick such as "$0.03"."""
    return f"${value:g}" if value >= 1e-4 or value == 0 else f"${value:.0e}"


def count(value: float, _: float) -> str:
    """Returns a tick such as "12k"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def make_room(axes: Axes, part: float) -> None:
    """Moves the left end of the x axis out, to leave `part` of its width empty."""
    transform = axes.xaxis.get_transform()
    low, high = transform.transform(axes.get_xlim())
    (left,) = transform.inverted().transform([(low - part * high) / (1 - part)])
    axes.set_xlim(left=left)


def drop_overlapping(axes: Axes) -> None:
    """Removes the texts that leave the axes to the left, or cover one that was added before."""
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()  # Only now all have their places.
    kept: list[Any] = []
    for text in list(axes.texts):
        box = text.get_window_extent()
        outside = box.x0 < axes.get_window_extent().x0
        if outside or any(box.overlaps(other) for other in kept):
            text.remove()
        else:
            kept.append(box)


def percent(axis: Any, signed: bool = False) -> None:
    """Shows shares as per cent, or differences as percentage points with their sign."""
    axis.set_major_locator(MaxNLocator(5))

    def points(value: float, _: float) -> str:
        shown = f"{100 * value:+.0f}".replace("-", "−")
        return "0" if shown in ("+0", "−0") else shown

    axis.set_major_formatter(points if signed else PercentFormatter(1, decimals=0))
