"""The view of a comparison: what moved first, every number with its change, and how the results differ otherwise."""

import math
from collections.abc import Sequence

from hessdiag.numbers import listed
from hessdiag.questions.common.steps import short_names
from hessdiag.questions.compare.result import Compare, ComparedRun, Course, NumberChange
from hessdiag.questions.compare.verdict import WAYS, moved, sentence
from hessdiag.report.numbers import MISSING, bounded, counted, interval, number, p_value, percent, ratio, with_error
from hessdiag.report.view import Block, Dots, Fact, Lines, Series, Table, View, without_empty

MOST_ROWS = 40  # of a chart
WIDE = 4.0  # standard errors: what reaches farther is told by its interval, which the error is too small for
MOST_COLUMNS = 4  # results that have one each
SHORT = 12  # characters of a sha256


def view(result: Compare) -> View:
    """Lay out a comparison."""
    drawn: list[Block | None] = [_courses(result), _course_table(result), _changes(result), _steps(result)]
    drawn += [_factors(result), _settings(result)]
    return View(
        question=f"What changed between these results of {result.compared}, and whether beyond their errors?",
        subject=_subject(result),
        headline=_headline(result),
        facts=_facts(result),
        blocks=tuple(block for block in drawn if block is not None),
        extra=(_runs(result.runs),),
    )


def _subject(result: Compare) -> tuple[tuple[str, str], ...]:
    labels = [run.label for run in result.runs]
    several = f"{counted(len(labels), 'result')}, {labels[0]} to {labels[-1]}"
    between = several if len(labels) > 2 else f"{labels[0]} and {labels[1]}"
    models = list(dict.fromkeys(run.model for run in result.runs))
    alike = "yes" if result.comparable else f"NO: {result.why}"
    return (
        ("compared", between),
        ("model", " / ".join(dict.fromkeys((models[0], models[-1])))),
        ("same question", alike),
    )


def _headline(result: Compare) -> tuple[str, str]:
    judged = sum(row.how in ("estimates", "exact") for row in result.changes)
    return f"{result.significant} of {judged}", f"numbers moved: {sentence(result)}"


def _facts(result: Compare) -> tuple[Fact, ...]:
    tested = sum(row.p is not None for row in result.changes)
    facts = [
        Fact("moved", number(result.significant), "numbers, beyond the errors of both"),
    ]
    if tested:
        facts.append(Fact("tested", number(tested), _level(result.level)))
    if result.worse or result.better:
        facts.append(
            Fact(
                "worse / better",
                f"{result.worse} / {result.better}",
                "of those that have a better side whatever the network",
            )
        )
    return tuple(facts)


def _level(level: float | None) -> str:
    share = percent(level, 1)
    return f"estimates, at {share} all together: of comparisons of equals, {share} show a change"


def _question(rows: Sequence[NumberChange], row: NumberChange) -> str:
    """A number's name, with its question where there are several."""
    return f"{row.command}: {row.name}" if len({one.command for one in rows}) > 1 else row.name


def _changes(result: Compare) -> Table | None:
    """Every number; what moved is first."""
    first = moved(result)
    rows = [*first, *(row for row in result.changes if not row.significant)]
    if not rows:
        return None
    cells = tuple(
        (
            _question(rows, row),
            _value(row.before, row.before_stderr, row.before_interval),
            _value(row.after, row.after_stderr, row.after_interval),
            with_error(row.change, row.stderr, 3),
            ratio(row.after, row.before) if (row.before or 0.0) * (row.after or 0.0) > 0 else MISSING,
            _chance(row),
            _way(row),
        )
        for row in rows
    )
    start, end = result.runs[0].label, result.runs[-1].label
    columns = ("number", "before", "after", "change", "factor", "p, all together", "moved")
    title = f"Every number, from {start} to {end}"
    return without_empty(
        Table(title, columns, cells, optional=("factor", "change")), ("number", "before", "after", "moved")
    )


def _value(value: float | None, stderr: float | None, ends: tuple[float, float] | None) -> str:
    if ends is None or value is None:
        return with_error(value, stderr)
    if stderr is not None and max(value - ends[0], ends[1] - value) <= WIDE * stderr:
        return with_error(value, stderr)
    if math.isinf(ends[1]) or math.isinf(ends[0]):
        return bounded(value, "lower" if math.isinf(ends[1]) else "upper")
    narrow = ends[1] - ends[0] < 0.1 * abs(value)
    return number(value, 4) if narrow else f"{number(value)} ({interval(ends, 2)})"


def _chance(row: NumberChange) -> str:
    if row.p is None:
        bounds = row.before_interval or row.after_interval
        return MISSING if row.how != "exact" else "bounds" if bounds else "exact"
    return p_value(row.p_adjusted).removeprefix("p = ").removeprefix("p ")


def _way(row: NumberChange) -> str:
    if row.how in ("untold", "missing"):
        return {"untold": "not judged", "missing": "missing"}[row.how]
    word = {True: ", better", False: ", worse", None: ""}[row.better]
    return f"{WAYS.get(row.way, 'no change shown')}{word}"


def _steps(result: Compare) -> Table | None:
    """Every step of the headline numbers."""
    if not result.steps:
        return None
    labels = [run.label for run in result.runs]
    short = dict(zip(labels, short_names(labels), strict=True))
    rows = tuple(
        (
            step.name,
            f"{short[step.start]} → {short[step.end]}",
            with_error(step.change, step.stderr, 3),
            "exact" if step.p is None else p_value(step.p).removeprefix("p = ").removeprefix("p "),
            "yes" if step.significant else "no",
        )
        for step in result.steps
    )
    return Table(
        "From each result to the next",
        ("number", "step", "change", "p, all together", "beyond errors"),
        rows,
        text_columns=2,
    )


