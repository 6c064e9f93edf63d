"""The view of `precondition`: which preconditioner is worth its memory?"""

from hessdiag.fields import Interval, Number
from hessdiag.questions.common.view import subject
from hessdiag.questions.precondition.kinds import word
from hessdiag.questions.precondition.result import Precondition, Preconditioned
from hessdiag.questions.precondition.verdict import best, blurred, chosen
from hessdiag.report.numbers import MISSING, counted, number, percent, with_error
from hessdiag.report.view import Curve, Curves, Fact, Panel, Table, View, without_empty


def view(result: Precondition) -> View:
    """Lay out a result of `precondition`."""
    chart = _pareto(result)
    return View(
        question="Which preconditioner is worth its memory?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(*([_table(result)] if result.preconditioners else []), *([] if chart is None else [chart])),
    )


def _headline(result: Precondition) -> tuple[str, str]:
    plain, top = result.of("none"), best(result)
    if plain is None or top is None:
        zero = result.largest is not None
        return MISSING, "the Hessian is zero" if zero else "interrupted before anything was measured"
    if blurred(result) and plain.condition_interval is not None:
        low, high = plain.condition_interval
        where = f"{number(low)} to {number(high)}"
        return (
            where,
            "holds the condition number without a preconditioner; intervals with one overlap it, and none is chosen",
        )
    own = chosen(result) or top
    if own.name == "none":
        return number(plain.condition, 4), "is the condition number, and no preconditioner makes it much better"
    what = f"is the condition number with {word(own.name)}, which holds {counted(own.numbers_held, 'number')}"
    return number(own.condition, 4), f"{what}; without a preconditioner it is {number(plain.condition, 4)}"


def _facts(result: Precondition) -> tuple[Fact, ...]:
    exact = result.method == "exact"
    facts = [
        Fact(
            "damping",
            number(result.shift),
            f"{percent(result.damping)} of the largest |λ|, added to curvature and preconditioner: "
            "without any, the condition number of a singular matrix is infinite",
        ),
        Fact("largest eigenvalue", number(result.largest, 4), "of the Hessian"),
        Fact("smallest eigenvalue", number(result.smallest, 4), "of the Hessian"),
        Fact(
            "eigenpairs",
            number(result.resolved) if result.resolved else MISSING,
            "all of the Hessian's"
            if exact
            else f"of the Hessian's were found; others are below {number(result.unresolved)}",
        ),
        Fact("second moments", result.optimizer or MISSING, FROM[result.optimizer_state]),
        Fact("Hessian products", number(result.hvps) if result.hvps else MISSING, "a whole Hessian counts as N"),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


FROM = {
    "checkpoint": "with the state of its checkpoint",
    "optimizer": "with the state that it has",
    "gradients": "that stands still here: the mean of the batches' squared gradients",
}
COLUMNS = (
    "preconditioner",
    "frontier",
    "numbers held",
    "condition",
    "of |H|",
    "effective dimension",
    "CG iterations",
)


def _table(result: Precondition) -> Table:
    rows = tuple(_cells(row) for row in result.preconditioners)
    table = Table(
        "Preconditioners", COLUMNS, rows, text_columns=2, optional=("effective dimension", "frontier", "of |H|")
    )
    return without_empty(table, kept=("frontier",))


def _cells(row: Preconditioned) -> tuple[str, ...]:
    return (
        word(row.name),
        "yes" if row.frontier else "",
        number(row.numbers_held),
        _between(row.condition, row.condition_interval),
        _between(row.condition_absolute, row.condition_absolute_interval),
        with_error(row.effective_dimension, row.effective_dimension_stderr, 4),
        f"> {row.cg_iterations}" if row.cg_unfinished else number(row.cg_iterations),
    )


def _between(value: Number, bounds: Interval | None) -> str:
    """A number, and between what it surely is."""
    if value is None or bounds is None:
        return number(value, 4)
    return f"{number(value, 4)} ({number(bounds[0])} to {number(bounds[1])})"


def _pareto(result: Precondition) -> Curves | None:
    """Numbers held against condition number, and the frontier."""
    rows = [row for row in result.preconditioners if row.condition is not None]
    if len(rows) < 2:
        return None
    edge = sorted((row for row in rows if row.frontier), key=lambda row: row.numbers_held)
    line = tuple(_each(result, row) for row in edge), tuple(row.condition for row in edge)
    curves = [Curve("frontier", *line, group=0)]
    for group, row in enumerate(rows, 1):
        x, y = _each(result, row), row.condition or 0.0
        curves.append(Curve(word(row.name), (x,), (y,), group, mark=(x, y)))
    return Curves(
        title="Numbers held against condition number",
        caption=(
            "Left is cheaper, lower is better conditioned. What lies above the line of the frontier is beaten by one "
            "that holds no more; the best possible condition number is 1."
        ),
        alt="Condition number against numbers held a parameter, for each preconditioner.",
        table=Table(
            "Numbers held against condition number",
            ("preconditioner", "numbers a parameter", "condition"),
            tuple((word(row.name), number(_each(result, row)), number(row.condition, 4)) for row in rows),
        ),
        text="none",
        panels=(Panel("condition number", tuple(curves)),),
        x_axis="numbers held for each parameter",
    )


def _each(result: Precondition, row: Preconditioned) -> float:
    return row.numbers_held / max(result.parameters, 1)
