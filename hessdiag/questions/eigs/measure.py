"""Both ends of the Hessian's spectrum: how sharp is the loss here, and which way does it curve down?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hessdiag.curvature import parallel
from hessdiag.curvature.checks import examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.support import Support, support
from hessdiag.errors import SpecError
from hessdiag.linalg.eigensolver import (
    BLOCK,
    ROUNDING,
    Eigenpairs,
    dense_eigenpairs,
    extreme_eigenpairs,
    padded,
    smallest_basis,
)
from hessdiag.linalg.tridiagonal import inner, row_norms, safe_norm
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from hessdiag.questions.common import operators
from hessdiag.questions.common.certificate import Certificate, Witness, certificate
from hessdiag.questions.common.forecast import foreseen
from hessdiag.questions.common.inertia import Inertia
from hessdiag.questions.common.measured import Measured
from hessdiag.questions.common.outlay import Basis, basis, kept_pieces, outlay
from hessdiag.questions.common.pieces import on_disk
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import NOT_MEASURED, Status, interrupted_early
from hessdiag.questions.eigs.verdict import findings

Progress = Callable[[int, int, str], None]

DENSE_UP_TO = 2_000  # parameters: the whole spectrum by LAPACK; more on a GPU (`capacity`)
MAX_PRODUCTS = 5_000


@dataclass(frozen=True)
class Eigenpair:
    """One eigenvalue, with what its eigenvector says.

    Attributes:
        eigenvalue: The Ritz value.
        residual: |Hv - theta v|: an eigenvalue lies within this distance.
        converged: Whether the residual is within the tolerance, or at the level of rounding.
        bound: What a Ritz value that has not converged is, by Cauchy's interlacing: the k-th lowest an "upper" bound of
            the k-th smallest eigenvalue, the k-th highest a "lower" one of the k-th largest. `None` if converged.
        gradient_overlap: |cos| of the angle between eigenvector and gradient; `None` where the gradient vanishes.
        layer_weights: Share of the eigenvector's squared norm in each layer; sums to 1.
    """

    eigenvalue: float
    residual: float
    converged: bool
    bound: Literal["lower", "upper"] | None
    gradient_overlap: float | None
    layer_weights: tuple[float, ...]


@dataclass(frozen=True)
class Eigs(Measured):
    """Both ends of a Hessian's spectrum.

    Attributes:
        lowest: The lowest eigenpairs, ascending.
        highest: The highest eigenpairs, ascending: the last is the largest.
        method: "exact" (all eigenvalues, by LAPACK) or "lanczos".
        parameters: N.
        zero_rows: Rows of H that are exactly zero, left out of all vectors and counted as zero eigenvalues; 0 unless
            they are a tenth of more than 2,000.
        untouched: How many of them belong to parameters that the batches do not touch.
        layers: Names of the layers that `layer_weights` counts.
        tol: Relative residual asked for.
        rounding: Residual and eigenvalue below which rounding rules.
        ritz_range: Smallest and largest Ritz value of the whole run, wanted or not: the spectrum reaches that far.
            `None` where an interrupt came before any.
        inertia: Signs of all eigenvalues; `None` unless exact.
        spectrum: All eigenvalues but those of `zero_rows`, ascending; `None` unless exact.
        largest_step: 2 / lambda_max, beyond which gradient descent is unstable; `None` without positive curvature. If
            the largest Ritz value has not converged, it is an upper bound of that limit.
        gradient_norm: |g|.
        gradient_curvature: g'Hg / g'g, the curvature along the gradient; `None` where the gradient vanishes.
        negative_certificate: Whether negative curvature is proven: by a Ritz vector of either end, the gradient, or the
            whole spectrum.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        basis: The most vectors held.
        restarts: How often the basis was compressed.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed, or a pair did not converge) or "interrupted".
        vectors: Eigenvectors as columns, lowest then highest, (N, lowest + highest); `None` if not kept.
    """

    lowest: tuple[Eigenpair, ...]
    highest: tuple[Eigenpair, ...]
    method: Literal["exact", "lanczos"]
    parameters: int
    zero_rows: int
    untouched: int
    layers: tuple[str, ...]
    tol: float
    rounding: float
    ritz_range: tuple[float, float] | None
    inertia: Inertia | None
    spectrum: tuple[float, ...] | None
    largest_step: float | None
    gradient_norm: float | None
    gradient_curvature: float | None
    negative_certificate: Certificate
    hvps: int
    basis: int
    restarts: int
    engine: str
    vectors: Tensor | None = field(default=None, repr=False, compare=False)

    def to_result(self) -> dict[str, Any]:
        """The document's "result"."""
        numbers = Measured.to_result(replace(self, vectors=None))  # with them, a copy of all eigenvectors would be made
        del numbers["vectors"]
        bounded = bool(self.highest) and self.highest[-1].bound is not None
        ends = {
            "smallest": self.lowest[0].eigenvalue if self.lowest else None,
            "smallest_is_bound": bool(self.lowest) and self.lowest[0].bound is not None,
            "largest": self.highest[-1].eigenvalue if self.highest else None,
            "largest_is_bound": bounded,
            "largest_step_is_bound": bounded and self.largest_step is not None,
        }
        return numbers | ends


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
        keep_vectors: Whether the result holds the eigenvectors.
        resume: A folder in which the Krylov space is kept, for a run that goes on where this one stopped.

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
    _refuse(lowest, highest, tol, max_basis, max_products, block)
    report = progress or (lambda done, total, what: None)
    dense = DENSE_UP_TO * capacity.of(problem.device).times_dense
    part = support(problem, dense, seed=seed)
    n = part.size
    operator = HessianOperator(part.problem, check=False)
    exact = n <= dense
    space = None if exact else _plan(operator, n, lowest, highest, max_basis, max_products, block)
    wanted = n if exact else max_products
    disk = "" if space is None else on_disk(resume, _held(n, space, operator.dtype.itemsize), anew=True)
    report(0, wanted, _untouched(part) + _cost(n, lowest, highest, space, operator.dtype.itemsize) + disk)

    checks = examine(operator, seed, squared=True)
    gradient = part.shorten(operator.gradient())
    size = safe_norm(gradient)
    direction = gradient.div_(size) if size else gradient
    shared = operator if exact else parallel.shared(operator)
    products = part.restrict(shared, operator.chunk)
    if space is None:
        matrix = part.dense()
        pairs = dense_eigenpairs(matrix, lowest=lowest, highest=highest, tol=tol, precision=operator.precision)
        along = matrix @ direction.to(matrix)
        report(n, n, "")
    else:
        along = products @ direction
    pieces = None
    if space is not None:
        settings = {"lowest": lowest, "highest": highest, "tol": tol, "max_basis": max_basis}
        settings |= {"max_products": max_products, "block": block, "seed": seed}
        pieces = kept_pieces(problem, "eigs", settings, resume, operator)
        space = space.again(pieces)
    curvature = inner(direction, along) if size else None
    noise = ROUNDING * shared.precision * safe_norm(along)
    del along
    if space is not None:
        pairs = extreme_eigenpairs(
            products,
            lowest=lowest,
            highest=highest,
            tol=tol,
            max_basis=space.size,
            max_products=max_products,
            block=block,
            seed=seed,
            precision=shared.precision,
            images=space.images,
            kept=None if pieces is None or not pieces.kept else pieces.state("krylov"),
            foresee=foreseen,
            progress=lambda spent, converged: report(
                min(spent, wanted), wanted, f"at most products ({converged} of {lowest + highest} pairs found)"
            ),
        )
    trusted = not checks.failed
    places = None
    if part.zeros:
        nulls = min(part.zeros, lowest + highest)
        places = part.places(nulls)
        pairs = padded(pairs, nulls, lowest=lowest, highest=highest)
        direction = torch.cat([direction, direction.new_zeros(nulls)])
    failed = not trusted or not bool(pairs.converged.all())
    status: Status = "interrupted" if pairs.interrupted else "inexact" if failed else "ok"
    found = _pairs(pairs, direction if size else None, places, problem)
    top = float(pairs.values[-1])
    margin = max(pairs.rounding, noise)
    along_gradient = None if curvature is None else Witness(curvature, "g'Hg < 0 for the gradient g", margin)
    measured = Eigs(
        lowest=found[: pairs.lowest],
        highest=found[len(found) - pairs.highest :],
        method="exact" if exact else "lanczos",
        parameters=problem.n_parameters,
        zero_rows=part.zeros,
        untouched=part.untouched,
        layers=tuple(layer.name for layer in problem.layer_slices),
        tol=tol,
        rounding=pairs.rounding,
        ritz_range=pairs.ritz_range,
        inertia=None if pairs.spectrum is None else _inertia(pairs.spectrum, pairs.rounding, part.zeros),
        spectrum=None if pairs.spectrum is None else tuple(pairs.spectrum.tolist()),
        largest_step=2 / top if pairs.highest and top > pairs.rounding else None,
        gradient_norm=size,
        gradient_curvature=curvature,
        negative_certificate=_certificate(pairs, along_gradient, trusted=trusted),
        hvps=pairs.products + (0 if exact else 1),
        basis=pairs.basis,
        restarts=pairs.restarts,
        engine=shared.engine,
        status=status,
        resumed_pieces=0 if pieces is None else pieces.taken,
        **operators.trust(checks),
        vectors=_columns(pairs, places, problem.n_parameters) if keep_vectors else None,
    )
    return replace(measured, findings=tuple(findings(measured, problem)))


