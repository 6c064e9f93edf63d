"""What is the spectrum? Density, trace, Frobenius norm and moments, each with its error; outliers exact."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature import parallel
from hessdiag.curvature.checks import self_checks
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.support import Restricted, Support, support
from hessdiag.diagnostics import operators
from hessdiag.diagnostics.certificate import Certificate, Witness, certificate
from hessdiag.diagnostics.measured import Measured
from hessdiag.diagnostics.operators import LossInOutput, Operator, OperatorName, Products
from hessdiag.diagnostics.spectrum_verdict import findings
from hessdiag.diagnostics.verdict import Status
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg import estimators, slq
from hessdiag.linalg.eigensolver import ROUNDING, Eigenpairs, extreme_eigenpairs
from hessdiag.linalg.estimators import Estimate
from hessdiag.linalg.slq import Average, Density
from hessdiag.problem.problem import Problem

Floats = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

EXACT_UP_TO = 1_500  # parameters: all eigenvalues by LAPACK
ENDS = 5  # eigenpairs at each end that are taken out of the density
TOLERANCE = 1e-3  # relative residual of those pairs
LARGEST_BASIS = 400  # vectors that the eigensolver may hold
NEAR_ZERO = 0.01  # of the norm: what is called near zero
_NOT_FOUND = {
    True: "all eigenvalues are known, and none is negative beyond rounding",
    False: "no v'Hv < 0 beyond rounding was found, which does not prove that there is none",
}


@dataclass(frozen=True)
class Outlier:
    """An extreme eigenvalue that was computed by itself; its residual is `None` where all were.

    One that has not converged is a `bound` of the eigenvalue of its rank, as in `eigs`: "upper" below, "lower" above.
    """

    eigenvalue: float
    residual: float | None
    converged: bool
    bound: Literal["lower", "upper"] | None


@dataclass(frozen=True)
class Curve:
    """A smoothed density; `stderr` is `None` where all eigenvalues are known.

    Attributes:
        grid: Eigenvalues, ascending; fine where there is mass.
        values: Density there; its integral is 1.
        stderr: Standard error of each value.
        width: Standard deviation of the Gaussian that smooths.
        one_eigenvalue: Height of a single eigenvalue's bump: nothing below it is more than a tail.
    """

    grid: list[float]
    values: list[float]
    stderr: list[float] | None
    width: float
    one_eigenvalue: float


@dataclass(frozen=True)
class LogCurve:
    """Densities per decade of positive and of negative eigenvalues, over log10 of the magnitude."""

    grid: list[float]
    positive: list[float]
    positive_stderr: list[float] | None
    negative: list[float]
    negative_stderr: list[float] | None
    width: float
    one_eigenvalue: float


@dataclass(frozen=True)
class Moment:
    """(1 / N) tr H^order."""

    order: int
    value: float
    stderr: float | None


@dataclass(frozen=True)
class Inertia:
    """How many eigenvalues are positive, negative, and zero: of magnitude at most `tolerance`."""

    positive: int
    negative: int
    zero: int
    tolerance: float


@dataclass(frozen=True)
class Spectrum(Measured):
    """The spectrum of a Hessian, Gauss-Newton or Fisher matrix. A standard error is `None` where the number is exact.

    Attributes:
        operator: "hessian", "ggn" or "fisher".
        loss_in_output: Of the latter two, what is known of the loss in what it receives: "convex", so that no
            eigenvalue is negative; "linear" at this point, so that all are zero; or "unknown". `None` of the Hessian.
        loss_uses_parameters: Of the latter two, whether the loss depends on parameters by another way than the output,
            too, which they leave out.
        method: "exact" (all eigenvalues) or "slq" (stochastic Lanczos quadrature).
        parameters: N.
        probes: Random vectors; 0 if exact.
        steps: Lanczos steps from each.
        trace: Sum of the eigenvalues.
        frobenius: Root of the sum of their squares.
        zero_rows: Rows of the matrix that are exactly zero, left out of all vectors and counted as zero eigenvalues; 0
            unless they are a tenth of more than 1,500.
        untouched: How many of them belong to parameters that the batches do not touch.
        lowest: Smallest eigenvalue found: a Ritz value.
        lowest_is_bound: Whether it has not converged, so that the smallest eigenvalue is at or below it.
        highest: Largest.
        highest_is_bound: Likewise; the largest eigenvalue is at or above it.
        density: Smoothed density.
        log_density: The same over the logarithm of the magnitude.
        moments: Averages of powers.
        negative_fraction: Share of negative eigenvalues, beyond rounding.
        negative_fraction_bounds: Between what it lies given the same probes; wide where many eigenvalues are near zero.
        negative_mass: Share of the sum of |eigenvalues| that negative ones hold.
        near_zero_fraction: Share of eigenvalues below 1 % of the largest magnitude.
        negative_certificate: Whether negative curvature is proven: by all eigenvalues, or by a Ritz vector.
        inertia: Counts by sign; `None` unless exact.
        condition: Largest magnitude over the smallest that is not zero to rounding; `None` unless exact.
        outliers: Extreme eigenpairs taken out of the density and put back exactly, ascending.
        eigenvalues: All but those of `zero_rows`; `None` unless exact.
        hvps: Products spent, self-checks not counted; a whole matrix counts as N, by whatever route.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed, or an end of the spectrum is not found) or "interrupted".
    """

    operator: OperatorName
    loss_in_output: LossInOutput | None
    loss_uses_parameters: bool | None
    method: Literal["exact", "slq"]
    parameters: int
    probes: int
    steps: int
    trace: float
    trace_stderr: float | None
    frobenius: float
    frobenius_stderr: float | None
    zero_rows: int
    untouched: int
    lowest: float
    lowest_is_bound: bool
    highest: float
    highest_is_bound: bool
    density: Curve
    log_density: LogCurve
    moments: tuple[Moment, ...]
    negative_fraction: float
    negative_fraction_stderr: float | None
    negative_fraction_bounds: tuple[float, float] | None
    negative_mass: float
    negative_mass_stderr: float | None
    near_zero_fraction: float
    near_zero_fraction_stderr: float | None
    negative_certificate: Certificate
    inertia: Inertia | None
    condition: float | None
    outliers: tuple[Outlier, ...]
    eigenvalues: list[float] | None
    hvps: int
    engine: str

    @property
    def theory(self) -> dict[str, Any]:
        """Wigner's semicircle of the same trace and norm: where the eigenvalues of a structureless matrix would end."""
        mean = self.trace / self.parameters
        radius = 2 * math.sqrt(max(self.frobenius**2 / self.parameters - mean**2, 0.0))
        return {"semicircle_low": mean - radius, "semicircle_high": mean + radius}


