"""Charts as SVG: reproducible to the byte, legible in greyscale, light and dark, drawn for a wide or a narrow page."""

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
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from hessdiag.report import curves, layout
from hessdiag.report.columns import wrap
from hessdiag.report.drawing import (
    COLOURS,
    INK,
    LEGEND,
    NARROW,
    PAPER,
    STYLE,
    WIDE,
    Page,
    array,
    axis_text,
    blank,
    decade,
    legend_that_fits,
    log_ticks,
    plain,
)
from hessdiag.report.names import fitted
from hessdiag.report.numbers import drawable
from hessdiag.report.svg import compact
from hessdiag.report.view import Curves, Dots, Drawn, Heat, Lines, Role, Series

MARKS: dict[Role, str] = {"measured": "o", "mean": "", "reference": "|", "theory": "D", "points": "v"}
DASHES: dict[Role, str] = {"measured": "-", "mean": "--", "reference": ":", "theory": "-.", "points": "none"}
MANY_LABELS = 40  # rows above which labels would no longer be read
LONGEST_CELL = 9  # characters beside a heat map on a phone
LABEL_PAD = 11.0  # points beside what is written at an edge: the reader's font is not the one that it is laid out with
RESOLUTION = 150  # of colour bars, per inch
SHADES = 64  # of a heat map: more are not told apart, and take half as many bytes again
LETTERS = 9  # of a line below an axis, per inch
FEW_MARKS = 10  # on a line of many points


