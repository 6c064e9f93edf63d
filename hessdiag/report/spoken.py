"""What a figure shows, in a few sentences with its numbers, for those who hear a page."""

from collections.abc import Iterator, Sequence

from hessdiag.report.numbers import drawable, number
from hessdiag.report.view import Dots, Drawn, Heat, Lines

DIGITS = 3
MOST = 4  # series or rows that are told


def spoken(chart: Drawn) -> str:
    """The chart's own sentence, then its numbers: where series begin, end and peak, or the largest cell.

    >>> from hessdiag.report.view import Series, Table
    >>> empty = Table("", (), ())
    >>> spoken(Lines("t", "c", "Loss.", empty, "spark", (0, 1, 2), (Series("loss", (3.0, 4.0, 1.0)),), "x", "y"))
    'Loss. loss: 3.00 first, 1.00 last, between 1.00 and 4.00.'
    """
    return " ".join([chart.alt, *_numbers(chart)])


def _numbers(chart: Drawn) -> Iterator[str]:
    if isinstance(chart, Heat):
        yield from _largest(chart)
    elif isinstance(chart, Dots):
        yield from _rows(chart)
    else:
        named: list[tuple[str, Sequence[float | None]]] = (
            [(one.name, one.values) for one in chart.series if one.role == "measured"]
            if isinstance(chart, Lines)
            else [(curve.name, curve.y) for panel in chart.panels[:1] for curve in panel.curves if curve.main]
        )
        for name, values in named[:MOST]:
            known = [value for value in values if drawable(value, log=False)]
            if len(known) == 1:
                yield f"{name}: {_said(known[0])}."
            elif known:
                ends = f"{_said(known[0])} first, {_said(known[-1])} last"
                yield f"{name}: {ends}, between {_said(min(known))} and {_said(max(known))}."


def _rows(chart: Dots) -> Iterator[str]:
    """Each row of a few, else the ends: of what was measured."""
    for series in chart.series:
        rows = [
            (at, value) for at, value in zip(chart.labels, series.values, strict=True) if drawable(value, log=False)
        ]
        if series.role != "measured" or not rows:
            continue
        if len(rows) <= MOST:
            yield f"{series.name}: {', '.join(f'{label} {_said(value)}' for label, value in rows)}."
        else:
            low, high = (choose(rows, key=lambda row: row[1]) for choose in (min, max))
            yield f"{series.name}: from {_said(low[1])} ({low[0]}) to {_said(high[1])} ({high[0]})."


def _largest(chart: Heat) -> Iterator[str]:
    columns = chart.columns or chart.labels
    cells = [
        (value, row, column)
        for row, values in zip(chart.labels, chart.matrix, strict=True)
        for column, value in zip(columns, values, strict=True)
        if drawable(value, log=False)
    ]
    if cells:
        value, row, column = max(cells, key=lambda cell: cell[0])
        yield f"Largest: {_said(value)} in row {row}, column {column}."


def _said(value: float | None) -> str:
    return number(value, DIGITS)