def _course_table(result: Compare) -> Table | None:
    if not result.courses:
        return None
    labels = short_names([run.label for run in result.runs])
    rows = tuple(
        (label, *(_value(course.values[index], None, _ends(course, index)) for course in result.courses))
        for index, label in enumerate(labels)
    )
    return Table("Headline numbers along the results", ("result", *(course.name for course in result.courses)), rows)


def _ends(course: Course, index: int) -> tuple[float, float] | None:
    low, high = course.low[index], course.high[index]
    return None if low is None or high is None or low == high else (low, high)


def _courses(result: Compare) -> Lines | None:
    """Headline numbers along the results, each relative to its first value."""
    drawn = [course for course in result.courses if course.values[0]]
    table = _course_table(result)
    if not drawn or table is None:
        return None
    names = tuple(short_names([run.label for run in result.runs]))
    return Lines(
        title="Along the results",
        caption="Each headline number over its value in the first result, with 95 % intervals. "
        "Where it turned to the other sign, it is not shown.",
        alt="Headline numbers relative to the first result.",
        table=table,
        text="spark",
        x=tuple(float(index) for index in range(len(names))),
        series=tuple(_relative(course, group) for group, course in enumerate(drawn)),
        x_axis="result",
        y_axis="over the first value",
        names=names,
    )


def _relative(course: Course, group: int) -> Series:
    unit = course.values[0] or 1.0

    def over(values: Sequence[float | None]) -> tuple[float | None, ...]:
        shares = [None if value is None or not math.isfinite(value) else value / unit for value in values]
        return tuple(share if share is not None and share > 0 else None for share in shares)

    low, high = (course.low, course.high) if unit > 0 else (course.high, course.low)
    return Series(course.name, over(course.values), over(low), over(high), group=group)


def _factors(result: Compare) -> Dots | None:
    """By what each number was multiplied, where it has one sign."""
    rows = [
        row
        for row in result.changes
        if row.how in ("estimates", "exact") and (row.before or 0.0) * (row.after or 0.0) > 0
    ]
    if len(rows) < 2 or len(rows) > MOST_ROWS:
        return None
    ends = [_factor(row) for row in rows]

    def series(name: str, group: int, *, significant: bool) -> Series:
        kept = [
            end if row.significant is significant else (None, None, None) for row, end in zip(rows, ends, strict=True)
        ]
        middle, low, high = zip(*kept, strict=True)
        return Series(name, middle, low, high, group=group)

    drawn = [
        series(name, group, significant=significant)
        for name, group, significant in (("moved beyond the errors", 1, True), ("no change shown", 0, False))
        if any(row.significant is significant for row in rows)
    ]
    cells = tuple(
        (_question(rows, row), *(number(end) for end in three)) for row, three in zip(rows, ends, strict=True)
    )
    return Dots(
        title="By what each number was multiplied",
        caption="The last value over the first, with the 95 % interval of each number by itself. At 1 nothing "
        "changed; numbers that changed their sign are left out.",
        alt="The last value of each number over the first.",
        table=Table("By what each number was multiplied", ("number", "factor", "from", "to"), cells),
        text="none",
        labels=tuple(_question(rows, row) for row in rows),
        series=(*drawn, Series("no change", (1.0,) * len(rows), role="reference")),
        axis="last value over the first",
    )


def _factor(row: NumberChange) -> tuple[float | None, float | None, float | None]:
    """The factor and the ends of its interval, on a logarithmic scale."""
    assert row.before is not None
    assert row.after is not None
    (a, a_low, a_high), (b, b_low, b_high) = (
        _sizes(row.before, row.before_interval),
        _sizes(row.after, row.after_interval),
    )
    down = math.hypot(_log(b, b_low), _log(a_high, a))
    up = math.hypot(_log(b_high, b), _log(a, a_low))
    return b / a, b / a * math.exp(-min(down, 300.0)), b / a * math.exp(min(up, 300.0))


def _sizes(value: float, ends: tuple[float, float] | None) -> tuple[float, float, float]:
    """A magnitude with the ends of its interval; ends beyond zero are drawn at a tenth of it."""
    sign = math.copysign(1.0, value)
    low, high = sorted((sign * ends[0], sign * ends[1])) if ends is not None else (abs(value), abs(value))
    return abs(value), max(low, abs(value) / 10), min(high, abs(value) * 10)


def _log(a: float, b: float) -> float:
    return math.log(a / b)


def _settings(result: Compare) -> Table | None:
    """What differs besides weights and seeds."""
    if not result.settings:
        return None
    labels, few = [run.label for run in result.runs], len(result.runs) <= MOST_COLUMNS
    rows = tuple(
        (
            setting.setting,
            *(setting.values if few else (listed(list(dict.fromkeys(setting.values))),)),
            "yes" if setting.matters else "no, only the errors",
        )
        for setting in result.settings
    )
    columns = ("setting", *(short_names(labels) if few else ("values",)), "numbers may differ by it")
    return Table("What else differs", columns, rows, text_columns=len(columns))


def _runs(runs: Sequence[ComparedRun]) -> Table:
    """How each result came to be."""
    rows = tuple(
        (
            run.label,
            run.model,
            run.status,
            run.started or MISSING,
            f"{run.dtype} on {run.device}",
            MISSING if run.seed is None else str(run.seed),
            (run.weights_sha256 or MISSING)[:SHORT],
        )
        for run in runs
    )
    return Table(
        "The results", ("result", "model", "status", "started", "computed", "seed", "weights"), rows, text_columns=7
    )
