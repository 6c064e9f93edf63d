"""A report for the terminal: rich text, readable at 80 columns, with no meaning carried by colour alone."""

import io
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from hessdiag.report import characters, columns
from hessdiag.report.columns import GAP, wrap
from hessdiag.report.numbers import MISSING, number
from hessdiag.report.view import Block, Curves, Dots, Finding, Lines, SelfCheck, Table, View

COLOURS = ("bright_blue", "yellow", "magenta", "green")
WORDS = {
    "ok": ("✓ good", "green"),
    "note": ("• note", "cyan"),
    "warn": ("▲ warning", "yellow"),
    "bad": ("✗ bad", "bold red"),
}
OUTCOMES = {"passed": ("✓ passed", "green"), "FAILED": ("✗ FAILED", "bold red")}
CODE = "In your code"
MARGIN = 2
WIDEST = 110
BESIDE = 26  # columns that a value wants beside its name
SHORTEST = 8  # of a bar or a sparkline
NARROW = 30  # columns of room that anything gets, however narrow the terminal
HEIGHT = 24  # nothing depends on it; told, since rich would believe any $LINES


def render(view: View, *, width: int = 100, color: bool = False) -> str:
    """Draw a view as text.

    Args:
        view: The report.
        width: Columns of the terminal.
        color: Whether to write ANSI escape codes. Without them the text is plain.
    """
    console = Console(
        file=io.StringIO(),
        width=max(width, NARROW + MARGIN),
        height=HEIGHT,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )
    room = max(min(width, WIDEST) - MARGIN, NARROW)
    for part in _parts(view, room):
        console.print(Padding(part, (0, 0, 0, MARGIN)))
    for index, line in enumerate((CODE, *view.code) if view.code else ()):  # copied from here: neither folded nor cut
        console.print(Text(" " * MARGIN).append(line, "" if index else "bold underline"), soft_wrap=True)
    output: Any = console.file
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _parts(view: View, room: int) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), _wrapped(view.question, room, "bold"), Text()]
    parts.append(_pairs(view.subject, room))
    parts.extend(_wrapped(f"! {warning}", room, "bold yellow", indent=2) for warning in view.warnings)
    parts.extend(_wrapped(f"• {note}", room, "dim", indent=2) for note in view.notes)
    value, sentence = view.headline
    parts += [Text(), _wrapped(f"{value}  {sentence}", room, "", bold=len(value)), Text()]
    if view.facts:
        parts += [
            _pairs(tuple((fact.name, f"{fact.value}  ({fact.meaning})") for fact in view.facts), room),
            Text(),
        ]
    for block in view.blocks:
        drawn = _block(block, room)
        if drawn is not None:
            parts += [_wrapped(block.title, room, "bold underline"), drawn, Text()]
    if view.verdict:
        parts.append(Text("Verdict", "bold underline"))
        for finding in view.verdict:
            parts += [*_finding(finding, room), Text()]
    if view.checks:
        parts += [Text("Self-checks", "bold underline"), *(_check(check, room) for check in view.checks), Text()]
    return parts


def _check(check: SelfCheck, room: int) -> Text:
    word, style = OUTCOMES.get(check.outcome, (check.outcome, ""))
    said = f"{word}: {check.name}, {check.value}" if check.value != MISSING else f"{word}: {check.name}"
    said += f" of {check.allowed} allowed" if check.allowed != MISSING and check.value != MISSING else ""
    text = _wrapped(said + f" ({check.meaning})" * bool(check.meaning), room, "", indent=2)
    text.stylize(style, 0, len(word) + 1)
    return text


def _wrapped(text: str, room: int, style: str, *, indent: int = 0, bold: int = 0) -> Text:
    """Text broken at words, with hanging lines indented; the first `bold` characters stand out."""
    wrapped = Text("\n".join(wrap(text, room, indent=indent)), style)
    wrapped.stylize("bold bright_white", 0, bold)
    return wrapped


