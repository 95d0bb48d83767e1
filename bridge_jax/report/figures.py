"""Draws figures as SVG with the colours and font of a page, and as files for a paper.

For a page, Matplotlib draws with placeholder colours, each of which is then replaced by a CSS
variable, so that one drawing works in light and dark mode. One unit is one CSS pixel, and text
stays text. Files use the colours of Okabe and Ito (jfly.uni-koeln.de/color), which color-blind
people can tell apart, without their yellow, which is too faint on white.
"""

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridge_jax import display
from bridge_jax.pipeline.artifacts import Step
from bridge_jax.report import formatting

PANEL = 340  # CSS pixels: the whole width on a phone, half of the text width on a desktop
MOST_POINTS, MOST_RINGS = 2000, 400  # in the map of the pool
MOST_DOMAINS = 12
MOST_STEPS = 200
_STYLE = Path(__file__).with_suffix(".mplstyle")


class Palette(NamedTuple):
    """Colours by use; `series` has those of the variants, in order."""

    ink: str
    muted: str
    rule: str
    accent: str
    pool: str
    series: tuple[str, ...]


PAGE = Palette("#010101", "#020202", "#030303", "#040404", "#050505",
               tuple(f"#2101{i:02x}" for i in range(1, 7)))  # fmt: skip
