"""Python's text of values and calls, in the form that formatters leave as it is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH = 88  # columns, which ruff and black keep to unless told otherwise
INDENT = "    "


class Code(NamedTuple):
    """Text that stands in a call as it is, and not in quotes."""

    text: str


def literal(value: Any) -> str:
    r"""A value as Python's formatters write it: in double quotes where that needs no more escapes.

    >>> literal("train.py:f"), literal('f(a="x")'), literal("\n"), literal((1, 2.0)), literal(float("inf"))
    ('"train.py:f"', '\'f(a="x")\'', '"\\n"', '(1, 2.0)', 'float("inf")')
    """
    if isinstance(value, Code):
        return value.text
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, tuple):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)


def _quoted(text: str) -> str:
    plain = repr(text)
    if plain[0] == '"' or text.count('"') > text.count("'"):
        return plain
    return '"' + plain[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'


def call(
    function: str, first: Sequence[Any], named: Mapping[str, Any], *, into: str = "", indent: str = "", end: str = ""
) -> str:
    """A statement that calls a function, over as many lines as it needs.

    Args:
        function: Its name.
        first: Positional arguments.
        named: Arguments by name.
        into: What stands before, such as `result = `.
        indent: What every line begins with.
        end: What stands behind.

    >>> print(call("eigs", [Code("problem")], {"lowest": 3}, into="result = "))
    result = eigs(problem, lowest=3)
    >>> print(call("f", ["a" * 40, "b" * 44], {}))
    f(
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    )
    """
    arguments = [*map(literal, first), *(f"{name}={literal(value)}" for name, value in named.items())]
    head, joined = f"{indent}{into}{function}(", ", ".join(arguments)
    whole = f"{head}{joined}){end}"
    if len(whole) <= WIDTH or not arguments:
        return whole
    deeper = indent + INDENT
    if len(deeper + joined) <= WIDTH:
        return f"{head}\n{deeper}{joined}\n{indent}){end}"
    return "\n".join([head, *(f"{deeper}{argument}," for argument in arguments), f"{indent}){end}"])
