"""The file that a `Monitor` writes, read: a header, then one line for each look. Of a damaged one, what is whole."""

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from hessdiag.errors import LoadError
from hessdiag.numbers import counted
from hessdiag.questions.report.run.record import SCHEMA, Record
from hessdiag.report.document import SCHEMA as DOCUMENT
from hessdiag.report.document import Document

MARK = b'"hessdiag-run/'
BEGINNING = 200  # bytes within which a log says what it is
NAMED = 5  # lines that cannot be read are named one by one up to so many


@dataclass(frozen=True)
class Lines:
    """The lines of a log.

    Attributes:
        whole: Each that ended, by its number, from 1 on: an object, or `None` where it is no JSON object.
        cut: Whether something follows that did not end, as a killed run leaves it.
    """

    whole: tuple[tuple[int, dict[str, Any] | None], ...]
    cut: bool


def is_log(content: bytes) -> bool:
    """Whether a file is the log of a run, by how it begins.

    >>> is_log(b'{"schema": "hessdiag-run/1", "started": "'), is_log(b'{"schema": "hessdiag/1"}')
    (True, False)
    """
    return content.lstrip()[:1] == b"{" and MARK in content[:BEGINNING]


def lines(content: bytes) -> Lines:
    r"""The lines of a log.

    >>> lines(b'{"a": 1}\n3\n{"b')
    Lines(whole=((1, {'a': 1}), (2, None)), cut=True)
    """
    end = content.rfind(b"\n") + 1
    found = tuple((number, _object(line)) for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1))
    return Lines(found, bool(content[end:].strip()))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def as_document(content: bytes) -> Document:
    """A log as the document of a result, in which nothing is counted or judged yet.

    Raises:
        LoadError: if its first line is no header that this version reads.
    """
    read = lines(content)
    header = read.whole[0][1] if read.whole else None
    if header is None:
        raise LoadError("the log of a run is damaged: its first line, the header, is not whole.")
    if header.get("schema") != SCHEMA:
        found = json.dumps(header.get("schema"))[:40]
        raise LoadError(
            f"the log of a run has schema {found}; this version reads {json.dumps(SCHEMA)}.",
            "pip install -U hessdiag",
        )
    records: list[dict[str, Any]] = []
    resumed: list[int] = []
    unread: list[int] = []
    replaced = 0
    for number, line in read.whole[1:]:
        if line is not None and "resumed" in line:
            resumed.append(records[-1]["step"] if records else 0)
            continue
        if line is None or not _fits(line):
            unread.append(number)
            continue
        while records and records[-1]["step"] >= line["step"]:  # training went back to an older checkpoint
            records.pop()
            replaced += 1
        records.append(line)
    asked = {key: header.get(key) for key in ("optimizer", "every", "budget", "quantities")}
    result = asked | {"records": records, "resumed": resumed, "replaced": replaced}
    return {
        "schema": DOCUMENT,
        "command": "report",
        "status": "ok",
        "problem": header.get("problem"),
        "result": result | {"unread": _unread(unread, cut=read.cut)},
        "theory": None,
        "checks": {},
        "verdict": [],
        "provenance": {
            "started": header.get("started") or "",
            "versions": header.get("versions") or {},
            "device": (header.get("problem") or {}).get("device", "?"),
        },
    }


def _fits(line: dict[str, Any]) -> bool:
    """Whether a line is a record."""
    try:
        msgspec.convert(line, Record)
    except msgspec.ValidationError:
        return False
    return True


def _unread(numbers: list[int], *, cut: bool) -> list[str]:
    said = [f"line {number} is not what a monitor writes" for number in numbers[:NAMED]]
    if len(numbers) > NAMED:
        said.append(f"{counted(len(numbers) - NAMED, 'more line is', 'more lines are')} not, either")
    return [*said, *(["the last line is cut off"] if cut else [])]
