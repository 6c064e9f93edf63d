"""Publish the descriptions that result documents are read with, as JSON Schema beside the page about them."""

import json
from typing import Any

import msgspec

from hessdiag.questions.registry import NAMES
from hessdiag.report.document import SCHEMA
from hessdiag.report.schema.check import description

FILE = "reference/result-document.schema.json"


def schema() -> str:
    """The schema of all commands' documents; which part of it holds is told by `command`."""
    refs, parts = msgspec.json.schema_components([description(name) for name in NAMES], ref_template="#/$defs/{name}")
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"result document {SCHEMA}",
        "required": ["schema", "command"],
        "properties": {"schema": {"const": SCHEMA}, "command": {"enum": list(NAMES)}},
        "allOf": [
            {"if": {"properties": {"command": {"const": name}}}, "then": ref}
            for name, ref in zip(NAMES, refs, strict=True)
        ],
        "$defs": parts,
    }
    return json.dumps(whole)


def on_files(files: Any, config: Any) -> Any:
    """Add the file to the site."""
    from mkdocs.structure.files import File  # the tests read the schema without mkdocs

    files.append(File.generated(config, FILE, content=schema()))
    return files