def svg(chart: Drawn, page: Page = WIDE) -> str:
    """Draw a chart. The same chart gives the same bytes."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name in a script that the font has not
        if isinstance(chart, Dots):
            figure = _dots(chart, page)
        elif isinstance(chart, Lines):
            figure = _lines(chart, page)
        elif isinstance(chart, Curves):
            figure = curves.figure(chart, page)
        else:
            figure = _heat(chart, page)
        buffer = io.StringIO()
        figure.set_dpi(RESOLUTION)
        draw: Any = FigureCanvasSVG(figure).print_svg  # `savefig` would draw everything twice
        draw(buffer, metadata={"Date": None})
    return compact(buffer.getvalue())


def _labels(names: Sequence[str], page: Page) -> list[str]:
    """Labels cut in their middle, no two alike. No dollar may start mathematics."""
    return [plain(name) for name in fitted(names, page.label)]


def _height(chart: Lines, page: Page) -> float:
    """Of a figure whose legend has a column per group where that has room, else one column."""
    longest = max(sum(one.group == series.group for one in chart.series) for series in chart.series)
    return 3.6 + LEGEND * (longest if page is WIDE else len(chart.series))


def _dots(chart: Dots, page: Page = WIDE) -> Figure:
    count = len(chart.labels)
    if count > MANY_LABELS:
        return _many_dots(chart, page)
    figure = blank(page.width, 1.3 + page.row * count + LEGEND * len(chart.series))
    axes = figure.add_subplot()
    rows = np.arange(count)
    for series in chart.series:
        values = array(series.values, log=chart.log)
        colour = COLOURS[series.group] if series.role != "reference" else INK
        if series.low:
            low, high = array(series.low, log=chart.log), array(series.high, log=chart.log)
            axes.hlines(rows, low, high, color=colour, linewidth=2.5, alpha=0.55, zorder=2)
        axes.plot(values, rows, **_mark(series, colour))
    _show_axis(axes.set_xscale, axes.xaxis, chart, page)
    axes.set_yticks(rows, ["\n".join(map(plain, wrap(label, page.label))) for label in chart.labels])
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xlabel(axis_text(chart.axis, page))
    axes.grid(axis="both", linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    if not chart.log:
        axes.axvline(0, color=INK, linewidth=0.8)
    handles, labels = axes.get_legend_handles_labels()
    legend = legend_that_fits(figure, {"handles": handles, "labels": labels, "ncols": len(handles)})
    layout.stack(figure, [axes], [1.0], legend)
    return figure


def _many_dots(chart: Dots, page: Page = WIDE) -> Figure:
    """The same with the rows along x, by number: for networks of many layers."""
    figure = blank(page.width, 3.4 + LEGEND * len(chart.series))
    axes = figure.add_subplot()
    rows = np.arange(1, len(chart.labels) + 1)
    for series in chart.series:
        colour = COLOURS[series.group] if series.role != "reference" else INK
        if series.low:
            axes.vlines(
                rows,
                array(series.low, log=chart.log),
                array(series.high, log=chart.log),
                color=colour,
                alpha=0.55,
            )
        mark = _mark(series, colour) | ({"marker": "_"} if series.role == "reference" else {}) | {"markersize": 4}
        axes.plot(rows, array(series.values, log=chart.log), **mark)
    _show_axis(axes.set_yscale, axes.yaxis, chart, page)
    axes.set_xlabel(axis_text("layer, in the order of the table", page))
    axes.set_ylabel(axis_text(chart.axis, page))
    axes.grid(axis="y", linewidth=0.6)
    handles, labels = axes.get_legend_handles_labels()
    legend = legend_that_fits(figure, {"handles": handles, "labels": labels, "ncols": len(handles)})
    layout.stack(figure, [axes], [1.0], legend)
    return figure


def _show_axis(set_scale: Any, axis: Axis, chart: Dots, page: Page) -> None:
    values = [value for series in chart.series for value in series.values]
    if chart.linear_below is not None:
        set_scale("symlog", linthresh=chart.linear_below)
        known = np.abs(array(tuple(value for value in values if drawable(value, log=False)), log=False))
        # The smallest decade would run into the zero.
        decades = np.arange(math.floor(math.log10(chart.linear_below)) + 2, math.floor(math.log10(known.max())) + 1)
        powers = 10.0 ** decades[:: max(1, math.ceil(len(decades) / page.decades))]
        axis.set_ticks([*-powers[::-1], 0, *powers])
        axis.set_major_formatter(FuncFormatter(decade))
        axis.set_minor_locator(NullLocator())
    elif chart.log and any(drawable(value, log=True) for value in values):
        set_scale("log")
        log_ticks(axis, page)
    elif not chart.log:
        axis.set_major_locator(MaxNLocator(page.ticks))


def _mark(series: Series, colour: str) -> dict[str, Any]:
    hollow = series.role == "theory"
    return {
        "marker": MARKS[series.role] or "s",
        "markersize": 12 if series.role == "reference" else 6 if hollow else 8,
        "markeredgewidth": 1.8,
        "markerfacecolor": PAPER if hollow else colour,
        "color": colour,
        "linestyle": "none",
        "label": plain(series.name),
        "zorder": 3,
    }


def _lines(chart: Lines, page: Page = WIDE) -> Figure:
    figure = blank(page.width, _height(chart, page))
    axes = figure.add_subplot()
    x = np.asarray(chart.x)
    drawn: list[tuple[int, Line2D]] = []
    for series in chart.series:
        values = array(series.values, log=True)
        if np.isnan(values).all():
            continue
        colour = COLOURS[series.group] if series.role != "reference" else INK
        bold = series.role == "measured"
        if series.low:
            axes.fill_between(
                x,
                array(series.low, log=True),
                array(series.high, log=True),
                color=colour,
                alpha=0.16,
                linewidth=0,
            )
        (line,) = axes.plot(
            x,
            values,
            label=plain(series.name),
            color=colour,
            linestyle=DASHES[series.role],
            linewidth=2.2 if bold else 1.4,
            marker=_line_mark(series),
            markevery=_marked(series, len(x)),
            markersize=5.5 if bold else 4.5,
            markerfacecolor=colour if bold else PAPER,
            zorder={"points": 5, "theory": 4, "measured": 3}.get(series.role, 2),  # theory is thin: both show
        )
        drawn.append((series.group, line))
    if drawn:
        axes.set_yscale("log")
        log_ticks(axes.yaxis, page)
    if chart.names:
        level = LETTERS * page.width // (max(map(len, chart.names)) + 2)
        places, labels = _some_labels(chart.names, page, max(int(level), page.cells))
        axes.set_xticks(x[places], labels, **_turned(labels, page))
        axes.margins(x=0.08)
    elif chart.x_log:
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in chart.x])
        axes.xaxis.set_minor_locator(NullLocator())
    elif all(value.is_integer() for value in chart.x):
        axes.xaxis.set_major_locator(MaxNLocator(page.ticks, integer=True))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(page.ticks))
    axes.set_xlabel(axis_text(chart.x_axis, page))
    axes.set_ylabel(axis_text(chart.y_axis, page))
    axes.grid(linewidth=0.6)
    layout.stack(figure, [axes], [1.0], legend_that_fits(figure, _legend(drawn)) if drawn else None)
    return figure


def _legend(lines: Sequence[tuple[int, Line2D]]) -> dict[str, Any]:
    """A legend fills column by column: one column per quantity, short ones filled up with nothing."""
    groups = sorted({group for group, _ in lines})
    columns = [[line for group, line in lines if group == wanted] for wanted in groups]
    longest, nothing = max(map(len, columns)), Line2D([], [], linestyle="none", label=" ")
    handles = [line for column in columns for line in (*column, *[nothing] * (longest - len(column)))]
    return {"handles": handles, "labels": [str(line.get_label()) for line in handles], "ncols": len(groups)}


def _turned(names: Sequence[str], page: Page) -> dict[str, Any]:
    """How labels below an axis stand: level where they have room."""
    if sum(min(len(name), page.label) + 2 for name in names) <= LETTERS * page.width:
        return {}
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


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


def _heat(chart: Heat, page: Page = WIDE) -> Figure:
    names = (chart.labels, chart.columns or chart.labels)
    height, width = (min(3.0 + 0.3 * len(labels), 7.0) for labels in names)
    scale = min((page.width - 0.1) / (width + 1.4), 1.0)
    figure = blank((width + 1.4) * scale, max(height * scale, 2.5))
    axes, bar = figure.add_subplot(), figure.add_axes((0.9, 0.1, 0.03, 0.8))
    matrix = np.array([array(row, log=True) for row in chart.matrix])
    known = matrix[~np.isnan(matrix)]
    if known.size:
        # Six decades: what is fainter is nothing beside the whole.
        low, top = chart.scale or (known.min(), max(known.max(), 1e-12))
        norm = LogNorm(min(max(low, top * 1e-6), top * 0.9), top, clip=True)
        # One pixel for each cell, which the reader's program enlarges.
        image = axes.imshow(
            matrix,
            cmap=mpl.colormaps["cividis"].resampled(SHADES),
            norm=norm,
            interpolation="none",
            resample=False,
            aspect="auto",
        )
        figure.colorbar(image, cax=bar, label=chart.axis)
        log_ticks(bar.yaxis, page)
    else:
        bar.set_axis_off()
    axes.set_xlim(-0.5, len(names[1]) - 0.5)
    axes.set_ylim(len(names[0]) - 0.5, -0.5)
    axes.set_yticks(*_cell_labels(names[0], page))
    places, labels = _cell_labels(names[1], page)
    axes.set_xticks(places, labels, rotation=90 if sum(map(len, labels)) > 4.5 * page.width else 0)
    if page is NARROW and max(map(len, names[0])) > LONGEST_CELL:
        axes.set_ylabel("layer, by its number")
    if chart.x_axis or chart.y_axis:
        axes.set_xlabel(axis_text(chart.x_axis, page))
        axes.set_ylabel(axis_text(chart.y_axis, page))
    if chart.marked is not None:
        axes.plot(chart.marked[1], chart.marked[0], "P", color=INK, markeredgecolor=PAPER, markersize=9)
    axes.tick_params(length=0, labelsize=9)
    if max(map(len, names)) > 1:
        axes.spines[:].set_visible(False)
    pad = LABEL_PAD if chart.x_axis or chart.y_axis else layout.PAD
    layout.map_and_bar(figure, axes, bar, (len(names[0]), len(names[1])), pad)
    return figure


def _cell_labels(names: Sequence[str], page: Page) -> tuple[list[int], list[str]]:
    """Where the labels of a heat map's rows or columns stand, and what they say: no more than can be read.

    On a phone, long names would leave no room for the map: numbers stand for them, in the order of the tables.
    """
    places, labels = _some_labels(names, page, page.cells)
    if page is NARROW and max(map(len, names)) > LONGEST_CELL:
        return places, [str(index + 1) for index in places]
    return places, labels


def _some_labels(names: Sequence[str], page: Page, most: int) -> tuple[list[int], list[str]]:
    """Labels at even distances, no more than have room, and where they stand."""
    places = list(range(0, len(names), max(1, -(-len(names) // most))))
    labels = _labels(names, page)
    return places, [labels[index] for index in places]
