"""Names are data: characters that command a terminal, hide or reorder text are shown by their codes."""

import re
import unicodedata
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import TypeVar

from hessdiag.report.names import Name

T = TypeVar("T")

# Controls; invisible and direction marks; surrogates; separators of lines and paragraphs; what has no glyph.
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")
# Letters by their category that show nothing, or nothing but what stands before them.
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe0e\ufe0f"
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_PLAIN = re.compile(r"[ -~]*")


def visible(text: str) -> str:
    r"""The text with a code in the place of every character that is not seen, or that a terminal obeys.

    >>> visible("layer\x1b[31m\n\u202e")
    'layer\\x1b[31m\\n\\u202e'
    """
    return text if _PLAIN.fullmatch(text) else "".join(map(_shown, text))


def is_hidden(character: str) -> bool:
    """Whether a character is one of those."""
    return character in BLANK or unicodedata.category(character) in HIDDEN


@cache
def _shown(character: str) -> str:
    if not is_hidden(character):
        return character
    code = ord(character)
    return _SHORT.get(character) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def shown(value: T) -> T:
    """A report, or any part of one, with every text in it made visible but for command lines.

    Those `shell.line` writes, for shells have a way of their own.
    """
    made: object = value
    if isinstance(value, Name):
        made = Name(visible(value), visible(value.full))
    elif isinstance(value, str):
        made = visible(value)
    elif isinstance(value, tuple):
        made = tuple(map(shown, value))
    elif is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value) if field.name != "argv"}
        made = replace(value, **{name: shown(item) for name, item in held.items()})
    return made  # type: ignore[return-value]