def spectrum(
    problem: Problem,
    *,
    probes: int = 10,
    steps: int = 80,
    operator: OperatorName = "hessian",
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """Measure the spectrum of a problem's Hessian, Gauss-Newton or Fisher matrix.

    Up to 1,500 parameters all eigenvalues are computed. Beyond, the extreme eigenpairs are computed first and taken
    out; the rest of the density comes from stochastic Lanczos quadrature, trace and Frobenius norm from XTrace and
    random products on what is left, each with its standard error over probes.

    Args:
        problem: What is differentiated.
        probes: Random vectors, at least 2.
        steps: Lanczos steps from each, at least 2.
        operator: "hessian", "ggn" (Gauss-Newton) or "fisher" (the model's own).
        seed: Of the probes.
        progress: Called with (done, total, what).

    Raises:
        SpecError: if `probes` or `steps` is too small, or the problem has no such matrix.
        ComputeError: if products cannot be computed, or memory does not hold the basis of a single probe.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> found = spectrum(Problem(model, data=data, loss="mse"))  # H = 2 [[1, 2], [2, 4]]
    >>> round(found.highest, 6), round(found.trace, 6), found.inertia.positive
    (10.0, 10.0, 1)
    """
    if probes < 2 or steps < 2:
        raise SpecError(f"--probes and --steps must be at least 2, not {probes} and {steps}.", "--probes 10 --steps 80")
    part = support(problem, EXACT_UP_TO, seed=seed, numeric=operator == "hessian")
    matrix = operators.operator(part.problem, operator)
    report = progress or (lambda done, total, what: None)
    checks = self_checks(matrix, seed, squared=True)
    output = None if isinstance(matrix, HessianOperator) else operators.output_checks(matrix, seed)
    if output is not None:
        checks |= output.checks
    semidefinite = output is not None and output.loss == "convex"
    exact = part.size <= EXACT_UP_TO
    products = matrix if exact else parallel.shared(matrix)
    if exact:
        measured = _exact(part, matrix, operator, steps, report)
    else:
        shortened = part.restrict(products, matrix.chunk)
        measured = _sampled(shortened, part.zeros, operator, semidefinite, probes, steps, seed, report)
    trusted = not operators.failed(problem, checks)
    measured |= {
        "checks": checks,
        "engine": products.engine,
        "zero_rows": part.zeros,
        "untouched": part.untouched,
        "negative_certificate": certificate([measured.pop("witness")], trusted=trusted, otherwise=_NOT_FOUND[exact]),
        "loss_in_output": None if output is None else output.loss,
        "loss_uses_parameters": None if output is None else output.elsewhere,
    }
    if measured["status"] == "ok" and not trusted:
        measured["status"] = "inexact"
    found = Spectrum(**measured)
    return Spectrum(**measured, findings=tuple(findings(found, problem)))


def _exact(part: Support, matrix: Operator, name: OperatorName, steps: int, report: Progress) -> dict[str, Any]:
    """All eigenvalues by LAPACK, in float64."""
    m, n = part.size, part.whole.n_parameters
    report(0, 1, f"{m:,} parameters: the whole matrix and all its eigenvalues")
    if isinstance(matrix, HessianOperator):
        dense = part.dense().double()
    else:
        dense = (matrix @ torch.eye(m, dtype=matrix.dtype, device=matrix.device)).double()
    values = torch.linalg.eigvalsh((dense + dense.T).cpu() / 2).numpy()
    report(1, 1, "")
    ends = min(ENDS, (m - 1) // 2)
    outliers = np.concatenate([values[:ends], values[m - ends :]])
    bulk = values[ends : m - ends]
    width = slq.default_width(bulk, outliers, steps)
    density = Density(bulk[None], np.full((1, len(bulk)), 1 / n), outliers, n, width, m, part.zeros)
    zero = _zero(matrix, density.scale)
    counts = Inertia(
        positive=int((values > zero).sum()),
        negative=int((values < -zero).sum()),
        zero=int((np.abs(values) <= zero).sum()) + part.zeros,
        tolerance=zero,
    )
    return _common(density, name, zero) | {
        "method": "exact",
        "probes": 0,
        "steps": 0,
        "trace": float(values.sum()),
        "trace_stderr": None,
        "frobenius": float(np.sqrt((values**2).sum())),
        "frobenius_stderr": None,
        "negative_fraction": counts.negative / n,
        "negative_fraction_bounds": None,
        "near_zero_fraction": float((np.abs(values) <= NEAR_ZERO * density.scale).sum() + part.zeros) / n,
        "inertia": counts,
        "condition": _condition(np.abs(values), zero),
        "outliers": tuple(Outlier(float(value), None, True, None) for value in outliers),
        "eigenvalues": values.tolist(),
        "hvps": m,
        "status": "ok",
        "lowest_is_bound": False,
        "highest_is_bound": False,
        "witness": Witness(float(values[0]), "all eigenvalues are known", zero),
    }


def _condition(magnitudes: Floats, zero: float) -> float | None:
    beyond = magnitudes[magnitudes > zero]
    return float(beyond.max() / beyond.min()) if len(beyond) else None


def _sampled(
    matrix: Products | Restricted,
    zeros: int,
    name: OperatorName,
    semidefinite: bool,
    probes: int,
    steps: int,
    seed: int,
    report: Progress,
) -> dict[str, Any]:
    """Extreme eigenpairs exactly, the rest by quadrature from random vectors."""
    n = matrix.shape[0]
    fitting = operators.vectors_that_fit(matrix)
    at_once = min(probes, fitting // (steps + 1))
    if not at_once:
        raise ComputeError(
            f"{steps} Lanczos vectors of {n:,} parameters do not fit in memory; {max(fitting - 1, 0)} would.",
            f"--steps {max(fitting - 1, 2)}, or --layers 'GLOB' for some of the layers",
        )
    report(0, probes * steps, f"{n:,} parameters: {probes} x {steps} products, after the extreme eigenpairs")
    pairs = extreme_eigenpairs(
        matrix,
        lowest=0 if semidefinite else ENDS,  # nothing is below zero then
        highest=ENDS,
        tol=TOLERANCE,
        max_basis=min(LARGEST_BASIS, max(fitting, 4 * ENDS)),
        max_products=probes * steps,
        seed=seed,
        precision=matrix.precision,
    )
    if pairs.interrupted:
        raise KeyboardInterrupt
    done = pairs.converged
    values, vectors = pairs.values[done], pairs.vectors[:, done.to(pairs.vectors.device)]
    density = slq.spectral_density(
        matrix,
        probes=probes,
        steps=steps,
        seed=seed + 1,
        deflate=(values, vectors),
        zeros=zeros,
        at_once=at_once,
        progress=lambda count: report(count * steps, probes * steps, ""),
    )
    interrupted = len(density.nodes) < probes
    left = estimators.Deflated(matrix, vectors)
    try:
        trace = estimators.trace(left, 2 * probes, seed + 2)
        square = estimators.frobenius_squared(left, 2 * probes, seed + 3)
    except KeyboardInterrupt:
        interrupted = True
        moments = density.moments(2)
        trace, square = (
            Estimate(density.n * moments.value[p] - float(values.pow(p + 1).sum()), density.n * moments.stderr[p], 0)
            for p in (0, 1)
        )
    # |A|_F^2 = |P A P|^2 + 2 |P A U|^2 + |U'A U|^2, and the residuals are the columns of P A U.
    square = Estimate(
        square.value + float(values.square().sum() + 2 * pairs.residuals[done].square().sum()),
        square.stderr,
        square.products,
    )
    norm = estimators.root(square)
    status: Status = "interrupted" if interrupted else "ok" if _ends_found(pairs, density) else "inexact"
    zero = _zero(matrix, density.scale)
    common = _common(density, name, zero)
    loose = pairs.values[~done].tolist()  # left in the density, which may not reach as far
    common |= {"lowest": min(common["lowest"], *loose, math.inf), "highest": max(common["highest"], *loose, -math.inf)}
    return common | {
        "method": "slq",
        "probes": len(density.nodes),
        "steps": density.nodes.shape[1],
        "trace": trace.value + float(values.sum()),
        "trace_stderr": trace.stderr,
        "frobenius": norm.value,
        "frobenius_stderr": norm.stderr,
        "negative_fraction_bounds": density.cumulative_bounds(-zero),
        "inertia": None,
        "condition": None,
        "outliers": tuple(
            Outlier(
                eigenvalue=float(pairs.values[index]),
                residual=float(pairs.residuals[index]),
                converged=bool(done[index]),
                bound=None if bool(done[index]) else "upper" if index < pairs.lowest else "lower",
            )
            for index in range(len(pairs.values))
        ),
        "eigenvalues": None,
        "hvps": pairs.products + density.products + trace.products + square.products,
        "status": status,
        "lowest_is_bound": not (pairs.lowest and bool(done[0])),
        "highest_is_bound": not bool(done[-1]),
        "witness": Witness(
            min(pairs.ritz_range[0], float(np.nanmin(density.nodes, initial=math.inf))),
            "v'Hv < 0 for the lowest Ritz vector v",
            zero,
        ),
    }


def _ends_found(pairs: Eigenpairs, density: Density) -> bool:
    """Whether both ends are known to within the width of the smoothing."""
    ends = [0] * bool(pairs.lowest) + [len(pairs.values) - 1]
    return all(bool(pairs.converged[end]) or float(pairs.residuals[end]) <= density.width for end in ends)


def _zero(matrix: Products | Restricted, scale: float) -> float:
    """Magnitude below which an eigenvalue cannot be told from zero: the error of products with the largest."""
    return ROUNDING * matrix.precision * scale


def _common(density: Density, name: OperatorName, zero: float) -> dict[str, Any]:
    """What follows from the nodes and weights alone."""
    exact = len(density.nodes) == 1
    low, high = density.support
    grid, log_grid = density.grid(), density.log_grid()
    curve, (positive, negative) = density.density(grid), density.log_density(log_grid)
    moments = density.moments()
    below, mass = density.negative(zero), density.negative_mass()
    near = density.share(-NEAR_ZERO * density.scale, NEAR_ZERO * density.scale)
    bump = 1 / (density.n * math.sqrt(2 * math.pi))

    def error(average: Average) -> Any:
        return None if exact else average.stderr.tolist()

    return {
        "operator": name,
        "parameters": density.n,
        "lowest": low,
        "highest": high,
        "density": Curve(grid.tolist(), curve.value.tolist(), error(curve), density.width, bump / density.width),
        "log_density": LogCurve(
            grid=log_grid.tolist(),
            positive=positive.value.tolist(),
            positive_stderr=error(positive),
            negative=negative.value.tolist(),
            negative_stderr=error(negative),
            width=slq.LOG_WIDTH,
            one_eigenvalue=bump / slq.LOG_WIDTH,
        ),
        "moments": tuple(
            Moment(order, float(value), None if exact else float(stderr))
            for order, (value, stderr) in enumerate(zip(moments.value, moments.stderr, strict=True), start=1)
        ),
        "negative_fraction": float(below.value),
        "negative_fraction_stderr": error(below),
        "negative_mass": float(mass.value),
        "negative_mass_stderr": error(mass),
        "near_zero_fraction": float(near.value),
        "near_zero_fraction_stderr": error(near),
    }
