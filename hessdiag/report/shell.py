"""Command lines as they are pasted into a shell."""

import shlex
from collections.abc import Sequence

from hessdiag.report.visible import is_hidden, visible


def line(argv: Sequence[str]) -> str:
    """The command to paste into a shell; what is not seen stands there by its code, as bash and zsh read it."""
    return " ".join(_quoted(word) for word in argv)


def _quoted(word: str) -> str:
    shown_word = visible(word)
    if shown_word == word:
        return shlex.quote(word)
    escaped = "".join(visible(sign) if is_hidden(sign) else {"\\": r"\\", "'": r"\'"}.get(sign, sign) for sign in word)
    return f"$'{escaped}'"
