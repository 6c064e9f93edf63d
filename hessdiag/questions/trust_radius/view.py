"""The view of `trust-radius`: how far from here can the Hessian be believed?"""

from hessdiag.questions.common.view import subject
from hessdiag.questions.trust_radius.result import Radius, TrustRadius
from hessdiag.report.numbers import MISSING, bounded, counted, number, percent, ratio
from hessdiag.report.view import Curve, Curves, Fact, Panel, Table, View, without_empty

DRAWN = (-0.5, 2.0)  # rho that is drawn; what lies beyond is in the tables
NAMES = {"uniform": "the ball", "rmsprop": "RMSprop's ellipsoid", "adagrad": "Adagrad's ellipsoid"}


def view(result: TrustRadius) -> View:
    """Lay out a result of `trust-radius`."""
    chart = _rho(result)
    return View(
        question="How far from here can the Hessian be believed?",
        subject=subject(result.problem),
        headline=_headline(result),
        facts=_facts(result),
        blocks=(*([] if chart is None else [chart]), *(_steps(result, norm) for norm in _shown(result))),
    )


def _shown(result: TrustRadius) -> tuple[str, ...]:
    """Metrics that differ: of one batch RMSprop's is Adagrad's, too."""
    twins = result.gradients == 1 and {"rmsprop", "adagrad"} <= set(result.norms)
    return tuple(norm for norm in result.norms if not (twins and norm == "adagrad"))


def _name(result: TrustRadius, norm: str) -> str:
    twins = norm == "rmsprop" and "adagrad" in result.norms and "adagrad" not in _shown(result)
    return "RMSprop's and Adagrad's ellipsoid" if twins else NAMES.get(norm, norm)


def _headline(result: TrustRadius) -> tuple[str, str]:
    if not result.radii:
        return MISSING, "interrupted before anything was measured"
    norm = result.norms[0]
    radius = result.trusted_radius.get(norm)
    if radius is None:
        return MISSING, "what steps change is below rounding of the loss"
    if radius == 0:
        return f"< {number(result.of(norm)[0].radius)}", "is how far the Hessian tells the truth, as the rms of a step"
    return _trusted(result, norm), "is the rms of steps up to which the Hessian tells the truth"


def _trusted(result: TrustRadius, norm: str) -> str:
    """The trusted radius; at least that, where no step led beyond."""
    radius = result.trusted_radius.get(norm)
    known = [row.reach for row in result.of(norm) if row.rho is not None]
    return bounded(radius, "lower" if known and radius == known[-1] else None, 3)


def _facts(result: TrustRadius) -> tuple[Fact, ...]:
    facts = [
        Fact(f"trusted in {_name(result, norm)}", _trusted(result, norm), _meaning(result, norm))
        for norm in _shown(result)
    ]
    facts += [
        Fact(
            "gates",
            number(result.gates) if result.gates else MISSING,
            "units with a kink, over all samples: ReLUs, max-pooling, clamps and their kin",
        ),
        Fact(
            "curvature left out",
            percent(result.missing_share, 2),
            "by autograd's Hessian, at the longest step along which its own piece is true",
        ),
        Fact("rms of the weights", number(result.weight_rms), "for comparison"),
        Fact("gradient norm", number(result.gradient_norm, 4), "Euclidean"),
        Fact("Hessian products", number(result.hvps), f"for {counted(len(result.radii), 'step')}"),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _meaning(result: TrustRadius, norm: str) -> str:
    held, share = result.trusted_radius_frozen_gates.get(norm), _share(result, norm)
    of_weights = f"; {percent(share, 2)} of the weights'" if share else ""
    return f"rms of a step{of_weights}" + (f"; with gates held {number(held)}" if held else "")


def _share(result: TrustRadius, norm: str) -> float | None:
    radius = result.trusted_radius.get(norm)
    return None if radius is None or not result.weight_rms else radius / result.weight_rms


def _rho(result: TrustRadius) -> Curves | None:
    """Rho against the radius, and the gates that flip, for all metrics that differ."""
    norms = _shown(result)
    if not norms:
        return None
    live = [_curve(result, norm, "rho", index, NAMES.get(norm, norm)) for index, norm in enumerate(norms)]
    held = [
        _curve(result, norm, "rho_frozen_gates", len(norms) + index, f"{NAMES.get(norm, norm)}, gates held")
        for index, norm in enumerate(norms)
    ]
    held = [curve for curve in held if any(y is not None for y in curve.y)]
    flips = [_curve(result, norm, "gates_flipped", index, NAMES.get(norm, norm)) for index, norm in enumerate(norms)]
    low, high = result.band
    panels = [Panel("actual / predicted", (*live, *held), log=False, levels=(low, high), limits=DRAWN)]
    if result.gates:
        panels.append(Panel("gates flipped", tuple(flips)))
    curves = (*live, *held)
    return Curves(
        title="Actual over predicted decrease against the length of the step",
        caption=(
            "At 1 the loss falls as much as the quadratic model says; between the dotted lines the model is trusted. "
            + (
                "Where the curves with gates held stay at 1 and the others leave it, kinks are why: the panel beneath "
                "has the share of gates that change side. "
                if held
                else ""
            )
            + f"What lies beyond {DRAWN[0]:g} and {DRAWN[1]:g} is in the tables."
        ),
        alt=f"Actual over predicted decrease against the radius, in {' and '.join(_name(result, n) for n in norms)}.",
        table=Table(
            "Actual over predicted decrease",
            ("radius", *(curve.name for curve in curves)),
            tuple(
                (_radius(row), *(number(curve.y[index]) for curve in curves))
                for index, row in enumerate(result.of(norms[0]))
                if all(index < len(curve.y) for curve in curves)
            ),
        ),
        text="none",
        panels=tuple(panels),
        x_axis="root mean square of the step, in a metric of mean 1",
    )


def _curve(result: TrustRadius, norm: str, what: str, group: int, name: str) -> Curve:
    rows = result.of(norm)
    return Curve(name, tuple(row.radius for row in rows), tuple(getattr(row, what) for row in rows), group)


def _steps(result: TrustRadius, norm: str) -> Table:
    rows = tuple(_cells(row) for row in result.of(norm))
    return without_empty(Table(f"Steps in {_name(result, norm)}", COLUMNS, rows, optional=OPTIONAL))


COLUMNS = (
    "radius",
    "rho",
    "gates held",
    "flipped",
    "left out",
    "step ends",
    "products",
    "quadratic",
    "Cauchy",
    "GLTR",
)
ENDS = {"interior": "inside", "negative curvature": "curves down"}
OPTIONAL = ("GLTR", "Cauchy", "quadratic", "products", "left out", "step ends")


def _cells(row: Radius) -> tuple[str, ...]:
    return (
        _radius(row),
        number(row.rho),
        number(row.rho_frozen_gates),
        percent(row.gates_flipped, 2),
        percent(row.missing_share, 2),
        ENDS.get(row.exit, row.exit),
        number(row.products),
        percent(row.quadratic_share, 2),
        ratio(row.cauchy, 1.0),
        ratio(row.gltr, 1.0),
    )


def _radius(row: Radius) -> str:
    """As it was asked for: 1e-5, and not 1.00e-5."""
    radius = row.radius or 0.0
    digits = next((digits for digits in (1, 2) if float(f"{radius:.{digits}g}") == radius), 3)
    return number(radius, digits)
