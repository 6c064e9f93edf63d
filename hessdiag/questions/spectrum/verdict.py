"""What a spectrum means, and what a person can do about it."""

from hessdiag.curvature.registry import WORDS
from hessdiag.fields import Number
from hessdiag.numbers import counted, number, percent, times
from hessdiag.questions.common import output_verdict
from hessdiag.questions.common.metric import noun
from hessdiag.questions.common.metric_verdict import metric_findings
from hessdiag.questions.common.result import Finding
from hessdiag.questions.common.verdict import (
    FAINT,
    checks_findings,
    data_findings,
    faint_findings,
    most_severe_first,
    nothing_there,
    piece_findings,
    zero_rows_findings,
)
from hessdiag.questions.spectrum.result import Spectrum

ROUGH = 0.25  # a quarter of the trace's interval, relative to it, beyond which more probes are advised
UNSURE = 0.2  # width of the bracket around the negative fraction that is worth a word
STANDS_OUT = 3.0  # times the semicircle's radius
FLAT = 0.5  # share of eigenvalues near zero


@most_severe_first
def findings(spectrum: Spectrum) -> list[Finding]:
    """The verdict on a measured spectrum, the most important sentence first."""
    found = checks_findings(spectrum.checks, spectrum.check_tolerance, spectrum.point)
    if spectrum.point is None or spectrum.point.trusted:  # else there is a cause already
        found += output_verdict.check_findings(spectrum.checks, spectrum.check_tolerance)
    if not spectrum.trusted:
        return [*found, *data_findings(spectrum.problem)]
    found += metric_findings(spectrum.metric, WORDS[spectrum.operator])
    found += output_verdict.elsewhere_findings(spectrum.loss_uses_parameters)
    found += output_verdict.kink_findings(spectrum.outputs_at_kink)
    if spectrum.density is None:
        return [*found, *_stopped(spectrum), *data_findings(spectrum.problem)]
    if spectrum.frobenius == 0:
        if spectrum.loss_in_output == "linear":
            return [*found, output_verdict.linear_finding(spectrum.problem)]
        says = f"The {_noun(spectrum)} is exactly zero: every eigenvalue is."
        because = "all its products vanish; a layer whose units are all dead does this"
        return [*found, nothing_there(says, because, spectrum.point)]
    found += _ends(spectrum)
    found += faint_findings(spectrum.frobenius, "its norm") if _plain(spectrum) else []
    found.append(_signs(spectrum))
    found += _resolution(spectrum)
    found += _outliers(spectrum)
    found += _flat(spectrum)
    found += zero_rows_findings(spectrum.zero_rows, spectrum.untouched, spectrum.parameters)
    found += _precision(spectrum)
    found += piece_findings(spectrum.point)
    found += data_findings(spectrum.problem)
    return found


def _noun(spectrum: Spectrum) -> str:
    """What the matrix is called."""
    return noun(WORDS[spectrum.operator], spectrum.metric)


def _plain(spectrum: Spectrum) -> bool:
    """Whether it is the Hessian itself."""
    return spectrum.operator == "hessian" and spectrum.metric is None


def _known(value: Number) -> float:
    """A number that is there wherever the density is."""
    assert value is not None
    return value


def _stopped(spectrum: Spectrum) -> list[Finding]:
    """After an interrupt before two probes: the ends, as far as they are known."""
    proof = spectrum.negative_certificate
    reaches = f"the lowest eigenvalue is {_end(spectrum, 'lowest')}, the highest {_end(spectrum, 'highest')}"
    found = [
        Finding(
            "note",
            "Interrupted before two random vectors were done: density, trace and norm are not measured.",
            f"{reaches}; {spectrum.hvps:,} products were spent",
            "the same command with more time; --resume DIR keeps what is finished",
        )
    ]
    if proof.certain:
        use = "plain Newton steps would climb along it: a trust region, or the Gauss-Newton matrix"
        found.append(
            Finding("note", f"The {_noun(spectrum)} is certain to have a negative eigenvalue.", proof.why, use)
        )
    return found


def _ends(spectrum: Spectrum) -> list[Finding]:
    loose = [outlier for outlier in spectrum.outliers if not outlier.converged]
    if not loose:
        return []
    worst = max(loose, key=lambda outlier: outlier.residual or 0.0)
    return [
        Finding(
            "warn" if spectrum.status == "inexact" else "note",
            f"{len(loose)} of {counted(len(spectrum.outliers), 'extreme eigenpair')} did not converge: {'it is a bound, and was' if len(loose) == 1 else 'they are bounds, and were'} left in the density.",
            f"the largest residual is {number(worst.residual or 0.0, 2)} at the eigenvalue {number(worst.eigenvalue, 4)}",
            "a larger --steps, which also gives the eigensolver more products; --dtype float64",
        )
    ]


