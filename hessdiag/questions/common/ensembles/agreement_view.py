"""How agreement with exact theory is shown, whatever the question."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hessdiag.questions.common.ensembles.agreement import Agreement
from hessdiag.report.numbers import counted, deviation, number, with_error
from hessdiag.report.view import Fact, Table

A = TypeVar("A", bound=Agreement)


def agreement_fact(rows: Sequence[Agreement], compared: str) -> Iterator[Fact]:
    """The largest deviation among comparisons with theory, where there is one."""
    largest = max((abs(row.z) for row in rows if row.z is not None), default=None)
    if largest is not None:
        meaning = f"standard errors, in {counted(len(rows), 'comparison')} {compared}"
        yield Fact("agreement with theory", f"|z| ≤ {largest:.2f}", meaning)


def agreement_table(
    rows: Sequence[A], of: Callable[[A], tuple[str, ...]], title: str, columns: tuple[str, ...], *, names: int = 1
) -> tuple[Table, ...]:
    """All comparisons, where there are any.

    Args:
        rows: The comparisons.
        of: What one is of, in cells.
        title: Of the table.
        columns: What these cells are, and how the measured and the exact value are called.
        names: How many of the first columns are names.
    """
    if not rows:
        return ()
    cells = tuple(
        (*of(row), with_error(row.values[0], row.stderr), number(row.values[1], 4), deviation(row.z)) for row in rows
    )
    return (Table(title, (*columns, "z"), cells, text_columns=names),)
