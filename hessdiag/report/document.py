"""The versioned result document: one JSON form for every command, in which NaN and infinities survive."""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hessdiag.errors import LoadError
from hessdiag.report.visible import is_hidden

SCHEMA = "hessdiag/1"
DEEPEST = 50  # levels of nesting; what commands write has eight

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape of one: text itself holds none
_BEYOND = re.compile(r"[^\x00-\x7e]")

Document = dict[str, Any]


def plain(value: Any) -> Any:
    """The same value in dicts, lists, strings and numbers; numpy's scalars and arrays become Python's.

    Dataclasses become dicts. By their fields' metadata, one has another "name" there, is left out where it is `None`
    ("optional"), or always ("apart").

    Raises:
        TypeError: for a value that JSON has no form for.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {key: plain(item) for key, item in _fields(value)}
    if hasattr(value, "tolist"):  # numpy scalars are also Python floats, so this comes first
        return plain(value.tolist())
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no place in a result document")


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    for own in dataclasses.fields(value):
        held = getattr(value, own.name)
        if not own.metadata.get("apart") and not (held is None and own.metadata.get("optional")):
            yield own.metadata.get("name", own.name), held


def dumps(doc: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Write strict JSON: NaN and infinities become the strings "NaN", "Infinity" and "-Infinity"."""
    text = json.dumps(_encode(plain(doc)), indent=indent, allow_nan=False, ensure_ascii=False)
    return escaped(text, is_hidden)  # a terminal obeys some characters that JSON allows as they are


def escaped(text: str, wanted: Callable[[str], bool] = lambda character: True) -> str:
    """JSON with the characters beyond ASCII that are `wanted` (and DEL) as their escapes: the same content."""
    return _BEYOND.sub(lambda match: _codes(match[0]) if wanted(match[0]) else match[0], text)


def _codes(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else r"\u007f"


def loads(text: str) -> Document:
    """Read what `dumps` wrote; words stand in it for NaN and infinities.

    Raises:
        LoadError: if the text is not JSON, or not a document of this schema.
    """
    try:
        doc = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise LoadError(f"this is not JSON ({why}).", "hessdiag diag-share MODEL --json > result.json") from None
    if not isinstance(doc, dict) or "schema" not in doc:
        raise LoadError(
            "this JSON is not a hessdiag result: it has no `schema`.", "save one with --json or -o FILE.json"
        )
    if doc["schema"] != SCHEMA:
        raise LoadError(
            f"the document has schema {json.dumps(doc['schema'])[:40]}; this version reads {json.dumps(SCHEMA)}.",
            "pip install -U hessdiag",
        )
    if _deeper(doc, DEEPEST):
        raise LoadError(f"the document is nested more than {DEEPEST} levels deep.")
    found: Document = _whole_characters(doc) if _SURROGATE.search(text) else doc
    return found


def _object(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)[:40]} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} without quotation marks; a document has the word "{name}"')


def _whole_characters(value: Any) -> Any:
    r"""The same with the escapes of halves of surrogate pairs, which are no characters, as text.

    >>> _whole_characters(["a\ud800"])
    ['a\\ud800']
    """
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _deeper(value: Any, levels: int) -> bool:
    """Whether a value of dicts and lists is nested more than so many levels deep."""
    level = [value]
    for _ in range(levels):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = list(itertools.chain.from_iterable(inner))
    return bool(level)


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
