"""Drawings as SVG text that takes its colours and its font from the page, and as files for a paper.

On the page Matplotlib draws with stand-in colours, each of which becomes a CSS variable, so that
one drawing serves light and dark; one unit is one CSS pixel, and text stays text. In a file the
colours are those of Okabe and Ito (jfly.uni-koeln.de/color), made to be told apart by the
colour-blind too, less their yellow, which is faint on white.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridge_jax import shown


class Palette(NamedTuple):
    """Colours by what they are for; `series` are the variants', in order."""

    ink: str
    muted: str
    rule: str
    accent: str
    pool: str
    series: tuple[str, ...]


PAGE = Palette(
    *("#010101", "#020202", "#030303", "#040404", "#050505"),
    tuple(f"#2101{i:02x}" for i in range(1, 7)),
)
PAPER = Palette(
    *("#000000", "#444444", "#c8c8c8", "#d55e00", "#bbbbbb"),
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
)
DIFFICULTY = ("#110101", "#110202", "#110303", "#110404", "#110505")  # easy to hard
_VARIABLES = {
    **{getattr(PAGE, name): name for name in ("ink", "muted", "rule", "accent", "pool")},
    **{colour: f"s{number}" for number, colour in enumerate(PAGE.series, start=1)},
    **{colour: f"d{level}" for level, colour in enumerate(DIFFICULTY, start=1)},
}


class Drawing(NamedTuple):
    """What is drawn, how large (CSS pixels; 72 of them are an inch on paper), and by which name."""

    name: str
    width: int
    height: int
    draw: Callable[[Axes, Palette], None]

    def svg(self) -> str:
        """Returns the drawing for a page; the same input gives the same bytes."""
        with _drawn(self, PAGE, "none") as figure:
            return _svg(_saved(figure), self.name, self.width, self.height)

    def save(self, folder: Path) -> None:
        """Writes NAME.svg and NAME.pdf, in black on white with their fonts."""
        with _drawn(self, PAPER, "path") as figure:
            (folder / f"{self.name}.svg").write_text(_saved(figure), encoding="utf-8")
            figure.savefig(
                folder / f"{self.name}.pdf", format="pdf", metadata={"CreationDate": None}
            )


def _saved(figure: Figure) -> str:
    """Returns the figure as SVG, without the control characters that XML has no place for."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return shown.plain(buffer.getvalue())


@contextlib.contextmanager
def _drawn(drawing: Drawing, palette: Palette, fonttype: str) -> Iterator[Figure]:
    style: Any = _style(palette) | {"svg.hashsalt": drawing.name, "svg.fonttype": fonttype}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A script that Matplotlib's own font lacks is still shown in the page's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(drawing.width / 72, drawing.height / 72))
        drawing.draw(figure.add_subplot(), palette)
        yield figure


def _style(palette: Palette) -> dict[str, Any]:
    return {
        "axes.edgecolor": palette.rule,
        "axes.facecolor": "none",
        "axes.labelcolor": palette.muted,
        "axes.labelsize": 12,
        "axes.linewidth": 1,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.03,
        "figure.constrained_layout.w_pad": 0.03,
        "figure.dpi": 72,
        "figure.facecolor": "none",
        "font.size": 12,
        "pdf.fonttype": 42,
        "text.color": palette.ink,
        "text.parse_math": False,
        "xtick.color": palette.rule,
        "xtick.labelcolor": palette.muted,
        "xtick.labelsize": 12,
        "ytick.color": palette.rule,
        "ytick.labelcolor": palette.muted,
        "ytick.labelsize": 12,
    }


def _svg(text: str, name: str, width: int, height: int) -> str:
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<svg[^>]*>",
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}" '
        f'style="max-width: {width}px" aria-hidden="true">',
        text,
        count=1,
    )
    # Several drawings share the page: their ids must not.
    slug = re.sub(r"\W+", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', text)
    text = re.sub(r'href="#', f'href="#{slug}-', text)
    text = re.sub(r"url\(#", f"url(#{slug}-", text)
    text = re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match.group()]})", text)
    return re.sub(r"font: (.*?)px [^;\"]*", r"font: \1px var(--sans)", text)
