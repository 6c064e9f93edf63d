"""Where can the eigenvalues be? Gershgorin's discs and tighter inclusion sets, beside the measured extremes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.shared import share
from hessdiag.curvature.support import support
from hessdiag.linalg import blocks, inclusion
from hessdiag.linalg.eigensolver import ROUNDING, extreme_eigenpairs
from hessdiag.linalg.inclusion import Component
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.machine import cost, processes
from hessdiag.machine.work import Work
from hessdiag.numbers import number
from hessdiag.problem.problem import Problem
from hessdiag.questions.bounds import rows as bounds_rows
from hessdiag.questions.bounds.rows import Rows, dense, sketched, streamed
from hessdiag.questions.bounds.verdict import NAMES, contradicted, excluded, findings, witnesses
from hessdiag.questions.common import operators
from hessdiag.questions.common.certificate import Certificate, Witness, certificate
from hessdiag.questions.common.forecast import foreseen
from hessdiag.questions.common.measured import Measured
from hessdiag.questions.common.outlay import Basis, basis, outlay
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import NOT_MEASURED, interrupted_early

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Progress = Callable[[int, int, str], None]

DENSE_UP_TO = 5_000  # parameters: the whole matrix, for the bounds that need all of it
EXACT_UP_TO = 10_000  # parameters: every row, streamed; beyond, a sketch
TOLERANCE = 1e-3  # relative residual of the measured extremes
MOST_PRODUCTS = 5_000  # to measure the extremes, where the matrix is not held
NO_ENTRY = "no entry of the rows that were finished is negative beyond rounding"
# What an interrupt leaves unmeasured.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        (
            "gershgorin", "brauer", "perron", "block_norm", "feingold_varga", "frobenius", "measured",
            "measured_residuals", "measured_converged", "relative_stderr", "components",
        )
    ),
    "method": "exact", "status": "interrupted",
}  # fmt: skip


@dataclass(frozen=True)
class Bounds(Measured):
    """Intervals that hold every eigenvalue of a Hessian. One that needs more of H than was computed is `None`.

    So are all of them after an interrupt before every row was done: sums of some rows bound nothing.

    Attributes:
        gershgorin: Hull of the discs around the diagonal, with the rows' absolute sums for radii.
        brauer: From pairs of rows (ovals of Cassini); within Gershgorin's.
        perron: Gershgorin's after the best diagonal scaling at each end; within Brauer's.
        block_norm: From the extremes of layer-diagonal blocks and the spectral norms of the others.
        feingold_varga: Gershgorin's by layers instead of rows; around `block_norm`.
        frobenius: From trace and Frobenius norm alone (Wolkowicz and Styan).
        inner: What the matrix's own entries and blocks prove from inside: an eigenvalue at or below the first, and
            one at or above the second.
        measured: Lowest and highest Ritz value. One that has not converged is a bound: the lowest eigenvalue is at or
            below it, or the highest at or above.
        measured_residuals: Their true residuals: an eigenvalue lies within each of its Ritz value.
        measured_converged: Whether each reached the relative residual 1e-3.
        method: "exact", or "sketch": the largest row sums come from random products and are estimates.
        relative_stderr: Relative standard error of sketched row sums; `None` when exact.
        components: Connected parts of the union of discs, ascending; `None` if sketched.
        parameters: N.
        rows: How many of them are known exactly.
        known_discs: After an interrupt before every row was done: the hull of the discs of those that were. Each of
            these discs holds an eigenvalue, for the matrix is symmetric; others may lie anywhere.
        zero_rows: Rows of parameters that the batches do not touch: they are zero, were left out, and their eigenvalues
            are in every interval; 0 unless they are a tenth of more than 5,000.
        negative_certificate: Whether H certainly has a negative eigenvalue.
        hvps: Products spent, self-checks not counted; a whole matrix counts as N, by whatever route.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed, or the extremes did not converge) or "interrupted".
    """

    gershgorin: Interval | None
    brauer: Interval | None
    perron: Interval | None
    block_norm: Interval | None
    feingold_varga: Interval | None
    frobenius: Interval | None
    inner: Interval | None
    measured: Interval | None
    measured_residuals: Interval | None
    measured_converged: tuple[bool, bool] | None
    method: Literal["exact", "sketch"]
    relative_stderr: float | None
    components: tuple[Component, ...] | None
    parameters: int
    rows: int
    known_discs: Interval | None
    zero_rows: int
    negative_certificate: Certificate
    hvps: int
    engine: str


@measurement()
def bounds(problem: Problem | HessianOperator, *, seed: int = 0, progress: Progress | None = None) -> Bounds:
    """Bound the eigenvalues of a problem's Hessian, and measure its extremes.

    Up to 5,000 parameters from the whole matrix, up to 10,000 from every row, streamed. Beyond, all absolute row sums
    are sketched at once by products with Cauchy vectors, and the largest rows are computed exactly.

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        seed: Of sketch and eigensolver.
        progress: Called with (done, total, what).

    Raises:
        ComputeError: if the Hessian cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> found = bounds(Problem(model, data=data, loss="mse"))  # H = [[2, 4], [4, 8]]
    >>> found.gershgorin, [round(end, 6) + 0.0 for end in found.brauer]
    ((-2.0, 12.0), [0.0, 10.0])
    """
    problem = problem_of(problem, "hessdiag.linalg.gershgorin(operator)")
    part = support(problem, DENSE_UP_TO, seed=seed, numeric=False)
    n = part.size
    operator = HessianOperator(part.problem, check=False)
    report = progress or (lambda done, total, what: None)
    space = None if n <= DENSE_UP_TO else _plan(operator)
    checks = examine(operator, seed, squared=True)
    products = operator if n <= DENSE_UP_TO else share(operator)
    matrix: Tensor | None = None
    if n <= DENSE_UP_TO:
        report(0, n, f"{n:,} parameters: the whole Hessian")
        matrix, rows = dense(operator, report)
    elif n <= EXACT_UP_TO:
        rows = streamed(operator, _with_search(report))
    else:
        rows = sketched(products, seed, _with_search(report))
    if rows.stopped:
        return _stopped(problem, rows, part.zeros, products.engine, checks, operator.precision)
    measured = _measured(products if matrix is None else matrix, space, seed, operator.precision, report)
    ritz: Witness | None = measured.pop("witness")
    try:
        whole = _whole(part.problem, matrix) if matrix is not None else {}
    except KeyboardInterrupt:
        if processes.together():
            raise
        whole, measured["status"] = {}, "interrupted"
    everywhere = bool(rows.exact.all())
    known = rows.diagonal[rows.exact]
    inner = whole.get("inner")
    parts = _components(rows, part.zeros) if everywhere else None
    values: dict[str, Any] = {
        "gershgorin": inclusion.discs(rows.diagonal, rows.radii),
        "brauer": inclusion.brauer(rows.diagonal, rows.radii),
        "perron": None,
        "block_norm": None,
        "feingold_varga": None,
        "frobenius": None,
        "inner": None,
        "method": "exact" if everywhere else "sketch",
        "relative_stderr": None if everywhere else inclusion.sketch_relative_stderr(bounds_rows.SKETCHES),
        "components": parts,
        "parameters": problem.n_parameters,
        "rows": int(rows.exact.sum()) + part.zeros,
        "known_discs": None,
        "zero_rows": part.zeros,
        "hvps": rows.products + measured.pop("products"),
        "engine": products.engine,
        **operators.trust(checks),
        **whole,
        **measured,
    }
    if part.zeros:
        values |= {name: _with_zero(values[name]) for name in (*NAMES, "inner", "measured")}
    trusted = not checks.failed and not contradicted(values)
    if values["status"] == "ok" and not trusted:
        values["status"] = "inexact"
    rounding = ROUNDING * operator.precision * max(map(abs, values["gershgorin"]))
    reasons = witnesses(known, rows.radii if everywhere else None, inner, rounding)
    values["negative_certificate"] = certificate(
        [*reasons, ritz] if ritz is not None else reasons, trusted=trusted, otherwise=excluded(values)
    )
    return Bounds(**values, findings=tuple(findings(Bounds(**values), problem)))


def _plan(operator: HessianOperator) -> Basis:
    """What will be held and spent, entered in the ledger before it is."""
    spent = outlay(operator)
    space, n = basis(spent, operator.shape[0], 1, 1, None), operator.shape[0]
    rows = n if n <= EXACT_UP_TO else bounds_rows.SKETCHES + bounds_rows.REFINED
    passes = space.work(2).vectors, space.work(MOST_PRODUCTS).vectors
    spent.plan((rows + 2, rows + MOST_PRODUCTS), space.held, passes=passes)
    return space


def _stopped(problem: Problem, rows: Rows, zeros: int, engine: str, checks: Examination, precision: float) -> Bounds:
    """After an interrupt before all was done: what the finished rows prove, and nothing else."""
    if not rows.exact.any():
        raise KeyboardInterrupt
    known, radii, every = rows.diagonal[rows.exact], rows.radii[rows.exact], bool(rows.exact.all())
    values: dict[str, Any] = NOTHING | {
        "inner": (float(known.min()), float(known.max())),
        "parameters": problem.n_parameters,
        "rows": len(known) + zeros * every,
        "known_discs": None if every else inclusion.discs(known, radii),
        "zero_rows": zeros,
        "hvps": rows.products,
        "engine": engine,
        **operators.trust(checks),
    }
    if every:
        values |= {"gershgorin": inclusion.discs(known, radii), "brauer": inclusion.brauer(known, radii)}
        values |= {"components": _components(rows, zeros)}
        if zeros:
            values |= {name: _with_zero(values[name]) for name in ("gershgorin", "brauer", "inner")}
    rounding = ROUNDING * precision * float((np.abs(known) + radii).max())
    values["negative_certificate"] = certificate(
        witnesses(known, radii if every else None, None, rounding),
        trusted=not checks.failed,
        otherwise=excluded(values) if every else NO_ENTRY,
    )
    found = Bounds(**values)
    return replace(found, findings=tuple(findings(found, problem)))


def unmeasured(problem: Problem) -> Bounds:
    """The result of a run that was interrupted before anything was measured."""
    return Bounds(
        **NOTHING,
        inner=None,
        parameters=problem.n_parameters,
        rows=0,
        known_discs=None,
        zero_rows=0,
        negative_certificate=Certificate(False, None, NOT_MEASURED),
        hvps=0,
        engine="",
        checks={},
        findings=(interrupted_early(),),
    )


def _with_zero(ends: Interval | None) -> Interval | None:
    """The interval that reaches to the zero eigenvalues of rows that were left out."""
    return None if ends is None else (min(ends[0], 0.0), max(ends[1], 0.0))


def _components(rows: Rows, zeros: int) -> tuple[Component, ...]:
    """Connected discs; those of the rows that were left out are the point zero."""
    own = np.zeros(min(zeros, 1))
    parts = inclusion.components(np.append(rows.diagonal, own), np.append(rows.radii, own))
    return tuple(
        Component(part.interval, part.count + (zeros - 1) * (part.interval[0] <= 0 <= part.interval[1]) * bool(zeros))
        for part in parts
    )


def _whole(problem: Problem, matrix: Tensor) -> dict[str, Interval]:
    """Bounds that need the whole matrix."""
    n = len(matrix)
    parts = blocks.measure(matrix, [slice(layer.start, layer.stop) for layer in problem.layer_slices])
    trace = float(matrix.diagonal().double().sum())
    norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    lowest, highest = inclusion.wolkowicz_styan(n, trace, norm)
    diagonal = matrix.diagonal()
    return {
        "perron": inclusion.perron(matrix),
        "block_norm": blocks.norm_matrix(parts.lowest, parts.highest, parts.norms),
        "feingold_varga": blocks.feingold_varga(parts.lowest, parts.highest, parts.norms),
        "frobenius": (lowest[0], highest[1]),
        "inner": (
            min(parts.inner[0], lowest[1], float(diagonal.min())),
            max(parts.inner[1], highest[0], float(diagonal.max())),
        ),
    }


def _with_search(report: Progress) -> Progress:
    """A listener to rows, which a search for the extremes follows: it ends nobody knows when."""

    def told(done: int, total: int, what: str) -> None:
        if done:
            cost.reach(0.0, Work(total - done + 2), None)
        report(done, total, what)

    return told


def _measured(
    operator: SymmetricOperator, space: Basis | None, seed: int, precision: float, report: Progress
) -> dict[str, Any]:
    """The extremes by Lanczos. After a keyboard interrupt, what was found by then."""
    n = operator.shape[0]
    most = MOST_PRODUCTS if space is not None else 20 * n
    report(0, most, f"{n:,} parameters: the lowest and the highest eigenvalue")
    cost.begin()
    try:
        pairs = extreme_eigenpairs(
            operator,
            lowest=1,
            highest=1,
            tol=TOLERANCE,
            max_basis=None if space is None else space.size,
            images=space is None or space.images,
            max_products=most,
            seed=seed,
            precision=precision,
            foresee=foreseen,
            progress=lambda spent, found: report(
                min(spent, most), most, f"at most products ({found} of 2 extremes found)"
            ),
        )
    except KeyboardInterrupt:
        missing = dict.fromkeys(("measured", "measured_residuals", "measured_converged"))
        return {**missing, "witness": None, "products": 0, "status": "interrupted"}
    found = pairs.interrupted, bool(pairs.converged.all())
    products = 0 if isinstance(operator, Tensor) else pairs.products
    ends, low = [0, len(pairs.values) - 1], pairs.ritz_range[0]
    return {
        "measured": tuple(pairs.values[ends].tolist()),
        "measured_residuals": tuple(pairs.residuals[ends].tolist()),
        "measured_converged": tuple(pairs.converged[ends].tolist()),
        "witness": Witness(low, f"the Ritz value {number(low, 4)} is v'Hv of a unit vector v", pairs.rounding),
        "products": products,
        "status": "interrupted" if found[0] else "ok" if found[1] else "inexact",
    }
