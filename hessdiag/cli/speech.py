"""What is said on stderr: one place, where names from data are made visible and kept to a readable length."""

import re
import shutil
import sys

from hessdiag.report.visible import visible

LONGEST = 300  # characters without a space: beyond, the middle is left out
KEPT = 100  # at either end
UNKNOWN, NARROWEST, WIDEST = 100, 40, 240  # columns


def say(*lines: str) -> None:
    """Write lines to stderr; what breaks a line within them, or commands a terminal, is shown by its code."""
    sys.stderr.write("".join(f"{line}\n" for line in map(visible, lines)))
    sys.stderr.flush()


def error(what: str, hint: str | None = None) -> None:
    """Say what went wrong and, where it is known, what would work."""
    say(f"error: {_readable(what)}", *([f"  try: {_readable(hint)}"] if hint else []))


def columns() -> int:
    """How wide a terminal is, within reason: $COLUMNS may say anything."""
    return min(max(shutil.get_terminal_size((UNKNOWN, 24)).columns, NARROWEST), WIDEST)


def _readable(text: str) -> str:
    return re.sub(rf"\S{{{LONGEST},}}", lambda match: f"{match[0][:KEPT]}…{match[0][-KEPT:]}", text)
