"""What a comparison means: what moved, whether by more than chance, and what else differs."""

from collections.abc import Sequence

from hessdiag.numbers import counted, listed, number, p_value, percent
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import most_severe_first
from hessdiag.questions.compare.result import Compare, ComparedRun, CourseStep, NumberChange

FEWEST = 2  # results
NAMED = 3  # changes that a sentence names
ALIKE = 1e-6  # relative: repeated measurements that differ by less are the same
WAYS = {"up": "rose", "down": "fell"}


@most_severe_first
def findings(found: Compare) -> list[Finding]:
    """The verdict, the most important sentence first."""
    said = _untrusted(found)
    if found.repeated:
        said += _repeated(found)
    elif not said or found.significant:
        said += [_moved(found)]
    said += _apart(found)
    said += _on_the_way(found)
    said += _draws(found)
    said += _unjudged(found)
    return said + _unfinished(found)


def moved(found: Compare) -> list[NumberChange]:
    """The significant changes: first of what is worse, then as the question orders its numbers."""
    return sorted((row for row in found.changes if row.significant), key=lambda row: row.better is not False)


def sentence(found: Compare) -> str:
    """What moved, in one sentence without its full stop."""
    rows, judged = moved(found), [row for row in found.changes if row.how in ("estimates", "exact")]
    if not judged:
        return "no number could be judged"
    if not rows:
        return "nothing moved beyond its error" if any(row.p is not None for row in judged) else "nothing moved"
    said = "; ".join(_change(row, found.compared) for row in rows[:NAMED])
    more, rest = len(rows) - NAMED, len(judged) - len(rows)
    if more > 0:
        said += f"; and {more} more of {counted(len(judged), 'number')} moved"
    return said + ("; nothing else moved beyond its error" if rest and more <= 0 else "")


def _change(row: NumberChange, compared: str) -> str:
    chance = "exact" if row.p is None else p_value(row.p_adjusted)
    word = {True: ", better", False: ", worse", None: ""}[row.better]
    question = f"{row.command}: " if row.command != compared else ""
    return f"{question}{row.name} {WAYS.get(row.way, 'moved')} from {number(row.before)} to {number(row.after)} ({chance}{word})"


def _moved(found: Compare) -> Finding:
    said = sentence(found)
    says = f"{said[:1].upper()}{said[1:]}."
    tested = sum(row.p is not None for row in found.changes)
    exact = sum(row.how == "exact" for row in found.changes)
    how = [f"{tested} tested at {percent(found.level, 1)} all together (Holm, the first with most of it)"] * bool(
        tested
    )
    how += [f"{exact} by what is certain"] * bool(exact)
    because = f"{counted(found.significant, 'number')} of {tested + exact}: {', '.join(how)}" if how else ""
    if found.worse:
        return Finding("warn", says, because, "look at what changed between the two: weights, data, versions")
    if found.significant:
        return Finding("note", says, because, "")
    return Finding(
        "ok", says, because, "more probes, rows or seeds where a smaller change would matter" if tested else ""
    )


def _untrusted(found: Compare) -> list[Finding]:
    labels = [run.label for run in found.runs if not run.trusted]
    if not labels:
        return []
    what = "Not all numbers are judged" if found.significant else "Nothing is called different"
    says = f"{what}: self-checks of {listed(labels)} failed."
    return [Finding("bad", says, "numbers of such a run prove nothing", "see the verdict of that result")]


def _repeated(found: Compare) -> list[Finding]:
    apart = [
        row
        for row in found.changes
        if row.change and abs(row.change) > ALIKE * max(abs(row.before or 0.0), abs(row.after or 0.0))
    ]
    if not apart:
        why = "weights, data, options and seed are the same"
        if any(row.how == "missing" for row in found.changes):
            return [Finding("note", "The same numbers, where both results have them.", why, "")]
        return [Finding("ok", "The same numbers: one measurement, made twice.", why, "")]
    says = f"The same weights, data, options and seed gave other numbers: {listed([row.name for row in apart])}."
    largest = max(apart, key=lambda row: abs(row.change or 0.0) / max(abs(row.before or 0.0), abs(row.after or 0.0)))
    because = f"{largest.name}: {number(largest.before, 6)} and {number(largest.after, 6)}"
    return [
        Finding("warn", says, because, "the same machine, versions and threads; else something in the model is random")
    ]


def _apart(found: Compare) -> list[Finding]:
    if found.comparable:
        return []
    names = [setting.setting for setting in found.settings if setting.matters]
    of = "both" if len(found.runs) == FEWEST else "all"
    says = f"Not the same was asked of {of}: {listed(names)} {'differs' if len(names) == 1 else 'differ'}."
    remedy = "take the changes for those of these settings, too; or measure again with the same"
    if "data" in names and any(run.synthetic for run in found.runs):
        remedy = "--data FILE for each: a synthetic batch is drawn from the seed, and another seed gives other data"
    return [Finding("warn", says, found.why, remedy)]


def _on_the_way(found: Compare) -> list[Finding]:
    metrics = list(dict.fromkeys((step.command, step.metric) for step in found.steps))
    return [
        _along([step for step in found.steps if (step.command, step.metric) == metric], len(found.runs) - 1)
        for metric in metrics
    ]


def _along(steps: Sequence[CourseStep], count: int) -> Finding:
    kept = [step for step in steps if step.significant]
    name = steps[0].name[:1].upper() + steps[0].name[1:]
    if not kept:
        return Finding(
            "note",
            f"{name}: no single step is beyond the errors.",
            f"{counted(count, 'step')}, Holm's correction for all",
            "",
        )
    up = sum((step.change or 0.0) > 0 for step in kept)
    ways = "up" if up == len(kept) else "down" if not up else f"{up} up, {len(kept) - up} down"
    largest = max(kept, key=lambda step: abs(step.change or 0.0))
    says = f"{name}: {len(kept)} of {counted(count, 'step')} beyond the errors, {ways}."
    return Finding("note", says, f"the largest from {largest.start} to {largest.end}, by {number(largest.change)}", "")


def _draws(found: Compare) -> list[Finding]:
    if not found.same_draws:
        return []
    says = f"All estimates come from the same random numbers (seed {found.runs[0].seed}): their errors are not independent."
    because = (
        "the tests take them for independent; errors that go together make them miss changes, rather than invent some"
    )
    return [Finding("note", says, because, "another --seed for each measurement")]


def _unjudged(found: Compare) -> list[Finding]:
    untold = (
        [row.name for row in found.changes if row.how == "untold"] if all(run.trusted for run in found.runs) else []
    )
    missing = [row.name for row in found.changes if row.how == "missing"]
    said = []
    if untold:
        says = f"{counted(len(untold), 'number')} {'is' if len(untold) == 1 else 'are'} shown and not judged: no error is known."
        said.append(Finding("note", says, listed(untold), ""))
    if missing:
        says = (
            f"{counted(len(missing), 'number')} {'is' if len(missing) == 1 else 'are'} missing in one of the results."
        )
        said.append(Finding("note", says, listed(missing), ""))
    return said


def _unfinished(found: Compare) -> list[Finding]:
    labels = [f"{run.label} ({how})" for run in found.runs if run.trusted and (how := _ended(run))]
    if not labels:
        return []
    return [
        Finding(
            "note", f"Not all results are whole: {listed(labels)}.", "what they have is compared, bounds as bounds", ""
        )
    ]


def _ended(run: ComparedRun) -> str:
    """How a result ended that is not whole."""
    return f"its budget ended {listed(run.cut, 12)}" if run.cut else "" if run.status == "ok" else run.status
