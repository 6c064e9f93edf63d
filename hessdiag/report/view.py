"""What a report shows, free of where it is shown: header, headline, tables, charts, verdict."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from hessdiag.report.numbers import MISSING

Values = tuple[float | None, ...]
Role = Literal["measured", "mean", "reference", "theory", "points"]


@dataclass(frozen=True)
class Table:
    """Cells that are formatted already; the first `text_columns` hold text, the others numbers.

    Where there is no room, the columns named in `optional` go, in that order.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """One quantity of a chart.

    Attributes:
        name: Label in the legend.
        values: One per label or x position.
        low: Lower ends of a band or of intervals, where there are any.
        high: Upper ends.
        role: What kind of number it is: sets mark and dash.
        group: Which quantity it belongs to: sets the colour.
    """

    name: str
    values: Values
    low: Values = ()
    high: Values = ()
    role: Role = "measured"
    group: int = 0


@dataclass(frozen=True)
class Chart:
    """What all charts share.

    Attributes:
        title: Heading.
        caption: How to read it, and what to look for.
        alt: The same in one sentence for those who cannot see it.
        table: The numbers in it.
        text: How a terminal shows it: in characters, as a sparkline per series, as its table, or not at all.
    """

    title: str
    caption: str
    alt: str
    table: Table
    text: Literal["chart", "spark", "table", "none"]


@dataclass(frozen=True)
class Dots(Chart):
    """One row per label, one mark per series, along a horizontal axis.

    With `linear_below`, the axis is logarithmic on both sides of zero and linear up to that value.
    """

    labels: tuple[str, ...]
    series: tuple[Series, ...]
    axis: str
    log: bool = True
    linear_below: float | None = None


@dataclass(frozen=True)
class Lines(Chart):
    """Series over a common x, with a logarithmic y axis, and x axis too if `x_log`, with a tick at each position.

    `names` labels x positions that are no numbers.
    """

    x: tuple[float, ...]
    series: tuple[Series, ...]
    x_axis: str
    y_axis: str
    names: tuple[str, ...] = ()
    x_log: bool = False


@dataclass(frozen=True)
class Heat(Chart):
    """A matrix of shares, on a logarithmic colour scale. Its columns are named like its rows unless told otherwise.

    The colours run over six decades up to the largest entry, or over `scale`. One entry may be `marked`, by its row
    and column.
    """

    labels: tuple[str, ...]
    matrix: tuple[Values, ...]
    axis: str
    columns: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    x_axis: str = ""
    y_axis: str = ""
    marked: tuple[int, int] | None = None


@dataclass(frozen=True)
class Curve:
    """A curve with positions of its own.

    Attributes:
        name: Label in the legend.
        x: Positions, which ascend.
        y: One value at each.
        group: Which quantity it belongs to: sets colour, dash and mark.
        main: Whether it stands for its group: drawn in full, with its mark, and named in the legend.
        mark: A point on it that is marked.
    """

    name: str
    x: Values
    y: Values
    group: int = 0
    main: bool = True
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Span:
    """Where something was predicted to happen along x, and where it did.

    Attributes:
        name: Beside it.
        low: Where the band begins.
        typical: The prediction itself.
        high: Where the band ends; infinite where it never happens.
        seen: Where it did happen.
        group: As of the curves.
    """

    name: str
    low: float
    typical: float
    high: float
    seen: Values
    group: int = 0


@dataclass(frozen=True)
class Panel:
    """One of several pictures beneath each other.

    Attributes:
        y_axis: What its curves show; unused where spans are shown.
        curves: What is drawn in it.
        log: Whether its y axis is logarithmic.
        levels: Heights at which a line runs across.
        limits: Of the y axis, where the curves' own are not wanted.
        spans: Bands, a row each, in the place of curves.
    """

    y_axis: str
    curves: tuple[Curve, ...] = ()
    log: bool = True
    levels: tuple[float, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Curves(Chart):
    """Curves with positions of their own, in panels over one x axis: logarithmic, but linear up to the first number."""

    panels: tuple[Panel, ...]
    x_axis: str


Drawn = Dots | Lines | Heat | Curves
Block = Table | Drawn


@dataclass(frozen=True)
class Fact:
    """A key number, with what it means, and the key of the section that it is from."""

    name: str
    value: str
    meaning: str
    section: str = ""


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict, the number behind it, what to do, and the keys of the sections that say it."""

    level: str
    says: str
    because: str
    remedy: str
    sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """One check that a measurement made of itself: what came out, what is allowed, and a word for both."""

    name: str
    value: str
    allowed: str
    outcome: str
    meaning: str


@dataclass(frozen=True)
class LeftOut:
    """A question that was not answered: why, what it would take, and the command that answers it."""

    name: str
    why: str
    cost: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """A whole report.

    What a question lays out comes first; the rest is the same for all, and is filled in by `questions/pages.py`.

    Attributes:
        question: What the command answers.
        subject: What was measured, as (name, value).
        headline: The answer: a number, and the sentence around it.
        facts: Further key numbers.
        blocks: Charts and tables, in order.
        code: Lines of code for the reader's own script.
        extra: Tables for the page only.
        command: The command's name.
        warnings: What must be seen before any number is believed.
        verdict: Findings, most important first.
        notes: Remarks of the loader.
        checks: What the measurement checked of itself.
        reproduce: What somebody needs who wants the same numbers, as (name, value).
        argv: The command line that gave them; empty where there was none.
        sections: The answers that it is made of, where it is of several questions.
        left_out: Questions that were not answered.
    """

    question: str
    subject: tuple[tuple[str, str], ...]
    headline: tuple[str, str]
    facts: tuple[Fact, ...]
    blocks: tuple[Block, ...]
    code: tuple[str, ...] = ()
    extra: tuple[Table, ...] = ()
    command: str = ""
    warnings: tuple[str, ...] = ()
    verdict: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    checks: tuple[SelfCheck, ...] = ()
    reproduce: tuple[tuple[str, str], ...] = ()
    argv: tuple[str, ...] = ()
    sections: tuple["Section", ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Section:
    """One answer in a report of several questions.

    Attributes:
        key: Its name: that of its command, and of nothing else in the report.
        view: The answer, with the single command that gives it.
        took: How long it took.
        announced: How long it was planned to take; empty where nobody could know.
    """

    key: str
    view: View
    took: str
    announced: str = ""


def without_empty(table: Table, kept: Collection[str] = ()) -> Table:
    """A table without the columns in which nothing is known, but for those that stay all the same."""
    shown = [
        index
        for index, name in enumerate(table.columns)
        if name in kept or any(row[index] != MISSING for row in table.rows)
    ]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in shown),
        rows=tuple(tuple(row[index] for index in shown) for row in table.rows),
    )


def checks_table(checks: tuple[SelfCheck, ...]) -> Table:
    """Self-checks as a table."""
    rows = tuple((check.name, check.outcome, check.meaning, check.value, check.allowed) for check in checks)
    return Table("Self-checks", ("check", "outcome", "what it says", "measured", "allowed"), rows, text_columns=3)
