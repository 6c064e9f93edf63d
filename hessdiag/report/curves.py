"""Curves with positions of their own, in panels beneath each other: races."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from hessdiag.report import layout
from hessdiag.report.columns import wrap
from hessdiag.report.drawing import (
    COLOURS,
    INK,
    LEGEND,
    PAPER,
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
from hessdiag.report.numbers import drawable, number
from hessdiag.report.view import Curve, Curves, Panel, Span

MARKS = "os^vDPXp*h<>"  # each group has one of its own: colours and dashes repeat
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)))
COLUMNS = 4  # of the legend
FIRST, OTHERS, ROW = 3.0, 1.5, 0.26  # inches: the first panel, those beneath it, a row of a panel of spans
FAINT = 0.3
BOUNDS = 1e-100, 1e100  # of a logarithmic axis, whose margins and ticks are numbers, too


def figure(chart: Curves, page: Page = WIDE) -> Figure:
    """Draw all panels of a chart over one x axis."""
    panels = [panel for panel in chart.panels if panel.curves or panel.spans] or [Panel("")]
    heights = [_height(panel, first=index == 0) for index, panel in enumerate(panels)]
    named = _named(panels)
    columns = min(COLUMNS if page is WIDE else 2, max(len(named), 1))
    legend = LEGEND * -(-len(named) // columns)
    drawn = blank(page.width, sum(heights) + 0.7 + legend)
    ends = _ends(panels)
    all_axes = drawn.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        _x_axis(axes, ends, page)  # before any curve: what is drawn later does not move it
        if panel.spans:
            _spans(axes, panel.spans, page)
        else:
            _panel(axes, panel, page)
    all_axes[-1].set_xlabel(axis_text(chart.x_axis, page))
    shown = None
    if named:
        handles = [_handle(curve) for curve in named]
        names = [str(handle.get_label()) for handle in handles]
        shown = legend_that_fits(drawn, {"handles": handles, "labels": names, "ncols": columns, "handlelength": 3.5})
    layout.stack(drawn, list(all_axes), heights, shown)
    return drawn


def _named(panels: Sequence[Panel]) -> list[Curve]:
    """One curve of each group, in order: what the legend shows."""
    found = {curve.group: curve for panel in reversed(panels) for curve in reversed(panel.curves) if curve.main}
    return [found[group] for group in sorted(found)]


def _height(panel: Panel, *, first: bool) -> float:
    if panel.spans:
        return 0.2 + ROW * len(panel.spans)
    return FIRST if first else OTHERS


def _style(group: int) -> dict[str, Any]:
    return {
        "color": COLOURS[group % len(COLOURS)],
        "linestyle": DASHES[group // len(COLOURS) % len(DASHES)],
        "marker": MARKS[group % len(MARKS)],
    }


def _handle(curve: Curve) -> Line2D:
    return Line2D([], [], label=plain(curve.name), linewidth=2, markersize=6, **_style(curve.group))


def _ends(panels: Sequence[Panel]) -> tuple[float, float]:
    """The first positive position and the last of all curves; predictions beyond stand at the margin."""
    known = [
        x for panel in panels for curve in panel.curves for x in curve.x if x is not None and drawable(x, log=True)
    ]
    return (min(known), max(known)) if known else (1.0, 10.0)


def _x_axis(axes: Axes, ends: tuple[float, float], page: Page) -> None:
    first, last = ends
    axes.set_xscale("symlog", linthresh=first, linscale=0.4)
    axes.set_xlim(0, last * max(last / first, 2.0) ** 0.06)
    places = list(_places(first, last, page))
    axes.xaxis.set_major_locator(FixedLocator([0, *places]))
    axes.xaxis.set_major_formatter(FixedFormatter(["0", *map(_said, places)]))
    axes.xaxis.set_minor_locator(NullLocator())


def _places(first: float, last: float, page: Page) -> Iterator[float]:
    """Powers of ten, as many as have room; numbers between them where there are few."""
    low, high = math.floor(math.log10(first)), math.floor(math.log10(last))
    room = page.decades + 2
    every = -(-(high - low + 1) // room)
    between = (1, 2, 5) if page is WIDE and high - low < room // 2 + 1 else (1,)
    for power in range(low, high + 1, every):
        for times in between:
            if first <= times * 10.0**power <= last:
                yield times * 10.0**power


def _said(value: float) -> str:
    """A place: a power of ten, or one, two or five times it.

    >>> _said(0.005), _said(5e-4), _said(1e-4)
    ('0.005', '5·10⁻⁴', '10⁻⁴')
    """
    if 1e-3 <= value < 1e6:
        return f"{value:,.10g}"
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    times = round(value / power)
    return decade(power) if times == 1 else f"{times}·{decade(power)}"


def _panel(axes: Axes, panel: Panel, page: Page) -> None:
    for curve in sorted(panel.curves, key=lambda one: one.main):
        _curve(axes, curve, log=panel.log)
    for level in panel.levels:
        axes.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    known = [y for curve in panel.curves for y in curve.y if drawable(y, log=panel.log)]
    if panel.log and known:
        axes.set_yscale("log")
    if known:
        axes.set_ylim(*_limits(panel, known))
    if panel.log and known:
        log_ticks(axes.yaxis, page)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel(axis_text(panel.y_axis, page))
    axes.grid(linewidth=0.6)


def _curve(axes: Axes, curve: Curve, *, log: bool) -> None:
    style = _style(curve.group)
    mark = style | {"linestyle": "none", "markeredgecolor": PAPER, "markeredgewidth": 0.8, "zorder": 4}
    x, y = array(curve.x, log=False), array(curve.y, log=log)
    y = y.clip(*BOUNDS) if log else y
    main = curve.main
    axes.plot(
        x,
        y,
        color=style["color"],
        linestyle=style["linestyle"],
        marker="." if len(x) == 1 else "",  # a line needs two
        linewidth=2.0 if main else 1.0,
        alpha=1.0 if main else FAINT,
        zorder=3 if main else 2,
    )
    if curve.mark is not None and drawable(curve.mark[1], log=log):
        axes.plot(*curve.mark, **mark, markersize=9 if main else 5, alpha=1.0 if main else 2 * FAINT)


def _limits(panel: Panel, known: Sequence[float]) -> tuple[float, float]:
    """Of the y axis: a little beyond what there is, but for what the panel cuts off."""
    low, high = panel.limits
    smallest = min(known) if low is None else max(min(known), low)
    largest = max(known) if high is None else min(max(known), high)
    smallest, largest = min(smallest, *panel.levels, largest), max(largest, *panel.levels, smallest)
    if panel.log:
        smallest, largest = (min(max(end, BOUNDS[0]), BOUNDS[1]) for end in (smallest, largest))
        room = max(10 ** (0.06 * (math.log10(largest) - math.log10(smallest))), 1.02)
        return smallest / room, largest * room
    room = max(0.06 * (largest - smallest), 1e-3 * max(abs(largest), abs(smallest), 1e-300))
    return smallest - room, largest + room


def _spans(axes: Axes, spans: Sequence[Span], page: Page) -> None:
    right = axes.get_xlim()[1]
    for row, span in enumerate(spans):
        style = _style(span.group)
        colour = style["color"]
        if span.low < right:
            axes.barh(row, min(span.high, right) - span.low, left=span.low, height=0.62, color=colour, alpha=0.25)
        if span.typical < right:
            axes.plot([span.typical] * 2, [row - 0.31, row + 0.31], color=colour, linewidth=2)
        else:  # beyond the axis
            said = "never" if math.isinf(span.typical) else f"{number(float(f'{span.typical:.1e}'), 2)} →"
            beside: Any = {"ha": "right", "va": "center", "fontsize": 10, "color": INK}
            axes.text(0.99, row, said, transform=axes.get_yaxis_transform(), **beside)
        for seen in span.seen:
            if seen is not None and seen <= right:
                mark = {"color": colour, "marker": style["marker"], "markeredgecolor": PAPER, "linestyle": "none"}
                axes.plot(seen, row, **mark, markersize=7, markeredgewidth=0.8, zorder=4)
    axes.set_yticks(range(len(spans)), ["\n".join(map(plain, wrap(span.name, page.label))) for span in spans])
    axes.set_ylim(len(spans) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.6)
