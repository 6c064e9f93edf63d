"""Values and types in words, for the message about a damaged document."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import inspect

LONGEST_SHOWN = 40  # characters of a wrong value

_WORDS = {
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.DictType: "an object",
    inspect.DataclassType: "an object",
}

_LISTS = (inspect.ListType, inspect.VarTupleType)


def shown(value: Any) -> str:
    """A value in a few printable characters.

    >>> shown("abc"), shown([1, 2]), shown(None)
    ('"abc"', 'a list of 2', 'null')
    """
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = json.dumps(value[:LONGEST_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= LONGEST_SHOWN + 2 else f"{text[:LONGEST_SHOWN]}..."


def expected(kind: type, steps: Sequence[str | int | None]) -> str:
    """What can stand where a document holds something of a kind, after these steps into it.

    >>> from hessdiag.questions.diag_share.result import DiagShare
    >>> expected(DiagShare, ["layers", 3, "diag_share"]), expected(DiagShare, ["method"])
    ('a number or null', '"exact" or "rows"')
    """
    return " or ".join(dict.fromkeys(word for one in types_at(kind, steps) for word in _named(one)))


def types_at(kind: type, steps: Sequence[str | int | None]) -> list[inspect.Type]:
    """The types that something of a kind can have after these steps into it; none where they lead nowhere."""
    types = list(_alternatives(inspect.type_info(kind)))
    for step in steps:
        types = [found for one in types for inner in _inside(one, step) for found in _alternatives(inner)]
    return types


def _alternatives(one: inspect.Type) -> Iterator[inspect.Type]:
    yield from one.types if isinstance(one, inspect.UnionType) else (one,)


def _inside(one: inspect.Type, step: str | int | None) -> Iterator[inspect.Type]:
    if isinstance(one, inspect.DataclassType):
        yield from (field.type for field in one.fields if field.encode_name == step)
    elif isinstance(one, _LISTS) and not isinstance(step, str):
        yield one.item_type
    elif isinstance(one, inspect.TupleType) and isinstance(step, int):
        yield from one.item_types[step : step + 1]
    elif isinstance(one, inspect.Metadata):
        if step is None or step in (one.extra or {}).get("keys", ()):
            yield from _inside(one.type, step)
    elif isinstance(one, inspect.DictType):
        yield one.value_type


def _named(one: inspect.Type) -> Iterator[str]:
    if isinstance(one, inspect.LiteralType):
        yield from (json.dumps(value) for value in one.values)
    elif isinstance(one, inspect.Metadata):
        yield from _named(one.type)
    elif isinstance(one, inspect.TupleType):
        yield f"a list of {len(one.item_types)}"
    elif isinstance(one, inspect.IntType) and one.ge is not None:
        yield f"a whole number from {one.ge}"
    elif isinstance(one, _LISTS) and one.min_length:
        yield f"a list of at least {one.min_length}"
    else:
        yield _WORDS.get(type(one), "a number")  # the words for numbers that are not finite are an enumeration