def _pairs(pairs: tuple[tuple[str, str], ...], room: int) -> Text:
    """Names beside their values, or above them where there is no room for both."""
    beside = max((cell_len(name) for name, _ in pairs), default=0) + GAP
    beside = beside if room - beside >= BESIDE else 0
    text = Text()
    for name, value in pairs:
        first, *others = wrap(value, room - (beside or GAP))
        text.append("\n" if text else "")
        text.append(
            name + " " * (beside - cell_len(name) if beside else 0) + ("" if beside else f"\n{' ' * GAP}"), "dim"
        )
        text.append("\n".join([first, *(" " * (beside or GAP) + line for line in others)]))
    return text


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
    if isinstance(block, Curves) and block.text == "spark":
        return _races(block, room)
    return None


def _table(table: Table, room: int) -> Text:
    header, body = columns.lines(table, room)
    return Text("\n".join(header), "dim").append("\n" + "\n".join(body), "not dim")


def _bars(chart: Dots, room: int) -> Text:
    text = Text()
    rows = list(characters.bars(chart, room))
    beside = len(rows[0][0]) + 2 * GAP + len(rows[0][1]) + len(rows[0][2]) <= room
    for label, bar, value, measured in rows:
        style = COLOURS[0] if measured else "dim"
        if beside:
            text.append(label, "bold" if measured else "").append("  ").append(bar, style)
            text.append("  ").append(value + "\n", "bold" if measured else "")
        else:  # a bar needs more room than there is: numbers alone
            space = " " * max(room - len(label.rstrip()) - len(value.lstrip()), 1)
            text.append(label.rstrip() + space + value.lstrip() + "\n", "bold" if measured else "")
    said = f"({chart.axis}; logarithmic, {characters.axis_range(chart)})" if beside else f"({chart.axis})"
    return text.append_text(_wrapped(said, room, "dim"))


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
    margin, count = len(rows[0][0]) + 1, len(rows[0][1])
    text.append(" " * margin + "└" + "─" * count + "\n", "dim")
    text.append(" " * (margin + 1) + characters.x_labels(chart, count) + "\n", "dim")
    return _legend(text, chart, " " * (margin + 1), room)


def _legend(text: Text, chart: Lines, margin: str, room: int) -> Text:
    """Marks and names, as many on a line as fit."""
    used = room
    for series in (series for series in chart.series if series.role == "measured"):
        length = len(margin) + len(series.name) + GAP
        if used + length - len(margin) > room:
            text.append(("" if used == room else "\n") + margin)
            used = len(margin)
        text.append(characters.MARKS[series.group], COLOURS[series.group]).append(f" {series.name}   ")
        used += length - len(margin) + 3
    said = f"({chart.y_axis}, logarithmic)"
    text.append("" if used + len(said) <= room else f"\n{margin}")
    return text.append(said, "dim")


def _sparklines(chart: Lines, room: int) -> Text:
    name_width = max(len(series.name) for series in chart.series)
    text = Text()
    for series in chart.series:
        values = characters.value_range(series)
        left = room - name_width - len(values) - 2 * GAP
        spark = characters.sparkline(series.values, min(64, max(left, SHORTEST)))
        text.append(f"{series.name:<{name_width}}  ").append(spark, COLOURS[series.group])
        text.append(("  " if left >= SHORTEST else f"\n{' ' * GAP}") + values + "\n")
    ends = f"{chart.x_axis}: {int(chart.x[0])} to {int(chart.x[-1])}"
    return text.append_text(_wrapped(f"({ends}; logarithmic, each line on its own scale)", room, "dim"))


def _races(chart: Curves, room: int) -> Text:
    names = {curve.name for panel in chart.panels[:1] for curve in panel.curves if curve.main}
    beside = max(map(len, names), default=0)
    drawn = characters.races(chart, max(room - beside - GAP, SHORTEST))
    text = Text()
    for curve, spark in drawn:
        text.append(f"{curve.name:<{beside}}  ").append(spark.rstrip(), COLOURS[curve.group % len(COLOURS)]).append(
            "\n"
        )
    if not drawn:
        return text.append("nothing to draw", "dim")
    last = max(x for panel in chart.panels[:1] for curve in panel.curves for x in curve.x if x is not None)
    across = f"{chart.x_axis}: 0 to {number(last)}, logarithmic"
    said = f"({chart.panels[0].y_axis}, one logarithmic scale for all; across, {across})"
    return text.append_text(_wrapped(said, room, "dim"))