PAPER = Palette("#000000", "#444444", "#c8c8c8", "#d55e00", "#bbbbbb",
                ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"))  # fmt: skip
DIFFICULTY = ("#110101", "#110202", "#110303", "#110404", "#110505")  # easy to hard
_VARIABLES = {
    **{getattr(PAGE, name): name for name in ("ink", "muted", "rule", "accent", "pool")},
    **{colour: f"s{number}" for number, colour in enumerate(PAGE.series, start=1)},
    **{colour: f"d{level}" for level, colour in enumerate(DIFFICULTY, start=1)},
}
_SFT_PARTS = ("rationale_loss", "answer_loss")  # They come first, in this order.
# Colours and line styles of the losses, in order. base.html has the same as .l1, .l2, ...
_LOOKS = (
    (PAGE.ink, "-"),
    (PAGE.accent, (0, (4, 2))),
    (PAGE.muted, (0, (1, 1.5))),
    *((colour, "-") for colour in PAGE.series),
)


class Drawing(NamedTuple):
    """A figure: its name, its size in CSS pixels (1/72 inch on paper), and a drawing function."""

    name: str
    width: int
    height: int
    draw: Callable[[Axes, Palette], Any]

    def svg(self) -> str:
        """Returns the SVG for a page; the same input gives the same bytes."""
        with self.drawn(PAGE, "none") as figure:
            text = _saved(figure)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        head = (
            '<svg xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {self.width} {self.height}" '
            f'style="max-width: {self.width}px" aria-hidden="true">'
        )
        text = re.sub(r"<svg[^>]*>", head, text[text.index("<svg") :], count=1)
        # The ids of all drawings on a page must differ.
        slug = re.sub(r"\W+", "-", self.name)
        text = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', text)
        text = re.sub(r'href="#', f'href="#{slug}-', text)
        text = re.sub(r"url\(#", f"url(#{slug}-", text)
        text = re.sub("|".join(_VARIABLES), lambda m: f"var(--{_VARIABLES[m.group()]})", text)
        return re.sub(r"font: (.*?)px [^;\"]*", r"font: \1px var(--sans)", text)

    def save(self, folder: Path) -> None:
        """Writes NAME.svg, its text as paths, and NAME.pdf with its fonts, in `PAPER` colours."""
        logging.getLogger("fontTools").setLevel(logging.WARNING)  # Else it logs each glyph.
        with self.drawn(PAPER, "path") as figure:
            (folder / f"{self.name}.svg").write_text(_saved(figure), encoding="utf-8")
            figure.savefig(
                folder / f"{self.name}.pdf", format="pdf", metadata={"CreationDate": None}
            )

    @contextlib.contextmanager
    def drawn(self, palette: Palette, fonttype: str) -> Iterator[Figure]:
        """Yields the Matplotlib figure, with the style set while the block runs."""
        style: Any = {
            "svg.hashsalt": self.name,
            "svg.fonttype": fonttype,
            "axes.edgecolor": palette.rule,
            "axes.labelcolor": palette.muted,
            "text.color": palette.ink,
            **{f"{axis}tick.labelcolor": palette.muted for axis in "xy"},
            **{f"{axis}tick.color": palette.rule for axis in "xy"},
        }
        with mpl.rc_context(style, _STYLE), warnings.catch_warnings():
            # Characters that Matplotlib's font lacks are still shown in the font of the page.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = Figure(figsize=(self.width / 72, self.height / 72))
            self.draw(figure.add_subplot(), palette)
            yield figure


def _saved(figure: Figure) -> str:
    """Returns the figure as SVG, without control characters, which XML does not allow."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return display.plain(buffer.getvalue())


def accuracy(
    values: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    titles: Mapping[str, str],
    width: int,
) -> str:
    """Draws the accuracy and 95% interval of every role, the student's in the accent colour."""
    roles = list(values)

    def draw(axes: Axes, palette: Palette) -> None:
        for y, role in enumerate(roles):
            colour = palette.accent if role == "student" else palette.ink
            axes.plot([0, 1], [y, y], color=palette.rule, linewidth=1, zorder=1)
            axes.plot(intervals[role], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(values[role], y, "o", color=colour, markersize=8, clip_on=False)
            axes.annotate(
                formatting.percent(values[role]), (1, y), xytext=(12, 0),
                textcoords="offset points", va="center",
                color=colour, size=14, annotation_clip=False,
            )  # fmt: skip
        rows(axes, [titles[role] for role in roles], palette)
        axes.tick_params("y", labelsize=13, pad=8)
        axes.set_xlim(-0.01, 1.01)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        axes.spines["bottom"].set_visible(False)
        axes.tick_params("x", length=0)

    return Drawing(f"accuracy-{width}", width, 34 * len(roles) + 34, draw).svg()


def embedding_map(
    embeddings: np.ndarray, difficulty: Sequence[float], selected: Sequence[int]
) -> str:
    """Draws the pool in its first two principal components, with rings around selected questions.

    Args:
      embeddings: [N, D]; of more than 2,000 rows, a fixed random sample is drawn.
      difficulty: N values; the colour shows the quintile of the pool.
      selected: indices into the N rows.
    """
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(len(embeddings))[:MOST_POINTS])
    ringed = np.asarray(selected, dtype=int)
    if len(ringed) > MOST_RINGS:
        ringed = np.sort(rng.choice(ringed, MOST_RINGS, replace=False))
    values = np.asarray(embeddings[drawn], dtype=np.float64)
    centre = values.mean(axis=0)
    components = np.linalg.svd(values - centre, full_matrices=False)[2][:2].T
    fifths = np.quantile(difficulty, [0.2, 0.4, 0.6, 0.8])
    levels = np.searchsorted(fifths, difficulty, side="left")

    def draw(axes: Axes, palette: Palette) -> None:
        small: dict[str, Any] = {"markersize": 4, "markeredgewidth": 0}
        ring = {"markersize": 8, "markeredgewidth": 1.5, "markeredgecolor": palette.ink}
        for chosen, look in ((drawn, small), (ringed, ring)):
            spots = (np.asarray(embeddings[chosen], dtype=np.float64) - centre) @ components
            for level, colour in enumerate(DIFFICULTY if len(chosen) else ()):
                here = spots[levels[chosen] == level]
                axes.plot(here[:, 0], here[:, 1], "o", color=colour, **look)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()

    return Drawing("map", PANEL, 300, draw).svg()


def domains(pool: Mapping[str, float], selection: Mapping[str, float]) -> str:
    """Draws two bars per domain: its share of the pool and its share of the selection.

    If there are more than `MOST_DOMAINS`, the smallest are summed up as "others".
    """
    names = sorted(pool, key=lambda name: (-pool[name], name))
    shares = [(name or "(none)", pool[name], selection.get(name, 0.0)) for name in names]
    if len(shares) > MOST_DOMAINS:
        rest = shares[MOST_DOMAINS - 1 :]
        others = (f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest))
        shares = [*shares[: MOST_DOMAINS - 1], others]

    def draw(axes: Axes, palette: Palette) -> None:
        for y, (_, in_pool, in_selection) in enumerate(shares):
            pool_bar = axes.barh(y - 0.19, in_pool, height=0.32, color=palette.pool)
            bar = axes.barh(y + 0.19, in_selection, height=0.32, color=palette.accent)
            for bars in (pool_bar, bar):
                axes.bar_label(
                    bars, fmt=formatting.percent, padding=5, color=palette.muted, size=11
                )
        rows(axes, [formatting.shortened(name) for name, _, _ in shares], palette, has_spine=True)
        axes.set_xlim(0, 1.15 * max(max(row[1:]) for row in shares))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    return Drawing("domains", PANEL, 44 * len(shares) + 20, draw).svg()