def _end(spectrum: Spectrum, which: str) -> str:
    """The smallest or the largest eigenvalue, or how far the spectrum reaches at least."""
    if which == "lowest":
        return f"{'at or below ' * spectrum.lowest_is_bound}{number(spectrum.lowest, 4)}"
    return f"{'at or above ' * spectrum.highest_is_bound}{number(spectrum.highest, 4)}"


def _signs(spectrum: Spectrum) -> Finding:
    """What they mean, which is a matter of whose they are."""
    if spectrum.operator == "hessian":
        return _hessian_signs(spectrum)
    return _other_signs(spectrum) if spectrum.loss_in_output is None else _gauss_newton_signs(spectrum)


def _other_signs(spectrum: Spectrum) -> Finding:
    """Of a matrix of which no more is known."""
    noun, proof = _noun(spectrum), spectrum.negative_certificate
    ends = f"{_end(spectrum, 'lowest')}, the highest {_end(spectrum, 'highest')}"
    if not proof.certain:
        return Finding(
            "note", f"No negative eigenvalue of the {noun} is proven.", f"{proof.why}; the smallest is {ends}", ""
        )
    says = f"The {noun} has negative eigenvalues: {_negative_share(spectrum)} of all."
    return Finding("note", says, f"the lowest is {ends}", "")


def _hessian_signs(spectrum: Spectrum) -> Finding:
    proof, ends = spectrum.negative_certificate, f"{_end(spectrum, 'lowest')}, the highest {_end(spectrum, 'highest')}"
    if not proof.certain:
        return _no_negative(spectrum, ends)
    mass, share = percent(spectrum.negative_mass), _negative_share(spectrum)
    because = f"they hold {mass} of the sum of |eigenvalues|; the lowest is {ends}"
    low, high = _known(spectrum.lowest), _known(spectrum.highest)
    if high <= 0 or (spectrum.inertia is not None and not spectrum.inertia.positive):
        return Finding(
            "warn",
            f"The {_noun(spectrum)} curves down: {share} of its eigenvalues are negative, and none is found to be positive.",
            because,
            "gradient steps, which leave such a point by themselves; second-order steps would climb",
        )
    depth = -low / high
    if depth >= 0.5 and not (spectrum.lowest_is_bound or spectrum.highest_is_bound):
        return Finding(
            "note",
            f"The {_noun(spectrum)} curves down about as much as up: {share} of the eigenvalues are negative, down to {times(depth)} the largest.",
            because,
            "methods that follow negative curvature: hessdiag eigs for the directions; trust region, Newton-CG",
        )
    return Finding(
        "note",
        f"The {_noun(spectrum)} is indefinite: {share} of its eigenvalues are negative.",
        because,
        "plain Newton steps would climb along those directions: a trust region, or the Gauss-Newton matrix",
    )


def _negative_share(spectrum: Spectrum) -> str:
    """The share of negative eigenvalues, as the interval it lies in where a single number would mislead."""
    bounds = spectrum.negative_fraction_bounds
    if bounds is not None and bounds[1] - bounds[0] >= UNSURE:
        return f"between {percent(bounds[0])} and {percent(bounds[1])}"
    return percent(spectrum.negative_fraction)


def _gauss_newton_signs(spectrum: Spectrum) -> Finding:
    if spectrum.loss_in_output == "convex":
        return _semidefinite(spectrum)
    if not spectrum.negative_certificate.certain:
        return Finding(
            "note",
            f"No negative eigenvalue of the {_noun(spectrum)} was found; nothing promises that there is none.",
            f"the loss is not known to be convex in what it receives; the smallest is {number(spectrum.lowest, 4)}",
            "--operator hessian for the whole curvature",
        )
    return Finding(
        "warn",
        f"The {_noun(spectrum)} is indefinite, for the loss is not convex in what it receives: {_negative_share(spectrum)} of its eigenvalues are negative.",
        f"the lowest is {number(spectrum.lowest, 4)}, the highest {number(spectrum.highest, 4)}",
        "damping beyond the lowest, or a loss that is convex in the output: Gauss-Newton steps, K-FAC and Cholesky take this matrix to be semidefinite",
    )


def _no_negative(spectrum: Spectrum, ends: str) -> Finding:
    """Convexity is a matter of all eigenvalues: random vectors do not prove it."""
    inertia = spectrum.inertia
    if inertia is not None and inertia.negative == 0 and spectrum.negative_certificate.bound is not None:
        because = f"all were computed; the smallest is {ends}, rounding {number(inertia.tolerance, 2)}"
        if inertia.zero:
            says = f"No eigenvalue is negative, and {inertia.zero:,} of {spectrum.parameters:,} are zero: the loss curves down nowhere."
            return Finding("note", says, because, "damping for second-order steps, which divide by the zeros")
        says = "No eigenvalue is negative or zero: the loss is strictly convex to second order here."
        return Finding("ok", says, because, "any second-order step is a descent step here")
    return Finding(
        "note",
        "No negative eigenvalue is proven.",
        f"{spectrum.negative_certificate.why}; the smallest is {ends}",
        "hessdiag eigs, which looks for the lowest eigenvalue",
    )