def unmeasured(problem: Problem, tol: float) -> Eigs:
    """The result of a run that was interrupted before anything was measured."""
    return Eigs(
        lowest=(),
        highest=(),
        method="lanczos",
        parameters=problem.n_parameters,
        zero_rows=0,
        untouched=0,
        layers=tuple(layer.name for layer in problem.layer_slices),
        tol=tol,
        rounding=0.0,
        ritz_range=None,
        inertia=None,
        spectrum=None,
        largest_step=None,
        gradient_norm=None,
        gradient_curvature=None,
        negative_certificate=Certificate(False, None, NOT_MEASURED),
        hvps=0,
        basis=0,
        restarts=0,
        engine="",
        status="interrupted",
        checks={},
        findings=(interrupted_early(),),
    )


def _refuse(lowest: int, highest: int, tol: float, max_basis: int | None, max_products: int, block: int) -> None:
    if min(lowest, highest) < 0 or lowest + highest == 0:
        raise SpecError(f"--lowest {lowest} --highest {highest} asks for no eigenpair.", "--lowest 5 --highest 5")
    if not 0 < tol < 1:
        raise SpecError(f"--tol is a relative residual between 0 and 1, not {tol}.", "--tol 1e-3")
    if max_basis is not None and max_basis < smallest_basis(lowest, highest):
        least = smallest_basis(lowest, highest)
        raise SpecError(
            f"a basis of {max_basis} vectors is too small for {lowest} + {highest} eigenpairs.", f"--max-basis {least}"
        )
    if max_products < 1 or block < 1:
        raise SpecError("--max-products and --block must be positive.", f"--max-products {MAX_PRODUCTS}")


