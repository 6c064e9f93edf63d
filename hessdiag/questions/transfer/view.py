"""The view of `transfer`: will a learning rate that was tuned small hold large?"""

from hessdiag.fields import Number
from hessdiag.questions.common.view import subject
from hessdiag.questions.transfer.result import LayerPowers, Slope, Transfer, changes_rate
from hessdiag.report.numbers import MISSING, counted, number
from hessdiag.report.view import Fact, Lines, Series, Table, View, without_empty

ANSWERS = {True: "yes", False: "no", None: "open"}
NAMES = {
    "lambda_max": "λ_max",
    "lambda_max_weighted": "λ_max that the optimizer sees",
    "update": "change of weights",
    "activation": "change of outputs",
}
FINE = 0.1  # standard errors below this have three decimals
WORDS = {"holds": "holds", "drifts": "drifts", "open": "unclear", None: MISSING}


def view(result: Transfer) -> View:
    """Lay out a result of `transfer`."""
    chart = _chart(result)
    return View(
        question=f"Will a learning rate that was tuned at a small {result.varied} hold at a large one?",
        subject=(*_asked(result), *subject(result.problem)),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(
            *([_slopes(result)] if result.sizes else []),
            *([_layers(result)] if result.layers else []),
            *([chart] if chart else []),
        ),
        extra=(_updates(result),) if result.layers else (),
    )


def _asked(result: Transfer) -> tuple[tuple[str, str], ...]:
    sizes = ", ".join(map(number, result.widths)) or "none finished"
    rates = "muP's table times the base rate" if result.multipliers == "mup" else "those of the optimizer's groups"
    return (
        (f"{result.varied}s", f"{sizes}; {counted(result.seeds, 'network')} of each"),
        ("optimizer", f"{result.optimizer}, {counted(result.steps, 'step')}"),
        ("learning rates", rates),
    )


def _headline(result: Transfer) -> tuple[str, str]:
    if len(result.widths) < 2:
        return MISSING, f"fewer than two {result.varied}s were finished"
    between = f"from {result.varied} {number(result.widths[0])} to {number(result.widths[-1])}"
    slope = result.slopes.lambda_max_weighted
    said = f"the curvature that the optimizer sees goes as {result.varied}^{_slope(slope)}"
    if slope.slope is None:
        said = f"outputs of inner layers change as {result.varied}^{_slope(result.slopes.activation)}"
    does = {
        True: "a learning rate holds",
        False: "a learning rate does not hold",
        None: "cannot be told whether a learning rate holds",
    }
    return ANSWERS[result.transfers], f"{does[result.transfers]} {between}: {said}"


def _slope(slope: Slope) -> str:
    if slope.slope is None or slope.stderr is None:
        return MISSING if slope.slope is None else f"{slope.slope:.2f}"
    digits = 3 if slope.stderr < FINE else 2
    return f"{round(slope.slope, digits) + 0.0:.{digits}f} ± {slope.stderr:.{digits}f}"


def _facts(result: Transfer) -> tuple[Fact, ...]:
    return tuple(
        Fact(NAMES[name], _slope(slope), f"{WORDS[slope.held]}: power of the {result.varied}")
        for name in NAMES
        if (slope := getattr(result.slopes, name)).slope is not None
    )


def _slopes(result: Transfer) -> Table:
    """Means at each size, and a line with their slopes."""
    columns = (
        result.varied, "parameters", "λ_max", "seen by the optimizer", "largest stable lr", "weights change",
        "outputs change", "diverged",
    )  # fmt: skip
    rows = [
        (
            number(size.size),
            number(size.parameters),
            *(number(value) for value in (size.lambda_max, size.lambda_max_weighted, size.largest_lr)),
            *(number(value) for value in (size.update, size.activation)),
            f"{size.diverged} of {size.networks}" if size.diverged else MISSING,
        )
        for size in result.sizes
    ]
    slopes = result.slopes
    if len(result.widths) > 1:
        shown = (slopes.lambda_max, slopes.lambda_max_weighted, None, slopes.update, slopes.activation)
        rows.append(("power", MISSING, *(MISSING if one is None else _slope(one) for one in shown), MISSING))
    table = Table(
        f"Means over networks, by {result.varied}",
        columns,
        tuple(rows),
        text_columns=0,
        optional=("parameters", "diverged", "weights change"),
    )
    return without_empty(table, kept=(result.varied,))


def _layers(result: Transfer) -> Table:
    """The coordinate check: one line for each kind of layer."""
    columns = (
        "layers", "role", "outputs change", "", "first update", "learning rate", "would need",
    )  # fmt: skip
    rows = tuple(
        (
            line.name if line.tensors == 1 else f"{line.name} ({line.tensors})",
            line.role,
            _slope(line.activation),
            WORDS[line.activation.held],
            _slope(line.first_update),
            _power(line.rate),
            _needed(line),
        )
        for line in result.layers
    )
    table = Table(
        f"Layer by layer: powers of the {result.varied} (0: the same at any {result.varied})",
        columns,
        rows,
        text_columns=2,
        optional=("role", "first update", "learning rate"),
    )
    return without_empty(table, kept=("layers", "outputs change"))


def _power(value: Number) -> str:
    return MISSING if value is None else f"{round(value, 2) + 0.0:g}"


def _needed(line: LayerPowers) -> str:
    """What differs from what it has."""
    parts = []
    if changes_rate(line):
        parts.append(f"rate {_power(line.mended_rate)}")
    if line.mended_weight is not None:
        parts.append(f"initial weights {_power(line.mended_weight)}")
    return ", ".join(parts) or MISSING


def _updates(result: Transfer) -> Table:
    rows = tuple(
        (
            line.name,
            _slope(line.update),
            _power(line.initial_weight),
            _power(line.initial_activation),
            *(MISSING if one.last is None else f"{one.last:.2f}" for one in (line.first_update, line.activation)),
        )
        for line in result.layers
    )
    columns = (
        "layers", "update after all steps", "initial weights", "initial outputs", "first update, last two sizes",
        "outputs change, last two sizes",
    )  # fmt: skip
    return Table("Further powers, layer by layer", columns, rows)


def _chart(result: Transfer) -> Lines | None:
    """What the optimizer sees against the size, relative to the smallest network."""
    if len(result.widths) < 2:
        return None
    series: list[Series] = []
    drawn: list[list[Number]] = []  # without multipliers the optimizer sees lambda_max itself
    for group, name in enumerate(NAMES):
        values = [getattr(size, name) for size in result.sizes]
        if values[0] and values not in drawn:
            drawn.append(values)
            shown = tuple(None if value is None else value / values[0] for value in values)
            series.append(Series(NAMES[name], shown, group=group))
    if not series:
        return None
    rows = tuple(
        (number(size), *(number(one.values[index]) for one in series)) for index, size in enumerate(result.widths)
    )
    return Lines(
        title=f"Relative to {result.varied} {number(result.widths[0])}",
        caption=(
            "A flat line holds: what was tuned on the smallest network fits the largest. λ_max itself may rise where "
            "learning rates make up for it."
        ),
        alt=f"Curvature and changes in networks of {len(result.widths)} sizes, relative to the smallest.",
        table=Table(f"By {result.varied}", (result.varied, *(one.name for one in series)), rows, text_columns=0),
        text="spark",
        x=tuple(float(size) for size in result.widths),
        series=tuple(series),
        x_axis=result.varied,
        x_log=True,
        y_axis=f"relative to {result.varied} {number(result.widths[0])}",
    )
