"""Text in columns where there is little room: words wrap, numbers never break, and what is left out is said."""

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from hessdiag.report.view import Table

GAP = 2
NARROWEST = 8  # of a column of names
MOST_ROWS = 40  # of a table; of longer ones, both ends
ENDS = 12
WITHIN = re.compile(r"(?<=[./_])(?=[^\W\d])")  # where a name or a path may be broken
_SPACES = re.compile(r"(\s+)")


def wrap(text: str, width: int, *, indent: int = 0) -> list[str]:
    """Lines of at most `width` cells, broken at spaces, else after a dot, slash or underscore, else where they end.

    >>> wrap("encoder.attention.output of 0.25", 20, indent=2)
    ['encoder.attention.', '  output of 0.25']
    """
    width = max(width, 1)
    lines, line, first = [], "", True
    for separator, piece in _pieces(text, width - indent):
        if not first and cell_len(line + separator + piece) > width and line.strip():
            lines.append(line)
            line, separator = " " * indent, ""
        line += separator + piece
        first = False
    return [*lines, line]


def _pieces(text: str, width: int) -> Iterator[tuple[str, str]]:
    """What is never broken, each with what parts it from the one before; what is wider than a line is cut to fit."""
    separator = ""
    for word in _SPACES.split(text):
        if not word.strip():
            separator = " " * len(word)
            continue
        for piece in [word] if cell_len(word) <= width else WITHIN.split(word):
            while cell_len(piece) > max(width, 1):
                cut = next(at for at in range(len(piece), 0, -1) if cell_len(piece[:at]) <= max(width, 1) or at == 1)
                yield separator, piece[:cut]
                piece, separator = piece[cut:], ""
            yield separator, piece
            separator = ""


def folded(count: int) -> tuple[int, int]:
    """How many rows are shown from the start and from the end; the second is 0 where all are."""
    return (count, 0) if count <= MOST_ROWS else (ENDS, ENDS)


def lines(table: Table, room: int) -> tuple[list[str], list[str]]:
    """Header and body of a table in at most `room` columns.

    Where the room is short, headings wrap, columns named in `optional` go, names wrap, and at last the columns are
    shown in several tables below each other.
    """
    start, end = folded(len(table.rows))
    rows = (*table.rows[:start], *table.rows[len(table.rows) - end :])
    keep, left_out = list(range(len(table.columns))), []
    full = [max(map(cell_len, (table.columns[i], *(row[i] for row in rows)))) for i in keep]
    widths = [
        max(map(cell_len, (*table.columns[i].split(), *(row[i] for row in rows))))
        if i >= table.text_columns
        else full[i]
        for i in keep
    ]
    if _total(full, keep) <= room:
        widths = full
    for name in table.optional:
        if _total(widths, keep) > room:
            keep = [index for index in keep if table.columns[index] != name]
            left_out.append(name)
    while _total(widths, keep) > room:
        widest = max((i for i in keep if i < table.text_columns), key=lambda i: widths[i], default=None)
        if widest is None or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for index in keep:  # headings in one line, as long as there is room
        if index >= table.text_columns and _total(widths, keep) - widths[index] + full[index] <= room:
            widths[index] = full[index]
    header: list[str] = []
    body: list[str] = []
    for panel in _panels(widths, keep, max(table.text_columns, 1), room):
        excess = max(_total(widths, panel) - room, 0)  # of one number beside its name
        shown = [max(width - excess * (i == panel[-1]), 1) for i, width in enumerate(widths)]
        head = list(_row([table.columns[i] for i in panel], panel, table, shown))
        rule = "─" * min(_total(shown, panel), room)
        if not header:
            header = [*head, rule]
        else:
            body += ["", *head, rule]
        for number, row in enumerate(rows):
            if end and number == start:
                body += wrap(f"⋮ {len(table.rows) - start - end} rows between: --json or -o report.html has them", room)
            body += _row([row[i] for i in panel], panel, table, shown)
    if left_out:
        body += wrap(f"(left out for room: {', '.join(left_out)})", room)
    return header, body


def _total(widths: Sequence[int], keep: Sequence[int]) -> int:
    return sum(widths[index] + GAP for index in keep) - GAP


def _panels(widths: Sequence[int], keep: Sequence[int], keys: int, room: int) -> list[list[int]]:
    """Columns side by side as long as they fit; each further group begins with the key columns again, if they fit."""
    if _total(widths, keep) <= room:
        return [list(keep)]
    front = [index for index in keep if index < keys]
    panels: list[list[int]] = []
    for index in (index for index in keep if index >= keys):
        if panels and _total(widths, [*panels[-1], index]) <= room:
            panels[-1].append(index)
        else:
            panels.append([*front, index] if _total(widths, [*front, index]) <= room else [*front[:1], index])
    return panels or [front]


def _row(cells: Sequence[str], panel: Sequence[int], table: Table, widths: Sequence[int]) -> Iterator[str]:
    """Lines of one row: every cell may go on over several."""
    wrapped = [wrap(cell, widths[index]) for cell, index in zip(cells, panel, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = []
        for index, cell in zip(panel, wrapped, strict=True):
            text = cell[number] if number < len(cell) else ""
            space = " " * (widths[index] - cell_len(text))
            parts.append(text + space if index < table.text_columns else space + text)
        yield (" " * GAP).join(parts).rstrip()
