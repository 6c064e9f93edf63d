"""What the bounds on a Hessian's eigenvalues mean, what they prove, and what a person can do about it."""

from hessdiag.numbers import counted, number, times
from hessdiag.questions.bounds.proof import contradicted
from hessdiag.questions.bounds.result import NAMES, Bounds
from hessdiag.questions.common.certificate import SLACK
from hessdiag.questions.common.metric_verdict import metric_findings
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    CAN_USE_IT,
    checks_findings,
    data_findings,
    faint_findings,
    most_severe_first,
    piece_findings,
    zero_rows_findings,
)

LOOSE = 3.0  # times the measured reach


@most_severe_first
def findings(bounds: Bounds) -> list[Finding]:
    """The verdict on the bounds, the most important sentence first."""
    found = checks_findings(bounds.checks, bounds.check_tolerance, bounds.point)
    if not bounds.trusted:
        return [*found, *data_findings(bounds.problem)]
    found += metric_findings(bounds.metric)
    if bounds.gershgorin is None:
        return [*found, *_stopped(bounds), *data_findings(bounds.problem)]
    found += _contradiction(bounds)
    found += _unconverged(bounds)
    if bounds.metric is None:
        found += faint_findings(_reach(bounds), "the largest magnitude of a measured eigenvalue")
    found.append(_certificate(bounds))
    found += _tightness(bounds)
    found += _components(bounds)
    found += _sketch(bounds)
    found += zero_rows_findings(bounds.zero_rows, bounds.zero_rows, bounds.parameters)
    found += piece_findings(bounds.point)
    found += data_findings(bounds.problem)
    return found


def _reach(bounds: Bounds) -> float | None:
    return None if bounds.measured is None else max(map(abs, bounds.measured))


def _stopped(bounds: Bounds) -> list[Finding]:
    """After an interrupt before every row was done."""
    assert bounds.inner is not None
    assert bounds.known_discs is not None
    many = bounds.rows > 1
    found = [
        Finding(
            "note",
            f"Interrupted after {bounds.rows:,} of {counted(bounds.parameters, 'row')}: an eigenvalue lies in {'each of their discs' if many else 'its disc'}; how far all of them can reach needs every row.",
            f"one lies at or below {number(bounds.inner[0], 4)} and one at or above {number(bounds.inner[1], 4)}, by entries of the diagonal; the {'discs' if many else 'disc'} of the {'rows that are' if many else 'row that is'} done {'lie' if many else 'lies'} within {number(bounds.known_discs[0], 4)} and {number(bounds.known_discs[1], 4)}",
            "the same command with more time; --layers 'GLOB' for some of the layers",
        )
    ]
    return [*found, _certificate(bounds)] if bounds.negative_certificate.certain else found


def _contradiction(bounds: Bounds) -> list[Finding]:
    outside = contradicted(bounds)
    if not outside or bounds.measured is None:
        return []
    return [
        Finding(
            "bad",
            f"A measured eigenvalue lies outside of {NAMES[outside[0]]}: no number here can be trusted.",
            f"measured {number(bounds.measured[0], 4)} to {number(bounds.measured[1], 4)}",
            "--dtype float64; if that does not mend it, please report it with the command and the model",
        )
    ]


def _unconverged(bounds: Bounds) -> list[Finding]:
    if bounds.measured_converged is None or all(bounds.measured_converged):
        return []
    assert bounds.measured_residuals is not None
    residuals = " and ".join(number(residual, 2) for residual in bounds.measured_residuals)
    ended = "interrupted" if bounds.status == "interrupted" else "bounds gives up"
    return [
        Finding(
            "warn",
            "A measured extreme did not converge: the spectrum reaches at least that far, and perhaps further.",
            f"residuals {residuals}; {ended} after {counted(bounds.hvps, 'product')}. The bounds do not hang on it",
            f"hessdiag eigs --lowest 1 --highest 1 --max-products {4 * bounds.hvps}; --dtype float64",
        )
    ]


def _certificate(bounds: Bounds) -> Finding:
    proof = bounds.negative_certificate
    if proof.certain:
        return Finding(
            "note",
            "Negative curvature is certain: the Hessian has a negative eigenvalue.",
            proof.why,
            CAN_USE_IT,
        )
    if "exclude" in proof.why:
        definite = max(low for low, _ in bounds.intervals().values()) > 0
        return Finding(
            "ok" if definite else "note",
            f"The Hessian is certainly positive {'definite' if definite else 'semidefinite'} here, up to rounding.",
            proof.why,
            f"Newton steps are descent steps at this point{'' if definite else '; flat directions need damping'}",
        )
    remedy = "see the failed self-check" if proof.bound is None else "hessdiag eigs --tol 1e-6"
    return Finding("note", "Negative curvature is neither proven nor excluded.", proof.why, remedy)


def _tightness(bounds: Bounds) -> list[Finding]:
    if bounds.measured is None:
        return []
    low, high = bounds.measured
    if low == high == 0:
        return [
            Finding(
                "bad",
                "The Hessian is zero, or as good as zero.",
                "both extremes vanish",
                "hessdiag check MODEL, which says where signal or gradient ends, and why",
            )
        ]
    span = high - low
    if span <= SLACK * max(abs(low), abs(high)):  # a multiple of the identity: no span to compare with
        return []
    widths = {name: (end - start) / span for name, (start, end) in bounds.intervals().items()}
    best = min(widths, key=lambda name: widths[name])
    discs = widths["gershgorin"]
    most = "" if all(bounds.measured_converged or ()) else "at most "  # the eigenvalues may span more
    found = Finding(
        "note",
        f"Gershgorin's discs span {most}{times(discs)} what the eigenvalues do.",
        f"the tightest bound is that of {NAMES[best]}: {most}{times(widths[best])} the measured span",
        "take Gershgorin's radii as they are: the matrix is near diagonal"
        if discs < LOOSE
        else "for a step size or damping use the measured extremes; row sums alone would be over-cautious",
    )
    return [found]


def _components(bounds: Bounds) -> list[Finding]:
    if bounds.components is None or len(bounds.components) == 1:
        return []
    alone = [component for component in bounds.components if component.count == 1]
    last = bounds.components[-1]
    return [
        Finding(
            "note",
            f"The discs fall into {len(bounds.components):,} separate groups, each with exactly as many eigenvalues as discs.",
            f"{len(alone):,} of them with a single eigenvalue; the rightmost, {number(last.interval[0], 4)} to {number(last.interval[1], 4)}, holds {last.count:,}",
            "those eigenvalues are pinned down by the entries alone",
        )
    ]


def _sketch(bounds: Bounds) -> list[Finding]:
    if bounds.relative_stderr is None:
        return []
    return [
        Finding(
            "note",
            "The radii are estimates: Gershgorin's and Brauer's intervals here are not guaranteed.",
            f"row sums come from random products with a relative standard error of {bounds.relative_stderr:.2f}; the largest rows were then computed exactly",
            "--layers 'GLOB' for a part small enough to be exact",
        )
    ]
