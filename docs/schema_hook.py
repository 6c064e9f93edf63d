"""Publish the classes that documents are read into, as JSON Schema beside the page about them."""

import dataclasses
import json
from typing import Any, get_type_hints

import msgspec

from hessdiag.curvature.point.result import Point
from hessdiag.questions.common.result import Finding, ModelSubject, Subject
from hessdiag.questions.documents import ENVELOPE, result_types
from hessdiag.questions.registry import NAMES, question
from hessdiag.report.document import SCHEMA

FILE = "reference/result-document.schema.json"
HOME = "#/$defs/"


def schema() -> str:
    """The schema of all commands' documents; which part of it holds is told by `command`."""
    kinds = [(name, kind) for name in NAMES for kind in result_types(name)]
    classes: list[Any] = [*(kind for _, kind in kinds), Finding, ModelSubject, Point, Subject]
    refs, parts = msgspec.json.schema_components(classes, ref_template=HOME + "{name}")
    homes = {kind: ref["$ref"].removeprefix(HOME) for kind, ref in zip(classes, refs, strict=True)}
    for kind in classes:
        _as_written(parts[homes[kind]], kind)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"result document {SCHEMA}",
        "required": ["schema", "command"],
        "properties": {"schema": {"const": SCHEMA}, "command": {"enum": list(NAMES)}},
        "allOf": [
            {"if": _told(name, kind), "then": _document(parts[homes[kind]], kind, homes)} for name, kind in kinds
        ],
        "$defs": parts,
    }
    return json.dumps(whole)


def _told(command: str, kind: Any) -> dict[str, Any]:
    """What tells a command's documents, of several kinds by the key that only one has."""
    names = {field.name for field in dataclasses.fields(kind)}
    own, others = question(command).variant(names).key, [one.key for one in question(command).variants]
    found: dict[str, Any] = {"properties": {"command": {"const": command}}}
    if own:
        found["properties"]["result"] = {"required": [own]}
    elif others:
        found["properties"]["result"] = {"not": {"anyOf": [{"required": [key]} for key in others]}}
    return found


def _as_written(part: dict[str, Any], kind: Any) -> None:
    """Keys as documents have them: a field may have another name there, or none."""
    names = {own.name: own.metadata.get("name", own.name) for own in dataclasses.fields(kind)}
    apart = {own.name for own in dataclasses.fields(kind) if own.metadata.get("apart")}
    part["properties"] = {names[key]: value for key, value in part["properties"].items() if key not in apart}
    part["required"] = [names[key] for key in part.get("required", ())]


def _document(part: dict[str, Any], kind: Any, homes: dict[Any, str]) -> dict[str, Any]:
    """A document with the envelope beside its "result", which is left of the part that describes both."""
    beside = {place: part["properties"].pop(name) for name, place in ENVELOPE.items()}
    declared = get_type_hints(kind)["problem"]
    subjects = [homes[one] for one in (ModelSubject, Subject) if issubclass(one, declared)]
    beside["problem"] = {"anyOf": [{"$ref": HOME + name} for name in subjects]}
    return {
        "type": "object",
        "properties": beside | {"result": {"$ref": HOME + homes[kind]}},
        "required": [place for place in (*beside, "result") if place != "thresholds"],
    }


def on_files(files: Any, config: Any) -> Any:
    """Add the file to the site."""
    from mkdocs.structure.files import File  # the tests read the schema without mkdocs

    files.append(File.generated(config, FILE, content=schema()))
    return files
