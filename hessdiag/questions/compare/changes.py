"""Numbers of results against each other: every change with its error, all of them tested at one level together."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hessdiag.questions import registry
from hessdiag.questions.compare.quantities import Better
from hessdiag.questions.compare.readings import Seen, readings
from hessdiag.questions.compare.result import Course, CourseStep, How, NumberChange
from hessdiag.statistics.differences import Difference, difference, holm

LEVEL = 0.05
# Of the level, for the first estimate of each question: the others share what is left, and what it passes on.
FIRST = 0.95


@dataclass(frozen=True)
class Answers:
    """The documents that answer one question, one of each result, with their numbers.

    Attributes:
        command: The question.
        headlines: Paths of its headline numbers.
        seen: The numbers of each, by what they are.
        trusted: Whether the self-checks of each passed.
    """

    command: str
    headlines: tuple[str, ...]
    seen: tuple[dict[tuple[str, str], Seen], ...]
    trusted: tuple[bool, ...]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """What at least two of them have a place for, the most telling first."""
        counts = [key for seen in self.seen for key in seen]
        return [key for key in dict.fromkeys(counts) if counts.count(key) > 1]


def answers(docs: Sequence[Mapping[str, Any]]) -> Answers:
    """The numbers of documents of one kind."""
    asked = registry.question(docs[0]["command"])
    return Answers(
        command=asked.name,
        headlines=asked.variant(docs[0]["result"]).headlines,
        seen=tuple(readings(doc) for doc in docs),
        trusted=tuple(trusted(doc) for doc in docs),
    )


def trusted(doc: Mapping[str, Any]) -> bool:
    """Whether the self-checks passed: nothing is proven by the numbers otherwise."""
    return doc["result"].get("trusted") is not False


def changes(sections: Sequence[Answers], first: int = 0, last: int = -1) -> tuple[NumberChange, ...]:
    """Every number of one result against the same of another, tested at `LEVEL` all together.

    The first estimate of each question has `FIRST` of the level between them. So a change of it is found nearly as if
    nothing else were tested; once found, its part goes to the others (Holm 1979). What could not be significant
    whatever came out, as a share of too few cases, takes no part (Tarone 1990).
    """
    found = [list(_of_section(section, first, last)) for section in sections]
    weights = [weight for one in found for weight in _weights([least <= LEVEL for _, least in one], len(sections))]
    rows = [change for one in found for change, _ in one]
    tested = [index for index, weight in enumerate(weights) if weight]
    adjusted = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested], [weights[i] for i in tested]), strict=True))
    for index, change in enumerate(rows):
        if change.p is not None:
            p = adjusted.get(index, 1.0)
            rows[index] = replace(change, p_adjusted=p, significant=p <= LEVEL)
    return tuple(_directed(change, section) for section, change in zip(_owners(sections, found), rows, strict=True))


def _owners(sections: Sequence[Answers], found: Sequence[Sequence[object]]) -> Iterator[Answers]:
    for section, rows in zip(sections, found, strict=True):
        yield from itertools.repeat(section, len(rows))


def _weights(tested: Sequence[bool], sections: int) -> list[float]:
    """How the level is divided among the numbers of a question; nothing to what is not tested.

    >>> _weights([False, True, True, True], 1)
    [0.0, 0.95, 0.025, 0.025]
    >>> _weights([True, False], 2)
    [0.5, 0.0]
    """
    count, first = sum(tested), next((index for index, one in enumerate(tested) if one), None)
    whole, rest = (FIRST if count > 1 else 1.0), (1 - FIRST) / max(count - 1, 1)
    parts = [0.0 if not one else whole if index == first else rest for index, one in enumerate(tested)]
    return [round(part / sections, 15) for part in parts]


def _of_section(section: Answers, first: int, last: int) -> Iterator[tuple[NumberChange, float]]:
    whole = section.trusted[first] and section.trusted[last]
    for key in section.keys:
        a, b = section.seen[first].get(key), section.seen[last].get(key)
        if a is not None and b is not None and (a.value is not None or b.value is not None):
            yield _change(section.command, a, b, trusted=whole)


def _change(command: str, a: Seen, b: Seen, *, trusted: bool) -> tuple[NumberChange, float]:
    """A change before its p has been corrected, with the smallest that this could have become; infinite without one."""
    how, found = _judged(a, b, trusted=trusted)
    change = None if a.value is None or b.value is None else b.value - a.value
    stderr, interval = (None, None) if found is None else (found.stderr, found.interval)
    if found is not None and b.quantity.how == "relative":  # it is the difference of logarithms that was judged
        stderr, interval = math.hypot(a.stderr or 0.0, b.stderr or 0.0), None
    made = NumberChange(
        command=command,
        metric=b.metric,
        name=b.name,
        before=a.value,
        after=b.value,
        before_stderr=a.stderr,
        after_stderr=b.stderr,
        before_interval=a.interval,
        after_interval=b.interval,
        change=change,
        stderr=stderr,
        interval=interval,
        p=None if found is None else found.p,
        p_adjusted=None,
        significant=found is not None and found.proven,
        how=how,
        way="open",
        better=None,
    )
    return made, math.inf if found is None or found.p is None else found.least


def _judged(a: Seen, b: Seen, *, trusted: bool) -> tuple[How, Difference | None]:
    if a.value is None or b.value is None:
        return "missing", None
    if a.known is None or b.known is None or not trusted:
        return "untold", None
    found = difference(a.known, b.known)
    return "exact" if found.p is None else "estimates", found


def _directed(change: NumberChange, section: Answers) -> NumberChange:
    """The same with where it went, and whether that is better."""
    if change.how in ("untold", "missing"):
        return change
    if not change.significant:
        return replace(change, way="none")
    quantity = next(seen for seen in section.seen[-1].values() if seen.metric == change.metric).quantity
    better = _is_better(quantity.better, change.before or 0.0, change.after or 0.0)
    return replace(change, way="up" if (change.change or 0.0) > 0 else "down", better=better)


def _is_better(better: Better | None, before: float, after: float) -> bool | None:
    """Whether a change is for the better.

    >>> _is_better("near zero", -0.4, 0.1), _is_better("less", 1.0, 2.0), _is_better(None, 1.0, 2.0)
    (True, False, None)
    """
    if better is None:
        return None
    if better == "near zero":
        return abs(after) < abs(before)
    return (after < before) == (better == "less")


def courses(sections: Sequence[Answers]) -> tuple[Course, ...]:
    """Headline numbers along all results."""
    return tuple(
        Course(
            command=section.command,
            metric=metric,
            name=along[-1].name,
            values=tuple(seen.value for seen in along),
            low=tuple(seen.interval[0] if seen.interval else seen.value for seen in along),
            high=tuple(seen.interval[1] if seen.interval else seen.value for seen in along),
        )
        for section in sections
        for metric, along in _headlines(section)
        if sum(seen.value is not None for seen in along) > 1
    )


def steps(sections: Sequence[Answers], labels: Sequence[str]) -> tuple[CourseStep, ...]:
    """Changes of headline numbers from each result to the next; all of them tested at `LEVEL` together."""
    rows = [
        (
            labels[index],
            labels[index + 1],
            _change(section.command, a, b, trusted=all(section.trusted[index : index + 2]))[0],
        )
        for section in sections
        for _, along in _headlines(section)
        for index, (a, b) in enumerate(itertools.pairwise(along))
    ]
    tested = [index for index, (_, _, change) in enumerate(rows) if change.p is not None]
    adjusted = dict(zip(tested, holm([rows[index][2].p or 0.0 for index in tested]), strict=True))
    return tuple(
        CourseStep(
            command=change.command,
            metric=change.metric,
            name=change.name,
            start=start,
            end=end,
            change=change.change,
            stderr=change.stderr,
            p=adjusted.get(index),
            significant=adjusted[index] <= LEVEL if index in adjusted else change.significant,
        )
        for index, (start, end, change) in enumerate(rows)
    )


def _headlines(section: Answers) -> Iterator[tuple[str, list[Seen]]]:
    """The headline numbers that all of the documents have a place for."""
    for key in section.keys:
        along = [seen[key] for seen in section.seen if key in seen]
        if len(along) == len(section.seen) and along[-1].metric in section.headlines:
            yield along[-1].metric, along
