"""Results as documents and back: JSON is a result's serialization, and is read into the same classes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from hessdiag import files
from hessdiag.errors import LoadError
from hessdiag.fields import NonFinite
from hessdiag.questions import registry
from hessdiag.questions.common.result import ModelSubject, Result
from hessdiag.questions.expected import expected, shown
from hessdiag.questions.report.run import log
from hessdiag.questions.report.run.result import MonitoredRun
from hessdiag.questions.report.run.tracks import QUANTITIES, followed
from hessdiag.report import document as text_form
from hessdiag.report.document import Document

REPORT = "report"
INTERRUPTED = "interrupted"
NOT_ANSWERED = "not answered"  # questions that a report has no section of, or a part
LARGEST = 256 * 2**20  # bytes of a document that is read: /dev/zero has no end

# Fields of every result that documents hold beside their "result", in this order, each under its own name or another.
ENVELOPE = {
    "status": "status",
    "problem": "problem",
    "theory": "theory",
    "checks": "checks",
    "thresholds": "thresholds",
    "findings": "verdict",
    "provenance": "provenance",
}

_SAID = re.compile(r"(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_PLAIN = (str, float, int, type(None))  # looked for first: matrices hold millions
_OF_TYPE = ("Expected", "Invalid enum value", "Number out of range", "Integer value out of range")


def document(result: Result) -> Document:
    """A result as plain Python values in the form of documents.

    >>> from hessdiag.questions.common.result import Finding, Result
    >>> class Answer(Result):
    ...     command = "answer"
    >>> doc = document(Answer(findings=(Finding("ok", "Fine.", "", "nothing"),)))
    >>> doc["command"], doc["verdict"]
    ('answer', [{'level': 'ok', 'says': 'Fine.', 'because': '', 'try': 'nothing'}])
    """
    held = text_form.plain(result)
    found = {"schema": text_form.SCHEMA, "command": result.command, "status": held["status"]}
    found["problem"] = held["problem"]
    found["result"] = {name: value for name, value in held.items() if name not in ENVELOPE}
    return found | {place: held[name] for name, place in ENVELOPE.items() if place not in found}


def load(path: str | Path) -> Result:
    """Read a saved result: the object that the question's function returned.

    Args:
        path: A document, as `--json`, `-o FILE.json` or `Result.to_json` write it.

    Raises:
        LoadError: if there is no such file, or it is not a document.

    >>> import tempfile, torch, hessdiag
    >>> data = [(torch.ones(1, 2), torch.zeros(1, 1))]
    >>> found = hessdiag.bounds(hessdiag.Problem(torch.nn.Linear(2, 1), data=data, loss="mse"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = Path(folder) / "r.json"
    ...     _ = saved.write_text(found.to_json(), "utf-8")
    ...     load(saved) == found
    True
    """
    return read(load_document(Path(path)))


def load_document(path: Path) -> Document:
    """The document in a file, as JSON has it.

    Raises:
        LoadError: if there is no such file, or it is not a document.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise LoadError(f"cannot read {path}: it is larger than {LARGEST >> 20} MiB, and no result.")
        if log.is_log(content):
            return _of_log(path, content)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        hint = f"hessdiag diag-share {path} -o {path.stem}.json first, if it is a model"
        raise LoadError(f"cannot read {path}: it is not text.", hint) from None
    except (OSError, ValueError) as failure:
        raise LoadError(f"cannot read {path}: {files.reason(failure)}.") from None
    try:
        return loads(text)
    except LoadError as failure:
        raise LoadError(f"{path}: {failure.what}", failure.hint) from None


def _of_log(path: Path, content: bytes) -> Document:
    """The document of a run, from what a monitor wrote."""
    try:
        run = read(log.as_document(content))
        assert isinstance(run, MonitoredRun)
    except LoadError as failure:
        raise LoadError(f"{path}: {failure.what}", failure.hint) from None
    return text_form.loads(text_form.dumps(document(followed(run))))  # with words for what is no number, as in files


def is_document(path: str) -> bool:
    """Whether a path is meant to be a document or a log: by its suffix, or of a file without one by how it begins."""
    return path.lower().endswith((".json", ".jsonl")) or (_beginning(path).lstrip()[:1] == b"{")


def is_log(path: str | Path) -> bool:
    """Whether a file is the log of a run, which `load_document` makes a document of."""
    return log.is_log(_beginning(path))


def _beginning(path: str | Path) -> bytes:
    """Of a file that can be read; of others, and of scripts, nothing."""
    try:
        file = Path(path)
        if not file.is_file() or file.suffix == ".py":
            return b""
        with file.open("rb") as stream:
            return stream.read(log.BEGINNING)
    except (OSError, ValueError):
        return b""


def loads(text: str) -> Document:
    """The document in a text, as JSON has it.

    Raises:
        LoadError: if it is none, or not as its command writes it.
    """
    doc = text_form.loads(text)
    read(doc)
    return doc


def numbers_of(answer: Result | Mapping[str, Any]) -> Document:
    """The document of a result, with numbers for the words that stand for some in saved ones.

    In a report's "result" there are those of its sections, too, each under the name of its command, as gates name them;
    and the names of commands that it has no whole section of; in that of a run, of quantities that were not measured.
    """
    found = document(answer if isinstance(answer, Result) else read(answer))
    if found["command"] == REPORT and "records" in found["result"]:
        missing = [name for name in QUANTITIES if found["result"][name] is None]
        found["result"] = {**found["result"], NOT_ANSWERED: missing}
    elif found["command"] == REPORT:
        whole = (one for one in found["result"]["sections"] if one["document"]["status"] != INTERRUPTED)
        sections = {one["command"]: numbers_of(one["document"])["result"] for one in whole}
        missing = [name for name in registry.NAMES if name not in sections and name != REPORT]
        found["result"] = {**found["result"], **sections, NOT_ANSWERED: missing}
    return found


def read(doc: Mapping[str, Any]) -> Result:
    """The result that a document is the serialization of.

    Raises:
        LoadError: naming the path at which it differs from what its command writes, what was expected there and what
            was found.
    """
    command = doc.get("command")
    if not isinstance(command, str) or command not in registry.NAMES:
        raise LoadError(f"`command`: {shown(command)} found, of which no report is known.", "pip install -U hessdiag")
    kind = result_type(command, doc.get("result"))
    missing = next((key for key in (*ENVELOPE.values(), "result") if key not in doc and key != "thresholds"), None)
    if missing is not None:
        raise _damaged(f"`{missing}` is missing")
    found: Result = dataclasses.replace(_converted(doc["result"], kind, "result"), **envelope(doc, kind))
    return found


def envelope(doc: Mapping[str, Any], kind: type[Result]) -> dict[str, Any]:
    """What a document holds beside its "result", as the fields of a class of results."""
    types = get_type_hints(kind, include_extras=True) | {"problem": _subject_type(kind, doc["problem"])}
    return {
        name: _converted(_findings(doc[place]) if name == "findings" else doc[place], types[name], place)
        for name, place in ENVELOPE.items()
        if place in doc
    }


def result_type(command: str, raw: Any = None) -> type[Result]:
    """The class of a command's results.

    Args:
        command: Its name.
        raw: The "result" of a document, where a command has results of several kinds.
    """
    asked = registry.question(command)
    return _defined(asked, asked.variant(raw if isinstance(raw, Mapping) else ()).package)


def result_types(command: str) -> tuple[type[Result], ...]:
    """The classes of all kinds of results that a command gives, the usual one first."""
    asked = registry.question(command)
    return tuple(_defined(asked, package) for package in ("", *(one.package for one in asked.variants)))


def _defined(asked: registry.Question, package: str) -> type[Result]:
    """The class of results that a question, or a package below it, defines."""
    home = f"{package}.result" if package else "result"
    name = next(name for name, module in asked.public.items() if module == home)
    found: type[Result] = getattr(asked.module(home), name)
    return found


def _subject_type(kind: type[Result], raw: Any) -> Any:
    """The class of what was measured: of networks that a question makes itself less is said than of a given model."""
    declared = get_type_hints(kind)["problem"]
    given = isinstance(raw, Mapping) and "parameters" in raw
    return ModelSubject if given and issubclass(ModelSubject, declared) else declared


def _findings(raw: Any) -> Any:
    """Findings with attributes' names for their keys, and nothing for null."""
    return [_finding(one) if isinstance(one, Mapping) else one for one in raw] if isinstance(raw, list) else raw


def _finding(raw: Mapping[str, Any]) -> dict[str, Any]:
    held = {key: "" if item is None and key in ("because", "try") else item for key, item in raw.items()}
    return {"remedy" if key == "try" else key: item for key, item in held.items()}


def _converted(value: Any, kind: Any, place: str) -> Any:
    """A part of a document as what it describes, with numbers for the words that stand for some."""
    try:
        return _with_numbers(msgspec.convert(value, kind))
    except msgspec.ValidationError as error:
        raise _damaged(_explained(str(error), value, kind, place)) from None


def _with_numbers(value: Any) -> Any:
    """The same, in which no word stands for a number any more. What was read is nobody else's, and changed in place."""
    if isinstance(value, NonFinite):
        return float(value.value)
    if dataclasses.is_dataclass(value):
        for name in vars(value):
            held = getattr(value, name)
            if not isinstance(held, _PLAIN):
                object.__setattr__(value, name, _with_numbers(held))
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([item if isinstance(item, _PLAIN) else _with_numbers(item) for item in value])
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    return value


def _damaged(how: str) -> LoadError:
    return LoadError(f"the document is damaged: {how}.")


def _explained(said: str, value: Any, kind: Any, place: str) -> str:
    """A message of msgspec in words, with the path, what was expected there and what was found."""
    match = _SAID.fullmatch(said)
    what, path = (match["what"], match["path"] or "") if match else (said, "")
    steps = [key or (None if index == "..." else int(index)) for key, index in _STEP.findall(path)]
    missing = _MISSING.fullmatch(what)
    if missing:
        return f"`{_path(place, [*steps, missing['key']])}` is missing"
    if not what.startswith(_OF_TYPE):
        return f"`{_path(place, steps)}`: {what}"
    found = value
    for step in steps:
        if step is None:  # one of the values of an object with arbitrary keys: which one is not told
            return f"`{_path(place, steps)}`: {expected(kind, steps)} was expected"
        found = found[step]
    return f"`{_path(place, steps)}`: {expected(kind, steps)} was expected, {shown(found)} found"


def _path(place: str, steps: Sequence[str | int | None]) -> str:
    """The path of a part of a document as its text has it."""
    last = {"remedy": "try"} if place == ENVELOPE["findings"] else {}
    keys = ("..." if step is None else last.get(step, step) if isinstance(step, str) else step for step in steps)
    return place + "".join(f".{key}" if isinstance(key, str) and key != "..." else f"[{key}]" for key in keys)
