"""The versioned result document: one JSON form for every command, in which NaN and infinities survive."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.errors import LoadError

SCHEMA = "hessdiag/1"
STATUSES = ("ok", "inexact", "interrupted")
LEVELS = ("ok", "note", "warn", "bad")

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMERIC = ("result", "theory", "checks")
_REQUIRED: dict[str, tuple[type, ...]] = {
    "command": (str,),
    "status": (str,),
    "problem": (dict,),
    "result": (dict,),
    "theory": (dict, type(None)),
    "checks": (dict,),
    "verdict": (list,),
    "provenance": (dict,),
}

Document = dict[str, Any]


def document(
    command: str,
    *,
    status: str,
    problem: Mapping[str, Any],
    result: Mapping[str, Any],
    theory: Mapping[str, Any] | None,
    checks: Mapping[str, Any],
    verdict: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
) -> Document:
    """Join the parts of a result into one document of plain Python values.

    Args:
        command: Name of the command, such as "diag-share".
        status: "ok", "inexact" (computed, but not to be trusted) or "interrupted" (what was done until then).
        problem: What was measured.
        result: The command's own numbers.
        theory: What closed forms predict for the same setting, or `None`.
        checks: Self-checks of the computation, by name.
        verdict: Sentences with "level", "says", "because" and "try".
        provenance: How the numbers came to be.

    >>> doc = document("diag-share", status="ok", problem={}, result={"diag_share": float("nan")},
    ...                theory=None, checks={}, verdict=[], provenance={})
    >>> doc["schema"], loads(dumps(doc))["result"]
    ('hessdiag/1', {'diag_share': nan})
    """
    parts = {
        "schema": SCHEMA,
        "command": command,
        "status": status,
        "problem": problem,
        "result": result,
        "theory": theory,
        "checks": checks,
        "verdict": verdict,
        "provenance": provenance,
    }
    return {name: plain(part) for name, part in parts.items()}


def plain(value: Any) -> Any:
    """The same value in dicts, lists, strings and numbers; numpy's scalars and arrays become Python's.

    Raises:
        TypeError: for a value that JSON has no form for.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy scalars are also Python floats, so this comes first
        return plain(value.tolist())
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(f"a {type(value).__name__} has no place in a result document")


def dumps(doc: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Write strict JSON: NaN and infinities become the strings "NaN", "Infinity" and "-Infinity"."""
    return json.dumps(_encode(plain(doc)), indent=indent, allow_nan=False, ensure_ascii=False)


def loads(text: str) -> Document:
    """Read what `dumps` wrote, with NaN and infinities as numbers again in result, theory and checks.

    Raises:
        LoadError: if the text is not JSON, or not a document of this schema.
    """
    try:
        doc = json.loads(text)
    except ValueError as error:
        raise LoadError(f"this is not JSON ({error}).", "hessdiag diag-share MODEL --json > result.json") from None
    if not isinstance(doc, dict) or "schema" not in doc:
        raise LoadError(
            "this JSON is not a hessdiag result: it has no `schema`.", "save one with --json or -o FILE.json"
        )
    if doc["schema"] != SCHEMA:
        raise LoadError(
            f"the document has schema {doc['schema']!r}; this version reads {SCHEMA!r}.",
            "pip install -U hessdiag",
        )
    for name, types in _REQUIRED.items():
        if name not in doc or not isinstance(doc[name], types):
            raise LoadError(f"the document is damaged: `{name}` is missing or has the wrong type.")
    if doc["status"] not in STATUSES:
        raise LoadError(
            f"the document has the unknown status {doc['status']!r}; it must be one of {', '.join(STATUSES)}."
        )
    return {name: _decode(part) if name in _NUMERIC else part for name, part in doc.items()}


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return _NON_FINITE.get(value, value) if isinstance(value, str) else value
