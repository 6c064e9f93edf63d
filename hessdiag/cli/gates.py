"""Gates for scripts and CI: `--fail-if METRIC OP NUMBER`, and the change against a saved baseline."""

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hessdiag.errors import SpecError
from hessdiag.questions.documents import NOT_ANSWERED
from hessdiag.questions.registry import question

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_GATE = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(<=|>=|==|!=|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_PERCENT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*")


@dataclass(frozen=True)
class Gate:
    """A condition under which a run fails: `metric` is a dotted path into the document's result."""

    metric: str
    op: str
    threshold: float


def parse(text: str, usual: str = "diag_share") -> Gate:
    """Read a gate.

    Args:
        text: METRIC OP NUMBER.
        usual: The metric of an example that goes with an error.

    Raises:
        SpecError: if the text is not METRIC OP NUMBER.

    >>> parse("rates.gradient.per_layer < -0.5")
    Gate(metric='rates.gradient.per_layer', op='<', threshold=-0.5)
    """
    match = _GATE.fullmatch(text)
    if match is None:
        cut = "" if re.search("[<>=]", text) else " Without quotes a shell takes < and > for itself."
        example = f"--fail-if '{usual} < 1e-3', in quotes"
        raise SpecError(f"cannot read the gate {text!r}: it must be METRIC OP NUMBER.{cut}", example)
    metric, op, threshold = match.groups()
    return Gate(metric, op, float(threshold))


def parse_change(text: str) -> float:
    """Read the largest relative change that is allowed: a percentage or a fraction.

    >>> parse_change("10%"), parse_change("0.1")
    (0.1, 0.1)
    """
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise SpecError(f"cannot read the change {text!r}: it must be a percentage or a fraction.", "--max-change 10%")
    return float(match[1]) / (100 if match[2] else 1)


def violations(result: Mapping[str, Any], gates: Sequence[Gate]) -> list[str]:
    """One sentence for each gate that the result violates; a value that is NaN or null does.

    Raises:
        SpecError: if the result has no such number.
    """
    said = []
    for gate in gates:
        value = _lookup(result, gate.metric)
        if value is None or math.isnan(value):
            said.append(f"{gate.metric} has no value, which violates every gate on it")
        elif _OPERATORS[gate.op](value, gate.threshold):
            said.append(f"{gate.metric} = {value:.6g} violates --fail-if '{gate.metric} {gate.op} {gate.threshold:g}'")
    return said


def check_baseline(command: str, baseline: Mapping[str, Any]) -> None:
    """Refuse a baseline of another command.

    Raises:
        SpecError: with how one is made.
    """
    if command != baseline["command"]:
        raise SpecError(
            f"the baseline is a result of {baseline['command']}, not of {command}.",
            f"hessdiag {command} ... -o baseline.json",
        )


def changes(doc: Mapping[str, Any], baseline: Mapping[str, Any], limit: float) -> list[str]:
    """One sentence for each headline number that moved by more than `limit` relative to a baseline document.

    Raises:
        SpecError: if the two come from different commands.
    """
    check_baseline(doc["command"], baseline)
    asked = question(doc["command"])
    kind, before_kind = (asked.variant(one["result"]) for one in (doc, baseline))
    if kind != before_kind:
        raise SpecError(
            f"the baseline is another kind of result of {doc['command']}: of the two only one has "
            f"{(kind.key or before_kind.key)!r}."
        )
    said = []
    for metric in kind.headlines:
        now, before = _lookup(doc["result"], metric), _lookup(baseline["result"], metric)
        if now is None and before is None:
            continue
        if before is None and metric.partition(".")[0] in baseline["result"].get(NOT_ANSWERED, ()):
            continue
        change = _relative_change(now, before)
        if not change <= limit:  # also true for NaN
            said.append(f"{metric} went from {before} to {now}: a change of {change:.2%}, more than {limit:.2%}")
    return said


def _relative_change(now: float | None, before: float | None) -> float:
    if now is None or before is None:
        return math.nan
    if now == before:
        return 0.0
    return abs(now - before) / abs(before) if before else math.inf


def _lookup(result: Mapping[str, Any], metric: str) -> float | None:
    if metric.partition(".")[0] in result.get(NOT_ANSWERED, ()):
        return None
    known = dict(_numbers(result))
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=3, cutoff=0.5) or list(known)[:5]
        raise SpecError(
            f"the result has no number {metric!r}; near are {', '.join(near)}.", f"--fail-if '{near[0]} > 0'"
        )
    return known[metric]


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float | None]]:
    """All numbers (and nulls) in a result with their dotted paths."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        name = f"{path}.{key}" if path else str(key)
        if item is None or (isinstance(item, (int, float)) and not isinstance(item, bool)):
            yield name, item
        else:
            yield from _numbers(item, name)