def _plan(
    operator: HessianOperator,
    n: int,
    lowest: int,
    highest: int,
    max_basis: int | None,
    max_products: int,
    block: int,
) -> Basis:
    """What will be held and spent, entered in the ledger before it is."""
    spent = outlay(operator)
    space = basis(spent, n, lowest, highest, max_basis, block)
    fewest = min(lowest + highest, max_products)
    passes = space.work(fewest).vectors, space.work(max_products).vectors
    spent.plan((fewest, max_products), {**space.held, "direction of the gradient": 1}, passes=passes, search=True)
    return space


def _cost(n: int, lowest: int, highest: int, space: Basis | None, itemsize: int) -> str:
    if space is None:
        return f"{n:,} parameters: all {n:,} eigenvalues, from the whole Hessian"
    memory = _held(n, space, itemsize) / 2**20
    return (
        f"{n:,} parameters: {lowest} lowest and {highest} highest eigenpairs, from Hessian products until they "
        f"converge, up to {space.size} vectors in {memory:,.0f} MiB"
    )


def _held(n: int, space: Basis, itemsize: int) -> int:
    """Bytes of the basis, with its images if they are held."""
    return (1 + space.images) * space.size * n * itemsize


def _untouched(part: Support) -> str:
    return f"{part.zeros:,} of {part.whole.n_parameters:,} rows are zero and left out; " if part.zeros else ""


