"""What the ends of a spectrum mean, and what a person can do about it."""

from hessdiag.numbers import counted, number, percent
from hessdiag.questions.common.metric import Metric, here
from hessdiag.questions.common.metric_verdict import limit_findings, metric_findings
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    CAN_USE_IT,
    checks_findings,
    data_findings,
    faint_findings,
    in_this_mode,
    most_severe_first,
    nothing_there,
    other_mode_findings,
    piece_findings,
    zero_rows_findings,
)
from hessdiag.questions.eigs.result import Eigs

COMPARABLE = 0.1  # |lambda_min| / lambda_max from which negative curvature is more than a trace
LOCALIZED = 0.9  # weight of an eigenvector in one layer that is worth a word
CAPTURED = 0.5  # share of the squared gradient in the top eigenvectors that is worth a word
NEAR_ROUNDING = 30.0  # residuals within this factor of rounding are rounding's


@most_severe_first
def findings(eigs: Eigs) -> list[Finding]:
    """The verdict on both ends, the most important sentence first."""
    found = checks_findings(eigs.checks, eigs.check_tolerance, eigs.point)
    if not eigs.trusted:
        return [*found, *data_findings(eigs.problem)]
    found += metric_findings(eigs.metric)
    found += _convergence(eigs)
    if eigs.ritz_range is None or max(map(abs, eigs.ritz_range)) <= eigs.rounding:
        says = "The Hessian is zero: there is no curvature to follow or to fear."
        because = "every eigenvalue vanishes; a network whose units are all dead does this"
        return [*found, nothing_there(says, because, eigs.point), *data_findings(eigs.problem)]
    faint = (
        [] if eigs.metric else faint_findings(max(map(abs, eigs.ritz_range)), "the largest magnitude of an eigenvalue")
    )
    found += faint
    found += _negative_curvature(eigs)
    found += [] if faint else _sharpness(eigs)  # the limit would be beyond any learning rate
    found += [in_this_mode(eigs.problem, one) for one in _gradient(eigs)]
    found += _localization(eigs)
    found += _inertia(eigs)
    found += zero_rows_findings(eigs.zero_rows, eigs.untouched, eigs.parameters)
    found += piece_findings(eigs.point)
    found += data_findings(eigs.problem)
    return found


def _convergence(eigs: Eigs) -> list[Finding]:
    pairs = (*eigs.lowest, *eigs.highest)
    missed = [pair for pair in pairs if not pair.converged]
    if not missed:
        return []
    worst = max(missed, key=lambda pair: pair.residual)
    by_rounding = all(pair.residual <= NEAR_ROUNDING * eigs.rounding for pair in missed)
    return [
        Finding(
            "note" if eigs.status == "interrupted" else "bad",
            f"{len(missed)} of {counted(len(pairs), 'eigenpair')} {'has' if len(missed) == 1 else 'have'} not converged to a relative residual of {eigs.tol:g}: {'it is a bound' if len(missed) == 1 else 'they are bounds'}.",
            f"the worst residual is {number(worst.residual, 2)} at {number(worst.eigenvalue, 4)}"
            + (
                f", which is near rounding, {number(eigs.rounding, 2)}"
                if by_rounding
                else f", after {counted(eigs.hvps, 'product')}"
            ),
            "--dtype float64" if by_rounding else f"--max-products {4 * eigs.hvps}, a larger --max-basis or --tol",
        )
    ]


def _negative_curvature(eigs: Eigs) -> list[Finding]:
    proof = eigs.negative_certificate
    if proof.certain:
        return [_proven(eigs)]
    if eigs.inertia is not None and eigs.inertia.negative == 0 and proof.bound is not None:
        zero, low = eigs.inertia.zero, (eigs.ritz_range or (0.0,))[0]
        because = (
            f"the whole spectrum was computed; the lowest is {number(low, 4)}, rounding is {number(eigs.rounding, 2)}"
        )
        if not zero:
            says = "The Hessian is positive definite here: the loss curves up in every direction."
            return [Finding("ok", says, because, "")]
        return [
            Finding(
                "note",
                f"The Hessian is positive semidefinite here: the loss curves down nowhere, and {zero:,} of {eigs.parameters:,} eigenvalues are zero.",
                because,
                "damping or weight decay for Newton-like steps, which divide by the zeros; hessdiag blocks, for layers that do not curve at all",
            )
        ]
    if not eigs.lowest:
        return []
    return [
        Finding(
            "note",
            "No negative curvature is proven.",
            proof.why if proof.bound is None else f"the lowest Ritz value is {number(proof.bound, 4)}: {proof.why}",
            "see the failed self-check" if proof.bound is None else "a smaller --tol, or another --seed",
        )
    ]


def _proven(eigs: Eigs) -> Finding:
    """How deep it is beside the largest eigenvalue, where both are known and not mere bounds."""
    proof, metric = eigs.negative_certificate, here(eigs.metric)
    low = next((pair for pair in eigs.lowest[:1] if pair.bound is None), None)
    high = next((pair for pair in eigs.highest[-1:] if pair.bound is None), None)
    if low is None:
        says = f"Negative curvature is proven: the lowest eigenvalue{metric} is at or below {number(proof.bound, 4)}."
        return Finding("note", says, proof.why, CAN_USE_IT)
    if high is None or high.eigenvalue <= 0:
        return Finding(
            "note", f"Negative curvature is proven: {number(low.eigenvalue, 4)}{metric}.", proof.why, CAN_USE_IT
        )
    depth = -low.eigenvalue / high.eigenvalue
    strong = depth >= COMPARABLE
    return Finding(
        "note",
        f"Negative curvature is proven{' and strong' if strong else ', but slight'}: {number(low.eigenvalue, 4)}{metric}, {percent(depth)} of the largest.",
        f"{proof.why}: an eigenvalue is at or below {number(proof.bound, 4)}",
        CAN_USE_IT if strong else "follow it if the loss has stalled: then it is the way down",
    )


