"""A document held against the description of its command, once, where it is read."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from hessdiag.errors import LoadError
from hessdiag.questions import registry
from hessdiag.questions.expected import expected, shown
from hessdiag.report.schema.parts import Document, NonFinite

_NON_FINITE = {word.value for word in NonFinite}
_SAID = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_OF_TYPE = ("Expected", "Invalid enum value", "Number out of range", "Integer value out of range")


def description(command: str) -> type[Document]:
    """The class that describes the documents of a command."""
    found: type[Document] = registry.question(command).module("schema").Document
    return found


def checked(doc: Mapping[str, Any]) -> dict[str, Any]:
    """The document, if it is as its command's description says.

    In its result, words for numbers that are not finite become those numbers.

    Raises:
        LoadError: naming the path at which it differs, what was expected there and what was found.
    """
    command = doc.get("command")
    if command not in registry.NAMES:
        raise LoadError(f"`command`: {shown(command)} found, of which no report is known.", "pip install -U hessdiag")
    kind = description(command)
    try:
        read = msgspec.convert(doc, kind)
    except msgspec.ValidationError as error:
        raise LoadError(f"the document is damaged: {_explained(str(error), doc, kind)}.") from None
    return {
        **doc,
        "result": _completed(doc["result"], read.result),  # type: ignore[attr-defined]
        "theory": _decoded(doc["theory"]),
        "checks": _decoded(doc["checks"]),
    }


def _completed(raw: Any, read: Any) -> Any:
    """What was read, as plain values; keys that its description does not know are kept."""
    if isinstance(read, NonFinite):
        return float(read.value)
    if dataclasses.is_dataclass(read):
        known = {field.name: getattr(read, field.name) for field in dataclasses.fields(read)}
        return {key: _completed(item, known[key]) if key in known else _decoded(item) for key, item in raw.items()}
    if isinstance(read, (list, tuple)):
        return [_completed(one, other) for one, other in zip(raw, read, strict=True)]
    return raw


def _decoded(value: Any) -> Any:
    """The same with numbers for the words that stand for them, where no description tells them from text."""
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return float(value) if isinstance(value, str) and value in _NON_FINITE else value


def _explained(said: str, doc: Mapping[str, Any], kind: type[Document]) -> str:
    """A message of msgspec in words, with the path, what was expected there and what was found."""
    match = _SAID.fullmatch(said)
    what, path = (match["what"], match["path"] or "") if match else (said, "")
    missing = _MISSING.fullmatch(what)
    if missing:
        return f"`{f'{path}.' if path else ''}{missing['key']}` is missing"
    if not what.startswith(_OF_TYPE):
        return f"`{path}`: {what}"
    steps: list[str | int | None] = [
        key or (None if index == "..." else int(index)) for key, index in _STEP.findall(path)
    ]
    found: Any = doc
    for step in steps:
        if step is None:  # one of the values of an object with arbitrary keys: which one is not told
            return f"`{path}`: {expected(kind, steps)} was expected"
        found = found[step]
    return f"`{path}`: {expected(kind, steps)} was expected, {shown(found)} found"
