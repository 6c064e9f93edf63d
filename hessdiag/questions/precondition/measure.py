"""Which preconditioner is worth its memory here? Condition numbers of the damped curvature under each."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from hessdiag.curvature.checks import examine
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.preconditioners.form import Preconditioner
from hessdiag.curvature.preconditioners.roots import NoRootError
from hessdiag.curvature.received import NoGaussNewtonError
from hessdiag.curvature.shared import share
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg.tridiagonal import safe_norm, traffic, tridiagonalize
from hessdiag.machine import capacity, processes
from hessdiag.machine.sizes import gib
from hessdiag.optimizers.preconditioning import Preconditioning, preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.operators import Products
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance
from hessdiag.questions.common.runs.outlay import outlay
from hessdiag.questions.common.runs.pieces import Arrays, Pieces
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import kept_pieces
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.questions.precondition import system
from hessdiag.questions.precondition.kinds import WORDS, word
from hessdiag.questions.precondition.made import Made, adaptive
from hessdiag.questions.precondition.readings import ENDS, MOST_CG, QUADRATURE_STEPS, Bench, reading
from hessdiag.questions.precondition.result import LeftOut, Precondition, Preconditioned
from hessdiag.questions.precondition.system import Pairs
from hessdiag.questions.precondition.verdict import findings, with_frontier

EXACT_UP_TO = 1_500  # parameters: all eigenvalues by LAPACK; more on a GPU (`capacity`)
DAMPING = 1e-2  # relative: of eigenvalues below a hundredth of the largest, Lanczos and steps know little
TOL = 1e-3
LEAST_TOL = 1e-5  # its square is beside rounding


@recorded
@measurement(less="--steps 50 --probes 2")
def precondition(
    problem: Problem | HessianOperator,
    *,
    optimizer: Any = None,
    state: str | None = None,
    damping: float = DAMPING,
    tol: float = TOL,
    steps: int = 200,
    probes: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    scripts: dict[Path, ModuleType] | None = None,
) -> Precondition:
    """Measure what each preconditioner does for the condition number of a problem's Hessian.

    A singular matrix has no condition number, and a network's Hessian is nearly singular. What is solved with is
    therefore damped: A = H+ + mu I with the positive part of H (and |H| + mu I beside it), mu relative to the largest
    eigenvalue; and each preconditioner P by the same mu. The best possible condition is 1, that of P = H+; without a
    preconditioner it is 1 + 1 / damping where H is singular.

    Up to 1,500 parameters all eigenvalues are computed. Beyond, Lanczos finds the eigenpairs of H that stand out from
    the damping; all preconditioners share them, and what stays below is in the interval of each condition number.

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        optimizer: Whose second moments are among the preconditioners: "adam(eps=1e-8)", "ckpt.pt#optimizer",
            "train.py:make", or an optimizer of the model's parameters, with the state that it has. Default: Adam that
            stands still here, with the mean of the batches' squared gradients.
        state: "ckpt.pt#optimizer": what the optimizer had accumulated, where `optimizer` names its class or the
            function that makes it, whose order of parameters is the state's.
        damping: mu over the largest magnitude of an eigenvalue.
        tol: Of conjugate gradients: the error in the energy norm, relative to that at the start.
        steps: Lanczos steps, where not all eigenvalues are computed; at least 2.
        probes: Random vectors of each effective dimension there, at least 2.
        seed: Of all that is random.
        progress: Called with (done, total, what).
        resume: A folder in which finished preconditioners are kept, for a run that goes on where this one stopped.
        scripts: Scripts of the user's that ran already.

    Returns:
        The measurement with self-checks and verdict; after a keyboard interrupt, the preconditioners that were done.

    Raises:
        SpecError: if a number is out of range, or the optimizer keeps no second moments.
        ComputeError: if the Hessian cannot be computed, or memory does not hold the Lanczos vectors.

    Example: of one linear layer with squared errors, K-FAC is the Hessian.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double(), torch.ones(2, 1).double())]
    >>> found = precondition(Problem(model, data=data, loss="mse"))  # H = [[1, 0], [0, 9]]
    >>> round(found.of("none").condition, 2), round(found.of("kfac").condition, 6)
    (8.34, 1.0)
    """
    problem = problem_of(problem)
    asked = _Asked(damping, tol, steps, probes, seed)
    asked.refuse()
    usual = "adam" if optimizer is None and state is None else optimizer
    seen = preconditioning(problem, usual, state=state, scripts=scripts)
    return _measured(problem, seen, asked, progress or silent, resume)


@dataclass(frozen=True)
class _Asked:
    """What is wanted; a run that goes on must have been asked for the same."""

    damping: float
    tol: float
    steps: int
    probes: int
    seed: int

    def refuse(self) -> None:
        """Make sure that all numbers are in range.

        Raises:
            SpecError: if not.
        """
        damping, tol, steps, probes = self.damping, self.tol, self.steps, self.probes
        if not 0 < damping <= 1:
            what = f"--damping is relative to the largest eigenvalue, above 0 and at most 1, not {damping:g}."
            raise SpecError(what, f"--damping {DAMPING:g}")
        if not LEAST_TOL <= tol < 1:
            what = f"--tol is a relative error, at least {LEAST_TOL:g} and below 1, not {tol:g}."
            raise SpecError(what, f"--tol {TOL:g}")
        if steps < 2 or probes < 2:
            what = f"--steps and --probes must be at least 2, not {steps} and {probes}."
            raise SpecError(what, "--steps 200 --probes 4")


def _measured(
    problem: Problem, seen: Preconditioning, asked: _Asked, report: Progress, resume: str | Path | None
) -> Precondition:
    """All preconditioners of a problem, or those before an interrupt, with self-checks and verdict."""
    operator, own = HessianOperator(problem, check=False), adaptive(problem, seen)
    n = problem.n_parameters
    dense = n <= EXACT_UP_TO * capacity.of(problem.device).times_dense
    steps = min(asked.steps, n)
    total = n if dense else _plan(operator, steps, asked.probes)
    report(0, total, f"{n:,} parameters: {len(WORDS)} preconditioners")
    checks = examine(operator, asked.seed, squared=True)
    products: Products = operator if dense else share(operator)
    settings = asdict(asked) | {"optimizer": seen.optimizer, "second_moments_sha256": _digest(own)}
    pieces = kept_pieces(problem, "precondition", settings, resume, operator)
    gradient = operator.gradient().double()
    H: Products | Tensor = hessian(problem, check=False).double() if dense else products
    pairs = system.every(H) if isinstance(H, Tensor) else _ritz(products, steps, asked.damping, asked.seed, pieces)
    report(n if dense else steps, total, "eigenvalues of the Hessian")
    made = Made(problem, pairs, own, asked.seed)
    bench = Bench(H, pairs, gradient, asked.damping, asked.tol, asked.probes, steps, asked.seed)
    outcome = _outcome(bench, made, pieces, lambda done, what: report(min(steps + done, total), total, what))
    if outcome.interrupted and not outcome.rows:
        raise KeyboardInterrupt
    found = replace(
        _nothing(problem, asked.damping, asked.tol),
        status="interrupted" if outcome.interrupted else "inexact" if checks.failed else "ok",
        provenance=Provenance(resumed_pieces=pieces.taken or None),
        preconditioners=with_frontier(outcome.rows),
        left_out=tuple(outcome.left),
        shift=bench.shift,
        method="exact" if dense else "lanczos",
        largest=float(pairs.values.max()),
        smallest=float(pairs.values.min()),
        resolved=len(pairs.values),
        unresolved=pairs.unresolved,
        unresolved_negative=-pairs.beyond[0],
        gradient_norm=safe_norm(gradient),
        sharing=outcome.sharing,
        draws=outcome.draws,
        optimizer=seen.optimizer,
        optimizer_name=own.name,
        optimizer_state=seen.state,
        hvps=(n if dense else steps) + outcome.products,
        engine=products.engine,
    )
    found = examined(found, checks)
    return replace(found, findings=tuple(findings(found)))


def unmeasured(problem: Problem, damping: float, tol: float) -> Precondition:
    """The result of a run that was interrupted before anything was measured."""
    return replace(_nothing(problem, damping, tol), findings=(interrupted_early(),))


def _plan(operator: HessianOperator, steps: int, probes: int) -> int:
    """What is held and spent, in the ledger before it is.

    Returns:
        Products, at least.

    Raises:
        ComputeError: if memory does not hold the Lanczos vectors and what is made of them.
    """
    spent = outlay(operator)
    doubled = 8 / operator.dtype.itemsize
    least = steps + len(WORDS) * (probes * QUADRATURE_STEPS + ENDS)
    most = least + len(WORDS) * (ENDS + MOST_CG)
    held = {"Lanczos vectors": steps + 1, "eigenvectors and blocks": 3 * steps * doubled, "gradients": 16 * doubled}
    if sum(held.values()) > spent.room:
        fitting = int((spent.room - 16 * doubled) / (1 + 3 * doubled)) - 1
        raise ComputeError(
            f"{steps:,} Lanczos vectors of {operator.shape[0]:,} parameters need "
            f"{gib(sum(held.values()) * spent.vector)} with what is made of them, and "
            f"{gib(max(spent.room, 0) * spent.vector)} of memory are free.",
            f"--steps {fitting}" if fitting >= 2 else "--layers 'GLOB' for some of the layers",
        )
    whole = sum(traffic(step) for step in range(steps))
    passes = (whole + (least - steps) * traffic(QUADRATURE_STEPS), whole + (most - steps) * traffic(QUADRATURE_STEPS))
    spent.plan((least, most), held, passes=passes, search=True)
    return least


def _ritz(products: Products, steps: int, damping: float, seed: int, pieces: Pieces) -> Pairs:
    """The Ritz pairs of one Lanczos run that have converged beside the damping."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(products.shape[0], generator=generator)

    def computed() -> Arrays:
        run = tridiagonalize(products, start, steps, keep_basis=True)
        values, turned = torch.linalg.eigh(run.matrix())
        assert run.basis is not None
        vectors = run.basis[0, :, : len(values)] @ turned.to(run.basis)
        residuals = run.betas[0, len(values) - 1] * turned[-1].abs()
        return {"values": values.numpy(), "vectors": vectors.cpu().numpy(), "residuals": residuals.numpy()}

    arrays = pieces.get("eigenpairs", computed)
    values, vectors, residuals = (torch.from_numpy(arrays[name]) for name in ("values", "vectors", "residuals"))
    return system.found(values, vectors.to(products.device), residuals, damping)


