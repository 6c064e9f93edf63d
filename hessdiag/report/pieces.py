"""Pieces of a report for the terminal, as rich text of at most so many columns: facts, findings, charts, tables."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import RenderableType
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
BESIDE = 26  # columns that a value wants beside its name
SHORTEST = 8  # of a bar or a sparkline


def head(view: View, room: int) -> list[RenderableType]:
    """The question, what was measured, and what to know before the answer."""
    return [Text(), wrapped(view.question, room, "bold"), Text(), pairs(view.subject, room), *remarks(view, room)]


def remarks(view: View, room: int) -> list[RenderableType]:
    """Warnings, and what the loader remarked."""
    warnings = [wrapped(f"! {warning}", room, "bold yellow", indent=2) for warning in view.warnings]
    return [*warnings, *(wrapped(f"• {note}", room, "dim", indent=2) for note in view.notes)]


def running(rows: Sequence[tuple[str, str]], room: int) -> Text:
    """Names and their values one after another, as many on a line as fit."""
    text, used = Text(), room
    for name, value in rows:
        said = wrap(f"{name} {value}", room, indent=GAP)
        beside = used + 3 + cell_len(said[0]) <= room and len(said) == 1
        text.append(" · " if beside else "\n" if text else "", "dim")
        text.append(said[0][: len(name)], "dim").append("\n".join((said[0][len(name) :], *said[1:])))
        used = used + 3 + cell_len(said[0]) if beside else cell_len(said[-1])
    return text


def check_line(check: SelfCheck, room: int) -> Text:
    """A self-check, its outcome first."""
    word, style = OUTCOMES.get(check.outcome, (check.outcome, ""))
    said = f"{word}: {check.name}, {check.value}" if check.value != MISSING else f"{word}: {check.name}"
    said += f" of {check.allowed} allowed" if check.allowed != MISSING and check.value != MISSING else ""
    text = wrapped(said + f" ({check.meaning})" * bool(check.meaning), room, "", indent=2)
    text.stylize(style, 0, len(word) + 1)
    return text


def wrapped(text: str, room: int, style: str, *, indent: int = 0, bold: int = 0) -> Text:
    """Text broken at words, with hanging lines indented; the first `bold` characters stand out."""
    made = Text("\n".join(wrap(text, room, indent=indent)), style)
    made.stylize("bold", 0, bold)
    return made


def verbatim(line: str, style: str = "") -> Text:
    """A line to copy, which is neither folded nor cut."""
    return Text(line, style, no_wrap=True)


def pairs(rows: Sequence[tuple[str, str]], room: int) -> Text:
    """Names beside their values, or above them where there is no room for both."""
    beside = max((cell_len(name) for name, _ in rows), default=0) + GAP
    beside = beside if room - beside >= BESIDE else 0
    text = Text()
    for name, value in rows:
        first, *others = wrap(value, room - (beside or GAP))
        text.append("\n" if text else "")
        text.append(
            name + " " * (beside - cell_len(name) if beside else 0) + ("" if beside else f"\n{' ' * GAP}"), "dim"
        )
        text.append("\n".join([first, *(" " * (beside or GAP) + line for line in others)]))
    return text


def finding_lines(finding: Finding, room: int) -> list[RenderableType]:
    """A finding with its number and its cure."""
    return [finding_line(finding, room), *reasons(finding, room)]


def finding_line(finding: Finding, room: int) -> Text:
    """A finding in a sentence, with the section that it is from where a report has several."""
    word, style = WORDS[finding.level]
    origin = f" → {finding.sections[0]}" if len(finding.sections) == 1 else ""
    text = wrapped(f"{word}: {finding.says}{origin}", room, "", indent=2)
    text.stylize(style, 0, len(word) + 1)
    text.stylize("dim", len(text) - len(origin.strip()))
    return text


def reasons(finding: Finding, room: int) -> list[RenderableType]:
    """The number behind a finding, and its cure."""
    lines: list[RenderableType] = []
    for name, said in (("because", finding.because), ("try", finding.remedy)):
        if said:
            line = wrapped(f"  {name:<8} {said}", room, "", indent=11)
            line.stylize("dim", 0, 10)
            lines.append(line)
    return lines


def block_lines(block: Block, room: int) -> RenderableType | None:
    """A table, or what characters can show of a chart; `None` where that is nothing."""
    if isinstance(block, Table):
        return table_lines(block, room)
    if block.text == "table":
        return table_lines(block.table, room)
    if isinstance(block, Dots) and block.text == "chart":
        return bars(block, room)
    if isinstance(block, Lines) and block.text == "chart":
        return _line_plot(block, room)
    if isinstance(block, Lines) and block.text == "spark":
        return sparklines(block, room)
    if isinstance(block, Curves) and block.text == "spark":
        return races(block, room)
    return None


def table_lines(table: Table, room: int) -> Text:
    """A table in columns."""
    header, body = columns.lines(table, room)
    return Text("\n".join(header), "dim").append("\n" + "\n".join(body), "not dim")


def bars(chart: Dots, room: int) -> Text:
    """A bar per label, or its number alone where there is no room."""
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
    return text.append_text(wrapped(said, room, "dim"))


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


def sparklines(chart: Lines, room: int) -> Text:
    """A line of characters per series, each on its own scale."""
    name_width = max(len(series.name) for series in chart.series)
    text = Text()
    for series in chart.series:
        values = characters.value_range(series)
        left = room - name_width - len(values) - 2 * GAP
        spark = characters.sparkline(series.values, min(64, max(left, SHORTEST)))
        text.append(f"{series.name:<{name_width}}  ").append(spark, COLOURS[series.group])
        text.append(("  " if left >= SHORTEST else f"\n{' ' * GAP}") + values + "\n")
    ends = f"{chart.x_axis}: {characters.position(chart.x[0])} to {characters.position(chart.x[-1])}"
    return text.append_text(wrapped(f"({ends}; logarithmic, each line on its own scale)", room, "dim"))


def races(chart: Curves, room: int) -> Text:
    """A line of characters per curve of the first panel, all on one scale."""
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
    return text.append_text(wrapped(said, room, "dim"))
