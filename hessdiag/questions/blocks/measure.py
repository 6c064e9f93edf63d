"""Which layers curve, and how do they couple? Norms of the Hessian's layer blocks, split into Gauss-Newton and rest."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.curvature.checks import examine
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.neuron_space import NotInNeuronSpaceError
from hessdiag.curvature.received import NoGaussNewtonError
from hessdiag.errors import SpecError
from hessdiag.linalg.blocks import norm_matrix
from hessdiag.machine import processes
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import errors as blocks_errors
from hessdiag.questions.blocks import exact as blocks_exact
from hessdiag.questions.blocks import squares as blocks_squares
from hessdiag.questions.blocks.exact import Exact
from hessdiag.questions.blocks.proof import IndefinitePair, indefinite, witnesses
from hessdiag.questions.blocks.squares import Squares
from hessdiag.questions.blocks.verdict import findings
from hessdiag.questions.common import operators
from hessdiag.questions.common.certificate import Certificate, certificate
from hessdiag.questions.common.identity import identity
from hessdiag.questions.common.matrices import LossInOutput
from hessdiag.questions.common.measured import Measured
from hessdiag.questions.common.outlay import Outlay, outlay
from hessdiag.questions.common.pieces import Pieces
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import NOT_MEASURED, Status, interrupted_early

Floats = NDArray[np.float64]
Matrix = list[list[float | None]]  # `None`: not measured
Interval = tuple[float, float]
Progress = Callable[[int, int, str], None]

EXACT_UP_TO = 5_000  # parameters: the whole matrices
PROBES = 32  # random vectors per layer beyond
ROUNDING = 1e3  # units of the last digit of |H| that cannot be told from zero


@dataclass(frozen=True)
class Blocks(Measured):
    """Frobenius norms of the layer blocks of H = G + R, G the Gauss-Newton matrix and R the residual.

    Standard errors and 95 % intervals are `None` where numbers are exact; everything about G and R is `None` where the
    problem has no such split. Intervals of norms are not symmetric: the error is not for "plus or minus two". After an
    interrupt of what is exact, so is all that needs layers that were not done: blocks between two of them, their
    traces, and every number about the whole.

    Attributes:
        names: The L layers, in the order in which they are executed.
        kinds: Their classes.
        sizes: Their numbers of parameters.
        depths: How many layers that multiply by a matrix the data has passed with this one; `None` for those that are
            not on the longest way from the data to the loss (norms, scalars of the loss, shortcuts).
        parameters: N.
        frobenius: |H_lm|, (L, L), symmetric; with `frobenius_stderr` and `frobenius_interval` (lower ends, upper ends).
            So also below.
        gauss_newton: |G_lm|.
        residual: |R_lm|.
        trace: tr H_ll per layer.
        diagonal_mass: Sum of |H_ii| per layer; `None` if interrupted before.
        norm: |H|.
        split_missing: Why there is no G; `None` where there is.
        loss_in_output: What is known of the loss in what it receives: "convex", so that G is positive semidefinite;
            "linear" at this point, so that G is zero; or "unknown". `None` without G.
        loss_uses_parameters: Whether the loss depends on parameters by another way than the output, too: that part is
            in R. `None` without G.
        gauss_newton_norm: |G|.
        residual_norm: |R|.
        between_layers: Share of |H|^2 outside the layer-diagonal blocks.
        residual_share: |R|^2 / (|G|^2 + |R|^2).
        residual_diagonal: Norm of R's layer-diagonal blocks over |H|; zero to rounding where the output is piecewise
            linear in each layer's parameters.
        residual_diagonal_vanishes: Whether it is.
        indefinite_pair: The pair of layers that proves negative curvature most clearly; `None` where none does, or if
            norms are estimates.
        negative_certificate: Whether negative curvature is proven: by that pair, or by the trace of a block.
        eigenvalue_bounds: An interval from the matrices of norms alone that holds every eigenvalue; an estimate of it
            where norms are estimates.
        method: "exact" or "probes".
        probes: Random vectors per layer; 0 if exact.
        hvps: Hessian-vector products spent, self-checks not counted; a whole Hessian counts as N, by whatever route.
        engine: How products were computed.
        status: "ok", "inexact" (a self-check failed) or "interrupted".
    """

    names: list[str]
    kinds: list[str]
    sizes: list[int]
    depths: list[int | None]
    parameters: int
    frobenius: Matrix
    frobenius_stderr: Matrix | None
    frobenius_interval: tuple[Matrix, Matrix] | None
    gauss_newton: Matrix | None
    gauss_newton_stderr: Matrix | None
    gauss_newton_interval: tuple[Matrix, Matrix] | None
    residual: Matrix | None
    residual_stderr: Matrix | None
    residual_interval: tuple[Matrix, Matrix] | None
    split_missing: str | None
    loss_in_output: LossInOutput | None
    loss_uses_parameters: bool | None
    trace: list[float | None]
    trace_stderr: list[float] | None
    trace_interval: tuple[list[float], list[float]] | None
    diagonal_mass: list[float | None] | None
    diagonal_mass_stderr: list[float] | None
    norm: float | None
    norm_stderr: float | None
    norm_interval: Interval | None
    gauss_newton_norm: float | None
    gauss_newton_norm_stderr: float | None
    gauss_newton_norm_interval: Interval | None
    residual_norm: float | None
    residual_norm_stderr: float | None
    residual_norm_interval: Interval | None
    between_layers: float | None
    between_layers_stderr: float | None
    residual_share: float | None
    residual_share_stderr: float | None
    residual_diagonal: float | None
    residual_diagonal_vanishes: bool | None
    indefinite_pair: IndefinitePair | None
    negative_certificate: Certificate
    eigenvalue_bounds: tuple[float, float] | None
    method: Literal["exact", "probes"]
    probes: int
    hvps: int
    engine: str


@measurement(less="--probes 10")
def blocks(
    problem: Problem | HessianOperator,
    *,
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Blocks:
    """Measure the Frobenius norm of every pair of layers in the Hessian, in its Gauss-Newton part and in the rest.

    H = J'BJ + R (Schraudolph 2002): J'BJ is the curvature of the loss through the output's slopes, and R that of the
    output itself. Up to 5,000 parameters both matrices are computed whole. Beyond, norms of linear layers that see one
    vector per sample are exact as well, from pairs of samples (`hessdiag.curvature.block_norms`), where that takes
    seconds. Elsewhere random signs v on one layer m at a time give E |(Hv)_l|^2 = |H_lm|^2, and the same vectors serve
    H, G and H - G.

    Args:
        problem: What is differentiated, or its Hessian as an operator. One with an objective has no G.
        probes: Random vectors per layer, at least 2. Default: exact where that takes seconds, else 32.
        seed: Of the probes.
        resume: A folder for what is finished. A run of the same problem with the same settings takes up what it holds.
        progress: Called with (done, total, what).

    Raises:
        SpecError: if `probes` is too small, or the folder holds another run.
        ComputeError: if products cannot be computed.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    >>> for parameter in model.parameters(): _ = nn.init.constant_(parameter, 2.0)
    >>> data = [(torch.ones(1, 1).double(), torch.ones(1, 1).double())]
    >>> found = blocks(Problem(model, data=data, loss="mse"))  # (w v - 1)^2: H = [[8, 14], [14, 8]], G = 8 everywhere
    >>> found.frobenius, found.residual
    ([[8.0, 14.0], [14.0, 8.0]], [[0.0, 6.0], [6.0, 0.0]])
    """
    if probes is not None and probes < 2:
        raise SpecError(f"--probes must be at least 2, not {probes}.", f"--probes {PROBES}")
    problem = problem_of(problem)
    n, count = problem.n_parameters, len(problem.layer_slices)
    report = progress or (lambda done, total, what: None)
    operator = HessianOperator(problem, check=False)
    spent = outlay(operator)
    if probes is not None:
        blocks_squares.refuse_many(problem, probes)
    checks = examine(operator, seed, squared=True)
    split = _split(problem, seed, copied=checks.point.kind != "unchecked")
    gauss_newton = split.operator
    checks = checks.also(split.checks, split.inside)
    precision = operator.precision
    same = {} if resume is None else identity(problem)
    pieces = Pieces(resume, {"command": "blocks", **same, "probes": probes, "seed": seed}, operator.device)
    exact, in_pairs = _measured_exactly(operator, gauss_newton, spent, probes, report, pieces)
    if exact is not None:
        squares = exact.squares
        measured = _assembled(problem, squares, precision, exact=True)
        measured["diagonal_mass"] = _known(exact.masses.tolist())
    else:
        wanted = probes or PROBES
        blocks_squares.plan(spent, operator, gauss_newton, wanted)
        both = "Hessian" if gauss_newton is None else "Hessian and Gauss-Newton matrix"
        disk = pieces.said(blocks_squares.kept_bytes(problem, wanted, 1 if gauss_newton is None else 3), anew=True)
        said = f"{n:,} parameters: {wanted:,} x {count} products of the {both}, an estimate{disk}"
        report(0, wanted * count, said)
        squares = blocks_squares.sampled(operator, gauss_newton, wanted, seed, report, pieces)
        measured = _assembled(problem, squares, precision, exact=False)
        try:
            measured |= _sampled_mass(operator, measured, wanted, seed) if not squares.interrupted else {}
        except KeyboardInterrupt:
            if processes.together():
                raise
            squares = replace(squares, interrupted=True)
    engine = operator.engine if gauss_newton is None else f"{operator.engine}; Gauss-Newton: {gauss_newton.engine}"
    if in_pairs:
        engine = f"pairs of samples in neuron space (linear layers); {engine} (others, and to certify)"
    engine = pieces.choice("engine", lambda: engine)
    measured["negative_certificate"] = certificate(
        witnesses(measured, squares.traces, precision),
        trusted=not checks.failed,
        otherwise="neither the layers' norms nor their traces prove a negative eigenvalue",
    )
    status: Status = "interrupted" if squares.interrupted else "inexact" if checks.failed else "ok"
    measured |= {"engine": engine, "status": status, **operators.trust(checks), "resumed_pieces": pieces.taken}
    if checks.failed:
        measured["indefinite_pair"] = None  # it would prove something
    measured |= {"split_missing": split.missing, "loss_in_output": split.loss, "loss_uses_parameters": split.elsewhere}
    return Blocks(**measured, findings=tuple(findings(Blocks(**measured), problem)))


@dataclass(frozen=True)
class _Split:
    """The Gauss-Newton matrix, checked; or why there is none."""

    operator: GaussNewtonOperator | None
    checks: dict[str, float | None]
    loss: LossInOutput | None
    elsewhere: bool | None
    missing: str | None
    inside: torch.dtype | None = None


def _split(problem: Problem, seed: int, *, copied: bool) -> _Split:
    if problem.loss_of_output is None:
        return _Split(None, {}, None, None, problem.why_no_loss_of_output)
    operator = GaussNewtonOperator(problem, check=False)
    try:
        found = operators.output_checks(operator, seed)
    except NoGaussNewtonError as error:
        return _Split(None, {}, None, None, error.what.rstrip("."))
    checks: dict[str, float | None] = found.checks if copied else {"ggn_quadratic_form": None}
    return _Split(operator, checks, found.loss, found.elsewhere, None, found.inside)


def _measured_exactly(
    operator: HessianOperator,
    gauss_newton: GaussNewtonOperator | None,
    spent: Outlay,
    probes: int | None,
    report: Progress,
    pieces: Pieces,
) -> tuple[Exact | None, bool]:
    """What is exact, and whether it comes from pairs of samples; `None` where that is dear or does not serve."""
    if probes is not None:
        return None, False
    if operator.shape[0] <= EXACT_UP_TO:
        return blocks_exact.by_columns(operator, gauss_newton, spent, report, pieces), False
    if not blocks_exact.affordable(operator.problem):
        return None, False
    with suppress(NotInNeuronSpaceError):
        return blocks_exact.by_pairs(operator, gauss_newton, spent, report, pieces), True
    return None, False


def unmeasured(problem: Problem) -> Blocks:
    """The result of a run that was interrupted before a layer was done."""
    count = len(problem.executed_layers)
    nothing = Squares(np.full((1, 1, count, count), np.nan), np.full((1, count), np.nan), 0, interrupted=True)
    return Blocks(
        **_assembled(problem, nothing, 0.0, exact=True),
        split_missing=None,
        loss_in_output=None,
        loss_uses_parameters=None,
        negative_certificate=Certificate(False, None, NOT_MEASURED),
        engine="",
        checks={},
        status="interrupted",
        findings=(interrupted_early(),),
    )


def _assembled(problem: Problem, squares: Squares, precision: float, *, exact: bool) -> dict[str, Any]:
    """From samples of squares to norms, shares, their errors, and what follows from them."""
    layers = problem.executed_layers
    values: dict[str, Any] = {
        "names": [layer.name for layer in layers],
        "kinds": [layer.kind for layer in layers],
        "sizes": [layer.size for layer in layers],
        "depths": list(problem.depths),
        "parameters": problem.n_parameters,
        "method": "exact" if exact else "probes",
        "probes": 0 if exact else len(squares.parts),
        **blocks_errors.traces(squares, exact),
        "diagonal_mass": None,
        "diagonal_mass_stderr": None,
        "hvps": squares.products,
    }
    matrices: dict[str, Floats] = {}
    for kind, (matrix, norm) in enumerate(
        (("frobenius", "norm"), ("gauss_newton", "gauss_newton_norm"), ("residual", "residual_norm"))
    ):
        if kind >= squares.parts.shape[1]:
            ends = (f"{key}{end}" for key in (matrix, norm) for end in ("", "_stderr", "_interval"))
            values |= dict.fromkeys(ends)
            continue
        samples = squares.parts[:, kind]
        own_variance = None if squares.own_variances is None else squares.own_variances[kind]
        found = blocks_errors.norms(samples, own_variance)
        matrices[matrix] = found.value
        whole = blocks_errors.root(samples.sum(2).mean(0).sum(), blocks_errors.mean_variance(samples.sum(2)).sum())
        values |= {
            matrix: found.value.tolist(),
            f"{matrix}_stderr": None if exact else found.stderr.tolist(),
            f"{matrix}_interval": None if exact else (found.low.tolist(), found.high.tolist()),
            norm: float(whole.value),
            f"{norm}_stderr": None if exact else float(whole.stderr),
            f"{norm}_interval": None if exact else (float(whole.low), float(whole.high)),
        }
    own = squares.parts.diagonal(axis1=2, axis2=3)  # (samples, kinds, L)
    rows = squares.parts.sum(3)
    values["between_layers"], error = blocks_errors.share(rows[:, 0] - own[:, 0], rows[:, 0])
    values["between_layers_stderr"] = None if exact else error
    rounding = ROUNDING * precision
    if "residual" in matrices:
        values["residual_share"], error = blocks_errors.share(rows[:, 2], rows[:, 1] + rows[:, 2])
        values["residual_share_stderr"] = None if exact else error
        inside = matrices["residual"].diagonal()
        values["residual_diagonal"] = float(np.linalg.norm(inside)) / values["norm"] if values["norm"] else math.nan
        # Beside the layer's own block: in deep networks these may all be tiny beside the whole.
        values["residual_diagonal_vanishes"] = bool((inside <= rounding * matrices["frobenius"].diagonal()).all())
    else:
        missing = ("residual_share", "residual_share_stderr", "residual_diagonal", "residual_diagonal_vanishes")
        values |= dict.fromkeys(missing)
    values["indefinite_pair"] = indefinite(values["names"], matrices["frobenius"], rounding) if exact else None
    if exact and squares.interrupted:
        values |= {"residual_diagonal_vanishes": None, "eigenvalue_bounds": None}
        return {name: _known(value) for name, value in values.items()}
    values["eigenvalue_bounds"] = _bounds(problem, matrices)
    return values


def _known(values: Any) -> Any:
    """The same with `None` for NaN, which stands for what an interrupt left out."""
    if isinstance(values, list):
        return [_known(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _sampled_mass(operator: HessianOperator, measured: dict[str, Any], rows: int, seed: int) -> dict[str, Any]:
    """Sum of |H_ii| per layer: the trace, where no diagonal entry can be negative, else from a sample of rows."""
    if measured["residual_diagonal_vanishes"] and _convex(operator.problem):
        return {"diagonal_mass": measured["trace"], "diagonal_mass_stderr": measured["trace_stderr"]}
    mass, error, products = blocks_squares.diagonal_masses(operator, rows, seed)
    return {
        "diagonal_mass": mass.tolist(),
        "diagonal_mass_stderr": error.tolist(),
        "hvps": measured["hvps"] + products,
    }


def _convex(problem: Problem) -> bool:
    """Whether the loss is known to be convex in the output: then G is positive semidefinite."""
    loss = problem.loss_of_output
    return loss is not None and loss.is_convex


def _bounds(problem: Problem, matrices: dict[str, Floats]) -> tuple[float, float]:
    """The norm-matrix bound. For a convex loss no eigenvalue of H_ll is below -|R_ll|."""
    norms = matrices["frobenius"]
    below = norms.diagonal()
    if _convex(problem) and "residual" in matrices:
        below = np.minimum(below, matrices["residual"].diagonal())
    return norm_matrix(-below, norms.diagonal(), norms)