def _pairs(
    pairs: Eigenpairs, direction: Tensor | None, places: Tensor | None, problem: Problem
) -> tuple[Eigenpair, ...]:
    weights = torch.stack([_layer_weights(vector, places, problem) for vector in pairs.vectors.T])
    cosines = None if direction is None else [min(abs(inner(direction, v)), 1.0) for v in pairs.vectors.T]
    return tuple(
        Eigenpair(
            eigenvalue=float(pairs.values[index]),
            residual=float(pairs.residuals[index]),
            converged=bool(pairs.converged[index]),
            bound=None if bool(pairs.converged[index]) else "upper" if index < pairs.lowest else "lower",
            gradient_overlap=None if cosines is None else float(cosines[index]),
            layer_weights=tuple(weights[index].tolist()),
        )
        for index in range(len(pairs.values))
    )


def _layer_weights(vector: Tensor, places: Tensor | None, problem: Problem) -> Tensor:
    """Share of a vector's squared norm in each layer; its entries are all parameters, or those at some places."""
    layers = problem.layer_slices
    if places is None:
        squares = torch.stack([row_norms(vector[layer.start : layer.stop]).square() for layer in layers])
    else:
        owner = torch.searchsorted(torch.tensor([layer.stop for layer in layers]), places, right=True)
        squares = torch.zeros(len(layers), dtype=torch.float64).index_add_(0, owner, vector.double().square().cpu())
    return squares / squares.sum()


def _columns(pairs: Eigenpairs, places: Tensor | None, parameters: int) -> Tensor:
    """Vectors of all parameters in the order of the result: lowest, then highest; where they overlap, some twice."""
    total = pairs.vectors.shape[1]
    columns = torch.cat([pairs.vectors[:, : pairs.lowest], pairs.vectors[:, total - pairs.highest :]], dim=1)
    if places is None or len(places) == parameters:
        return columns
    wide = columns.new_zeros(parameters, columns.shape[1])
    wide[places.to(wide.device)] = columns
    return wide


def _inertia(spectrum: Tensor, tolerance: float, zeros: int) -> Inertia:
    positive, negative = int((spectrum > tolerance).sum()), int((spectrum < -tolerance).sum())
    return Inertia(positive, negative, len(spectrum) - positive - negative + zeros, tolerance)


def _certificate(pairs: Eigenpairs, along_gradient: Witness | None, *, trusted: bool) -> Certificate:
    """From every v'Hv that the run has formed: of all its Ritz vectors, wanted or not, and of the gradient."""
    if pairs.spectrum is None:
        says = "v'Hv < 0 for the lowest Ritz vector v"
        otherwise = "no v'Hv < 0 beyond rounding was found, which does not prove that there is none"
    else:
        says = "all eigenvalues are known"
        otherwise = "all eigenvalues are known, and none is negative beyond rounding"
    found = [Witness(pairs.ritz_range[0], says, pairs.rounding), along_gradient]
    return certificate([witness for witness in found if witness is not None], trusted=trusted, otherwise=otherwise)