def _semidefinite(spectrum: Spectrum) -> Finding:
    return Finding(
        "note",
        f"The {_noun(spectrum)} cannot show negative curvature: it is positive semidefinite by construction.",
        "it leaves out the curvature of the model itself",
        "--operator hessian for the whole curvature",
    )


def _resolution(spectrum: Spectrum) -> list[Finding]:
    bounds = spectrum.negative_fraction_bounds
    if bounds is None or spectrum.loss_in_output == "convex" or bounds[1] - bounds[0] < UNSURE:
        return []
    return [
        Finding(
            "note",
            "How many eigenvalues are negative is known roughly only.",
            f"many are so near zero that Lanczos cannot tell their signs apart: {percent(bounds[0])} to {percent(bounds[1])}",
            f"--steps {2 * spectrum.steps}; the share of negative mass, {percent(spectrum.negative_mass)}, does not suffer from this",
        )
    ]


def _outliers(spectrum: Spectrum) -> list[Finding]:
    assert spectrum.theory is not None
    low, high = spectrum.theory.semicircle_low, spectrum.theory.semicircle_high
    radius = (high - low) / 2
    lowest, highest = _known(spectrum.lowest), _known(spectrum.highest)
    reach = max(highest - (high - radius), (low + radius) - lowest)
    if radius <= 0 or reach < STANDS_OUT * radius:
        return []
    bound = spectrum.lowest_is_bound or spectrum.highest_is_bound
    known = [_known(outlier.eigenvalue) for outlier in spectrum.outliers if outlier.converged]
    held = sum(eigenvalue**2 for eigenvalue in known) / _known(spectrum.frobenius) ** 2
    return [
        Finding(
            "note",
            f"A few eigenvalues stand out: the furthest lies at {'or beyond ' * bound}{times(reach / radius)} the radius that a structureless matrix of this norm would have.",
            f"{counted(len(known), 'extreme eigenvalue')} {'holds' if len(known) == 1 else 'hold'} {percent(min(held, 1.0))} of the squared norm; that radius is {number(radius, 4)}, about {number(high - radius, 4)}",
            f"{_limit(spectrum, highest)}methods of low rank (L-BFGS, Lanczos) capture these directions",
        )
    ]


def _limit(spectrum: Spectrum, highest: float) -> str:
    """The largest stable step, where one follows, as the beginning of a sentence."""
    most = "at most " * spectrum.highest_is_bound
    if spectrum.metric is None:
        if highest < FAINT:
            return ""
        return f"the largest stable gradient step is {most}2/{number(highest, 4)} = {number(2 / highest)}; "
    limit = spectrum.metric.limit(highest) if spectrum.operator == "hessian" and highest > 0 else None
    return (
        ""
        if limit is None
        else f"the largest stable learning rate of {spectrum.metric.optimizer} is {most}{number(limit)}; "
    )


def _flat(spectrum: Spectrum) -> list[Finding]:
    share, bounds = percent(spectrum.near_zero_fraction), spectrum.near_zero_fraction_interval
    if (bounds[0] if bounds else _known(spectrum.near_zero_fraction)) < FLAT:
        return []
    if bounds and bounds[1] - bounds[0] > UNSURE / 2:
        share = f"{percent(bounds[0])} to {percent(bounds[1])}"
    largest = max(abs(_known(spectrum.lowest)), abs(_known(spectrum.highest)))
    zero = f"; {spectrum.inertia.zero:,} are zero to rounding" if spectrum.inertia and spectrum.inertia.zero else ""
    return [
        Finding(
            "note",
            f"Most directions are flat: {share} of the eigenvalues are below 1 % of the largest.",
            f"N = {spectrum.parameters:,}, and the norm is {times(_known(spectrum.frobenius) / largest)} the largest eigenvalue{zero}",
            "damping decides what happens along them; the effective number of curved directions is far below N",
        )
    ]


def _precision(spectrum: Spectrum) -> list[Finding]:
    bounds = spectrum.trace_interval
    if bounds is None or bounds[1] - bounds[0] <= 4 * ROUGH * abs(_known(spectrum.trace)):
        return []
    return [
        Finding(
            "note",
            f"The trace is rough: {number(spectrum.trace, 4)}, between {number(bounds[0], 4)} and {number(bounds[1], 4)} at 95 %.",
            f"{4 * spectrum.probes} random products were used; positive and negative eigenvalues may also cancel",
            f"--probes {4 * spectrum.probes}",
        )
    ]
