"""The view of `bounds`: where can the eigenvalues be, and where are their extremes?"""

from collections.abc import Sequence

from hessdiag.linalg.component import Component
from hessdiag.questions.bounds.result import Bounds
from hessdiag.questions.common.metric import here, noun
from hessdiag.questions.common.view import metric_facts, subject
from hessdiag.report.numbers import (
    MISSING,
    bounded,
    counted,
    drawable,
    interval,
    number,
    percent,
    ratio,
    span,
    with_error,
)
from hessdiag.report.view import Dots, Fact, Series, Table, View

SHOWN = 20  # components of the discs; beyond, the largest groups and the ends

NAMES = {
    "gershgorin": ("Gershgorin", "discs around the diagonal, absolute row sums for radii"),
    "brauer": ("Brauer", "from pairs of rows: ovals of Cassini"),
    "perron": ("Perron", "Gershgorin's discs after the best diagonal scaling"),
    "feingold_varga": ("Feingold-Varga", "Gershgorin's discs of layers instead of rows"),
    "block_norm": ("block norms", "eigenvalues of the layers' matrix of norms"),
    "frobenius": ("trace and norm", "Wolkowicz and Styan: from tr H and the Frobenius norm alone"),
}


def view(result: Bounds) -> View:
    """Lay out a result of `bounds`."""
    blocks = (_intervals(result), _components(result.components))
    return View(
        question=f"Where can the {noun('Hessian', result.metric)}'s eigenvalues be?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=tuple(block for block in blocks if block is not None),
    )


def _interval(result: Bounds, name: str) -> Sequence[float] | None:
    """An interval of the result, where it has both ends."""
    ends: tuple[float, float] | None = getattr(result, name)
    return ends if ends is not None and all(drawable(end, log=False) for end in ends) else None


def _known(result: Bounds) -> list[tuple[str, Sequence[float]]]:
    return [(name, ends) for name in NAMES if (ends := _interval(result, name)) is not None]


def _width(ends: Sequence[float]) -> float:
    return ends[1] - ends[0]


def _headline(result: Bounds) -> tuple[str, str]:
    if not _known(result):
        if result.inner is None:
            return MISSING, "no bound was computed"
        return MISSING, "interrupted before any bound was complete"
    name, tightest = min(_known(result), key=lambda item: _width(item[1]))
    certain = "holds every eigenvalue" if result.method == "exact" else "is where the eigenvalues are estimated to be"
    ends = _interval(result, "measured")
    measured = f"; measured: {span(ends, *_bounds(result))}" if ends is not None else ""
    return interval(tightest), f"{certain} ({NAMES[name][0]}){here(result.metric)}{measured}"


def _bounds(result: Bounds) -> tuple[bool, bool]:
    """Whether the measured ends have not converged, so that the eigenvalues reach at least so far."""
    low, high = result.measured_converged or (True, True)
    return not low, not high


def _facts(result: Bounds) -> tuple[Fact, ...]:
    exact = result.method == "exact"
    proof = result.negative_certificate
    components, error = result.components, result.relative_stderr
    known = f"{number(result.rows)} of {counted(result.parameters, 'row')}"
    facts = [
        *metric_facts(result.metric),
        Fact("negative curvature", "certain" if proof.certain else "not proven", proof.why),
        Fact(
            "row sums",
            MISSING if result.gershgorin is None else "exact" if exact else f"± {percent(error)}",
            _rows(result) if exact else "relative standard error of the sketch; the largest rows are exact",
        ),
        Fact(
            "discs that are known",
            interval(result.known_discs),
            f"of {known}; each holds an eigenvalue, and others may lie anywhere",
        ),
        Fact("from inside", interval(result.inner), "an eigenvalue at or below the first, one at or above the second"),
        Fact(
            "groups of discs",
            number(len(components)) if components is not None else MISSING,
            "each holds exactly as many eigenvalues as discs",
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _rows(result: Bounds) -> str:
    streamed = result.perron is None
    return "every row was computed" + (
        "; other bounds need the whole matrix, up to 5,000 parameters" if streamed else ""
    )


def _intervals(result: Bounds) -> Dots | None:
    known = _known(result)
    measured = _interval(result, "measured")
    rows = [("measured", "lowest and highest Ritz value", measured)] if measured else []
    rows += [(NAMES[name][0], NAMES[name][1], ends) for name, ends in known]
    if not rows:
        return None
    errors = _interval(result, "measured_residuals") or (None, None)
    signs = tuple(sign if bound else None for sign, bound in zip(("upper", "lower"), _bounds(result), strict=True))
    most = "≤ " * any(signs)
    cells = tuple(
        (
            name,
            meaning,
            *(
                bounded(end, sign) if name != "measured" or sign else with_error(end, error)
                for end, error, sign in zip(ends, errors, signs if name == "measured" else (None, None), strict=True)
            ),
            most + ratio(_width(ends), _width(measured)) if measured else MISSING,
        )
        for name, meaning, ends in rows
    )
    low, high = (tuple(ends[side] for _, _, ends in rows) for side in (0, 1))
    mine = tuple(index == 0 and bool(measured) for index in range(len(rows)))

    def only(values: Sequence[float], measured: bool) -> tuple[float | None, ...]:
        return tuple(value if is_mine is measured else None for value, is_mine in zip(values, mine, strict=True))

    series = tuple(
        Series(f"{name}, {end}", only(values, own), only(low, own), only(high, own), group=group)
        for own, name, group in ((True, "measured", 0), (False, "bound", 1))
        for end, values in (("lower end", low), ("upper end", high))
        if own in mine
    )
    return Dots(
        title="Bounds beside the measured extremes",
        caption=(
            "Each bar is an interval that holds every eigenvalue; the top one is what they "
            f"{'at least' if most else 'do'} span. Perron's bar lies "
            "within Brauer's, and that within Gershgorin's. A bar much longer than the top one is a bound that is too "
            "cautious to set a step size by; a lower end that is not negative proves convexity."
        ),
        alt=f"{counted(len(known), 'interval')} that contain all eigenvalues, beside the measured extremes.",
        table=Table(
            "Bounds and measured extremes",
            ("bound", "which is", "low", "high", "/ measured"),
            cells,
            text_columns=2,
            optional=("which is",),
        ),
        text="table",
        labels=tuple(name for name, _, _ in rows),
        series=series,
        axis="eigenvalue",
        log=False,
    )


def _components(components: Sequence[Component] | None) -> Table | None:
    if not components or len(components) < 2:
        return None
    indices = range(len(components))
    shown = sorted(indices, key=lambda index: (index not in (0, len(components) - 1), -components[index].count))
    rows = tuple(
        (interval(components[index].interval), number(components[index].count)) for index in sorted(shown[:SHOWN])
    )
    title = "Groups of overlapping discs"
    if len(components) > SHOWN:
        title += f": {SHOWN} of {number(len(components))}, the outermost and the largest"
    return Table(title, ("interval", "eigenvalues within"), rows)
