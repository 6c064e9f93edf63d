"""What all figures share: palette, type, the widths they are drawn for, axes and legends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FormatStrFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from hessdiag.report.columns import wrap
from hessdiag.report.numbers import drawable

# Okabe and Ito's palette, in an order whose lightness differs too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"
DARK = {  # the same colours where the page is dark
    **dict(zip(COLOURS, ("#56b4e9", "#f0904a", "#2bc49a", "#e3a0c4"), strict=True)),
    INK: "#e6edf3", GRID: "#30363d", PAPER: "#0d1117",
}  # fmt: skip
STYLE: Any = {
    "svg.hashsalt": "hessdiag",  # element ids come from it: without it they are random
    "svg.fonttype": "none",  # a tenth of the bytes of outlines
    "font.family": "DejaVu Sans",  # comes with matplotlib: every machine lays out the same; few fonts are wider
    "font.size": 12,
    "path.simplify_threshold": 0.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 11,
}
SMALLEST = 0.8  # of the usual type of a legend
MINOR = 3  # decades up to which a wide page has ticks between them: a sixth of the time of drawing
LEGEND = 0.22  # inches of a line
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Page:
    """What a figure is drawn for. Widths are in inches, at 96 pixels each, and figures are shown in that size."""

    width: float
    row: float  # height of a labelled row
    label: int  # characters
    axis: int  # characters
    decades: int
    ticks: int
    cells: int


WIDE = Page(width=9.0, row=0.3, label=32, axis=90, decades=4, ticks=8, cells=16)
NARROW = Page(width=3.5, row=0.42, label=20, axis=30, decades=2, ticks=3, cells=10)


def array(values: Sequence[float | None], *, log: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values as floats, with NaN wherever the axis has no place for them."""
    return np.array(
        [value if value is not None and drawable(value, log=log) else math.nan for value in values],
        dtype=float,
    )


def axis_text(text: str, page: Page) -> str:
    """The name of an axis, on as many lines as it needs."""
    return "\n".join(map(plain, wrap(text, page.axis)))


def plain(text: str) -> str:
    """Text in which no dollar starts mathematics."""
    return text.replace("$", r"\$")


def decade(value: float, _: int | None = None) -> str:
    """A power of ten.

    >>> decade(0.001), decade(1.0), decade(-100.0)
    ('10⁻³', '1', '-10²')
    """
    if not value:
        return "0"
    power = round(math.log10(abs(value)))
    return ("-" if value < 0 else "") + ("1" if power == 0 else "10" + str(power).translate(_SUPERSCRIPTS))


def log_ticks(axis: Axis, page: Page) -> None:
    """Whole decades, as many as have room; plain numbers between them where hardly one would be labelled."""
    low, high = axis.get_view_interval()
    decades = math.floor(math.log10(high)) - math.ceil(math.log10(low)) + 1
    if decades < 2:
        between = (1.0, 2.0, 5.0) if page is WIDE else (1.0, 3.0)
        axis.set_major_locator(LogLocator(subs=between) if high > 5 * low else MaxNLocator(page.ticks))
        axis.set_major_formatter(FormatStrFormatter("%.4g"))
    else:
        axis.set_major_locator(LogLocator(numticks=2 * page.decades + 1))
        axis.set_major_formatter(FuncFormatter(decade))
    if decades > MINOR or page is NARROW:
        axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def blank(width: float, height: float) -> Figure:
    """An empty figure, in inches; 72 dots each, as SVG has it, for what is measured in it to be what is drawn."""
    figure = Figure(figsize=(width, height), dpi=72)
    FigureCanvasSVG(figure)
    return figure


def legend_that_fits(figure: Figure, entries: dict[str, Any]) -> Legend:
    """Above the axes; one that is too wide gets fewer columns, and at last smaller type rather than be cut off."""
    size = STYLE["legend.fontsize"]
    while True:
        legend = figure.legend(**entries, loc="upper left", fontsize=size)
        room = 0.95 * figure.bbox.width / legend.get_window_extent().width
        if room >= 1:
            return legend
        legend.remove()
        if entries["ncols"] > 1 and room < SMALLEST:
            drawn = [pair for pair in zip(entries["handles"], entries["labels"], strict=True) if pair[1].strip()]
            handles, labels = zip(*drawn, strict=True)  # without what filled up the columns
            entries = {"handles": handles, "labels": labels, "ncols": entries["ncols"] - 1}
        else:
            size *= 0.98 * room
