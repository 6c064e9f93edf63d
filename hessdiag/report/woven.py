"""One report of several answers: what they all say is said once, and each finding leads to its section."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from hessdiag.report.view import Finding, Section, View

T = TypeVar("T")


def woven(whole: View) -> View:
    """A view of several answers in which nothing stands twice.

    What several sections remark goes to the head; of their subjects, warnings and findings, sections keep what is
    their own. The whole's findings get the keys of the sections that say them.
    """
    parts = [section.view for section in whole.sections]
    notes = (*whole.notes, *(note for note in _common(view.notes for view in parts) if note not in whole.notes))
    said = {finding.says for finding in whole.verdict}
    common = {says for says in _common([f.says for f in view.verdict] for view in parts) if says in said}
    sections = tuple(replace(one, view=_own(one.view, replace(whole, notes=notes), common)) for one in whole.sections)
    return replace(
        whole, notes=notes, verdict=tuple(_linked(one, whole.sections) for one in whole.verdict), sections=sections
    )


def _common(lists: Iterable[Iterable[T]]) -> list[T]:
    """What is in more than one of them, in order."""
    counts = Counter(item for each in lists for item in dict.fromkeys(each))
    return [item for item, count in counts.items() if count > 1]


def _linked(finding: Finding, sections: Iterable[Section]) -> Finding:
    """With the keys of the sections that say it, one of which may stand before its reason already."""
    key, _, because = finding.because.partition(": ")
    keys = {one.key: finding.says in {other.says for other in one.view.verdict} for one in sections}
    if key not in keys:
        return replace(finding, sections=tuple(name for name, says in keys.items() if says))
    return replace(finding, because=because, sections=tuple(name for name, says in keys.items() if says or name == key))


def _own(part: View, whole: View, common: set[str]) -> View:
    """A section's view without what the whole says."""
    return replace(
        part,
        subject=tuple(pair for pair in part.subject if pair not in whole.subject),
        warnings=tuple(said for said in part.warnings if said not in whole.warnings),
        notes=tuple(said for said in part.notes if said not in whole.notes),
        verdict=tuple(finding for finding in part.verdict if finding.says not in common),
    )


def first(whole: View) -> tuple[Finding | None, tuple[Finding, ...]]:
    """The finding that is the headline, if one is, and the others: none that only gives the same reason again."""
    verdict = whole.verdict
    if not verdict or verdict[0].says != whole.headline[0]:
        return None, verdict
    head = verdict[0]
    return head, tuple(one for one in verdict[1:] if not one.because or one.because != head.because)


def by_turns(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, the first of each section before the second of any."""
    seen: Counter[tuple[str, ...]] = Counter()
    turns = []
    for finding in findings:
        seen[finding.sections] += 1
        turns.append(seen[finding.sections])
    return [finding for _, finding in sorted(zip(turns, findings, strict=True), key=lambda pair: pair[0])]