def _sharpness(eigs: Eigs) -> list[Finding]:
    if abstained := other_mode_findings(eigs.problem):
        return abstained
    if eigs.metric is not None:
        return _limit(eigs, eigs.metric)
    if eigs.largest_step is None:
        return []
    top = eigs.highest[-1]
    if top.bound is not None:
        return [
            Finding(
                "note",
                f"Plain gradient descent is unstable here for learning rates above {number(eigs.largest_step, 4)}; the limit may be lower.",
                f"the largest eigenvalue is at least {number(top.eigenvalue, 4)}: it has not converged, and the limit is 2 / lambda_max",
                f"--max-products {4 * eigs.hvps} for the limit itself; momentum b raises it by the factor 1 + b",
            )
        ]
    return [
        Finding(
            "note",
            f"Plain gradient descent is stable here only for learning rates below {number(eigs.largest_step, 4)}.",
            f"the largest eigenvalue is {number(top.eigenvalue, 4)}, and the limit 2 / lambda_max",
            "compare with your learning rate; momentum b raises the limit by the factor 1 + b",
        )
    ]


def _limit(eigs: Eigs, metric: Metric) -> list[Finding]:
    """The same of the optimizer whose metric it is."""
    if not eigs.highest or eigs.highest[-1].eigenvalue <= eigs.rounding:
        return []
    top = eigs.highest[-1]
    more = f"--max-products {4 * eigs.hvps} for the eigenvalue itself" if top.bound else ""
    return limit_findings(metric, top.eigenvalue, bound=top.bound is not None, more=more)


def _gradient(eigs: Eigs) -> list[Finding]:
    curvature, metric = eigs.gradient_curvature, eigs.metric
    of = "" if metric is None else "preconditioned "
    form = "g'Hg / g'g" if metric is None else "d'Hd / d'Pd, d = P^(-1) g,"
    if curvature is None:
        return [
            Finding(
                "bad",
                "The gradient is exactly zero: first-order methods do not move from here.",
                "every partial derivative vanishes",
                "another initialization, or a step along the lowest eigenvector (--save FILE.npz)",
            )
        ]
    if curvature < -eigs.rounding:
        return [
            Finding(
                "note",
                f"Along the {of}gradient the loss curves down: steps along it grow at first."
                if metric
                else "Along the gradient the loss curves down: gradient steps grow at first.",
                f"{form} is {number(curvature, 4)}",
                "no step from the quadratic model alone; a line search or a trust region bounds it",
            )
        ]
    curved = curvature > eigs.rounding
    overlaps = [pair.gradient_overlap or 0.0 for pair in eigs.highest]
    captured = sum(overlap**2 for overlap in overlaps)
    kind = "eigenvector" if all(pair.converged for pair in eigs.highest) else "Ritz vector"
    top = f"top {kind}" if len(overlaps) == 1 else f"top {len(overlaps)} {kind}s"
    step = "step" if metric is None else "learning rate"
    best = f"; the best {step} along it is {number(1 / curvature)}" if curved else ""
    if captured >= CAPTURED and len(overlaps) < eigs.parameters:
        return [
            Finding(
                "note",
                f"{percent(captured)} of the squared {of}gradient lies in the {top}.",
                f"the curvature along the {of}gradient is {number(curvature, 4)}{best}",
                "smaller steps or second-order steps in those directions, larger ones elsewhere",
            )
        ]
    return [
        Finding(
            "note",
            f"The curvature along the {of}gradient is {number(curvature, 4)}.",
            f"{percent(captured)} of the squared {of}gradient lies in the {top}"
            if overlaps
            else f"{form} from one product".replace("g from", "g, from"),
            f"a {step} of {number(1 / curvature)} minimizes the quadratic model along it" if curved else "",
        )
    ]


def _localization(eigs: Eigs) -> list[Finding]:
    if len(eigs.layers) < 2 or not eigs.highest or not eigs.highest[-1].converged:
        return []
    weights = eigs.highest[-1].layer_weights
    place = max(range(len(weights)), key=weights.__getitem__)
    if weights[place] < LOCALIZED:
        return []
    return [
        Finding(
            "note",
            f"The sharpest direction{here(eigs.metric)} lies in one layer: {eigs.layers[place]}.",
            f"{percent(weights[place])} of the top eigenvector's squared norm",
            "a smaller learning rate or a different scale for that layer",
        )
    ]


def _inertia(eigs: Eigs) -> list[Finding]:
    if eigs.inertia is None:
        return []
    signs = eigs.inertia
    return [
        Finding(
            "note",
            f"Signs of the eigenvalues: {signs.positive:,} positive, {signs.negative:,} negative, {signs.zero:,} zero.",
            f"the whole spectrum was computed; |lambda| up to {number(signs.tolerance, 2)} counts as zero{'; a metric changes no sign' * bool(eigs.metric)}",
            "",
        )
    ]
