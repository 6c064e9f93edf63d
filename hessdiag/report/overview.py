"""A report of several answers for the terminal: the verdict, and a few lines of each answer."""

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from hessdiag.report import brief, shell
from hessdiag.report.columns import GAP
from hessdiag.report.numbers import counted
from hessdiag.report.pieces import (
    WORDS,
    finding_line,
    finding_lines,
    head,
    pairs,
    reasons,
    table_lines,
    verbatim,
    wrapped,
)
from hessdiag.report.view import Fact, Finding, LeftOut, Section, Table, View
from hessdiag.report.woven import first

SEVERE = ("bad", "warn")
MOST_SEVERE = 6  # findings with their numbers and cures
MOST_OTHERS = 6  # findings in a line
ALL = "All of it, with figures, tables, how to read them and the command for each answer: -o report.html"


def parts(view: View, room: int) -> list[RenderableType]:
    """What to print, a paragraph each."""
    return [
        *head(view, room),
        Text(),
        *_verdict(view, room),
        *_findings(first(view)[1], room),
        *_key_numbers(view.facts, room),
        *(line for section in view.sections for line in _section(section, room)),
        *_left_out(view.left_out, room),
        wrapped(ALL, room, "dim"),
    ]


def _verdict(view: View, room: int) -> list[RenderableType]:
    """The headline, which is a finding where something is wrong, and how many findings there are."""
    finding, _ = first(view)
    word, style = WORDS["ok" if finding is None else finding.level]
    sign = word.partition(" ")[0]
    sentence, counts = view.headline
    said = wrapped(f"{sign} {sentence}", room, "bold", indent=2)
    said.stylize(style, 0, len(sign))
    why = [] if finding is None else reasons(finding, room)
    return [said, *why, wrapped(f"  findings {counts}", room, "dim", indent=11) if counts else Text(), Text()]


def _findings(findings: tuple[Finding, ...], room: int) -> list[RenderableType]:
    """The severe ones with numbers and cures, some of the others in a sentence, and how many more there are."""
    if not findings:
        return []
    severe = [finding for finding in findings if finding.level in SEVERE][:MOST_SEVERE]
    others = [finding for finding in findings if not any(finding is one for one in severe)]
    lines: list[RenderableType] = [Text("Findings", "bold underline")]
    for finding in severe:
        lines += finding_lines(finding, room)
    lines += [finding_line(finding, room) for finding in others[:MOST_OTHERS]]
    more = len(others) - MOST_OTHERS
    return [*lines, *([wrapped(f"  and {counted(more, 'finding')} more", room, "dim")] if more > 0 else []), Text()]


def _key_numbers(facts: tuple[Fact, ...], room: int) -> list[RenderableType]:
    if not facts:
        return []
    rows = tuple((fact.name, fact.section, fact.value) for fact in facts)
    title = Text("Key numbers", "bold underline")
    return [title, table_lines(Table("", ("what", "from", "value"), rows, text_columns=2), room), Text()]


def _section(section: Section, room: int) -> list[RenderableType]:
    """The answer in a sentence, and one chart or table."""
    view = section.view
    value, sentence = view.headline
    lines = _rule(section.key, view.question, section.took, room)
    lines += [wrapped(f"! {warning}", room, "bold yellow", indent=2) for warning in view.warnings]
    lines.append(wrapped(f"{value}  {sentence}", room, "", bold=len(value)))
    drawn = brief.telling(view, room - GAP)
    return [*lines, *([drawn] if drawn is not None else []), Text()]


def _rule(key: str, question: str, took: str, room: int) -> list[RenderableType]:
    """The name of a section, its question and its time, on one line where that is wide enough."""
    said = f"{key}  {question} "
    left = room - cell_len(said) - cell_len(took) - 1
    if left < 2:
        return [wrapped(f"{said.rstrip()} ({took})", room, "bold", indent=2)]
    line = Text(said, "bold").append("─" * left, "not bold dim").append(f" {took}", "not bold dim")
    return [line]


def _left_out(left_out: tuple[LeftOut, ...], room: int) -> list[RenderableType]:
    """What was not answered: why, what it would take, and what to type for it."""
    if not left_out:
        return []
    lines: list[RenderableType] = [Text("Left out", "bold underline")]
    wide = max(cell_len(one.name) for one in left_out)
    for one in left_out:
        cost = f" ({one.cost})" if one.cost else ""
        lines.append(pairs([(one.name + " " * (wide - cell_len(one.name)), f"{one.why}{cost}")], room))
        if one.argv:
            lines.append(verbatim(f"    {shell.line(one.argv)}"))
    return [*lines, Text()]
