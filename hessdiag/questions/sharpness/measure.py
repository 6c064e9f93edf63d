"""How large a step will my optimizer take here? The curvature that it sees, beside what it can take."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hessdiag.curvature.checks import examine
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.shared import share
from hessdiag.errors import SpecError
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine import processes
from hessdiag.numbers import counted
from hessdiag.optimizers.in_pieces import refuse_state
from hessdiag.optimizers.preconditioning import Preconditioning, preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance
from hessdiag.questions.common.runs.outlay import Basis, basis, outlay
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.sharding import sharding, where
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.questions.sharpness import readings
from hessdiag.questions.sharpness.critical import PASSES
from hessdiag.questions.sharpness.largest import MOST
from hessdiag.questions.sharpness.noise import most_pieces, noise
from hessdiag.questions.sharpness.regime import decided
from hessdiag.questions.sharpness.result import OptimizerSeen, Reading, Sharpness
from hessdiag.questions.sharpness.verdict import findings
from hessdiag.shards.problem import ShardedProblem

TOL = 1e-2  # relative residual of eigenvalues, and of their ratios to thresholds
FEWEST = 8  # products of a search that finds an isolated eigenvalue


@recorded
@measurement(less="--layers GLOB")
def sharpness(
    problem: Problem | HessianOperator,
    *,
    optimizer: Any = None,
    lr: float | None = None,
    state: str | None = None,
    tol: float = TOL,
    seed: int = 0,
    progress: Progress | None = None,
    scripts: dict[Path, ModuleType] | None = None,
) -> Sharpness:
    """Measure how large a step an optimizer can take where the parameters are.

    Its threshold c / lr (2 / lr for gradient descent, 2 (1 + b) / lr with momentum b, 2 (1 + b1) / (1 - b1) / lr for
    Adam: arXiv 2103.00065, 2207.14484) is that of lambda_max(P^-1/2 H P^-1/2), P being what it divides by. Beside it
    stand the curvature along its next step, critical sharpness from at most 10 forward passes (arXiv 2601.16979),
    adaptive sharpness (arXiv 2102.11600), and the gradient noise scale (arXiv 1812.06162).

    Args:
        problem: What is trained, or its Hessian as an operator.
        optimizer: "adam(lr=1e-3)", "sgd(momentum=0.9)", "train.py:make", "ckpt.pt#optimizer"; an optimizer of the
            model's parameters, with the state that it has; or a function that makes one. Default: Adam, or with `lr`
            plain gradient descent.
        lr: Learning rate, instead of its own.
        state: "ckpt.pt#optimizer": what the optimizer had accumulated, where `optimizer` names its class or the
            function that makes it, whose order of parameters is the state's.
        tol: Residual of eigenvalues to reach, relative to them.
        seed: Of start vectors, and of which samples go together.
        progress: Called with (done, total, what).
        scripts: Scripts of the user's that ran already.

    Returns:
        The readings with self-checks and verdict; after a keyboard interrupt, those that were complete.

    Raises:
        SpecError: if there is no such optimizer, or it is one of this package, which chooses its steps itself.
        LoadError: if its state does not fit the model.
        ComputeError: if the Hessian cannot be computed.

    Example: on w'w the Hessian is 2, and gradient descent is stable below a learning rate of 1.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> square = Problem(model, data=[None], objective=lambda model, batch: model.weight.square().sum())
    >>> found = sharpness(square, optimizer="sgd", lr=0.25)
    >>> round(found.ratio, 9), found.regime, round(found.largest_lr, 9)
    (0.25, 'stable', 1.0)
    """
    problem = problem_of(problem)
    if isinstance(problem, ShardedProblem):
        refuse_state(optimizer, state)
    if not 0 < tol < 1:
        raise SpecError(f"--tol is a relative residual between 0 and 1, not {tol}.", "--tol 1e-2")
    report = progress or silent
    operator = HessianOperator(problem, check=False)
    spent = outlay(operator)
    space = basis(spent, problem.n_parameters, 0, 1, None, 1)
    parts = most_pieces(problem)
    fewest, most = 3 * FEWEST + 1 + parts, 3 * MOST + 1 + parts
    spent.plan((fewest, most), {**space.held, "gradients of parts": 4 * parts + 4}, search=True)
    report(0, 1, announced(problem.n_parameters, most, where(problem)))
    checks = examine(operator, seed)
    made = preconditioning(problem, optimizer, lr, state=state, scripts=scripts)
    found = replace(_nothing(problem), optimizer=_seen(made))
    here = _here(problem, operator, made, space, tol, seed)
    _ = here.step  # of an optimizer that looks for its step itself there is none: that is found out first
    found = _measured(here, found, report)
    if checks.failed and found.status == "ok":
        found = replace(found, status="inexact")
    found = replace(found, engine=operator.engine, provenance=Provenance(sharding=sharding(problem)))
    found = examined(found, checks)
    return replace(found, findings=tuple(findings(found)))


def announced(parameters: int, most: int, over: str = "") -> str:
    """What will be done, before anything is.

    >>> announced(1000, 917)[:75]
    "1,000 parameters: largest eigenvalues, here and in the optimizer's metric, "
    """
    return (
        f"{counted(parameters, 'parameter')}: largest eigenvalues, here and in the optimizer's metric, and up to "
        f"{PASSES} losses along its next step; at most {counted(most, 'Hessian product')}{over}"
    )


def unmeasured(problem: Problem) -> Sharpness:
    """The result of a run that was interrupted before anything was measured."""
    return replace(_nothing(problem), status="interrupted", findings=(interrupted_early(),))


def _here(
    problem: Problem, operator: HessianOperator, made: Preconditioning, space: Basis, tol: float, seed: int
) -> readings.Here:
    gradient = operator.gradient().double()
    return readings.Here(problem, share(operator), made, gradient, space, tol, seed, operator.precision)


def _measured(here: readings.Here, found: Sharpness, report: Progress) -> Sharpness:
    """Each kind after the other, until an interrupt."""
    asked: list[tuple[str, Callable[[readings.Here], Reading | None]]] = [
        ("the largest eigenvalue", readings.lambda_max),
        *([("the same in the optimizer's metric", readings.preconditioned)] if _differs(here) else []),
        ("curvature along the next step", readings.directional),
        ("losses along the next step", readings.critical),
        ("curvature in the norm of the steps", readings.muon),
        ("adaptive sharpness", readings.adaptive),
    ]
    done: list[Reading] = []
    stopped = False
    try:
        for index, (what, read) in enumerate(asked):
            report(index, len(asked) + 1, what)
            reading = read(here)
            done += [] if reading is None else [reading]
            if here.interrupted:
                raise KeyboardInterrupt
        report(len(asked), len(asked) + 1, "gradients of parts of the data")
        found = replace(found, noise=noise(here.problem, here.operator, here.seed))
        report(len(asked) + 1, len(asked) + 1, "")
    except KeyboardInterrupt:
        if processes.together() or not done:
            raise
        stopped = True
    return _assembled(here, replace(found, readings=tuple(done)), interrupted=stopped)


def _differs(here: readings.Here) -> bool:
    """Whether the optimizer has a metric, and one of its own."""
    return here.metric is not None and not here.plain


def _assembled(here: readings.Here, found: Sharpness, *, interrupted: bool) -> Sharpness:
    losses = found.reading("critical")
    parts = found.noise
    found = replace(
        found,
        noise_scale=None if parts is None else parts.scale,
        noise_scale_stderr=None if parts is None else parts.scale_stderr,
        slope=here.slope,
        gradient_norm=safe_norm(here.gradient, here.spread),
        loss=here.loss,
        zeros=here.zeros,
        hvps=sum(one.passes for one in found.readings if one.kind != "critical") + (parts.pieces if parts else 0),
        losses=0 if losses is None else losses.passes,
        gradients=1 + here.made.gradients + (2 if parts and parts.pieces else 0),
    )
    found = decided(found)
    if found.decided_by is not None:
        found = replace(found, overlap=readings.step_overlap(here, found.decided_by))
    deciding = found.reading(found.decided_by or "")
    exact = deciding is None or deciding.bound is None
    return replace(found, status="interrupted" if interrupted else "ok" if exact else "inexact")


def _seen(made: Preconditioning) -> OptimizerSeen:
    decay = float(made.weight_decay.max()) if not isinstance(made.weight_decay, float | int) else made.weight_decay
    return OptimizerSeen(
        name=made.optimizer,
        kind=made.kind,
        lr=made.lr,
        settings={key: value for key, value in made.settings.items() if key not in ("lr", "weight_decay")},
        weight_decay=decay,
        coupled=made.coupled if decay else None,
        state=made.state,
        constant=made.threshold,
        notes=made.notes,
    )


def _nothing(problem: Problem) -> Sharpness:
    return Sharpness(
        problem=described(problem),
        optimizer=None,
        threshold=None,
        readings=(),
        stable=None,
        noise_scale=None,
        noise_scale_stderr=None,
    )
