"""The plots of a run's report, as SVG text for its page."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bridge_jax.pipeline.artifacts import Step
from bridge_jax.report import numbers
from bridge_jax.report.drawing import DIFFICULTY, PAGE, Drawing

INK, MUTED, RULE, ACCENT, POOL, _ = PAGE
PANEL = 340  # CSS pixels: one column on a telephone, half of the text on a desk
MOST_POINTS = 2000
MOST_RINGS = 400
MOST_DOMAINS = 12
MOST_STEPS = 200
CURVES = (  # the row's key, its name, colour and line style
    ("loss", "whole loss", INK, "-"),
    ("rationale_loss", "rationale", ACCENT, (0, (4, 2))),
    ("answer_loss", "answer", MUTED, (0, (1, 1.5))),
)


def accuracy(
    values: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]],
    titles: Mapping[str, str],
    width: int,
) -> str:
    """Returns a dot with its 95% interval for every role, the student's in the accent colour."""
    roles = list(values)

    def draw(axes: Axes) -> None:
        for y, role in enumerate(roles):
            colour = ACCENT if role == "student" else INK
            low, high = intervals[role]
            axes.plot([0, 1], [y, y], color=RULE, linewidth=1, zorder=1)
            axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(values[role], y, "o", color=colour, markersize=8, clip_on=False)
            axes.annotate(
                numbers.percent(values[role]),
                (1, y),
                xytext=(12, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                size=14,
                annotation_clip=False,
            )
        axes.set_yticks(range(len(roles)), [titles[role] for role in roles])
        axes.tick_params("y", length=0, labelcolor=INK, labelsize=13, pad=8)
        axes.set_ylim(len(roles) - 0.4, -0.6)
        axes.set_xlim(-0.01, 1.01)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params("x", length=0)

    return _draw(f"accuracy-{width}", draw, width, 34 * len(roles) + 34)


def embedding_map(
    embeddings: np.ndarray, difficulty: Sequence[float], selected: Sequence[int]
) -> str:
    """Returns the pool in its first two principal components, the selected questions ringed.

    Args:
      embeddings: [N, D]. Above 2,000 rows a random part is drawn, the same one every time.
      difficulty: N values; the colour is by fifths of the pool.
      selected: indices into the N rows.
    """
    rng = np.random.default_rng(0)
    n = len(embeddings)
    drawn = np.sort(rng.permutation(n)[:MOST_POINTS])
    ringed = np.asarray(selected, dtype=int)
    if len(ringed) > MOST_RINGS:
        ringed = np.sort(rng.choice(ringed, MOST_RINGS, replace=False))
    drawn_values = np.asarray(embeddings[drawn], dtype=np.float64)
    ringed_values = np.asarray(embeddings[ringed], dtype=np.float64)
    centre = drawn_values.mean(axis=0)
    components = np.linalg.svd(drawn_values - centre, full_matrices=False)[2][:2].T
    levels = _fifths(np.asarray(difficulty, dtype=np.float64))

    def draw(axes: Axes) -> None:
        spots = (drawn_values - centre) @ components
        for level, colour in enumerate(DIFFICULTY):
            here = spots[levels[drawn] == level]
            axes.plot(here[:, 0], here[:, 1], "o", color=colour, markersize=4, markeredgewidth=0)
        if len(ringed):
            spots = (ringed_values - centre) @ components
            for level, colour in enumerate(DIFFICULTY):
                here = spots[levels[ringed] == level]
                axes.plot(
                    here[:, 0],
                    here[:, 1],
                    "o",
                    markerfacecolor=colour,
                    markeredgecolor=INK,
                    markersize=8,
                    markeredgewidth=1.5,
                )
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()

    return _draw("map", draw, PANEL, 300)


def domains(pool: Mapping[str, float], selection: Mapping[str, float]) -> str:
    """Returns, per domain, a bar for its share of the pool and one for that of the selection.

    Beyond the twelve largest, domains are summed up as "others".
    """
    names = sorted(pool, key=lambda name: (-pool[name], name))
    shares = [(name or "(none)", pool[name], selection.get(name, 0.0)) for name in names]
    if len(shares) > MOST_DOMAINS:
        rest = shares[MOST_DOMAINS - 1 :]
        others = (f"{len(rest)} others", sum(r[1] for r in rest), sum(r[2] for r in rest))
        shares = [*shares[: MOST_DOMAINS - 1], others]

    def draw(axes: Axes) -> None:
        for y, (_, in_pool, in_selection) in enumerate(shares):
            for offset, share, colour in ((-0.19, in_pool, POOL), (0.19, in_selection, ACCENT)):
                axes.barh(y + offset, share, height=0.32, color=colour)
                axes.annotate(
                    numbers.percent(share),
                    (share, y + offset),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=MUTED,
                    size=11,
                )
        axes.set_yticks(range(len(shares)), [_shorten(name) for name, _, _ in shares])
        axes.tick_params("y", length=0, labelcolor=INK)
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, 1.15 * max(max(row[1:]) for row in shares))
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)

    return _draw("domains", draw, PANEL, 44 * len(shares) + 20)


