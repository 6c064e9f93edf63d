"""The most telling chart or table of an answer, in a few lines."""

from dataclasses import replace

from rich.cells import cell_len
from rich.text import Text

from hessdiag.report import columns, pieces
from hessdiag.report.columns import GAP
from hessdiag.report.view import Block, Curves, Dots, Heat, Lines, Table, View

ROWS = 5  # of a table, bars or sparklines
START = 3  # of them from the start, where there are more


def telling(view: View, room: int) -> Text | None:
    """The first block that a few characters can show; `None` where there is none."""
    return next((text for block in view.blocks if (text := _drawn(block, room)) is not None), None)


def _drawn(block: Block, room: int) -> Text | None:
    if isinstance(block, Heat) or (not isinstance(block, Table) and block.text == "none"):
        return None
    if isinstance(block, Lines):
        return pieces.sparklines(_few_lines(block), room)
    if isinstance(block, Curves):
        return pieces.races(block, room)
    if isinstance(block, Dots) and block.text == "chart":
        return pieces.bars(_few_dots(block), room)
    table = block if isinstance(block, Table) else block.table
    return _rows(few_columns(few_rows(table), room), room) if table.rows else None


def _rows(table: Table, room: int) -> Text:
    """A table without a rule below its columns' names."""
    header, body = columns.lines(table, room)
    return Text("\n".join(header[:-1]), "dim").append("\n" + "\n".join(body), "not dim")


def _few_lines(chart: Lines) -> Lines:
    measured = tuple(series for series in chart.series if series.role == "measured")
    return replace(chart, series=measured[:ROWS] or chart.series[:ROWS])


def _few_dots(chart: Dots) -> Dots:
    """The first rows; their series go with them."""
    series = tuple(replace(one, values=one.values[:ROWS], low=(), high=()) for one in chart.series)
    return replace(chart, labels=chart.labels[:ROWS], series=series)


def few_rows(table: Table) -> Table:
    """Both ends of a table, with a row that says how many are between."""
    between = len(table.rows) - ROWS
    if between <= 1:
        return table
    said = (f"⋮ {between} between", *("" for _ in table.columns[1:]))
    return replace(table, rows=(*table.rows[:START], said, *table.rows[START - ROWS :]))


def few_columns(table: Table, room: int) -> Table:
    """As many columns as fit beside each other; those named in `optional` are the first to go.

    >>> few_columns(Table("", ("a", "b", "c"), (("xx", "11", "22"),), optional=("b",)), 6).columns
    ('a', 'c')
    """
    widths = [max(map(cell_len, column)) + GAP for column in zip(table.columns, *table.rows, strict=True)]
    order = [index for index, name in enumerate(table.columns) if name in table.optional]
    order += [index for index in reversed(range(1, len(widths))) if index not in order]
    keep = list(range(len(widths)))
    for index in order:
        if sum(widths[kept] for kept in keep) - GAP > room:
            keep.remove(index)
    return replace(
        table,
        columns=tuple(table.columns[index] for index in keep),
        rows=tuple(tuple(row[index] for index in keep) for row in table.rows),
        text_columns=sum(index < table.text_columns for index in keep),
        optional=(),
    )