def difficulties(pool: Sequence[float], selected: Sequence[float], name: str) -> str:
    """Draws histograms of pool and selection over the same bins, each as shares of its group.

    The last bin includes all values above the pool's 99.5th percentile.
    """
    low, top = min(pool), float(np.quantile(pool, 0.995))
    edges = np.linspace(low, top if top > low else low + 1, 13)

    def share(group: Sequence[float]) -> np.ndarray:
        return np.histogram(np.clip(group, edges[0], edges[-1]), edges)[0] / max(len(group), 1)

    def draw(axes: Axes, palette: Palette) -> None:
        axes.stairs(share(pool), edges, fill=True, color=palette.pool)
        axes.stairs(share(selected), edges, color=palette.accent, linewidth=2)
        axes.set_xlabel(name)
        axes.set_ylim(0)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4))
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))

    return Drawing("difficulties", PANEL, 230, draw).svg()


_THINKING = "thinking_"  # A prefix of logged values; the budget follows.
# Figures of the replies that a model learns from (`methods.rollouts`): title, note, and for each
# line the key of the logged value and its name. The second also gets a line for each budget.
_REPLIES = (
    (
        "replies",
        "Means over the replies of a step.",
        (
            ("reward", "reward"),
            ("accuracy", "right"),
            ("compliance", "with an answer"),
            ("over_budget", "above the budget"),
            ("ended", "ended by the model"),
        ),
    ),
    (
        "length",
        "Mean tokens of a reply, or of its thinking at each budget.",
        (("reply_tokens", "whole reply"),),
    ),
    (
        "spread",
        "Longest mean thinking at a budget, divided by the shortest.",
        (("spread", "spread"),),
    ),
    (
        "KL and entropy",
        "Nats a token; the KL is to the model before this training.",
        (("kl_loss", "KL"), ("entropy", "entropy")),
    ),
)


class Line(NamedTuple):
    """A line in a training's figure: its key in the log, its name, and its look, counted from 1."""

    key: str
    name: str
    look: int


def loss_lines(curves: Iterable[Sequence[Step]]) -> list[Line]:
    """Returns the lines of all losses in the logs of trainings: the whole loss, then its parts.

    A part is logged as `NAME_loss`. The loss on the dev split is not one of them.
    """
    logged = {key for steps in curves for row in steps for key in row}
    parts = {key for key in logged if key.endswith("_loss") and not key.startswith("dev_")}
    others = sorted(parts.difference(_SFT_PARTS))
    keys = [*(key for key in _SFT_PARTS if key in parts), *others]
    names = [key.removesuffix("_loss").replace("_", " ") for key in keys]
    named = zip(["loss", *keys], ["whole loss", *names])
    return [Line(key, name, 1 + i % len(_LOOKS)) for i, (key, name) in enumerate(named)]


class Panel(NamedTuple):
    """A figure of values logged about replies: its title, a note on its unit, and its lines."""

    title: str
    note: str
    lines: list[Line]


def reply_panels(steps: Sequence[Step]) -> list[Panel]:
    """Returns the figures on the replies of a training on a model's own replies; else none."""
    logged = {key for row in steps for key in row}
    if "accuracy" not in logged:  # Every such training logs it, and no other does.
        return []
    if "policy_loss" not in logged:
        logged.discard("kl_loss")  # On-policy distillation: its loss is the KL to the assistant.
    levels = sorted(int(key.removeprefix(_THINKING)) for key in logged if key.startswith(_THINKING))
    by_level = [(f"{_THINKING}{level}", f"{level:,}") for level in levels]
    found = []
    for title, note, known in _REPLIES:
        named = [*known, *by_level] if title == "length" else known
        there = [(key, name) for key, name in named if key in logged]
        lines = [Line(key, name, 1 + i % len(_LOOKS)) for i, (key, name) in enumerate(there)]
        if lines:
            found.append(Panel(title, note, lines))
    return found