@dataclass
class _Outcome:
    """What became of the preconditioners.

    Attributes:
        rows: Of those that are finished.
        left: Those that there are none of.
        sharing: As in the result.
        draws: As in the result.
        products: Spent on them.
        interrupted: Whether it ended early.
    """

    rows: list[Preconditioned] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    sharing: bool = False
    draws: int | None = None
    products: int = 0
    interrupted: bool = False


def _outcome(bench: Bench, made: Made, pieces: Pieces, report: Callable[[int, str], None]) -> _Outcome:
    """Every preconditioner, or those before an interrupt."""
    found = _Outcome()
    if not bench.pairs.scale:  # nothing is curved, and nothing can be conditioned
        return found
    try:
        for name in WORDS:
            document = _taken_or_made(bench, made, pieces, name)
            if "why" in document:
                found.left.append(LeftOut(**document))
                continue
            found.sharing, found.draws = found.sharing or document["sharing"], document["draws"] or found.draws
            found.rows.append(msgspec.convert(document["row"], Preconditioned))
            found.products += document["products"]
            report(found.products, word(name))
    except KeyboardInterrupt:
        if processes.together():
            raise
        found.interrupted = True
    return found


def _taken_or_made(bench: Bench, made: Made, pieces: Pieces, name: str) -> dict[str, Any]:
    """One preconditioner's numbers, as an earlier run kept them or measured now."""
    arrays = pieces.get(name, lambda: {"document": np.array(json.dumps(_document(bench, made, name)))})
    document: dict[str, Any] = json.loads(str(arrays["document"]))
    return document


def _document(bench: Bench, made: Made, name: str) -> dict[str, Any]:
    """One preconditioner's numbers, in JSON's types; or why there is none."""
    try:
        row, products = reading(bench, lambda bend: made.of(name, bend))
    except (NoRootError, NoGaussNewtonError) as error:
        return {"name": name, "why": str(error).rstrip(".")}
    moments = made.moments if "moments" in vars(made) else None
    return {
        "row": asdict(row),
        "products": products,
        "sharing": moments is not None and moments.sharing,
        "draws": None if moments is None else moments.draws,
    }


def _digest(P: Preconditioner) -> str:
    """Of its numbers: a run that goes on must have the same."""
    values = b"".join(part.values.cpu().numpy().tobytes() for part in P.parts)
    return hashlib.sha256(values).hexdigest()


def _nothing(problem: Problem, damping: float, tol: float) -> Precondition:
    return Precondition(
        status="interrupted",
        problem=described(problem),
        preconditioners=(),
        damping=damping,
        shift=None,
        tol=tol,
        method="exact",
        parameters=problem.n_parameters,
        largest=None,
        smallest=None,
        resolved=0,
        unresolved=None,
        gradient_norm=None,
        hvps=0,
    )
