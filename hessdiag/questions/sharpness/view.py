"""The view of `sharpness`: how large a step will my optimizer take here?"""

from hessdiag.questions.common.verdict import mode_words
from hessdiag.questions.common.view import subject
from hessdiag.questions.sharpness.result import Reading, Sharpness
from hessdiag.questions.sharpness.verdict import NAMES
from hessdiag.report.numbers import MISSING, bounded, counted, drawable, number, with_error
from hessdiag.report.view import Dots, Fact, Series, Table, View, without_empty

MEANINGS = {
    "lambda_max": "largest eigenvalue of the Hessian",
    "preconditioned": "of P^(-1/2) H P^(-1/2), P what it divides by",
    "dual": "largest d'Hd of steps of unit size; from below",
    "directional": "d'Hd / d'd; the limit leaves the loss where it is",
    "critical": "2 / the rate at which the step leaves the loss where it is",
    "adaptive": "lambda_max of |w| H |w|: rescaling layers leaves it alone",
}
REGIMES = {
    "stable": "stable",
    "edge": "at the edge of stability",
    "unstable": "unstable",
}


def view(result: Sharpness) -> View:
    """Lay out a result of `sharpness`."""
    chart = _ratios(result)
    return View(
        question="How large a step will my optimizer take here?",
        subject=(*subject(result.problem), *_optimizer(result)),
        headline=_headline(result),
        facts=_facts(result),
        blocks=((chart,) if chart is not None else (_readings(result),) if result.readings else ()),
    )


def _optimizer(result: Sharpness) -> tuple[tuple[str, str], ...]:
    seen = result.optimizer
    if seen is None:
        return ()
    decay = ""
    if seen.weight_decay:
        decay = (
            f", weight decay {number(seen.weight_decay)} {'in the gradient' if seen.coupled else 'beside the gradient'}"
        )
    where = {"checkpoint": "its state from the checkpoint", "optimizer": "with its own state"}.get(
        seen.state, "without a state"
    )
    return (("optimizer", f"{seen.name}{decay}, {where}"),)


def _headline(result: Sharpness) -> tuple[str, str]:
    if not result.readings or result.optimizer is None:
        return MISSING, "interrupted before anything was measured"
    deciding = result.reading(result.decided_by or "")
    if deciding is None:
        return MISSING, f"no reading has a threshold of {result.optimizer.name}"
    value = (
        bounded(result.ratio, "lower", 3)
        if deciding.bound == "lower"
        else with_error(result.ratio, result.ratio_stderr, 3)
    )
    state = REGIMES.get(result.regime or "", "whether that is stable is open")
    what = "its next step" if deciding.kind == "directional" else result.optimizer.name
    return value, f"times the curvature that {what} can take: {state}"


def _facts(result: Sharpness) -> tuple[Fact, ...]:
    seen, noise = result.optimizer, result.noise
    scale = MISSING
    if noise is not None:
        scale = (
            with_error(noise.scale, noise.scale_stderr, 2)
            if noise.scale is not None
            else bounded(noise.at_least, "lower", 2)
        )
    facts = [
        Fact(
            "largest learning rate",
            with_error(result.largest_lr, result.largest_lr_stderr, 3),
            "at which the ratio is 1, everything else as it is"
            + ("" if seen is None else f"; yours is {number(seen.lr)}")
            + mode_words(result.problem),
        ),
        Fact(
            "step and top eigenvector",
            number(result.overlap, 2),
            "|cos| of their angle: 1 where the step goes along it",
        ),
        Fact(
            "gradient noise scale",
            scale,
            "samples of a batch at which noise costs as much as the curvature along the mean gradient",
        ),
        Fact(
            "noise without the Hessian",
            MISSING if noise is None else with_error(noise.simple, noise.simple_stderr, 2),
            "samples, by the proxy tr(S) / |g|^2",
        ),
        Fact("gradient norm", number(result.gradient_norm, 4), "Euclidean"),
        Fact(
            "zero weights", number(result.zeros) if result.zeros else MISSING, "which adaptive sharpness does not see"
        ),
        Fact(
            "Hessian products", number(result.hvps), f"and {counted(result.losses, 'forward pass', 'forward passes')}"
        ),
    ]
    return tuple(fact for fact in facts if fact.value != MISSING)


def _readings(result: Sharpness) -> Table:
    rows = tuple(_cells(one, result) for one in result.readings)
    table = Table(
        "Kinds of sharpness",
        ("sharpness", "value", "limit", "ratio", "passes", "what it is"),
        rows,
        optional=("what it is", "passes", "limit"),
    )
    return without_empty(table, kept=("limit", "ratio"))


def _cells(one: Reading, result: Sharpness) -> tuple[str, ...]:
    decides = " *" if one.kind == result.decided_by else ""
    return (
        NAMES[one.kind] + decides,
        bounded(one.value, one.bound) if one.bound else with_error(one.value, one.stderr, 4),
        number(one.threshold, 4),
        bounded(one.ratio, one.bound, 3) if one.bound else with_error(one.ratio, one.ratio_stderr, 3),
        number(one.passes),
        MEANINGS[one.kind],
    )


def _ratios(result: Sharpness) -> Dots | None:
    """Ratios to the thresholds, on a logarithmic axis, with the edge at 1."""
    known = [one for one in result.readings if drawable(one.ratio, log=True)]
    if not known:
        return None
    ratios = [one.ratio or 0.0 for one in known]
    errors = [one.ratio_stderr or 0.0 for one in known]
    return Dots(
        title="How close to the edge of stability",
        caption=(
            "Each mark is one kind of sharpness over the optimizer's limit for it, with its error as a bar where that "
            "is wide enough to see; the line at 1 is the edge. The one with a star in the table decides. Critical and "
            "directional sharpness are of the next step alone: before the edge it seldom goes along the sharpest "
            "direction, and they are far below. Adaptive sharpness has no limit. None of them says how well the "
            "network generalizes."
        ),
        alt=f"{len(known)} ratios from {number(min(ratios))} to {number(max(ratios))}; 1 is the edge.",
        table=_readings(result),
        text="table",
        labels=tuple(NAMES[one.kind] for one in known),
        series=(
            Series(
                "over its limit",
                tuple(ratios),
                tuple(value - error for value, error in zip(ratios, errors, strict=True)),
                tuple(value + error for value, error in zip(ratios, errors, strict=True)),
            ),
            Series("edge of stability", (1.0,) * len(known), role="reference", group=1),
        ),
        axis="sharpness over the limit for it",
    )
