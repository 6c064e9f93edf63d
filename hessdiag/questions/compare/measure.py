"""From results to what changed between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hessdiag.errors import LoadError, SpecError
from hessdiag.questions import documents
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Result, Subject
from hessdiag.questions.common.steps import numbers_in
from hessdiag.questions.compare import changes, likeness
from hessdiag.questions.compare.readings import kind_of
from hessdiag.questions.compare.result import Compare, ComparedRun, SettingDifference
from hessdiag.questions.compare.verdict import findings
from hessdiag.report.document import Document

FEWEST = 2
NAMED = 4  # values of a setting
Given = Result | str | Path
REPORT = "report"  # a command whose result is made of other commands' documents


@recorded
def compare(a: Given, b: Given, *more: Given, by_step: bool = False) -> Compare:
    """What changed between results of one question, in which direction, and whether beyond the errors of both.

    Args:
        a: The first result, or its file.
        b: The next.
        more: Others; changes are from the first to the last, and `courses` and `steps` tell what happened on the way.
        by_step: Whether to order files by the one number in which their names differ, not as given.

    Returns:
        Every number with its change, the error of that and whether it is significant: all together, in at most 5 % of
        comparisons without any change something is.

    Raises:
        SpecError: if they answer different questions, or names tell no steps.
        LoadError: if a file is no result.

    >>> import torch, hessdiag
    >>> data = [(torch.ones(1, 2), torch.zeros(1, 1))]
    >>> flat, steep = torch.nn.Linear(2, 1), torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ELU(4.0))
    >>> before = hessdiag.eigs(hessdiag.Problem(flat, data=data, loss="mse"))
    >>> found = hessdiag.compare(before, before)
    >>> found.comparable, found.repeated, found.significant
    (True, True, 0)
    """
    given = (a, b, *more)
    labels = _labels(given)
    docs = [
        documents.numbers_of(one if isinstance(one, Result) else documents.load_document(Path(one))) for one in given
    ]
    if by_step:
        order = _by_step(labels)
        labels, docs = [labels[index] for index in order], [docs[index] for index in order]
    return compared(docs, labels)


def _labels(given: Sequence[Given]) -> list[str]:
    """Names of files without their folders, where those tell them apart."""
    whole = [f"result {index + 1}" if isinstance(one, Result) else str(one) for index, one in enumerate(given)]
    short = [text if isinstance(one, Result) else Path(one).name for text, one in zip(whole, given, strict=True)]
    for names in (short, whole):
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({index + 1})" for index, name in enumerate(short)]


def _by_step(labels: Sequence[str]) -> list[int]:
    numbers = numbers_in(labels)
    if numbers is None:
        raise SpecError(
            f"names tell no steps: {labels[0]} and {labels[-1]} do not differ in one number alone.",
            "without --by-step, in the order of the command line",
        )
    return sorted(range(len(labels)), key=numbers.__getitem__)


def compared(docs: Sequence[Document], labels: Sequence[str]) -> Compare:
    """The comparison of documents, in their order.

    Raises:
        SpecError: if they answer different questions.
    """
    _refuse(docs, labels)
    sections = _sections(docs)
    settings = _settings(sections)
    answers = [changes.answers(section) for section in sections]
    rows = changes.changes(answers)
    several = len(docs) > FEWEST
    mattering = [setting for setting in settings if setting.matters]
    runs = tuple(_run(doc, label) for doc, label in zip(docs, labels, strict=True))
    one_seed = _seeds_known(docs) and len({run.seed for run in runs}) == 1
    weights = {run.weights_sha256 for run in runs}
    unchanged = all(row.before == row.after for row in rows)
    one_network = one_seed and (None not in weights or all("parameters" not in doc["problem"] for doc in docs))
    repeated = not settings and len(weights) == 1 and (one_network or unchanged)
    found = Compare(
        status="ok" if all(run.trusted for run in runs) else "inexact",
        problem=Subject(model=runs[-1].model, device="", dtype=runs[-1].dtype, seed=None, notes=_notes(docs)),
        compared=docs[0]["command"],
        runs=runs,
        comparable=not mattering,
        why=_why(mattering),
        settings=settings,
        differences=len(mattering),
        same_draws=not repeated and one_seed and any(row.before_stderr and row.after_stderr for row in rows),
        repeated=repeated,
        level=changes.LEVEL,
        significant=sum(row.significant for row in rows),
        worse=sum(row.better is False for row in rows),
        better=sum(row.better is True for row in rows),
        changes=rows,
        courses=changes.courses(answers) if several else (),
        steps=changes.steps(answers, labels) if several else (),
    )
    return replace(found, findings=tuple(findings(found)))


def _refuse(docs: Sequence[Document], labels: Sequence[str]) -> None:
    """Refuse what has no number in common."""
    commands = [doc["command"] for doc in docs]
    other = next((index for index, command in enumerate(commands) if command != commands[0]), None)
    if other is not None:
        raise SpecError(
            f"{labels[0]} is a result of {commands[0]}, and {labels[other]} one of {commands[other]}: "
            "they have no number in common.",
            f"hessdiag compare {labels[0]} with another result of {commands[0]}",
        )
    if commands[0] == "compare":
        raise SpecError("results of compare are not compared again.", "hessdiag compare the results that they are of")
    run = next((label for doc, label in zip(docs, labels, strict=True) if "records" in doc["result"]), None)
    if commands[0] == REPORT and run is not None:
        raise SpecError(f"{run} is the log of a run, and logs are not compared.", "hessdiag report with each of them")
    if commands[0] != REPORT and len({kind_of(doc) for doc in docs}) > 1:
        raise SpecError(
            f"{labels[0]} and the others are different kinds of results of {commands[0]}.",
            "results of the same options",
        )


def _sections(docs: Sequence[Document]) -> list[list[Document]]:
    """The documents that answer the same question, one of each result: of reports those that all have."""
    if docs[0]["command"] != REPORT:
        return [list(docs)]
    held = [
        {one["command"]: documents.numbers_of(one["document"]) for one in reversed(doc["result"]["sections"])}
        for doc in docs
    ]
    commands = [one["command"] for one in docs[0]["result"]["sections"]]
    common = [name for name in dict.fromkeys(commands) if all(name in one for one in held)]
    found = [[one[name] for one in held] for name in common]
    alike = [section for section in found if len({kind_of(doc) for doc in section}) == 1]
    if not alike:
        raise LoadError(
            "the reports answer no question in common.", "hessdiag report with the same --preset and --budget"
        )
    return alike


def _settings(sections: Sequence[Sequence[Document]]) -> tuple[SettingDifference, ...]:
    """All settings that differ, each once."""
    found = [setting for section in sections for setting in likeness.differences(section)]
    return tuple(sorted(dict.fromkeys(found), key=lambda setting: not setting.matters))


def _why(mattering: Sequence[SettingDifference]) -> str:
    return "; ".join(f"{one.setting}: {_values(list(dict.fromkeys(one.values)))}" for one in mattering)


def _values(values: Sequence[str]) -> str:
    """Different values of a setting, in their order: the first, and how many more."""
    more = len(values) - NAMED
    return " / ".join(values[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _run(doc: Document, label: str) -> ComparedRun:
    problem, provenance = doc["problem"], doc["provenance"]
    sections = doc["result"]["sections"] if doc["command"] == REPORT else ()
    parts = [one["document"] for one in sections] or [doc]
    cut = tuple(one["command"] for one in sections if one.get("whole_seconds") is not None)
    return ComparedRun(
        label=label,
        status=doc["status"],
        trusted=all(changes.trusted(part) for part in parts),
        model=_model(problem),
        synthetic=bool(problem.get("synthetic")),
        started=provenance.get("started") or "",
        dtype=problem.get("dtype") or "",
        device=problem.get("device") or "",
        seed=problem.get("seed"),
        weights_sha256=problem.get("weights_sha256"),
        argv=tuple(provenance.get("argv") or ()),
        cut=cut or None,
    )


def _model(problem: Mapping[str, Any]) -> str:
    """A model with where it is from."""
    origin = [text for text in (problem.get("spec"), problem.get("weights")) if text]
    return f"{problem.get('model') or ''} ({', '.join(origin)})" if origin else problem.get("model") or ""


def _seeds_known(docs: Sequence[Document]) -> bool:
    """Whether the seeds in documents are those of what was drawn: of a model that Python handed over they are not."""
    return all(doc["provenance"].get("argv") or "parameters" not in doc["problem"] for doc in docs)


def _notes(docs: Sequence[Document]) -> tuple[str, ...] | None:
    """What is to be kept in mind of all of them."""
    first = docs[0]["problem"].get("notes") or ()
    return tuple(note for note in first if all(note in (doc["problem"].get("notes") or ()) for doc in docs)) or None
