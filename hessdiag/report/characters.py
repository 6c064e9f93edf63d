"""Charts drawn in characters, on logarithmic axes: bars, a line plot, sparklines."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from hessdiag.report.numbers import drawable, number
from hessdiag.report.view import Curve, Curves, Dots, Lines, Series, Values

EIGHTHS = " ▏▎▍▌▋▊▉█"
LEVELS = "▁▂▃▄▅▆▇█"
MARKS = "●◆▲■"
HEIGHT = 12

Cell = tuple[int, int]


def _decades(values: Sequence[float | None]) -> tuple[int, int] | None:
    """Whole decades around all positive finite values, or `None` if there is none."""
    logs = [math.log10(value) for value in values if value is not None and drawable(value, log=True)]
    if not logs:
        return None
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _merged(chart: Dots) -> list[tuple[str, float | None, bool]]:
    """Label, value and whether it is measured, for a chart whose series fill each other's gaps."""
    rows: list[tuple[str, float | None, bool]] = []
    for index, label in enumerate(chart.labels):
        series = next((series for series in chart.series if series.values[index] is not None), chart.series[0])
        rows.append((label, series.values[index], series.role == "measured"))
    return rows


def axis_range(chart: Dots) -> str:
    """Where the axis of `bars` begins and ends."""
    low, high = _decades([value for _, value, _ in _merged(chart)]) or (0, 1)
    return f"1e{low} to 1e{high}"


def bars(chart: Dots, width: int) -> Iterator[tuple[str, str, str, bool]]:
    """Rows of a chart with one value per label: label, bar, number and whether it is the measured one.

    The axis runs from the decade below the smallest value to the one above the largest.
    """
    rows = _merged(chart)
    low, high = _decades([value for _, value, _ in rows]) or (0, 1)
    label_width = max(len(label) for label, _, _ in rows)
    number_width = max(len(number(value)) for _, value, _ in rows)
    room = max(width - label_width - number_width - 4, 8)
    for label, value, measured in rows:
        eighths = 0
        if value is not None and drawable(value, log=True):
            eighths = max(round((math.log10(value) - low) / (high - low) * room * 8), 1)
        full, part = divmod(eighths, 8)
        bar = "█" * full + (EIGHTHS[part] if part else "")
        yield f"{label:<{label_width}}", f"{bar:<{room}}", f"{number(value):>{number_width}}", measured


def line_plot(chart: Lines, width: int) -> list[tuple[str, list[tuple[str, int]]]]:
    """The measured series against x, on a logarithmic y axis.

    Returns:
        Lines of the plot: the y label, and the cells as (character, group), group -1 where no series is.
    """
    measured = [series for series in chart.series if series.role == "measured"]
    decades = _decades([value for series in measured for value in series.values])
    if decades is None or len(chart.x) < 2:
        return []
    low, high = decades
    label_width = max(len(f"1e{low}"), len(f"1e{high}"))
    columns = max(width - label_width - 2, 16)
    grid: list[list[tuple[str, int]]] = [[(" ", -1)] * columns for _ in range(HEIGHT)]
    first, last = chart.x[0], chart.x[-1]

    def place(x: float, log: float) -> Cell:
        column = round((x - first) / (last - first) * (columns - 1))
        return HEIGHT - 1 - round((log - low) / (high - low) * (HEIGHT - 1)), column

    for paths in (True, False):  # marks are drawn over all paths
        for series in measured:
            points = [
                (x, math.log10(value))
                for x, value in zip(chart.x, series.values, strict=True)
                if value and drawable(value, log=True)
            ]
            if paths:
                for row, column in _path(points, place):
                    grid[row][column] = ("·", series.group)
            else:
                for row, column in (place(*point) for point in points):
                    taken = grid[row][column]
                    shared = taken[0] in MARKS and taken[1] != series.group
                    grid[row][column] = ("◉", -1) if shared else (MARKS[series.group], series.group)
    ticks = {place(first, log)[0]: f"1e{log}" for log in (high, round((low + high) / 2), low)}
    return [(f"{ticks.get(row, ''):>{label_width}}", cells) for row, cells in enumerate(grid)]