def difficulties(pool: Sequence[float], selected: Sequence[float], name: str) -> str:
    """Returns two histograms over the same bins, each as shares of its own group.

    The last bin also takes what lies above the pool's 99.5th percentile.
    """
    values = np.asarray(pool, dtype=np.float64)
    top = float(np.quantile(values, 0.995))
    low = float(values.min())
    edges = np.linspace(low, top if top > low else low + 1, 13)

    def share(group: Sequence[float]) -> np.ndarray:
        clipped = np.clip(np.asarray(group, dtype=np.float64), edges[0], edges[-1])
        return np.histogram(clipped, edges)[0] / max(len(group), 1)

    def draw(axes: Axes) -> None:
        axes.stairs(share(pool), edges, fill=True, color=POOL)
        axes.stairs(share(selected), edges, color=ACCENT, linewidth=2)
        axes.set_xlabel(name)
        axes.set_ylim(0)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return _draw("difficulties", draw, PANEL, 230)


def curve(rows: Sequence[Step], name: str) -> str:
    """Returns the losses of one training stage by step; the last row of a repeated step counts."""
    by_step = {int(row["step"]): row for row in rows}  # a resumed run repeats some
    steps = np.array(sorted(by_step))

    def draw(axes: Axes) -> None:
        for key, _, colour, style in CURVES:
            values = np.array([by_step[step][key] for step in steps.tolist()], dtype=np.float64)
            x, y = _thin(steps[np.isfinite(values)], values[np.isfinite(values)])
            marker = "o" if len(x) == 1 else ""
            axes.plot(x, y, color=colour, linestyle=style, linewidth=1.6, marker=marker)
        axes.set_xlabel("step")
        axes.set_ylim(0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))

    return _draw(f"curve-{name}", draw, PANEL, 190)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns means over neighbours, so that no more than MOST_STEPS points are left."""
    parts = min(len(x), MOST_STEPS)
    if parts == len(x):
        return x, y
    means = [
        (x_part.mean(), y_part.mean())
        for x_part, y_part in zip(np.array_split(x, parts), np.array_split(y, parts))
    ]
    return np.array([m[0] for m in means]), np.array([m[1] for m in means])


def _fifths(values: np.ndarray) -> np.ndarray:
    edges = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(edges, values, side="left")


def _shorten(name: str, longest: int = 18) -> str:
    if len(name) <= longest:
        return name
    # Long names often share their beginning and differ at the end.
    return f"{name[: longest // 2]}…{name[1 - longest // 2 :]}"


def _draw(name: str, draw: Callable[[Axes], None], width: int, height: int) -> str:
    return Drawing(name, width, height, lambda axes, _: draw(axes)).svg()
