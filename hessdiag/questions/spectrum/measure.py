"""What is the spectrum? Density, trace, Frobenius norm and moments, each with its interval; outliers exact."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature import parallel
from hessdiag.curvature.checks import examine
from hessdiag.curvature.fisher import FisherOperator
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.support import Restricted, Support, support
from hessdiag.errors import SpecError
from hessdiag.linalg import densities, estimators, intervals
from hessdiag.linalg.densities import Density
from hessdiag.linalg.eigensolver import BLOCK, ROUNDING, Eigenpairs, extreme_eigenpairs, in_float64
from hessdiag.linalg.estimators import Estimate
from hessdiag.linalg.intervals import Average
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.certificate import Certificate, Witness, certificate
from hessdiag.questions.common.forecast import Quadratures
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.matrices import LossInOutput, OperatorName
from hessdiag.questions.common.measured import Measured
from hessdiag.questions.common.operators import Operator, Products
from hessdiag.questions.common.outlay import Quadrature, kept_pieces, outlay, quadrature
from hessdiag.questions.common.pieces import Pieces
from hessdiag.questions.common.subject import matrix_of
from hessdiag.questions.common.verdict import NOT_MEASURED, Status, interrupted_early
from hessdiag.questions.spectrum.verdict import findings

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Values = list[float | None]
Ends = tuple[Values, Values]
Progress = Callable[[int, int, str], None]

EXACT_UP_TO = 1_500  # parameters: all eigenvalues by LAPACK; more on a GPU (`capacity`)
ENDS = 5  # eigenpairs at each end that are taken out of the density
TOLERANCE = 1e-3  # relative residual of those pairs
NEAR_ZERO = 0.01  # of the norm: what is called near zero
_NOT_FOUND = {
    True: "all eigenvalues are known, and none is negative beyond rounding",
    False: "no v'Hv < 0 beyond rounding was found, which does not prove that there is none",
}

# What an interrupt leaves unmeasured, until something else is known.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        (
            "loss_in_output", "loss_uses_parameters", "outputs_at_kink", "trace", "trace_stderr", "trace_interval",
            "frobenius", "frobenius_stderr", "frobenius_interval", "lowest", "highest", "density", "log_density",
            "negative_fraction", "negative_fraction_stderr", "negative_fraction_interval", "negative_fraction_bounds",
            "negative_mass", "negative_mass_stderr", "negative_mass_interval", "near_zero_fraction",
            "near_zero_fraction_stderr", "near_zero_fraction_interval", "inertia", "condition", "eigenvalues",
        )
    ),
    "method": "slq", "probes": 0, "steps": 0, "moments": (), "outliers": (), "hvps": 0, "zero_rows": 0, "untouched": 0,
    "lowest_is_bound": True, "highest_is_bound": True, "status": "interrupted",
}  # fmt: skip


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
    """A smoothed density; errors are `None` where all eigenvalues are known.

    Attributes:
        grid: Eigenvalues, ascending; fine where there is mass.
        values: Density there; its integral is 1.
        stderr: Standard error of each value.
        interval: 95 % interval of each: lower ends, upper ends.
        width: Standard deviation of the Gaussian that smooths.
        one_eigenvalue: Height of a single eigenvalue's bump: nothing below it is more than a tail.
    """

    grid: list[float]
    values: list[float]
    stderr: list[float] | None
    interval: Ends | None
    width: float
    one_eigenvalue: float


@dataclass(frozen=True)
class LogCurve:
    """Densities per decade of positive and of negative eigenvalues, over log10 of the magnitude.

    Where Ritz values are too far apart to tell, entries are `None`.

    Attributes:
        grid: log10 of the magnitude.
        positive: Density of positive eigenvalues, with `positive_stderr` and `positive_interval`.
        negative: That of negative ones, likewise.
        width: Standard deviation of the Gaussian that smooths, in decades.
        one_eigenvalue: Height of a single eigenvalue's bump.
        unresolved_below: Magnitude below which nothing is resolved; `None` where everything is.
        unresolved_share: Share of the eigenvalues of smaller magnitude, 95 % bounds.
    """

    grid: list[float]
    positive: Values
    positive_stderr: Values | None
    positive_interval: Ends | None
    negative: Values
    negative_stderr: Values | None
    negative_interval: Ends | None
    width: float
    one_eigenvalue: float
    unresolved_below: float | None
    unresolved_share: Interval | None


@dataclass(frozen=True)
class Moment:
    """(1 / N) tr H^order."""

    order: int
    value: float
    stderr: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Spectrum(Measured):
    """The spectrum of a Hessian, Gauss-Newton or Fisher matrix.

    A standard error and a 95 % interval are `None` where the number is exact; the error also where none can be given.
    Intervals are not symmetric: they are not twice the error. What an interrupt left unmeasured is `None`.

    Attributes:
        operator: "hessian", "ggn" or "fisher".
        loss_in_output: Of the latter two, what is known of the loss in what it receives: "convex", so that no
            eigenvalue is negative; "linear" at this point, so that all are zero; or "unknown". `None` of the Hessian.
        loss_uses_parameters: Of the latter two, whether the loss depends on parameters by another way than the output,
            too, which they leave out.
        outputs_at_kink: Of the latter two, whether the outputs have a kink here, so that the matrix is that of a piece.
        method: "exact" (all eigenvalues) or "slq" (stochastic Lanczos quadrature).
        parameters: N.
        probes: Random vectors; 0 if exact.
        steps: Lanczos steps from each.
        trace: Sum of the eigenvalues, with `trace_stderr` and `trace_interval`; so also below.
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
        negative_fraction: Share of negative eigenvalues, beyond rounding; it has bounds but no standard error.
        negative_fraction_interval: Between what it lies; wide where many eigenvalues are near zero.
        negative_fraction_bounds: The same.
        negative_mass: Share of the sum of |eigenvalues| that negative ones hold.
        near_zero_fraction: Share of eigenvalues below 1 % of the largest magnitude; bounds likewise.
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
    outputs_at_kink: bool | None
    method: Literal["exact", "slq"]
    parameters: int
    probes: int
    steps: int
    trace: float | None
    trace_stderr: float | None
    trace_interval: Interval | None
    frobenius: float | None
    frobenius_stderr: float | None
    frobenius_interval: Interval | None
    zero_rows: int
    untouched: int
    lowest: float | None
    lowest_is_bound: bool
    highest: float | None
    highest_is_bound: bool
    density: Curve | None
    log_density: LogCurve | None
    moments: tuple[Moment, ...]
    negative_fraction: float | None
    negative_fraction_stderr: None
    negative_fraction_interval: Interval | None
    negative_fraction_bounds: Interval | None
    negative_mass: float | None
    negative_mass_stderr: float | None
    negative_mass_interval: Interval | None
    near_zero_fraction: float | None
    near_zero_fraction_stderr: None
    near_zero_fraction_interval: Interval | None
    negative_certificate: Certificate
    inertia: Inertia | None
    condition: float | None
    outliers: tuple[Outlier, ...]
    eigenvalues: list[float] | None
    hvps: int
    engine: str

    @property
    def theory(self) -> dict[str, Any] | None:
        """Wigner's semicircle of the same trace and norm: where the eigenvalues of a structureless matrix would end."""
        if self.trace is None or self.frobenius is None:
            return None
        mean = self.trace / self.parameters
        radius = 2 * math.sqrt(max(self.frobenius**2 / self.parameters - mean**2, 0.0))
        return {"semicircle_low": mean - radius, "semicircle_high": mean + radius}


