"""A report for the terminal: rich text, readable at 80 columns, with no meaning carried by colour alone."""

import io
import textwrap
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from hessdiag.report import characters
from hessdiag.report.view import Block, Dots, Finding, Lines, Table, View

COLOURS = ("bright_blue", "yellow", "magenta", "green")
WORDS = {
    "ok": ("✓ good", "green"),
    "note": ("• note", "cyan"),
    "warn": ("▲ warning", "yellow"),
    "bad": ("✗ bad", "bold red"),
}
MARGIN = 2
WIDEST = 110
GAP = 2
NARROWEST = 8


def render(view: View, *, width: int = 100, color: bool = False) -> str:
    """Draw a view as text.

    Args:
        view: The report.
        width: Columns of the terminal.
        color: Whether to write ANSI escape codes. Without them the text is plain.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    room = min(width, WIDEST) - MARGIN
    for part in _parts(view, room):
        console.print(Padding(part, (0, 0, 0, MARGIN)))
    output: Any = console.file
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _parts(view: View, room: int) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), Text(view.question, "bold"), Text()]
    parts.append(_pairs(view.subject))
    parts.extend(_wrapped(f"! {warning}", room, "bold yellow", indent=2) for warning in view.warnings)
    parts.extend(_wrapped(f"• {note}", room, "dim", indent=2) for note in view.notes)
    value, sentence = view.headline
    parts += [Text(), _wrapped(f"{value}  {sentence}", room, "", bold=len(value)), Text()]
    if view.facts:
        parts += [
            _pairs(tuple((fact.name, f"{fact.value}  ({fact.meaning})") for fact in view.facts)),
            Text(),
        ]
    for block in view.blocks:
        drawn = _block(block, room)
        if drawn is not None:
            parts += [Text(block.title, "bold underline"), drawn, Text()]
    if view.verdict:
        parts.append(Text("Verdict", "bold underline"))
        for finding in view.verdict:
            parts += [*_finding(finding, room), Text()]
    return parts


def _wrapped(text: str, room: int, style: str, *, indent: int = 0, bold: int = 0) -> Text:
    """Text broken at words, with hanging lines indented; the first `bold` characters stand out."""
    wrapped = Text("\n".join(textwrap.wrap(text, room, subsequent_indent=" " * indent, break_on_hyphens=False)), style)
    wrapped.stylize("bold bright_white", 0, bold)
    return wrapped


def _pairs(pairs: tuple[tuple[str, str], ...]) -> RichTable:
    grid = RichTable.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name), Text(value))
    return grid


def _finding(finding: Finding, room: int) -> list[RenderableType]:
    word, style = WORDS[finding.level]
    lines: list[RenderableType] = []
    text = _wrapped(f"{word}: {finding.says}", room, "", indent=2)
    text.stylize(style, 0, len(word) + 1)
    lines.append(text)
    for name, said in (("because", finding.because), ("try", finding.remedy)):
        if said:
            line = _wrapped(f"  {name:<8} {said}", room, "", indent=11)
            line.stylize("dim", 0, 10)
            lines.append(line)
    return lines


def _block(block: Block, room: int) -> RenderableType | None:
    if isinstance(block, Table):
        return _table(block, room)
    if block.text == "table":
        return _table(block.table, room)
    if isinstance(block, Dots) and block.text == "chart":
        return _bars(block, room)
    if isinstance(block, Lines) and block.text == "chart":
        return _line_plot(block, room)
    if isinstance(block, Lines) and block.text == "spark":
        return _sparklines(block, room)
    return None


def _table(table: Table, room: int) -> Text:
    """A table whose numbers are never cut: optional columns go first, then long names break over lines."""
    keep = list(range(len(table.columns)))
    widths = [max(len(row[index]) for row in (table.columns, *table.rows)) for index in keep]
    for name in table.optional:
        if sum(widths[index] + GAP for index in keep) - GAP > room:
            keep = [index for index in keep if table.columns[index] != name]
    excess = sum(widths[index] + GAP for index in keep) - GAP - room
    if excess > 0 and table.text_columns:
        widths[0] = max(widths[0] - excess, NARROWEST)
    rule = "─" * (sum(widths[index] + GAP for index in keep) - GAP)
    text = Text("\n".join(_row(table.columns, table, widths, keep)), "dim")
    text.append(f"\n{rule}", "dim")
    for row in table.rows:
        text.append("\n" + "\n".join(_row(row, table, widths, keep)), "not dim")
    return text


def _row(cells: tuple[str, ...], table: Table, widths: list[int], keep: list[int]) -> Iterator[str]:
    """Lines of one row: the first column may go on over several."""
    first = textwrap.wrap(cells[0], widths[0], break_on_hyphens=False) or [""]
    for number, name in enumerate(first):
        line = (name, *cells[1:]) if number == 0 else (name, *("" for _ in cells[1:]))
        yield (" " * GAP).join(
            line[index].ljust(widths[index]) if index < table.text_columns else line[index].rjust(widths[index])
            for index in keep
        )


def _bars(chart: Dots, room: int) -> Text:
    text = Text()
    for label, bar, value, measured in characters.bars(chart, room):
        style = COLOURS[0] if measured else "dim"
        text.append(label, "bold" if measured else "")
        text.append("  ").append(bar, style).append("  ").append(value + "\n", "bold" if measured else "")
    return text.append(f"({chart.axis}; logarithmic, {characters.axis_range(chart)})", "dim")


def _line_plot(chart: Lines, room: int) -> Text:
    rows = characters.line_plot(chart, room)
    text = Text()
    for label, cells in rows:
        text.append(f"{label} ", "dim").append("┤" if label.strip() else "│", "dim")
        for character, group in cells:
            text.append(character, "" if group < 0 else COLOURS[group])
        text.append("\n")
    if not rows:
        return text.append("fewer than two positive numbers: nothing to draw", "dim")
    margin, columns = len(rows[0][0]) + 1, len(rows[0][1])
    text.append(" " * margin + "└" + "─" * columns + "\n", "dim")
    text.append(" " * (margin + 1) + characters.x_labels(chart, columns) + "\n", "dim")
    return _legend(text.append(" " * (margin + 1)), chart)


def _legend(text: Text, chart: Lines) -> Text:
    for series in chart.series:
        if series.role == "measured":
            text.append(characters.MARKS[series.group], COLOURS[series.group]).append(f" {series.name}   ")
    return text.append(f"({chart.y_axis}, logarithmic)", "dim")


def _sparklines(chart: Lines, room: int) -> Text:
    name_width = max(len(series.name) for series in chart.series)
    text = Text()
    for series in chart.series:
        values = characters.value_range(series)
        spark = characters.sparkline(series.values, min(64, room - name_width - len(values) - 4))
        text.append(f"{series.name:<{name_width}}  ").append(spark, COLOURS[series.group]).append(f"  {values}\n")
    ends = f"{chart.x_axis}: {int(chart.x[0])} to {int(chart.x[-1])}"
    return text.append(f"({ends}; logarithmic, each line on its own scale)", "dim")
