"""Where axes stand: what is written around them is measured once, and they get all the room that it leaves."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend

PAD = 5.0  # points, as all lengths here: figures have 72 dots an inch
BAR, BESIDE = 14.0, 16.0  # a colour bar, and its distance from the map
SHORTER = 0.85  # of the map's height
LONGEST = 2.0  # times as many rows as columns, or columns as rows, up to which the cells of a map are square
BETWEEN = 6.0  # labels of ticks


class Around(NamedTuple):
    """What ticks and labels take on each side of some axes."""

    left: float
    bottom: float
    right: float
    top: float


def stack(figure: Figure, axes: Sequence[Axes], heights: Sequence[float], legend: Legend | None) -> None:
    """Panels beneath each other, below the legend, their heights in the ratio given."""
    width, height = figure.bbox.size
    around = [_around(one) for one in axes]
    left = PAD + max(one.left for one in around)
    across = width - left - PAD - max(one.right for one in around)
    top = height if legend is None else legend.get_window_extent().y0
    free = top - PAD - sum(one.bottom + one.top + PAD for one in around)
    for one, ratio, beside in zip(axes, heights, around, strict=True):
        tall = max(free * ratio / sum(heights), 1.0)
        top -= PAD + beside.top + tall
        one.set_position((left / width, top / height, max(across, 1.0) / width, tall / height))
        top -= beside.bottom
    for one in axes:
        _keep_inside(one, width, height)
    _thin_out(axes[-1].xaxis)


def map_and_bar(figure: Figure, axes: Axes, bar: Axes, cells: tuple[int, int], pad: float = PAD) -> None:
    """A map of so many rows and columns beside its colour bar; the figure becomes as large as they need."""
    rows, columns = cells
    width, height = figure.bbox.size
    beside, of_bar = _around(axes), _around(bar)
    more = beside.left + 2 * pad, BESIDE + BAR + of_bar.right + max(beside.right - BESIDE, 0.0)
    across, tall = width - sum(more), height - beside.bottom - beside.top - 2 * pad
    if max(rows, columns) <= LONGEST * min(rows, columns):
        cell = min(across / columns, tall / rows)
        across, tall = cell * columns, cell * rows
    height = tall + beside.bottom + beside.top + 2 * pad
    width = across + sum(more)
    figure.set_size_inches(width / 72, height / 72)
    left, low = beside.left + pad, beside.bottom + pad
    axes.set_position((left / width, low / height, across / width, tall / height))
    start = low + (1 - SHORTER) / 2 * tall
    bar.set_position(((left + across + BESIDE) / width, start / height, BAR / width, SHORTER * tall / height))
    _keep_inside(axes, width, height)
    _keep_inside(bar, width, height)


def _around(axes: Axes) -> Around:
    inner, outer = axes.bbox, axes.get_tightbbox(for_layout_only=True)
    if outer is None:
        return Around(0.0, 0.0, 0.0, 0.0)
    sides = inner.x0 - outer.x0, inner.y0 - outer.y0, outer.x1 - inner.x1, outer.y1 - inner.y1
    return Around(*(max(side, 0.0) for side in sides))


def _keep_inside(axes: Axes, width: float, height: float) -> None:
    """Names of axes move along them rather than be cut off by the edge of the figure."""
    across, along = axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent()
    axes.xaxis.label.set_x(0.5 + _shift(across.x0, across.x1, width) / axes.bbox.width)
    axes.yaxis.label.set_y(0.5 + _shift(along.y0, along.y1, height) / axes.bbox.height)


def _shift(low: float, high: float, room: float) -> float:
    """How far to move what would pass an edge; what is longer than the room stays in its middle."""
    if high - low > room - 2 * PAD:
        return (room - low - high) / 2
    return max(PAD - low, 0.0) - max(high - room + PAD, 0.0)


def _thin_out(axis: Axis) -> None:
    """Level labels of ticks that would touch: every second or third of them stays, with zero's."""
    places = axis.get_majorticklocs()
    ticks: list[Any] = [tick for tick in axis.get_major_ticks(len(places)) if not tick.label1.get_rotation()]
    low, high = sorted(axis.get_view_interval())
    shown = [(at, tick) for at, tick in zip(places, ticks, strict=False) if low <= at <= high]
    across = axis.get_transform().transform
    scale = axis.axes.bbox.width / (across(high) - across(low))
    spans = []
    for at, tick in shown:
        middle, half = (across(at) - across(low)) * scale, tick.label1.get_window_extent().width / 2
        spans.append((middle - half, middle + half))
    for every in range(1, len(shown) + 1):
        start = next((index for index, (at, _) in enumerate(shown) if at == 0), 0) % every
        kept = spans[start::every]
        if all(after[0] - before[1] >= BETWEEN for before, after in pairwise(kept)):
            for index, (_, tick) in enumerate(shown):
                tick.label1.set_visible(index % every == start)
            return
