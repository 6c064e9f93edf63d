"""A report for the terminal: rich text, readable at 80 columns, with no meaning carried by colour alone."""

import io
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from hessdiag.report import overview
from hessdiag.report.pieces import block_lines, check_line, finding_lines, head, pairs, verbatim, wrapped
from hessdiag.report.view import View

CODE = "In your code"
MARGIN = 2
WIDEST = 110
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
    for part in overview.parts(view, room) if view.sections else _parts(view, room):
        if isinstance(part, Text) and part.no_wrap:
            console.print(Text(" " * MARGIN).append_text(part), soft_wrap=True)
        else:
            console.print(Padding(part, (0, 0, 0, MARGIN)))
    output: Any = console.file
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _parts(view: View, room: int) -> list[RenderableType]:
    parts = head(view, room)
    value, sentence = view.headline
    parts += [Text(), wrapped(f"{value}  {sentence}", room, "", bold=len(value)), Text()]
    if view.facts:
        facts = [(fact.name, f"{fact.value}  ({fact.meaning})") for fact in view.facts]
        parts += [pairs(facts, room), Text()]
    for block in view.blocks:
        drawn = block_lines(block, room)
        if drawn is not None:
            parts += [wrapped(block.title, room, "bold underline"), drawn, Text()]
    if view.verdict:
        parts.append(Text("Verdict", "bold underline"))
        for finding in view.verdict:
            parts += [*finding_lines(finding, room), Text()]
    if view.checks:
        parts += [Text("Self-checks", "bold underline"), *(check_line(check, room) for check in view.checks), Text()]
    if view.code:
        parts += [Text(CODE, "bold underline"), *map(verbatim, view.code)]
    return parts