def curve(steps: Sequence[Step], name: str, lines: Sequence[Line]) -> str:
    """Draws values of one training stage by step: its losses, or values logged about replies.

    A resumed run repeats some steps; the last row of each is used. If there are many steps, means
    over neighbouring steps are drawn.

    Args:
      steps: the log of the training.
      name: the stage's name.
      lines: from `loss_lines` or `reply_panels`; those that this stage has not logged are left out.
    """
    by_step: dict[int, Mapping[str, Any]] = {int(row["step"]): row for row in steps}
    numbers = np.array(sorted(by_step))

    def draw(axes: Axes, palette: Palette) -> None:
        for key, _, look in lines:
            logged = [by_step[step].get(key, math.nan) for step in numbers.tolist()]
            values, (colour, style) = np.array(logged, dtype=np.float64), _LOOKS[look - 1]
            known = np.isfinite(values)
            parts = min(known.sum(), MOST_STEPS)
            x, y = (
                [part.mean() for part in np.array_split(each[known], parts)] if parts else []
                for each in (numbers, values)
            )
            marker = "o" if len(x) == 1 else ""
            axes.plot(x, y, color=colour, linestyle=style, linewidth=1.6, marker=marker)
        axes.set_xlabel("step")
        if axes.dataLim.y0 >= 0:  # A policy loss, or an estimate of a KL, may be negative.
            axes.set_ylim(0)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4))

    return Drawing(f"curve-{name}", PANEL, 190, draw).svg()


def budgets(controls: Mapping[str, Mapping[str, Any]], width: int) -> str:
    """Draws accuracy over decoded tokens: a line for each control, a point for each budget.

    Args:
      controls: the `budgets` of `report.json`.
      width: CSS pixels.
    """

    def draw(axes: Axes, palette: Palette) -> None:
        for found, colour in zip(controls.values(), palette.series):
            points = sorted((f["tokens"], f["accuracy"]) for f in found["levels"].values())
            x, y = zip(*points)
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=4)
        spent = [f["tokens"] for found in controls.values() for f in found["levels"].values()]
        log_scale(axes, sorted(spent))
        few_ticks(axes)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("tokens decoded for a question")
        axes.set_ylim(0, 1)
        percent_axis(axes.yaxis)

    return Drawing(f"budgets-{width}", width, 260, draw).svg()


def rows(axes: Axes, names: Sequence[str], palette: Palette, has_spine: bool = False) -> None:
    """Labels the rows of a figure, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params("y", length=0, labelcolor=palette.ink)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(has_spine)


def log_scale(axes: Axes, xs: Sequence[float]) -> Callable[[float, float], float]:
    """Sets a logarithmic x axis if x spans a decade or more.

    Args:
      axes: the axes of a figure.
      xs: the x of all points, ascending.

    Returns:
      A function of an x and a number of steps, which returns x moved to the right by that many
      small steps, so that variants at the same x are drawn side by side.
    """
    positive = [x for x in xs if x > 0]
    if len(positive) < 2 or positive[-1] < 10 * positive[0]:
        return lambda x, steps: x + 0.012 * steps * (xs[-1] - xs[0])
    if xs[0] <= 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    else:
        axes.set_xscale("log")
    return lambda x, steps: x * (xs[-1] / positive[0]) ** (0.012 * steps)


def plain_ticks(axes: Axes, xs: Sequence[float]) -> None:
    """Labels the x axis with plain numbers: every x if there are only a few."""
    if len(xs) <= 8:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.xaxis.set_major_formatter("{x:g}")  # By default, a log axis has formulas.
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())


def few_ticks(axes: Axes) -> None:
    """Labels the x axis with a few round numbers, none of them negative."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "linear":
        ticks = [x for x in ticker.MaxNLocator(4).tick_values(low, high) if x >= 0]
    else:
        decades = math.log10(high / max(low, 1e-9))
        steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 2.5 else (1.0,)
        ticks = [0.0, *(step * 10.0**e for e in range(-8, 16) for step in steps)]
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def make_room(axes: Axes, part: float) -> None:
    """Extends the x axis to the left, so that `part` of its width stays empty."""
    transform = axes.xaxis.get_transform()
    low, high = transform.transform(axes.get_xlim())
    (left,) = transform.inverted().transform([(low - part * high) / (1 - part)])
    axes.set_xlim(left=left)


def drop_overlapping(axes: Axes) -> None:
    """Removes texts that extend beyond the left of the axes or overlap an earlier text."""
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()  # The positions of texts are known only after this.
    kept: list[Any] = []
    for text in list(axes.texts):
        box = text.get_window_extent()
        if box.x0 < axes.get_window_extent().x0 or box.count_overlaps(kept):
            text.remove()
        else:
            kept.append(box)


def percent_axis(axis: Any, signed: bool = False) -> None:
    """Labels an axis in whole per cent, from 0 to 100, or in signed percentage points."""
    locator = ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
    axis.set_major_locator(locator)
    if signed:
        axis.set_major_formatter(lambda value, _: formatting.signed(value, decimals=0))
        return
    axis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    shares = [value for value in locator() if 0 <= value <= 1]
    axis.set_major_locator(ticker.FixedLocator(shares))
