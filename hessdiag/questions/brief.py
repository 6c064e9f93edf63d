"""A result in one line: what a prompt shows of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from hessdiag.numbers import number
from hessdiag.questions.common.result import Result
from hessdiag.questions.registry import QUESTIONS


def brief(result: Result) -> str:
    """Kind, model, headline numbers and the first finding, with what is wrong with all of it.

    >>> from hessdiag.questions.common.result import Finding, Result
    >>> class Answer(Result):
    ...     command = "answer"
    >>> brief(Answer(status="inexact", findings=(Finding("bad", "Nothing holds.", "", ""),)))
    '<Answer (inexact): bad: Nothing holds.>'
    """
    name = " ".join(filter(None, (type(result).__name__, result.problem.model and f"of {result.problem.model}")))
    status = "" if result.status == "ok" else f" ({result.status})"
    numbers = [f"{path} {number(found, 4)}" for path, found in _headlines(result) if isinstance(found, int | float)]
    first = [f"{finding.level}: {finding.says}" for finding in result.findings[:1]]
    said = "; ".join(filter(None, (", ".join(numbers), *first)))
    return f"<{name}{status}: {said}>"


def _headlines(result: Result) -> list[tuple[str, Any]]:
    asked = next((one for one in QUESTIONS if one.name == result.command), None)
    paths = () if asked is None else asked.variant(vars(result)).headlines
    return [(path, _at(result, path)) for path in paths]


def _at(value: Any, path: str) -> Any:
    """What lies at a path, as `readings.0.value`; `None` where nothing does."""
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = getattr(value, step, None)
    return value
