"""Where can the eigenvalues be? Gershgorin's discs and tighter inclusion sets, beside the measured extremes."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.shared import share
from hessdiag.curvature.support import Support, support
from hessdiag.linalg import blocks, inclusion
from hessdiag.linalg.component import Component
from hessdiag.linalg.eigenpairs import ROUNDING
from hessdiag.linalg.eigensolver import extreme_eigenpairs
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.machine import cost, processes
from hessdiag.machine.work import Work
from hessdiag.numbers import number
from hessdiag.problem.problem import Problem
from hessdiag.questions.bounds import rows as rows_of
from hessdiag.questions.bounds.proof import contradicted, excluded, witnesses
from hessdiag.questions.bounds.result import Bounds
from hessdiag.questions.bounds.rows import Rows
from hessdiag.questions.bounds.verdict import findings
from hessdiag.questions.common.certificate import NOTHING_MEASURED, Witness, certificate
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.in_metric import InMetric, MetricSpec, metric_of, named_only
from hessdiag.questions.common.metric import here
from hessdiag.questions.common.operators import Products
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Status
from hessdiag.questions.common.runs.forecast import foreseen
from hessdiag.questions.common.runs.outlay import Basis, basis, outlay
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early

Interval = tuple[float, float]

DENSE_UP_TO = 5_000  # parameters: the whole matrix, for the bounds that need all of it
EXACT_UP_TO = 10_000  # parameters: every row, streamed; beyond, a sketch
TOLERANCE = 1e-3  # relative residual of the measured extremes
MOST_PRODUCTS = 5_000  # to measure the extremes, where the matrix is not held
NO_ENTRY = "no entry of the rows that were finished is negative beyond rounding"


@dataclass(frozen=True)
class Plan:
    """What is measured, and what its products hold.

    Attributes:
        part: The problem without rows that are zero for these batches.
        taken: The metric that it is taken in.
        operator: Its Hessian, in the metric.
        space: Of the search for the extremes; `None` where the whole matrix is held.
    """

    part: Support
    taken: InMetric
    operator: HessianOperator
    space: Basis | None

    @property
    def size(self) -> int:
        """Rows that are measured."""
        return self.part.size


@dataclass(frozen=True)
class Extremes:
    """The measured ends of the spectrum; `None` and nothing where an interrupt came before."""

    values: Interval | None = None
    residuals: Interval | None = None
    converged: tuple[bool, bool] | None = None
    witness: Witness | None = None
    products: int = 0
    status: Status = "interrupted"


@dataclass(frozen=True)
class Whole:
    """Bounds that need the whole matrix; `None` where it is not held."""

    perron: Interval | None = None
    block_norm: Interval | None = None
    feingold_varga: Interval | None = None
    frobenius: Interval | None = None
    inner: Interval | None = None


@recorded
@measurement()
def bounds(
    problem: Problem | HessianOperator,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    metric: MetricSpec = None,
) -> Bounds:
    """Bound the eigenvalues of a problem's Hessian, and measure its extremes.

    Up to 5,000 parameters from the whole matrix, up to 10,000 from every row, streamed. Beyond, all absolute row sums
    are sketched at once by products with Cauchy vectors, and the largest rows are computed exactly.

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        seed: Of sketch and eigensolver.
        progress: Called with (done, total, what).
        metric: The optimizer in whose metric P^(-1/2) H P^(-1/2) it is taken: "adam(lr=1e-4)", the state in a
            checkpoint, a live optimizer, or the diagonal of P, (N,). Default: the Hessian itself.

    Raises:
        SpecError: if there is no such optimizer, or its metric is not diagonal.
        ComputeError: if the Hessian cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> found = bounds(Problem(model, data=data, loss="mse"))  # H = [[2, 4], [4, 8]]
    >>> found.gershgorin, [round(end, 6) + 0.0 for end in found.brauer]
    ((-2.0, 12.0), [0.0, 10.0])
    """
    problem = problem_of(problem, "hessdiag.linalg.gershgorin(operator)")
    report = progress or silent
    plan = _plan(problem, seed, metric_of(problem, metric))
    checks = examine(plan.operator, seed, squared=True)
    products: Products = plan.operator if plan.space is None else share(plan.operator)
    matrix, rows = _rows(plan, products, seed, report)
    if rows.stopped:
        found = _of_some_rows(plan, rows, checks, products.engine)
    else:
        found = _of_all_rows(plan, rows, matrix, products, checks, seed, report)
    return replace(found, findings=tuple(findings(found)))


def unmeasured(problem: Problem, metric: MetricSpec = None) -> Bounds:
    """The result of a run that was interrupted before anything was measured."""
    return replace(_nothing(problem), metric=named_only(metric), findings=(interrupted_early(),))


def _plan(problem: Problem, seed: int, taken: InMetric) -> Plan:
    part = support(problem, DENSE_UP_TO, seed=seed, numeric=False)
    operator = taken.operator(HessianOperator(part.problem, check=False), part)
    return Plan(part, taken, operator, None if part.size <= DENSE_UP_TO else _held(operator))


def _held(operator: HessianOperator) -> Basis:
    """What will be held and spent, entered in the ledger before it is."""
    spent = outlay(operator)
    space, n = basis(spent, operator.shape[0], 1, 1, None), operator.shape[0]
    rows = n if n <= EXACT_UP_TO else rows_of.SKETCHES + rows_of.REFINED
    passes = space.work(2).vectors, space.work(MOST_PRODUCTS).vectors
    spent.plan((rows + 2, rows + MOST_PRODUCTS), space.held, passes=passes)
    return space


def _rows(plan: Plan, products: SymmetricOperator, seed: int, report: Progress) -> tuple[Tensor | None, Rows]:
    """What is known of every row, and the whole matrix where it is held."""
    n = plan.size
    if plan.space is None:
        report(0, n, f"{n:,} parameters: the whole Hessian")
        return rows_of.dense(plan.operator, report)
    if n <= EXACT_UP_TO:
        return None, rows_of.streamed(plan.operator, _with_search(report))
    return None, rows_of.sketched(products, seed, _with_search(report))


def _with_search(report: Progress) -> Progress:
    """A listener to rows, which a search for the extremes follows: it ends nobody knows when."""

    def told(done: int, total: int, what: str) -> None:
        if done:
            cost.reach(0.0, Work(total - done + 2), None)
        report(done, total, what)

    return told


def _of_all_rows(
    plan: Plan,
    rows: Rows,
    matrix: Tensor | None,
    products: Products,
    checks: Examination,
    seed: int,
    report: Progress,
) -> Bounds:
    """Intervals from every row, and the measured extremes beside them."""
    part, precision = plan.part, plan.operator.precision
    ends = _extremes(products if matrix is None else matrix, plan.space, seed, precision, report)
    whole, status = Whole(), ends.status
    try:
        whole = whole if matrix is None else _whole(part.problem, matrix)
    except KeyboardInterrupt:
        if processes.together():
            raise
        status = "interrupted"
    exact = bool(rows.exact.all())
    found = replace(
        _nothing(part.whole),
        metric=plan.taken.named,
        status=status,
        gershgorin=inclusion.discs(rows.diagonal, rows.radii),
        brauer=inclusion.brauer(rows.diagonal, rows.radii),
        perron=whole.perron,
        block_norm=whole.block_norm,
        feingold_varga=whole.feingold_varga,
        frobenius=whole.frobenius,
        inner=whole.inner,
        measured=ends.values,
        measured_residuals=ends.residuals,
        measured_converged=ends.converged,
        method="exact" if exact else "sketch",
        relative_stderr=None if exact else inclusion.sketch_relative_stderr(rows_of.SKETCHES),
        components=_components(rows, part.zeros) if exact else None,
        rows=int(rows.exact.sum()) + part.zeros,
        hvps=rows.products + ends.products,
        engine=products.engine,
    )
    found = examined(_with_zeros(found, part.zeros), checks)
    trusted = not checks.failed and not contradicted(found)
    assert found.gershgorin is not None
    rounding = ROUNDING * precision * max(map(abs, found.gershgorin))
    known, radii = rows.diagonal[rows.exact], rows.radii if exact else None
    reasons = witnesses(known, radii, whole.inner, rounding, here(found.metric))
    reasons += [] if ends.witness is None else [ends.witness]
    return replace(
        found,
        status="inexact" if found.status == "ok" and not trusted else found.status,
        negative_certificate=certificate(reasons, trusted=trusted, otherwise=excluded(found)),
    )


def _of_some_rows(plan: Plan, rows: Rows, checks: Examination, engine: str) -> Bounds:
    """After an interrupt before all was done: what the finished rows prove, and nothing else."""
    if not rows.exact.any():
        raise KeyboardInterrupt
    part, every = plan.part, bool(rows.exact.all())
    known, radii = rows.diagonal[rows.exact], rows.radii[rows.exact]
    found = replace(
        _nothing(part.whole),
        metric=plan.taken.named,
        inner=(float(known.min()), float(known.max())),
        rows=len(known) + part.zeros * every,
        known_discs=None if every else inclusion.discs(known, radii),
        zero_rows=part.zeros,
        hvps=rows.products,
        engine=engine,
    )
    if every:
        discs, ovals = inclusion.discs(known, radii), inclusion.brauer(known, radii)
        groups = _components(rows, part.zeros)
        found = _with_zeros(replace(found, gershgorin=discs, brauer=ovals, components=groups), part.zeros)
    rounding = ROUNDING * plan.operator.precision * float((np.abs(known) + radii).max())
    proof = certificate(
        witnesses(known, radii if every else None, None, rounding, here(found.metric)),
        trusted=not checks.failed,
        otherwise=excluded(found) if every else NO_ENTRY,
    )
    return examined(replace(found, negative_certificate=proof), checks)


def _nothing(problem: Problem) -> Bounds:
    """A result in which nothing is measured yet."""
    return Bounds(
        status="interrupted",
        problem=described(problem),
        gershgorin=None,
        brauer=None,
        perron=None,
        block_norm=None,
        feingold_varga=None,
        frobenius=None,
        inner=None,
        measured=None,
        measured_residuals=None,
        measured_converged=None,
        method="exact",
        relative_stderr=None,
        components=None,
        parameters=problem.n_parameters,
        rows=0,
        negative_certificate=NOTHING_MEASURED,
        hvps=0,
    )


def _with_zeros(found: Bounds, zeros: int) -> Bounds:
    """The intervals that reach to the zero eigenvalues of rows that were left out."""
    if not zeros:
        return found
    return replace(
        found,
        zero_rows=zeros,
        gershgorin=_with_zero(found.gershgorin),
        brauer=_with_zero(found.brauer),
        perron=_with_zero(found.perron),
        block_norm=_with_zero(found.block_norm),
        feingold_varga=_with_zero(found.feingold_varga),
        frobenius=_with_zero(found.frobenius),
        inner=_with_zero(found.inner),
        measured=_with_zero(found.measured),
    )


def _with_zero(ends: Interval | None) -> Interval | None:
    return None if ends is None else (min(ends[0], 0.0), max(ends[1], 0.0))


def _components(rows: Rows, zeros: int) -> tuple[Component, ...]:
    """Connected discs; those of the rows that were left out are the point zero."""
    own = np.zeros(min(zeros, 1))
    parts = inclusion.components(np.append(rows.diagonal, own), np.append(rows.radii, own))
    return tuple(
        Component(part.interval, part.count + (zeros - 1) * (part.interval[0] <= 0 <= part.interval[1]) * bool(zeros))
        for part in parts
    )


def _whole(problem: Problem, matrix: Tensor) -> Whole:
    """Bounds that need the whole matrix."""
    n = len(matrix)
    parts = blocks.measure(matrix, [slice(layer.start, layer.stop) for layer in problem.layer_slices])
    trace = float(matrix.diagonal().double().sum())
    norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    lowest, highest = inclusion.wolkowicz_styan(n, trace, norm)
    diagonal = matrix.diagonal()
    return Whole(
        perron=inclusion.perron(matrix),
        block_norm=blocks.norm_matrix(parts.lowest, parts.highest, parts.norms),
        feingold_varga=blocks.feingold_varga(parts.lowest, parts.highest, parts.norms),
        frobenius=(lowest[0], highest[1]),
        inner=(
            min(parts.inner[0], lowest[1], float(diagonal.min())),
            max(parts.inner[1], highest[0], float(diagonal.max())),
        ),
    )


def _extremes(
    operator: SymmetricOperator, space: Basis | None, seed: int, precision: float, report: Progress
) -> Extremes:
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
        if processes.together():
            raise
        return Extremes()
    low = pairs.ritz_range[0]
    done: Status = "ok" if bool(pairs.converged.all()) else "inexact"
    return Extremes(
        values=(float(pairs.values[0]), float(pairs.values[-1])),
        residuals=(float(pairs.residuals[0]), float(pairs.residuals[-1])),
        converged=(bool(pairs.converged[0]), bool(pairs.converged[-1])),
        witness=Witness(low, f"the Ritz value {number(low, 4)} is v'Hv of a unit vector v", pairs.rounding),
        products=0 if isinstance(operator, Tensor) else pairs.products,
        status="interrupted" if pairs.interrupted else done,
    )
