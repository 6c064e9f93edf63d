"""How far from here can the Hessian be believed? Steps of the quadratic model, and the loss where they lead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.differences import loss_and_gradient, movable
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.point.gates import Gates
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine import processes
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.runs.outlay import outlay
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.questions.trust_radius.metric import metric
from hessdiag.questions.trust_radius.result import Radius, TrustRadius
from hessdiag.questions.trust_radius.steps import MOST, Remembering, Stepper
from hessdiag.questions.trust_radius.trusted import BAND, missing_share, of_rows
from hessdiag.questions.trust_radius.verdict import findings

RADII = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
NORMS = ("uniform", "rmsprop", "adagrad")
LANCZOS = 20  # products of GLTR, which holds three vectors for each
VECTORS = 16  # held beside them
ANOTHER = 1e-2  # relative distance of the losses of the model and of its copy beyond which these are two functions


@recorded
@measurement(less="--norm uniform")
def trust_radius(
    problem: Problem | HessianOperator,
    *,
    radii: Sequence[float] = RADII,
    norms: Sequence[str] = NORMS,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrustRadius:
    """Measure how far from here the Hessian can be believed.

    At every radius the quadratic model g's + s'Hs/2 is minimized within a ball or an ellipsoid (Steihaug), and the loss
    is evaluated where that leads: rho is its decrease over the predicted one (Conn, Gould and Toint 2000). Then once
    more with every gate of ReLUs, max-pooling and their kin held to its side: the difference is what kinks do, and
    autograd's Hessian does not know.

    Losses are those of a copy in float64, where the model can be evaluated in it.

    Args:
        problem: What is differentiated, or its Hessian as an operator.
        radii: Root mean squares of steps, in metrics of mean 1.
        norms: Metrics: "uniform"; "rmsprop" and "adagrad", ellipsoids of the batches' gradients.
        seed: Of the self-checks.
        progress: Called with (done, total, what).

    Returns:
        The measurement with self-checks and verdict; after a keyboard interrupt, the radii that were done.

    Raises:
        SpecError: if there is no radius or metric, or one that is none.
        ComputeError: if the Hessian cannot be computed, or the model cannot be evaluated away from here.

    Example: the loss w^4 / 4 at w = 1 has g = 1 and H = 3. The step -r is promised r - 3 r^2 / 2.

    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> quartic = lambda model, batch: model.weight.pow(4).sum() / 4
    >>> found = trust_radius(Problem(model, data=[None], objective=quartic), radii=[0.1], norms=["uniform"])
    >>> round(found.radii[0].rho, 9) == round((1 - 0.9**4) / 4 / (0.1 - 0.015), 9)
    True
    """
    problem = problem_of(problem)
    radii, norms = _asked(radii, norms)
    report = progress or silent
    operator = HessianOperator(problem, check=False)
    spent = outlay(operator)
    lanczos = min(LANCZOS, max(spent.room - VECTORS, 0) // 3)
    spent.plan((len(norms), len(norms) * (lanczos + len(radii) * MOST)), {"steps": 3 * lanczos + VECTORS}, search=True)
    report(0, len(radii) * len(norms), f"{problem.n_parameters:,} parameters: the loss after {len(radii)} steps")
    checks = examine(operator, seed)
    if checks.point.kind == "unchecked":
        raise ComputeError(f"no step can be tried: {checks.point.why}.", "an objective that uses its argument `model`")
    here = _here(problem, operator, checks, norms)
    rows, products, interrupted = _rows(here, radii, norms, lanczos, report)
    if not rows:
        raise KeyboardInterrupt
    found = replace(
        _nothing(problem),
        status="interrupted" if interrupted else "inexact" if checks.failed else "ok",
        radii=tuple(rows),
        gates=here.gates.count,
        unfrozen=here.gates.why,
        gradient_norm=safe_norm(here.gradient),
        loss=here.gates.loss,
        gradients=len(here.of_batches),
        hvps=products,
        engine=here.operator.engine,
    )
    found = examined(_trusted(found), checks)
    return replace(found, findings=tuple(findings(found)))


def unmeasured(problem: Problem) -> TrustRadius:
    """The result of a run that was interrupted before anything was measured."""
    return replace(_nothing(problem), findings=(interrupted_early(),))


@dataclass(frozen=True)
class _Here:
    """What is known where the parameters are.

    Attributes:
        operator: The Hessian.
        gradient: (n,).
        of_batches: Each batch's own gradient.
        gates: The loss away from here.
        eps: Rounding of the loss.
    """

    operator: HessianOperator
    gradient: Tensor
    of_batches: list[Tensor]
    gates: Gates
    eps: float


def _asked(radii: Sequence[float], norms: Sequence[str]) -> tuple[list[float], list[str]]:
    for norm in norms:
        if norm not in NORMS:
            raise SpecError(f"there is no metric {norm}.", " or ".join(NORMS))
    if not radii or not norms or not all(0 < radius < math.inf for radius in radii):
        raise SpecError("radii and metrics are needed, and radii are positive numbers.", "radii=[1e-4, 1e-3]")
    return sorted(set(radii)), list(dict.fromkeys(norms))


def _here(problem: Problem, operator: HessianOperator, checks: Examination, norms: Sequence[str]) -> _Here:
    moved = movable(problem)
    gates = Gates(moved)
    if abs(problem.value() - gates.loss) > ANOTHER * abs(gates.loss):  # random numbers are others in another dtype
        problem = movable(problem).problem
        operator = HessianOperator(problem, check=False)
    several = len(problem.data) > 1 and set(norms) != {"uniform"}
    gradient = operator.gradient()
    parts = [loss_and_gradient(problem.like(data=[batch]))[1] for batch in problem.data] if several else [gradient]
    inside = checks.point.computes_in or str(moved.problem.dtype).removeprefix("torch.")
    return _Here(operator, gradient, parts, gates, torch.finfo(getattr(torch, inside)).eps)


def _rows(
    here: _Here, radii: Sequence[float], norms: Sequence[str], lanczos: int, report: Progress
) -> tuple[list[Radius], int, bool]:
    """Every step of every metric, how many products they took, and whether an interrupt ended them."""
    rows: list[Radius] = []
    total, products = len(radii) * len(norms), 0
    try:
        for norm in norms:
            twin = [row for row in rows if row.norm != "uniform"]
            if norm != "uniform" and twin and len(here.of_batches) == 1:  # of one gradient the metrics are the same
                rows += [replace(row, norm=norm) for row in twin]
                continue
            known = Remembering(here.operator, lanczos + 1)
            diagonal = metric(norm, here.of_batches)
            diagonal = None if diagonal is None else diagonal.to(here.gradient)
            stepper = Stepper(norm, diagonal, known, here.gradient, here.gates, here.eps, lanczos)
            for radius in radii:
                rows.append(stepper.at(radius))
                report(len(rows), total, f"{norm}, radius {radius:g}")
            products += known.products
    except KeyboardInterrupt:
        if processes.together():
            raise
        return rows, products, True
    return rows, products, False


def _trusted(found: TrustRadius) -> TrustRadius:
    """With what the steps say together."""
    frozen = {norm: of_rows(found.of(norm), frozen=True) for norm in found.norms} if found.gates else {}
    return replace(
        found,
        trusted_radius={norm: of_rows(found.of(norm)) for norm in found.norms},
        trusted_radius_frozen_gates={} if found.unfrozen and not any(frozen.values()) else frozen,
        missing_share=missing_share(found.of(found.norms[0])),
    )


def _nothing(problem: Problem) -> TrustRadius:
    sizes = [safe_norm(parameter.detach()) for parameter in problem.parameters]
    return TrustRadius(
        status="interrupted",
        problem=described(problem),
        radii=(),
        trusted_radius={},
        band=BAND,
        weight_rms=math.hypot(*sizes) / math.sqrt(problem.n_parameters),
    )
