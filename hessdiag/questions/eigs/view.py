"""The view of `eigs`: how sharp is the loss, and which way does it curve down?"""

from collections.abc import Sequence

from hessdiag.questions.common.metric import Metric, here, noun
from hessdiag.questions.common.verdict import mode_words
from hessdiag.questions.common.view import metric_facts, signs, subject
from hessdiag.questions.eigs.result import Eigenpair, Eigs
from hessdiag.report.names import shortened
from hessdiag.report.numbers import MISSING, bounded, counted, drawable, interval, number, percent, span
from hessdiag.report.view import Dots, Fact, Heat, Lines, Series, Table, View

CHARTED = 20  # eigenvalues of each end in the chart
FULL_TABLE = 12  # layers up to which the table of weights names all; beyond, those that hold most
DECADES = 4  # of the axis on either side of zero, below the largest eigenvalue

_BOUNDS = (
    " A pair that has not converged is a bound: the k-th smallest eigenvalue is at or below the k-th lowest Ritz "
    "value, the k-th largest at or above the k-th highest."
)


def view(result: Eigs) -> View:
    """Lay out a result of `eigs`."""
    charts = (_eigenvalues(result), _spectrum(result), _weights(result)) if _pairs(result) else ()
    return View(
        question="How sharp is the loss, and which way does it curve down?"
        if result.metric is None
        else "How sharp is the loss for the optimizer, and which way does it curve down?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=tuple(chart for chart in charts if chart is not None),
    )


def _pairs(result: Eigs) -> list[tuple[str, Eigenpair]]:
    """All pairs with their names, ascending; the largest eigenvalue is `highest 1`."""
    low = [(f"lowest {index + 1}", pair) for index, pair in enumerate(result.lowest)]
    high = [(f"highest {len(result.highest) - index}", pair) for index, pair in enumerate(result.highest)]
    return low + high


def _headline(result: Eigs) -> tuple[str, str]:
    matrix, metric = noun("Hessian", result.metric), here(result.metric)
    low, high = result.smallest, result.largest
    if low is None and high is None:
        return MISSING, "interrupted before anything was measured"
    low_bound, high_bound = bool(result.smallest_is_bound), bool(result.largest_is_bound)
    if low is None or high is None:
        known = (
            bounded(low, "upper" if low_bound else None)
            if high is None
            else bounded(high, "lower" if high_bound else None)
        )
        which = "lowest" if high is None else "highest"
        return (
            known,
            f"is the {which} eigenvalue of the {matrix}{metric}"
            + ", which has not converged" * (low_bound or high_bound),
        )
    if low_bound or high_bound:
        return (
            span([low, high], low_bound, high_bound),
            f"is the least that the {matrix}'s eigenvalues span{metric}: an end marked ≤ or ≥ has not converged",
        )
    return interval([low, high]), f"is the span of the {matrix}'s eigenvalues{metric}; its upper end is the sharpness"