@measurement(less="--probes 2 --steps 40")
def spectrum(
    problem: Problem | HessianOperator | GaussNewtonOperator | FisherOperator,
    *,
    probes: int = 10,
    steps: int = 80,
    operator: OperatorName = "hessian",
    seed: int = 0,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Spectrum:
    """Measure the spectrum of a problem's Hessian, Gauss-Newton or Fisher matrix.

    Up to 1,500 parameters all eigenvalues are computed. Beyond, the extreme eigenpairs are computed first and taken
    out; the rest of the density and the Frobenius norm come from stochastic Lanczos quadrature, the trace from random
    signs (Hutchinson, after a sketch where eigenvalues decay), each with an interval that is measured to cover.

    Args:
        problem: What is differentiated, or the matrix itself as an operator.
        probes: Random vectors, at least 2.
        steps: Lanczos steps from each, at least 2.
        operator: "hessian", "ggn" (Gauss-Newton) or "fisher" (the model's own).
        seed: Of the probes.
        progress: Called with (done, total, what).
        resume: A folder in which finished probes are kept, for a run that goes on where this one stopped.

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
    problem, operator = matrix_of(problem, operator, "hessdiag.linalg.slq(operator)")
    dense = EXACT_UP_TO * capacity.of(problem.device).times_dense
    part = support(problem, dense, seed=seed, numeric=operator == "hessian")
    matrix = operators.operator(part.problem, operator)
    plan = None
    if part.size > dense:
        spent = outlay(matrix)
        plan = quadrature(spent, part.size, ENDS, probes, steps)
        rest = Quadratures(probes, steps, 2 * plan.pairs).whole
        most = rest + plan.ends.work(probes * steps)
        count = round(rest.products) + 2 * plan.pairs, round(most.products)
        spent.plan(count, plan.held, passes=(rest.vectors, most.vectors))
    report = progress or (lambda done, total, what: None)
    checks = examine(matrix, seed, squared=True)
    output = None if isinstance(matrix, HessianOperator) else operators.output_checks(matrix, seed)
    if output is not None:
        checks = checks.also(output.checks, output.inside)
    semidefinite = output is not None and output.loss == "convex"
    exact = plan is None
    products = matrix if exact else parallel.shared(matrix)
    if plan is None:
        measured = _exact(part, matrix, operator, steps, report)
    else:
        settings = {"operator": operator, "probes": probes, "steps": steps, "seed": seed}
        pieces = kept_pieces(problem, "spectrum", settings, resume, matrix)
        plan = plan.again(pieces)
        shortened = part.restrict(products, matrix.chunk)
        measured = _sampled(shortened, part.zeros, operator, semidefinite, plan, probes, steps, seed, report, pieces)
        measured["resumed_pieces"] = pieces.taken
    trusted = not checks.failed
    measured |= {
        **operators.trust(checks),
        "engine": products.engine,
        "zero_rows": part.zeros,
        "untouched": part.untouched,
        "negative_certificate": certificate([measured.pop("witness")], trusted=trusted, otherwise=_NOT_FOUND[exact]),
        "loss_in_output": None if output is None else output.loss,
        "loss_uses_parameters": None if output is None else output.elsewhere,
        "outputs_at_kink": None if output is None else output.at_kink,
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
        dense = part.dense()
    else:
        dense = matrix @ torch.eye(m, dtype=matrix.dtype, device=matrix.device)
    wide = in_float64(dense)
    values = torch.linalg.eigvalsh((wide + wide.T) / 2).cpu().numpy()
    report(1, 1, "")
    ends = min(ENDS, (m - 1) // 2)
    outliers = np.concatenate([values[:ends], values[m - ends :]])
    bulk = values[ends : m - ends]
    width = densities.default_width(bulk, outliers, steps)
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
        "trace_interval": None,
        "frobenius": float(np.sqrt((values**2).sum())),
        "frobenius_stderr": None,
        "frobenius_interval": None,
        "negative_fraction": counts.negative / n,
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
    plan: Quadrature,
    probes: int,
    steps: int,
    seed: int,
    report: Progress,
    pieces: Pieces,
) -> dict[str, Any]:
    """Extreme eigenpairs exactly, the rest by quadrature from random vectors."""
    n = matrix.shape[0]
    wide = min(plan.ends.size, probes * steps + BLOCK) * (2 if plan.ends.images else 1)  # each product adds a vector
    disk = pieces.said(wide * n * matrix.dtype.itemsize + 32 * probes * steps, probes + 2, anew=True)
    report(0, probes * steps, f"{n:,} parameters: {probes} x {steps} products, after the extreme eigenpairs{disk}")
    task = Quadratures(probes, steps, 2 * plan.pairs)
    wanted = plan.pairs * (1 if semidefinite else 2)
    pairs = extreme_eigenpairs(
        matrix,
        lowest=0 if semidefinite else plan.pairs,  # nothing is below zero then
        highest=plan.pairs,
        tol=TOLERANCE,
        max_basis=plan.ends.size,
        images=plan.ends.images,
        kept=pieces.state("extreme eigenpairs") if pieces.kept else None,
        max_products=probes * steps,
        foresee=task.foresee,
        progress=lambda spent, found: report(
            min(spent, probes * steps), probes * steps, f"at most products ({found} of {wanted} extreme pairs found)"
        ),
        seed=seed,
        precision=matrix.precision,
    )
    if pairs.interrupted:
        return _stopped(matrix, zeros, name, pairs)
    report(0, probes * steps, f"{probes} x {steps} products for the rest of the spectrum")
    done = pairs.converged
    task.taken = int(done.sum())
    values, vectors = pairs.values[done], pairs.vectors[:, done.to(pairs.vectors.device)]
    try:
        density = densities.spectral_density(
            matrix,
            probes=probes,
            steps=steps,
            seed=seed + 1,
            deflate=(values, vectors),
            zeros=zeros,
            at_once=plan.at_once,
            keep=pieces.get,
            progress=lambda count: report(task.finished(count), probes * steps, "products"),
            stepped=lambda vectors, step: report(task.stepped(vectors, step), probes * steps, "products"),
        )
    except KeyboardInterrupt:  # before two probes were done, from which an error can be told
        return _stopped(matrix, zeros, name, pairs)
    interrupted = len(density.nodes) < probes
    moments = density.moments(2)
    counted = task.signs

    def traced(products: int) -> None:
        task.traced(products)
        report(products, counted, "products for the trace")

    try:
        left = estimators.Deflated(matrix, vectors)
        sketch = density.sketch_size(counted)
        rest = _kept_trace(pieces, lambda: estimators.trace(left, counted, seed + 2, sketch=sketch, progress=traced))
        trace = rest.shifted(float(values.sum()))
    except KeyboardInterrupt:
        interrupted = True
        trace = _of_moment(moments, 0, density.n)
    # |A|_F^2 = |P A P|^2 + 2 |P A U|^2 + |U'A U|^2, and the residuals are the columns of P A U.
    square = _of_moment(moments, 1, density.n, 2 * float(pairs.residuals[done].square().sum()))
    norm = math.sqrt(max(square.value, 0.0))
    status: Status = "interrupted" if interrupted else "ok" if _ends_found(pairs, density) else "inexact"
    zero = _zero(matrix, density.scale)
    common = _common(density, name, zero)
    loose = pairs.values[~done].tolist()  # left in the density, which may not reach as far
    common |= {"lowest": min(common["lowest"], *loose, math.inf), "highest": max(common["highest"], *loose, -math.inf)}
    return common | {
        "method": "slq",
        "probes": len(density.nodes),
        "steps": density.nodes.shape[1],
        "trace": trace.value,
        "trace_stderr": trace.stderr,
        "trace_interval": trace.interval,
        "frobenius": norm,
        "frobenius_stderr": square.stderr / (2 * norm) if norm else 0.0,  # the delta method
        "frobenius_interval": intervals.root(square.interval),
        "inertia": None,
        "condition": None,
        "outliers": _outliers(pairs),
        "eigenvalues": None,
        "hvps": pairs.products + density.products + trace.products,
        "status": status,
        "lowest_is_bound": not (pairs.lowest and bool(done[0])),
        "highest_is_bound": not bool(done[-1]),
        "witness": Witness(
            min(pairs.ritz_range[0], float(np.nanmin(density.nodes, initial=math.inf))),
            "v'Hv < 0 for the lowest Ritz vector v",
            zero,
        ),
    }


def _stopped(matrix: Products | Restricted, zeros: int, name: OperatorName, pairs: Eigenpairs) -> dict[str, Any]:
    """What the extreme eigenpairs alone tell after an interrupt: how far the spectrum reaches at least, and no more."""
    low, high = pairs.ritz_range
    zero = _zero(matrix, max(abs(low), abs(high)))
    values = [0.0] * bool(zeros) + [low, high]
    return NOTHING | {
        "operator": name,
        "parameters": matrix.shape[0] + zeros,
        "lowest": min(values),
        "lowest_is_bound": not (pairs.lowest and bool(pairs.converged[0])),
        "highest": max(values),
        "highest_is_bound": not (pairs.highest and bool(pairs.converged[-1])),
        "outliers": _outliers(pairs),
        "hvps": pairs.products,
        "witness": Witness(low, "v'Hv < 0 for the lowest Ritz vector v", zero),
    }


def unmeasured(problem: Problem, operator: OperatorName) -> Spectrum:
    """The result of a run that was interrupted before anything was measured."""
    nothing = NOTHING | {
        "operator": operator,
        "parameters": problem.n_parameters,
        "negative_certificate": Certificate(False, None, NOT_MEASURED),
        "engine": "",
    }
    return Spectrum(**nothing, checks={}, findings=(interrupted_early(),))


def _outliers(pairs: Eigenpairs) -> tuple[Outlier, ...]:
    return tuple(
        Outlier(
            eigenvalue=float(pairs.values[index]),
            residual=float(pairs.residuals[index]),
            converged=bool(pairs.converged[index]),
            bound=None if bool(pairs.converged[index]) else "upper" if index < pairs.lowest else "lower",
        )
        for index in range(len(pairs.values))
    )


def _kept_trace(pieces: Pieces, compute: Callable[[], Estimate]) -> Estimate:
    def numbers() -> dict[str, NDArray[Any]]:
        found = compute()
        return {"numbers": np.array([found.value, found.stderr, *found.interval]), "products": np.array(found.products)}

    arrays = pieces.get("trace", numbers)
    value, stderr, low, high = arrays["numbers"].tolist()
    return Estimate(value, stderr, (low, high), int(arrays["products"]))


def _of_moment(moments: Average, index: int, n: int, more: float = 0.0) -> Estimate:
    """A moment times n, and a known number: the trace, or the squared norm, at no further product."""
    found = moments.shifted(more / n)
    low, high = (n * float(end[index]) for end in (found.low, found.high))
    return Estimate(n * float(found.value[index]), n * float(found.stderr[index]), (low, high), 0)


def _ends_found(pairs: Eigenpairs, density: Density) -> bool:
    """Whether both ends are known to within the width of the smoothing."""
    ends = [0] * bool(pairs.lowest) + [len(pairs.values) - 1]
    return all(bool(pairs.converged[end]) or float(pairs.residuals[end]) <= density.width for end in ends)


def _zero(matrix: Products | Restricted, scale: float) -> float:
    """Magnitude below which an eigenvalue cannot be told from zero: the error of products with the largest."""
    return ROUNDING * matrix.precision * scale


def _common(density: Density, name: OperatorName, zero: float) -> dict[str, Any]:
    """What follows from the nodes and weights alone."""
    low, high = density.support
    grid, log_grid = density.grid(), density.log_grid()
    curve, decades = density.density(grid), density.log_density(log_grid)
    moments = density.moments()
    near = density.share(-NEAR_ZERO * density.scale, NEAR_ZERO * density.scale)
    below, bump = density.negative(zero), 1 / (density.n * math.sqrt(2 * math.pi))
    return {
        "operator": name,
        "parameters": density.n,
        "lowest": low,
        "highest": high,
        "density": Curve(
            grid=grid.tolist(),
            values=curve.value.tolist(),
            stderr=None if density.exact else curve.stderr.tolist(),
            interval=None if density.exact else (_plain(curve.low), _plain(curve.high)),
            width=density.width,
            one_eigenvalue=bump / density.width,
        ),
        "log_density": LogCurve(
            grid=log_grid.tolist(),
            **_decade("positive", decades.positive, density.exact),
            **_decade("negative", decades.negative, density.exact),
            width=densities.LOG_WIDTH,
            one_eigenvalue=bump / densities.LOG_WIDTH,
            unresolved_below=decades.unresolved_below or None,
            unresolved_share=decades.unresolved_share if decades.unresolved_below else None,
        ),
        "moments": tuple(
            Moment(
                order, float(moments.value[order - 1]), _number(moments.stderr[order - 1]), _pair(moments, order - 1)
            )
            for order in range(1, densities.MOMENTS + 1)
        ),
        "negative_fraction": float(below.value),
        "negative_fraction_stderr": None,
        "negative_fraction_interval": _pair(below),
        "negative_fraction_bounds": _pair(below),
        **_described("negative_mass", density.negative_mass()),
        "near_zero_fraction": float(near.value),
        "near_zero_fraction_stderr": None,
        "near_zero_fraction_interval": _pair(near),
    }


def _described(name: str, average: Average) -> dict[str, Any]:
    """A number with its error and interval."""
    return {
        name: float(average.value),
        f"{name}_stderr": _number(average.stderr),
        f"{name}_interval": _pair(average),
    }


def _decade(name: str, average: Average, exact: bool) -> dict[str, Any]:
    """A curve with its errors and intervals, `None` where they are unknown."""
    return {
        name: _plain(average.value),
        f"{name}_stderr": None if exact else _plain(average.stderr),
        f"{name}_interval": None if exact else (_plain(average.low), _plain(average.high)),
    }


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(values: Floats) -> Values:
    return [_number(value) for value in values]


def _pair(average: Average, index: Any = ()) -> Interval | None:
    low, high = float(average.low[index]), float(average.high[index])
    return None if math.isnan(low) else (low, high)
