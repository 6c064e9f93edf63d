"""A report of several answers for the terminal, in two screens: verdict, findings, key numbers, a sentence each."""

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from hessdiag.report import columns, shell
from hessdiag.report.columns import GAP, wrap
from hessdiag.report.numbers import counted
from hessdiag.report.pieces import (
    BESIDE,
    WORDS,
    finding_line,
    finding_lines,
    reasons,
    remarks,
    running,
    verbatim,
    wrapped,
)
from hessdiag.report.view import Fact, Finding, LeftOut, Section, Table, View
from hessdiag.report.woven import by_turns, first

SEVERE = ("bad", "warn")
MOST_SEVERE = 6  # findings with their numbers and cures
MOST_OTHERS = 5  # findings in a line
ALL = "All of it, with figures, tables, how to read them and the command for each answer: -o report.html"


def parts(view: View, room: int) -> list[RenderableType]:
    """What to print, a paragraph each."""
    paragraphs: list[list[RenderableType]] = [
        [wrapped(view.question, room, "bold"), running(view.subject, room), *remarks(view, room)],
        _verdict(view, room),
        _findings(first(view)[1], view.headline[1], room),
        _key_numbers(view.facts, room),
        _answers(view.sections, room),
        _left_out(view.left_out, room),
        [wrapped(ALL, room, "dim")],
    ]
    return [part for paragraph in paragraphs if paragraph for part in (Text(), *paragraph)]


def _verdict(view: View, room: int) -> list[RenderableType]:
    """The headline, which is a finding where something is wrong."""
    finding, _ = first(view)
    word, style = WORDS["ok" if finding is None else finding.level]
    sign = word.partition(" ")[0]
    said = wrapped(f"{sign} {view.headline[0]}", room, "bold", indent=2)
    said.stylize(style, 0, len(sign))
    return [said, *([] if finding is None else reasons(finding, room))]


def _findings(findings: tuple[Finding, ...], counts: str, room: int) -> list[RenderableType]:
    """The severe ones with numbers and cures, some of the others in a sentence, and how many more there are."""
    if not findings:
        return []
    severe = [finding for finding in findings if finding.level in SEVERE][:MOST_SEVERE]
    others = by_turns([finding for finding in findings if not any(finding is one for one in severe)])
    lines: list[RenderableType] = [_title("Findings", counts)]
    for finding in severe:
        lines += finding_lines(finding, room)
    lines += [finding_line(finding, room) for finding in others[:MOST_OTHERS]]
    more = len(others) - MOST_OTHERS
    return [*lines, *([wrapped(f"  and {counted(more, 'finding')} more", room, "dim")] if more > 0 else [])]


def _title(text: str, beside: str = "") -> Text:
    return Text(text, "bold underline").append(f"  {beside}" if beside else "", "not bold not underline dim")


def _key_numbers(facts: tuple[Fact, ...], room: int) -> list[RenderableType]:
    if not facts:
        return []
    rows = tuple((fact.name, fact.section, fact.value) for fact in facts)
    _, body = columns.lines(Table("", ("", "", ""), rows, text_columns=2), room)
    return [_title("Key numbers"), Text("\n".join(body))]


def _answers(sections: tuple[Section, ...], room: int) -> list[RenderableType]:
    """A sentence for each question, beside its name or below it, and what to know before it is believed."""
    beside = max(cell_len(section.key) for section in sections) + GAP
    beside = beside if room - beside >= BESIDE else 0
    lines: list[RenderableType] = [_title("Answers")]
    for section in sections:
        value, sentence = section.view.headline
        said = wrap(f"{value} {sentence} ({section.took})", room - (beside or GAP))
        line = Text(section.key + " " * (beside - cell_len(section.key)), "dim").append(
            "" if beside else "\n" + " " * GAP
        )
        start = len(line)
        line.append(("\n" + " " * (beside or GAP)).join(said), "not dim")
        line.stylize("bold", start, start + min(len(value), len(said[0])))
        lines.append(line)
        lines += [wrapped(f"! {warning}", room, "bold yellow", indent=2) for warning in section.view.warnings]
    return lines


def _left_out(left_out: tuple[LeftOut, ...], room: int) -> list[RenderableType]:
    """What was not answered: why, what it would take, and what to type for it."""
    if not left_out:
        return []
    lines: list[RenderableType] = [_title("Left out")]
    for one in left_out:
        cost = f" ({one.cost})" if one.cost and one.cost not in one.why else ""
        line = wrapped(f"{one.name}: {one.why}{cost}", room, "", indent=2)
        line.stylize("bold", 0, len(one.name))
        lines.append(line)
        if one.argv:
            lines.append(verbatim(f"    {shell.line(one.argv)}", "dim"))
    return lines