def _facts(result: Eigs) -> tuple[Fact, ...]:
    proof, inertia = result.negative_certificate, result.inertia
    certain = f"certain: an eigenvalue ≤ {number(proof.bound, 4)}"
    step_bound = "upper" if result.largest_step_is_bound else None
    facts = [
        *metric_facts(result.metric),
        Fact("negative curvature", certain if proof.certain else "not proven", proof.why),
        Fact(
            "largest stable step",
            bounded(result.largest_step, step_bound),
            _limit(result.metric)
            + (", or less: λ_max has not converged" if step_bound else "")
            + mode_words(result.problem),
        ),
        Fact(
            "along the gradient",
            number(result.gradient_curvature, 4),
            "g'Hg / g'g" if result.metric is None else "d'Hd / d'Pd, d = P^(-1) g the preconditioned gradient",
        ),
        Fact(
            "gradient norm", number(result.gradient_norm, 4), "Euclidean" if result.metric is None else "of P^(-1/2) g"
        ),
        Fact(
            "signs",
            signs(inertia),
            "of all eigenvalues; zero is below "
            + number(inertia.tolerance if inertia is not None else result.rounding, 2),
        ),
        Fact("Hessian products", number(result.hvps), _how(result)),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _limit(metric: Metric | None) -> str:
    """What limits the largest stable step."""
    if metric is None:
        return "2 / λ_max: the limit for plain gradient descent"
    beyond = f" + {number(metric.shift)}" if metric.shift else ""
    divided = f"({'λ_max' + beyond})" if beyond else "λ_max"
    largest = ", the largest of the groups'" if metric.rates_differ else ""
    return f"{number(metric.threshold, 4)} / {divided}: the limit of the learning rate of {metric.optimizer}{largest}"


def _how(result: Eigs) -> str:
    if result.method == "exact":
        return "the whole matrix was formed"
    restarts = f", {counted(result.restarts, 'restart')}" if result.restarts else ""
    return f"Lanczos, {counted(result.basis, 'vector')}{restarts}"


def _eigenvalues(result: Eigs) -> Dots:
    pairs = _pairs(result)
    rows = tuple(
        (
            name,
            bounded(pair.eigenvalue, pair.bound),
            number(pair.residual, 2),
            "yes" if pair.converged else "NO",
            number(pair.gradient_overlap, 2),
        )
        for name, pair in pairs
    )
    low, high = len(result.lowest), len(result.highest)
    drawn = pairs if low + high <= 2 * CHARTED else [*pairs[: min(low, CHARTED)], *pairs[-min(high, CHARTED) :]]
    values = [pair.eigenvalue for _, pair in drawn]
    errors = [0.0 if pair.residual is None else pair.residual for _, pair in drawn]
    largest = max((abs(value) for value in values if drawable(value, log=False)), default=0.0)
    return Dots(
        title="Both ends of the spectrum",
        caption=(
            "Each mark is a Ritz value, with its residual as a bar where that is wide enough to see: an eigenvalue "
            "lies within it. The axis is logarithmic on both sides of zero. Marks left of zero are directions in which "
            "the loss curves down; the rightmost mark limits the learning rate. The overlap is |cos| of the angle "
            "between eigenvector and gradient"
            + ("." if result.metric is None else ", both in the coordinates P^(1/2) θ of the metric.")
            + (_BOUNDS if any(pair.bound for _, pair in pairs) else "")
        ),
        alt=f"{len(drawn)} eigenvalues from {number(result.smallest)} to {number(result.largest)}.",
        table=Table(
            "Eigenpairs",
            ("which", "eigenvalue", "residual", "converged", "gradient overlap"),
            rows,
            optional=("gradient overlap",),
        ),
        text="table",
        labels=tuple(name for name, _ in drawn),
        series=(
            Series(
                "eigenvalue",
                tuple(values),
                tuple(None if v is None else v - error for v, error in zip(values, errors, strict=True)),
                tuple(None if v is None else v + error for v, error in zip(values, errors, strict=True)),
            ),
        ),
        axis="eigenvalue",
        log=False,
        linear_below=largest / 10**DECADES or None,
    )


def _spectrum(result: Eigs) -> Lines | None:
    spectrum, inertia = result.spectrum, result.inertia
    if spectrum is None or inertia is None or len(spectrum) < 2:
        return None
    zero = inertia.tolerance or 0.0
    finite = [value for value in spectrum if drawable(value, log=False)]
    by_sign = {"positive": [v for v in reversed(finite) if v > zero], "negative": [-v for v in finite if v < -zero]}
    known = {name: values for name, values in by_sign.items() if values}
    if not known:
        return None
    count = max(len(values) for values in known.values())
    return Lines(
        title="All eigenvalues, by size",
        caption=(
            "The positive and the negative eigenvalues, each sorted by absolute value, on a logarithmic axis. A steep "
            "start is a few outliers above a bulk; two curves of equal height are a Hessian that is as much saddle as "
            f"bowl. Eigenvalues below {number(zero, 2)} are rounding, and left out."
        ),
        alt=f"{' and '.join(f'{len(values)} {name}' for name, values in known.items())} eigenvalues, by size.",
        table=Table(
            "Eigenvalues by size",
            ("rank", *known),
            tuple(
                (
                    number(rank + 1),
                    *(number(values[rank] if rank < len(values) else None) for values in known.values()),
                )
                for rank in _ranks(count)
            ),
        ),
        text="none",
        x=tuple(float(rank + 1) for rank in range(count)),
        series=tuple(
            Series(name, (*values, *(None,) * (count - len(values))), group=group)
            for group, (name, values) in enumerate(known.items())
        ),
        x_axis="rank",
        y_axis="|eigenvalue|",
    )


def _ranks(count: int) -> list[int]:
    """Ranks that a table shows: 1, 2, 5, 10, 20, 50, ... and the last.

    >>> _ranks(30)
    [0, 1, 4, 9, 19, 29]
    """
    steps = (digit * 10**power - 1 for power in range(7) for digit in (1, 2, 5))
    return [*(rank for rank in steps if rank < count - 1), count - 1]


def _weights(result: Eigs) -> Heat | None:
    names, pairs = shortened(result.layers), _pairs(result)
    if len(names) < 2 or not pairs:
        return None
    matrix = [[pair.layer_weights[index] for _, pair in pairs] for index in range(len(names))]
    shown = _shown_layers(matrix)
    columns = tuple(name for name, _ in pairs)
    inner = sorted(range(len(pairs)), key=lambda index: abs(2 * index - len(pairs) + 1))
    all_shown = len(shown) == len(names)
    return Heat(
        title="Where the eigenvectors live",
        caption=(
            "Each column is an eigenvector; its cells are the shares of its squared norm in each layer, and sum to 1. "
            "A bright cell is a direction that belongs to one layer, an even column one that moves the whole network."
        ),
        alt=f"Heat map of {counted(len(names), 'layer')} by {len(pairs)} eigenvectors.",
        table=Table(
            "Weight of each eigenvector in each layer",
            ("layer" if all_shown else f"{len(shown)} of {counted(len(names), 'layer')}", *columns),
            tuple((names[index], *(percent(weight) for weight in matrix[index])) for index in shown),
            optional=tuple(columns[index] for index in inner[:-2]),
        ),
        text="table",
        labels=names,
        columns=columns,
        matrix=tuple(tuple(row) for row in matrix),
        axis="share of the squared norm",
    )


def _shown_layers(matrix: Sequence[Sequence[float | None]]) -> list[int]:
    """The layers that hold most over all eigenvectors, in their order."""
    heaviest = sorted(range(len(matrix)), key=lambda index: -sum(weight or 0.0 for weight in matrix[index]))
    return sorted(heaviest[:FULL_TABLE])
