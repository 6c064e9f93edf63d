"""What a report says: whether it will train, in a sentence; then what all sections found, each thing once."""

from collections.abc import Iterator, Sequence
from typing import Any

from hessdiag.numbers import counted, listed, number, short
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import by_severity, running_statistics
from hessdiag.questions.report.keys import at
from hessdiag.questions.report.result import Report, Section
from hessdiag.report import shell

# What several questions find, by how they begin to say it: the first in reading order is heard.
ONCE = (
    (
        "negative curvature is proven",
        "the hessian has negative curvature",
        "negative curvature is certain",
        "negative curvature is neither",
        "no negative curvature is proven",
    ),
    ("the batch is synthetic",),
    ("this is the hessian of one piece",),
    ("signs of the eigenvalues", "no eigenvalue is negative", "the hessian has negative eigenvalues"),
)
SURE = 1.1  # times what it took: how much more a question at least takes of which that is told
ELSEWHERE = ("forward",)  # of networks that are drawn anew, not of this one


def findings(report: Report) -> list[Finding]:
    """The answer first, then the findings of all sections, the most severe first."""
    return [_answer(report), *by_severity([*_cut(report), *_told_once(report.sections)])]


def _told_once(sections: Sequence[Section]) -> Iterator[Finding]:
    """The findings of all sections with the question that each is from; what two say, once."""
    heard: set[str] = set()
    for section in sections:
        own: set[str] = set()
        for raw in section.document["verdict"]:
            key = _topic(raw["says"])
            told = section.cut and key.startswith("interrupted")  # by `_cut`
            if told or key in heard or (section.command in ELSEWHERE and raw["level"] != "bad"):
                continue
            own.add(key)
            yield _named(section.command, raw)
        heard |= own


def _topic(says: str) -> str:
    begins = says.lower()
    for topic, ways in enumerate(ONCE):
        if begins.startswith(ways):
            return str(topic)
    return begins


def _named(command: str, raw: dict[str, Any]) -> Finding:
    because = f"{command}: {raw['because']}" if raw["because"] else command
    return Finding(raw["level"], raw["says"], because, raw["try"] or "")


def _answer(report: Report) -> Finding:
    """Will it train? The cause and its cure; or what limits it."""
    by_command = {section.command: section for section in report.sections}
    check = by_command.get("check")
    if check is None:
        told = listed([section.command for section in report.sections], 12)
        return Finding("note", "Whether it trains is open: check has no answer.", f"answered: {told}", "")
    first: dict[str, Any] = next(iter(check.document["verdict"]), {})
    level, says = first.get("level", "note"), first.get("says", "")
    if level in ("bad", "warn"):
        may = "will not train as it is" if level == "bad" else "may not train well as it is"
        return Finding(
            level, f"It {may}: {_lower(says)}", first["because"] and f"check: {first['because']}", first["try"]
        )
    if running_statistics(report.problem):  # steps of training meet other curvature, so no limit of theirs is known
        return _limited(says, first, None, None)
    return _limited(says, first, by_command.get("sharpness"), by_command.get("eigs"))


def _limited(says: str, first: dict[str, Any], sharpness: Section | None, eigs: Section | None) -> Finding:
    """Of a network that trains: what its steps are limited by."""
    level: Level = first.get("level", "ok")
    begins = says.rstrip(".")
    if sharpness is not None:
        result = sharpness.document["result"]
        ratio, rate, name = result.get("ratio"), result.get("largest_lr"), at(result, "optimizer.name")
        if isinstance(ratio, float) and name:
            because = f"sharpness: the curvature that {name} sees is {number(ratio)} of what it can take"
            if result.get("regime") == "unstable":
                limit = (
                    f"a learning rate below {number(rate)}" if isinstance(rate, float) else "a smaller learning rate"
                )
                return Finding("warn", f"{begins}; but {name} is unstable here.", because, limit)
            whose = name.partition("(")[0]
            if result.get("regime") == "edge":
                return Finding(level, f"{begins}; {whose} is at the edge of stability here.", because, first["try"])
            limit = (
                f"; {whose} is stable here up to a learning rate of {number(rate)}" if isinstance(rate, float) else ""
            )
            return Finding(level, f"{begins}{limit}.", because, first["try"])
    step = None if eigs is None else eigs.document["result"].get("largest_step")
    if isinstance(step, float):
        because = f"eigs: the largest eigenvalue is {number(2 / step)}"
        return Finding(
            level,
            f"{begins}; gradient descent is stable below a learning rate of {number(step)}.",
            because,
            first["try"],
        )
    return Finding(level, says, f"check: {first.get('because', '')}", first.get("try", ""))


def _lower(says: str) -> str:
    """A sentence as the end of another, but for a name that it begins with."""
    word = says.partition(" ")[0]
    return says if word != word.capitalize() or not word.isalpha() else says[:1].lower() + says[1:]


def taken(section: Section) -> str:
    """What a question took; of one that the budget ended, of what it takes.

    >>> taken(Section(command="blocks", argv=(), seconds=3.9, whole_seconds=5.2, document={}))
    '3.9 s of about 5.2 s'
    """
    whole, took = section.whole_seconds, short(section.seconds)
    if whole is None:
        return took
    return f"{took} of {'about' if whole > SURE * section.seconds else 'more than'} {short(whole)}"


def _cut(report: Report) -> list[Finding]:
    """What the budget ended, and what it left no time for."""
    found = []
    if report.interrupted:
        missing = listed([one.command for one in report.left_out if one.why.startswith("interrupted")], 12)
        found.append(
            Finding(
                "note",
                "Interrupted: what is here is what was answered by then.",
                f"missing: {missing or 'nothing, but better numbers'}",
                "",
            )
        )
    found += [
        Finding(
            "note",
            f"The budget ended {section.command} before its end: its numbers are as they stood then.",
            f"it had {taken(section)}, and {number(report.budget_seconds)} s were for all",
            shell.line(section.argv),
        )
        for section in report.sections
        if section.cut
    ]
    dear = [one for one in report.left_out if one.seconds is not None]
    if dear and not report.interrupted:
        least = min(dear, key=lambda one: one.seconds or 0.0)
        only = len(report.sections) == 1
        says = (
            f"The budget is too small for more than {report.sections[0].command}"
            if only
            else f"There was no time for {counted(len(dear), 'question')}: {listed([one.command for one in dear], 12)}"
        )
        which = least.command if len(dear) == 1 else f"the cheapest of them, {least.command},"
        because = f"{which} takes about {number(least.seconds, 2)} s of {number(report.budget_seconds)} s"
        found.append(Finding("note", f"{says}.", because, "a larger --budget, or the commands under what was left out"))
    return found
