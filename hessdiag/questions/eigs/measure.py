"""Both ends of the Hessian's spectrum: how sharp is the loss here, and which way does it curve down?"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.shared import share
from hessdiag.curvature.support import Support, support
from hessdiag.errors import SpecError
from hessdiag.linalg.eigenpairs import ROUNDING, Eigenpairs, dense_eigenpairs, padded
from hessdiag.linalg.eigensolver import BLOCK, extreme_eigenpairs, smallest_basis
from hessdiag.linalg.spread import Spread, spread_of
from hessdiag.linalg.tridiagonal import inner, safe_norm
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.certificate import (
    NONE_FOUND,
    NONE_OF_ALL,
    NOTHING_MEASURED,
    OF_ALL,
    OF_RITZ_VECTORS,
    Certificate,
    Witness,
    certificate,
)
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.in_metric import InMetric, MetricSpec, metric_of, named_only
from hessdiag.questions.common.inertia import inertia
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance, Status
from hessdiag.questions.common.runs.forecast import foreseen
from hessdiag.questions.common.runs.outlay import Basis, basis, outlay
from hessdiag.questions.common.runs.pieces import on_disk
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import kept_pieces
from hessdiag.questions.common.sharding import formed_up_to, refuse, sharding, where
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.questions.eigs import vectors
from hessdiag.questions.eigs.result import Eigs
from hessdiag.questions.eigs.verdict import findings

DENSE_UP_TO = 2_000  # parameters: the whole spectrum by LAPACK; more on a GPU (`capacity`)
MAX_PRODUCTS = 5_000


@recorded
@measurement(less="--max-basis 20, or --lowest 1 --highest 1")
def eigs(
    problem: Problem | HessianOperator,
    *,
    lowest: int = 5,
    highest: int = 5,
    tol: float = 1e-3,
    max_basis: int | None = None,
    max_products: int = MAX_PRODUCTS,
    block: int = BLOCK,
    seed: int = 0,
    progress: Progress | None = None,
    keep_vectors: bool = True,
    resume: str | Path | None = None,
    metric: MetricSpec = None,
) -> Eigs:
    """Measure both ends of the spectrum of a problem's Hessian.

    Up to 2,000 parameters, the whole Hessian is formed and its spectrum is exact, up to rounding. Beyond, block Lanczos
    with thick restarts finds both ends in one Krylov space; see `hessdiag.linalg.eigsh`.

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        lowest: Eigenpairs wanted at the lower end.
        highest: Eigenpairs wanted at the upper end.
        tol: Residual to reach, relative to the eigenvalue.
        max_basis: Most vectors held. Default: what is worth its memory, up to 400.
        max_products: Where the iteration gives up.
        block: Vectors per product. One takes fewer products, and cannot notice repeated eigenvalues.
        seed: Of the start vectors.
        progress: Called with (done, total, what).
        keep_vectors: Whether the result holds the eigenvectors; of a sharded problem, this process's pieces of them.
        resume: A folder in which the Krylov space is kept, for a run that goes on where this one stopped.
        metric: The optimizer in whose metric P^(-1/2) H P^(-1/2) it is taken: "adam(lr=1e-4)", the state in a
            checkpoint, a live optimizer, or the diagonal of P, (N,). Default: the Hessian itself.

    Returns:
        The measurement with self-checks and verdict; after a keyboard interrupt, the Ritz pairs at that time.

    Raises:
        SpecError: if nothing is wanted, or tolerance or basis are out of range.
        ComputeError: if the Hessian cannot be computed.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> found = eigs(Problem(model, data=data, loss="mse"), lowest=1, highest=1)  # H = [[2, 4], [4, 8]]
    >>> round(found.highest[-1].eigenvalue, 9), found.inertia.positive, found.inertia.zero
    (10.0, 1, 1)
    """
    problem = problem_of(problem, "hessdiag.linalg.eigsh(operator, lowest=5, highest=5)")
    asked = _Asked(lowest, highest, tol, max_basis, max_products, block, seed)
    asked.refuse()
    refuse(problem, metric=metric, resume=resume)
    taken = metric_of(problem, metric)
    plan = _plan(problem, replace(asked, metric=taken.key), taken)
    report = progress or silent
    report(0, plan.wanted, plan.announced(resume))
    checks = examine(plan.operator, seed, squared=True)
    run = _whole(plan, report) if plan.space is None else _search(plan, plan.space, report, resume)
    return _assembled(plan, checks, run, keep_vectors=keep_vectors)


def unmeasured(problem: Problem, tol: float, metric: MetricSpec = None) -> Eigs:
    """The result of a run that was interrupted before anything was measured."""
    return Eigs(
        status="interrupted",
        problem=described(problem),
        findings=(interrupted_early(),),
        metric=named_only(metric),
        lowest=(),
        highest=(),
        smallest=None,
        smallest_is_bound=False,
        largest=None,
        largest_is_bound=False,
        method="lanczos",
        parameters=problem.n_parameters,
        layers=tuple(layer.name for layer in problem.layer_slices),
        tol=tol,
        rounding=0.0,
        inertia=None,
        spectrum=None,
        largest_step=None,
        largest_step_is_bound=False,
        gradient_norm=None,
        gradient_curvature=None,
        negative_certificate=NOTHING_MEASURED,
        hvps=0,
        basis=0,
        restarts=0,
    )


@dataclass(frozen=True)
class _Asked:
    """What is wanted, and what it may cost; a run that goes on must have been asked for the same."""

    lowest: int
    highest: int
    tol: float
    max_basis: int | None
    max_products: int
    block: int
    seed: int
    metric: str | None = None

    def refuse(self) -> None:
        """Make sure that it can be had.

        Raises:
            SpecError: if not.
        """
        lowest, highest = self.lowest, self.highest
        if min(lowest, highest) < 0 or lowest + highest == 0:
            raise SpecError(f"--lowest {lowest} --highest {highest} asks for no eigenpair.", "--lowest 5 --highest 5")
        if not 0 < self.tol < 1:
            raise SpecError(f"--tol is a relative residual between 0 and 1, not {self.tol}.", "--tol 1e-3")
        if self.max_basis is not None and self.max_basis < smallest_basis(lowest, highest):
            raise SpecError(
                f"a basis of {self.max_basis} vectors is too small for {lowest} + {highest} eigenpairs.",
                f"--max-basis {smallest_basis(lowest, highest)}",
            )
        if self.max_products < 1 or self.block < 1:
            raise SpecError("--max-products and --block must be positive.", f"--max-products {MAX_PRODUCTS}")


@dataclass(frozen=True)
class _Plan:
    """How it will be computed.

    Attributes:
        problem: N parameters.
        asked: What is wanted of it.
        part: Its rows that are not zero.
        taken: The metric that it is taken in.
        operator: The Hessian of what the batches touch, in the metric.
        space: How many vectors the iteration holds; `None` where the whole matrix is formed.
    """

    problem: Problem
    asked: _Asked
    part: Support
    taken: InMetric
    operator: HessianOperator
    space: Basis | None

    @property
    def wanted(self) -> int:
        """Products, at most."""
        return self.part.size if self.space is None else self.asked.max_products

    def announced(self, resume: str | Path | None) -> str:
        """What will be done, and what it holds in memory and on the disk."""
        zeros, n = self.part.zeros, self.part.size
        own = spread_of(self.operator).own
        before = f"{zeros:,} of {self.problem.n_parameters:,} rows are zero and left out; " if zeros else ""
        if self.space is None:
            return f"{before}{n:,} parameters: all {n:,} eigenvalues, from the whole Hessian"
        held = (1 + self.space.images) * self.space.size * own * self.operator.dtype.itemsize
        return (
            f"{before}{n:,} parameters: {self.asked.lowest} lowest and {self.asked.highest} highest eigenpairs, from "
            f"Hessian products until they converge, up to {self.space.size} vectors in {held / 2**20:,.0f} MiB"
            f"{where(self.problem).replace(', sharded over', ' in each of')}{on_disk(resume, held, anew=True)}"
        )


@dataclass(frozen=True)
class _Slope:
    """The gradient, and the curvature along it.

    Attributes:
        size: |g|.
        direction: g / |g|, without the rows that are zero; `None` where g vanishes.
        curvature: g'Hg / g'g; `None` likewise.
        noise: What rounding of the product can make of a zero.
    """

    size: float
    direction: Tensor | None
    curvature: float | None
    noise: float


@dataclass(frozen=True)
class _Run:
    """What was computed.

    Attributes:
        slope: Along the gradient.
        pairs: Both ends, of vectors without the rows that are zero.
        products: Spent.
        engine: How products were computed.
        resumed: Pieces of an earlier run that were taken up.
    """

    slope: _Slope
    pairs: Eigenpairs
    products: int
    engine: str
    resumed: int = 0


def _plan(problem: Problem, asked: _Asked, taken: InMetric) -> _Plan:
    """The whole matrix of a small problem; else what the iteration will hold and spend, in the ledger before it is."""
    dense = formed_up_to(problem, DENSE_UP_TO)
    part = support(problem, dense, seed=asked.seed)
    operator = taken.operator(HessianOperator(part.problem, check=False), part)
    if part.size <= dense:
        return _Plan(problem, asked, part, taken, operator, None)
    spent = outlay(operator)
    space = basis(spent, part.size, asked.lowest, asked.highest, asked.max_basis, asked.block)
    fewest = min(asked.lowest + asked.highest, asked.max_products)
    passes = space.work(fewest).vectors, space.work(asked.max_products).vectors
    held = {**space.held, "direction of the gradient": 1}
    spent.plan((fewest, asked.max_products), held, passes=passes, search=True)
    return _Plan(problem, asked, part, taken, operator, space)


def _gradient(plan: _Plan) -> tuple[float, Tensor]:
    """Its norm, and its direction without the rows that are zero: zeros where it vanishes."""
    gradient = plan.part.shorten(plan.operator.gradient())
    size = safe_norm(gradient, spread_of(plan.operator))
    return size, gradient.div_(size) if size else gradient


def _slope(size: float, direction: Tensor, along: Tensor, precision: float, spread: Spread | None = None) -> _Slope:
    noise = ROUNDING * precision * safe_norm(along, spread)
    return _Slope(size, direction, inner(direction, along, spread), noise) if size else _Slope(size, None, None, noise)


def _whole(plan: _Plan, report: Progress) -> _Run:
    """All eigenvalues, from the matrix itself."""
    asked, operator = plan.asked, plan.operator
    size, direction = _gradient(plan)
    matrix = plan.part.dense(operator)
    pairs = dense_eigenpairs(
        matrix, lowest=asked.lowest, highest=asked.highest, tol=asked.tol, precision=operator.precision
    )
    slope = _slope(size, direction, matrix @ direction.to(matrix), operator.precision)
    report(plan.wanted, plan.wanted, "")
    return _Run(slope, pairs, pairs.products, operator.engine)


def _search(plan: _Plan, space: Basis, report: Progress, resume: str | Path | None) -> _Run:
    """Both ends by block Lanczos, in the Krylov space that an earlier run kept or in one of its own."""
    asked, pairs_wanted = plan.asked, plan.asked.lowest + plan.asked.highest
    size, direction = _gradient(plan)
    shared = share(plan.operator)
    products = plan.part.restrict(shared, plan.operator.chunk)
    along = products @ direction
    pieces = kept_pieces(plan.problem, "eigs", asdict(asked), resume, plan.operator)
    space = space.again(pieces)
    slope = _slope(size, direction, along, shared.precision, spread_of(products))
    del along  # which is as long as the basis's vectors
    pairs = extreme_eigenpairs(
        products,
        lowest=asked.lowest,
        highest=asked.highest,
        tol=asked.tol,
        max_basis=space.size,
        max_products=asked.max_products,
        block=asked.block,
        seed=asked.seed,
        precision=shared.precision,
        images=space.images,
        kept=pieces.state("krylov") if pieces.kept else None,
        foresee=foreseen,
        progress=lambda spent, converged: report(
            min(spent, plan.wanted), plan.wanted, f"at most products ({converged} of {pairs_wanted} pairs found)"
        ),
    )
    return _Run(slope, pairs, pairs.products + 1, shared.engine, pieces.taken)


def _assembled(plan: _Plan, checks: Examination, run: _Run, *, keep_vectors: bool) -> Eigs:
    """The result of all N parameters, rows that are zero among them, with its verdict."""
    problem, part, asked, slope, pairs = plan.problem, plan.part, plan.asked, run.slope, run.pairs
    direction, places = slope.direction, None
    if part.zeros:
        nulls = min(part.zeros, asked.lowest + asked.highest)
        places = part.places(nulls)
        pairs = padded(pairs, nulls, lowest=asked.lowest, highest=asked.highest)
        direction = None if direction is None else torch.cat([direction, direction.new_zeros(nulls)])
    converged = bool(pairs.converged.all())
    status: Status = "interrupted" if pairs.interrupted else "inexact" if checks.failed or not converged else "ok"
    found = vectors.eigenpairs(pairs, direction, places, problem, spread_of(plan.operator))
    spectrum = None if pairs.spectrum is None else tuple(pairs.spectrum.tolist())
    lowest, highest = found[: pairs.lowest], found[len(found) - pairs.highest :]
    step = (
        _largest_step(plan.taken, highest[-1].eigenvalue)
        if highest and highest[-1].eigenvalue > pairs.rounding
        else None
    )
    bounded = bool(highest) and highest[-1].bound is not None
    measured = Eigs(
        status=status,
        problem=described(problem),
        provenance=Provenance(resumed_pieces=run.resumed or None, sharding=sharding(problem)),
        lowest=lowest,
        highest=highest,
        smallest=lowest[0].eigenvalue if lowest else None,
        smallest_is_bound=bool(lowest) and lowest[0].bound is not None,
        largest=highest[-1].eigenvalue if highest else None,
        largest_is_bound=bounded,
        method="exact" if plan.space is None else "lanczos",
        parameters=problem.n_parameters,
        zero_rows=part.zeros,
        untouched=part.untouched,
        layers=tuple(layer.name for layer in problem.layer_slices),
        tol=asked.tol,
        rounding=pairs.rounding,
        ritz_range=pairs.ritz_range,
        inertia=None if spectrum is None else inertia(spectrum, pairs.rounding, part.zeros),
        spectrum=spectrum,
        largest_step=step,
        largest_step_is_bound=bounded and step is not None,
        gradient_norm=slope.size,
        gradient_curvature=slope.curvature,
        negative_certificate=_certificate(pairs, slope, trusted=not checks.failed),
        hvps=run.products,
        basis=pairs.basis,
        restarts=pairs.restarts,
        engine=run.engine,
        metric=plan.taken.named,
        vectors=vectors.columns(pairs, places, problem.n_parameters) if keep_vectors else None,
        scale=plan.taken.scale if keep_vectors else None,
    )
    measured = examined(measured, checks)
    return replace(measured, findings=tuple(findings(measured)))


def _largest_step(taken: InMetric, curvature: float) -> float | None:
    """The learning rate beyond which plain gradient descent, or the optimizer whose metric it is, is unstable."""
    return 2 / curvature if taken.named is None else taken.named.limit(curvature)


def _certificate(pairs: Eigenpairs, slope: _Slope, *, trusted: bool) -> Certificate:
    """From every v'Hv that the run has formed: of all its Ritz vectors, wanted or not, and of the gradient."""
    says, otherwise = (OF_RITZ_VECTORS, NONE_FOUND) if pairs.spectrum is None else (OF_ALL, NONE_OF_ALL)
    witnesses = [Witness(pairs.ritz_range[0], says, pairs.rounding)]
    if slope.curvature is not None:
        margin = max(pairs.rounding, slope.noise)
        witnesses.append(Witness(slope.curvature, "g'Hg < 0 for the gradient g", margin))
    return certificate(witnesses, trusted=trusted, otherwise=otherwise)
