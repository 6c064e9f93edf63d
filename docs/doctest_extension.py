"""Griffe extension: doctests in docstrings become code blocks, wherever they stand."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^(?:>>> .*\n(?:.+\n?)*\n?)+", re.MULTILINE)


class Doctests(griffe.Extension):
    """Fences the doctests of every docstring that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(
                lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", obj.docstring.value
            )
