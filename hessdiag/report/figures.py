"""Charts as SVG: reproducible to the byte, legible in greyscale, and with no state shared between them."""

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from hessdiag.report.numbers import drawable
from hessdiag.report.view import Dots, Heat, Lines, Role, Series, Values

# Okabe and Ito's palette, in an order whose lightness differs too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
INK, GRID = "#24292f", "#d8dee4"
MARKS: dict[Role, str] = {"measured": "o", "mean": "", "reference": "|", "theory": "D", "points": "v"}
DASHES: dict[Role, str] = {"measured": "-", "mean": "--", "reference": ":", "theory": "-.", "points": "none"}
STYLE: Any = {
    "svg.hashsalt": "hessdiag",  # element ids come from it: without it they are random
    "svg.fonttype": "path",  # the page's fonts do not reach into an <img>
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 12,  # still read where the figure is shown at half its width
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
MANY_LABELS = 40  # rows above which labels would no longer be read
LONGEST_LABEL = 32
FEW_MARKS = 10  # on a line of many points
MOST_DECADES = 4  # labelled on either side of zero
RASTER_ABOVE = 24  # a heat map of more layers is drawn as pixels
WIDTH = 9.0  # inches, at 96 pixels each: the width of the page's text


def svg(chart: Dots | Lines | Heat) -> str:
    """Draw a chart. The same chart gives the same bytes."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name in a script that the font has not
        if isinstance(chart, Dots):
            figure = _dots(chart)
        elif isinstance(chart, Lines):
            figure = _lines(chart)
        else:
            figure = _heat(chart)
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=150)
    return buffer.getvalue()


def _array(values: Values, *, log: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values as floats, with NaN wherever the axis has no place for them."""
    return np.array(
        [value if value is not None and drawable(value, log=log) else math.nan for value in values],
        dtype=float,
    )


def _short(label: str) -> str:
    """A label cut in its middle, where names of layers differ least. No dollar may start mathematics."""
    half = (LONGEST_LABEL - 1) // 2
    cut = label if len(label) <= LONGEST_LABEL else f"{label[:half]}…{label[-half:]}"
    return cut.replace("$", r"\$")


def _dots(chart: Dots) -> Figure:
    count = len(chart.labels)
    if count > MANY_LABELS:
        return _many_dots(chart)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * count), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(count)
    for series in chart.series:
        values = _array(series.values, log=chart.log)
        colour = COLOURS[series.group] if series.role != "reference" else INK
        if series.low:
            low, high = _array(series.low, log=chart.log), _array(series.high, log=chart.log)
            axes.hlines(rows, low, high, color=colour, linewidth=2.5, alpha=0.55, zorder=2)
        axes.plot(values, rows, **_mark(series, colour))
    _show_axis(axes.set_xscale, axes.xaxis, chart)
    axes.set_yticks(rows, [_short(label) for label in chart.labels])
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel(chart.axis)
    axes.grid(axis="both", linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    if not chart.log:
        axes.axvline(0, color=INK, linewidth=0.8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(chart.series))
    return figure


def _many_dots(chart: Dots) -> Figure:
    """The same with the rows along x, by number: for networks of many layers."""
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(1, len(chart.labels) + 1)
    for series in chart.series:
        colour = COLOURS[series.group] if series.role != "reference" else INK
        if series.low:
            axes.vlines(
                rows,
                _array(series.low, log=chart.log),
                _array(series.high, log=chart.log),
                color=colour,
                alpha=0.55,
            )
        mark = _mark(series, colour) | ({"marker": "_"} if series.role == "reference" else {}) | {"markersize": 4}
        axes.plot(rows, _array(series.values, log=chart.log), **mark)
    _show_axis(axes.set_yscale, axes.yaxis, chart)
    axes.set_xlabel("layer, in the order of the table")
    axes.set_ylabel(chart.axis)
    axes.grid(axis="y", linewidth=0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=len(chart.series))
    return figure


def _show_axis(set_scale: Any, axis: Axis, chart: Dots) -> None:
    values = [value for series in chart.series for value in series.values]
    if chart.linear_below is not None:
        set_scale("symlog", linthresh=chart.linear_below)
        known = np.abs(_array(tuple(value for value in values if drawable(value, log=False)), log=False))
        # The smallest decade would run into the zero.
        decades = np.arange(math.floor(math.log10(chart.linear_below)) + 2, math.floor(math.log10(known.max())) + 1)
        powers = 10.0 ** decades[:: max(1, math.ceil(len(decades) / MOST_DECADES))]
        axis.set_ticks([*-powers[::-1], 0, *powers])
    elif chart.log and any(drawable(value, log=True) for value in values):
        set_scale("log")


def _mark(series: Series, colour: str) -> dict[str, Any]:
    hollow = series.role == "theory"
    return {
        "marker": MARKS[series.role] or "s",
        "markersize": 12 if series.role == "reference" else 6 if hollow else 8,
        "markeredgewidth": 1.8,
        "markerfacecolor": "white" if hollow else colour,
        "color": colour,
        "linestyle": "none",
        "label": series.name.replace("$", r"\$"),
        "zorder": 3,
    }


def _lines(chart: Lines) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.add_subplot()
    x = np.asarray(chart.x)
    drawn: list[tuple[int, Line2D]] = []
    for series in chart.series:
        values = _array(series.values, log=True)
        if np.isnan(values).all():
            continue
        colour = COLOURS[series.group] if series.role != "reference" else INK
        bold = series.role == "measured"
        if series.low:
            axes.fill_between(
                x,
                _array(series.low, log=True),
                _array(series.high, log=True),
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
        (line,) = axes.plot(
            x,
            values,
            label=series.name.replace("$", r"\$"),
            color=colour,
            linestyle=DASHES[series.role],
            linewidth=2.2 if bold else 1.4,
            marker=_line_mark(series),
            markevery=_marked(series, len(x)),
            markersize=5.5 if bold else 4.5,
            markerfacecolor=colour if bold else "white",
            zorder={"theory": 4, "measured": 3}.get(series.role, 2),  # theory is thin: it shows where both agree
        )
        drawn.append((series.group, line))
    if drawn:
        axes.set_yscale("log")
        if axes.get_ylim()[1] < 10 * axes.get_ylim()[0]:  # ticks of the form 1.04 x 10^0 say little
            for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                set_formatter(FormatStrFormatter("%.4g"))
    if chart.names:
        axes.set_xticks(x, [_short(name) for name in chart.names], rotation=30 if len(x) > 4 else 0)
        axes.margins(x=0.08)
    elif all(value.is_integer() for value in chart.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(chart.x_axis)
    axes.set_ylabel(chart.y_axis)
    axes.grid(linewidth=0.6)
    if drawn:
        _legend_that_fits(figure, _legend(drawn))
    return figure


def _legend(lines: Sequence[tuple[int, Line2D]]) -> dict[str, Any]:
    """A legend fills column by column: one column per quantity, short ones filled up with nothing."""
    groups = sorted({group for group, _ in lines})
    columns = [[line for group, line in lines if group == wanted] for wanted in groups]
    longest, nothing = max(map(len, columns)), Line2D([], [], linestyle="none", label=" ")
    handles = [line for column in columns for line in (*column, *[nothing] * (longest - len(column)))]
    return {"handles": handles, "labels": [str(line.get_label()) for line in handles], "ncols": len(groups)}


def _legend_that_fits(figure: Figure, entries: dict[str, Any]) -> None:
    """Above the axes; many long labels get smaller type rather than be cut off."""
    legend = figure.legend(**entries, loc="outside upper left")
    room = figure.bbox.width / legend.get_window_extent().width
    if room < 1:
        legend.remove()
        figure.legend(**entries, loc="outside upper left", fontsize=0.98 * room * STYLE["legend.fontsize"])


def _line_mark(series: Series) -> str:
    """The mark on a line: without colour, it alone tells which mean belongs to which median."""
    if series.role == "points":
        return MARKS["points"]
    return ("o", "s", "^", "v")[series.group] if series.role in ("measured", "mean") else ""


def _marked(series: Series, count: int) -> int | tuple[int, int]:
    """Which points bear it: all that stand alone or are few, else some, in other places for each quantity."""
    if series.role == "points" or count <= MANY_LABELS:
        return 1
    step = count // FEW_MARKS
    return series.group * step // len(COLOURS), step


def _heat(chart: Heat) -> Figure:
    names = (chart.labels, chart.columns or chart.labels)
    height, width = (min(3.0 + 0.3 * len(labels), 7.0) for labels in names)
    figure = Figure(figsize=(width + 1.4, height), layout="constrained")
    axes = figure.add_subplot()
    matrix = np.array([_array(row, log=True) for row in chart.matrix])
    known = matrix[~np.isnan(matrix)]
    if known.size:
        # Six decades: what is fainter is nothing beside the whole.
        low, top = chart.scale or (known.min(), max(known.max(), 1e-12))
        norm = LogNorm(min(max(low, top * 1e-6), top * 0.9), top, clip=True)
        mesh = axes.pcolormesh(matrix, cmap="cividis", norm=norm, rasterized=max(map(len, names)) > RASTER_ABOVE)
        figure.colorbar(mesh, ax=axes, label=chart.axis, shrink=0.8)
    axes.set_aspect("equal")
    axes.set_xlim(0, len(names[1]))
    axes.set_ylim(len(names[0]), 0)
    axes.set_yticks(*_cell_labels(names[0]))
    places, labels = _cell_labels(names[1])
    axes.set_xticks(places, labels, rotation=90 if _wide(labels) else 0)
    axes.tick_params(length=0, labelsize=8.5)
    if max(map(len, names)) > 1:
        axes.spines[:].set_visible(False)
    return figure


def _cell_labels(names: Sequence[str]) -> tuple[list[float], list[str]]:
    """Where the labels of a heat map's rows or columns stand, and what they say: no more than can be read."""
    places = range(0, len(names), max(1, -(-len(names) // 16)))
    return [index + 0.5 for index in places], [_short(names[index]) for index in places]


def _wide(labels: Sequence[str]) -> bool:
    return sum(len(label) for label in labels) > MANY_LABELS