def _path(points: Sequence[tuple[float, float]], place: Callable[[float, float], Cell]) -> Iterator[Cell]:
    """Cells on the straight lines between points, one per column."""
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = max(abs(place(x1, y1)[1] - place(x0, y0)[1]), 1)
        for step in range(steps + 1):
            share = step / steps
            yield place(x0 + share * (x1 - x0), y0 + share * (y1 - y0))


def position(x: float) -> str:
    """A place on the x axis: whole numbers in full.

    >>> position(1500.0), position(-2.5487)
    ('1,500', '-2.55')
    """
    return number(int(x) if math.isfinite(x) and x == int(x) else x)


def x_labels(chart: Lines, width: int) -> str:
    """Ends and middle of the x axis, spread over `width` characters."""
    first, last = position(chart.x[0]), position(chart.x[-1])
    room = max(width - len(first) - len(last), 1)
    axis = chart.x_axis if len(chart.x_axis) + 2 <= room else chart.x_axis.partition(",")[0].partition(" (")[0]
    return f"{first}{axis if len(axis) <= room else '':^{room}}{last}"


def sparkline(values: Values, width: int) -> str:
    """One character per value, or per bin of them, on a logarithmic scale; a space where there is no number.

    >>> sparkline((1e-3, 1e-2, None, 1e-1), 10)
    '▁▅ █'
    """
    bins = min(len(values), max(width, 1))
    chosen = [values[index * len(values) // bins] for index in range(bins)]
    logs = [math.log10(value) if value and drawable(value, log=True) else None for value in chosen]
    known = [log for log in logs if log is not None]
    if not known:
        return " " * bins
    low, span = min(known), max(known) - min(known)
    # Less than a tenth of a decade is noise, not a shape.
    scale = max(span, 0.1)
    return "".join(" " if log is None else LEVELS[round((log - low) / scale * (len(LEVELS) - 1))] for log in logs)


def races(chart: Curves, width: int) -> list[tuple[Curve, str]]:
    """The curves that stand for their groups in the first panel, a line each, all on the same two scales.

    The x axis is logarithmic from the first positive position on; what is before it has a column of its own.
    """
    curves = [curve for panel in chart.panels[:1] for curve in panel.curves if curve.main]
    places = [x for curve in curves for x in curve.x if drawable(x, log=True)]
    if not places:
        return []
    low, high = chart.panels[0].limits
    logs = {id(curve): [_bounded_log(value, low, high) for value in curve.y] for curve in curves}
    known = [log for found in logs.values() for log in found if log is not None]
    first, last = math.log10(min(places)), math.log10(max(places))
    bottom, span = min(known, default=0.0), max(max(known, default=0.0) - min(known, default=0.0), 0.1)

    def column(x: float) -> int:
        return 0 if x <= 0 else 1 + round((math.log10(x) - first) / max(last - first, 1e-9) * (width - 2))

    drawn = []
    for curve in curves:
        cells, before = [" "] * width, -1
        for x, log in zip(curve.x, logs[id(curve)], strict=True):
            if x is None or log is None or not math.isfinite(x):
                continue
            at, level = column(x), LEVELS[round((log - bottom) / span * (len(LEVELS) - 1))]
            cells[before + 1 : at + 1] = level * (at - before)  # as it was watched next: between, nobody looked
            before = max(at, before)
        drawn.append((curve, "".join(cells)))
    return drawn


def _bounded_log(value: float | None, low: float | None, high: float | None) -> float | None:
    """Its decimal logarithm, within the limits of a panel."""
    if not drawable(value, log=True):
        return None
    value = value if low is None else max(value, low)
    return math.log10(value if high is None else min(value, high))


def value_range(series: Series) -> str:
    """Smallest and largest value of a series."""
    known = [value for value in series.values if value is not None and drawable(value, log=True)]
    return f"{number(min(known))} … {number(max(known))}" if known else "no positive number"
