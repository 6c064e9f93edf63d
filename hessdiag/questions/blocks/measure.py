"""Which layers curve, and how do they couple? Norms of the Hessian's layer blocks, split into Gauss-Newton and rest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import torch

from hessdiag.curvature.checks import Examination, examine
from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.received import NoGaussNewtonError
from hessdiag.errors import SpecError
from hessdiag.fields import Numbers
from hessdiag.machine import processes
from hessdiag.machine.work import Work
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import exact as blocks_exact
from hessdiag.questions.blocks.assemble import Assembled, assembled, convex, plain
from hessdiag.questions.blocks.by.measure import blocks_by
from hessdiag.questions.blocks.by.measure import unmeasured as nothing_by
from hessdiag.questions.blocks.by.result import BlocksBy
from hessdiag.questions.blocks.masses import diagonal_masses, most_rows
from hessdiag.questions.blocks.outputs import weight_gains
from hessdiag.questions.blocks.proof import witnesses
from hessdiag.questions.blocks.result import Blocks
from hessdiag.questions.blocks.verdict import findings
from hessdiag.questions.common import block_squares, operators
from hessdiag.questions.common.block_squares import Squares
from hessdiag.questions.common.certificate import NOTHING_MEASURED, Certificate, certificate
from hessdiag.questions.common.described import described, examined
from hessdiag.questions.common.matrices import LossInOutput
from hessdiag.questions.common.provenance import recorded
from hessdiag.questions.common.result import Provenance
from hessdiag.questions.common.runs.outlay import Outlay, outlay
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress, silent
from hessdiag.questions.common.runs.resume import choose_pass, kept_pieces
from hessdiag.questions.common.sharding import refuse, sharding, where
from hessdiag.questions.common.splitting import Splitting
from hessdiag.questions.common.subject import problem_of
from hessdiag.questions.common.verdict import interrupted_early
from hessdiag.shards.problem import ShardedProblem
from hessdiag.statistics.intervals import Estimated

EXACT_UP_TO = 5_000  # parameters: the whole matrices
PROBES = 32  # random vectors per layer beyond

Masses = Estimated[Numbers | None, Numbers]
NO_MASSES: Masses = Estimated(None)


@overload
def blocks(
    problem: Problem | HessianOperator,
    *,
    by: None = None,
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Blocks: ...


@overload
def blocks(
    problem: Problem | HessianOperator,
    *,
    by: str | Sequence[str],
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> BlocksBy: ...


@overload
def blocks(
    problem: Problem | HessianOperator,
    *,
    by: str | Sequence[str] | None,
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Blocks | BlocksBy: ...


@recorded
@measurement(less="--probes 10")
def blocks(
    problem: Problem | HessianOperator,
    *,
    by: str | Sequence[str] | None = None,
    probes: int | None = None,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Blocks | BlocksBy:
    """Measure the Frobenius norm of every pair of layers in the Hessian, in its Gauss-Newton part and in the rest.

    H = J'BJ + R (Schraudolph 2002): J'BJ is the curvature of the loss through the output's slopes, and R that of the
    output itself. Up to 5,000 parameters both matrices are computed whole. Beyond, norms of linear layers that see one
    vector per sample are exact as well, from pairs of samples (`hessdiag.curvature.block_norms`), where that takes
    seconds. Elsewhere random signs v on one layer m at a time give E |(Hv)_l|^2 = |H_lm|^2, and the same vectors serve
    H, G and H - G. A sharded problem is measured by them, whatever its size.

    With `by` the question is another: how much of H is inside the blocks of a partition, in the Frobenius norm and in
    absolute mass, what the block diagonal makes of the extreme eigenvalues, and how much the blocks' spectra differ:
    the mean Jensen-Shannon distance between their densities (arXiv 2402.16788), on an axis that is logarithmic for both
    signs. Up to 5,000 parameters from the whole matrix; beyond, from random signs on blocks, a sample of rows, Lanczos,
    and quadrature for 12 blocks.

    Args:
        problem: What is differentiated, or its Hessian as an operator. One with an objective has no G.
        by: "layer", "tensor", "head", "neuron", "class", "embedding-row", or patterns of names.
        probes: Random vectors per layer or block, at least 2. Default: exact where that takes seconds, else 32, or 16
            with `by`.
        seed: Of the probes.
        resume: A folder for what is finished. A run of the same problem with the same settings takes up what it holds.
        progress: Called with (done, total, what).

    Raises:
        SpecError: if `probes` is too small, `by` fits nothing in the model, or the folder holds another run.
        ComputeError: if products cannot be computed.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    >>> for parameter in model.parameters(): _ = nn.init.constant_(parameter, 2.0)
    >>> data = [(torch.ones(1, 1).double(), torch.ones(1, 1).double())]
    >>> found = blocks(Problem(model, data=data, loss="mse"))  # (w v - 1)^2: H = [[8, 14], [14, 8]], G = 8 everywhere
    >>> found.frobenius, found.residual
    (((8.0, 14.0), (14.0, 8.0)), ((0.0, 6.0), (6.0, 0.0)))
    >>> round(blocks(Problem(model, data=data, loss="mse"), by="layer").absolute_share, 6)  # 16 of 44
    0.363636
    """
    if by is not None:
        refuse(problem_of(problem), by=by)
        return blocks_by(problem, by, probes=probes, seed=seed, resume=resume, progress=progress)
    return _by_layers(problem, probes, seed, resume, progress or silent)


def _by_layers(
    problem: Problem | HessianOperator, probes: int | None, seed: int, resume: str | Path | None, report: Progress
) -> Blocks:
    """Norms of all pairs of layers, of both parts of the Hessian."""
    if probes is not None and probes < 2:
        raise SpecError(f"--probes must be at least 2, not {probes}.", f"--probes {PROBES}")
    problem = problem_of(problem)
    refuse(problem, resume=resume)
    operator = HessianOperator(problem, check=False)
    spent = outlay(operator)
    if probes is not None:
        block_squares.refuse_many(problem, probes)
    checks = examine(operator, seed, squared=True)
    split = _split(problem, seed, copied=checks.point.kind != "unchecked")
    checks = checks.also(split.checks, split.inside)
    precision = operator.precision
    pieces = kept_pieces(problem, "blocks", {"probes": probes, "seed": seed}, resume, operator)
    if resume is not None and split.gauss_newton is not None:
        choose_pass(split.gauss_newton, pieces, "vectors a pass of G")
    matrices = Splitting(operator, split.gauss_newton)
    run = _Run(matrices, precision, spent, report, pieces)
    found = None if probes is not None else _exactly(run)
    if found is None:
        found = _sampled(run, probes or PROBES, seed)
    return _judged(run, found, split, checks)


@dataclass(frozen=True)
class _Split:
    """The Gauss-Newton matrix, checked; or why there is none."""

    gauss_newton: GaussNewtonOperator | None
    checks: dict[str, float | None]
    loss: LossInOutput | None
    elsewhere: bool | None
    missing: str | None
    inside: torch.dtype | None = None


NO_SPLIT = _Split(None, {}, None, None, None)


def _split(problem: Problem, seed: int, *, copied: bool) -> _Split:
    if problem.loss_of_output is None:
        return replace(NO_SPLIT, missing=problem.why_no_loss_of_output)
    operator = GaussNewtonOperator(problem, check=False)
    try:
        found = operators.output_checks(operator, seed)
    except NoGaussNewtonError as error:
        return replace(NO_SPLIT, missing=error.what.rstrip("."))
    checks: dict[str, float | None] = found.checks if copied else {"ggn_quadratic_form": None}
    return _Split(operator, checks, found.loss, found.elsewhere, None, found.inside)


@dataclass(frozen=True)
class _Run:
    """What every way of measuring is given.

    Attributes:
        matrices: What is measured.
        precision: Relative error of products with H.
        spent: What they hold.
        report: Called with (done, total, what).
        pieces: Where what is finished is kept.
    """

    matrices: Splitting
    precision: float
    spent: Outlay
    report: Progress
    pieces: Pieces

    @property
    def problem(self) -> Problem:
        """What is differentiated."""
        return self.matrices.problem


@dataclass(frozen=True)
class _Computed:
    """What one of the ways of measuring gives.

    Attributes:
        squares: Samples, or the truth.
        numbers: What they tell.
        masses: Sum of |H_ii| per layer.
        engine: How products were computed.
        rows: Products spent on the masses alone.
        interrupted: Whether anything is missing.
    """

    squares: Squares
    numbers: Assembled
    masses: Masses
    engine: str
    interrupted: bool
    rows: int = 0


def _exactly(run: _Run) -> _Computed | None:
    """From whole columns, or from pairs of samples; `None` where that is dear or does not serve."""
    problem, matrices = run.problem, run.matrices
    prefix, suffix = "", ""
    if isinstance(problem, ShardedProblem):
        return None
    if problem.n_parameters <= EXACT_UP_TO:
        found = blocks_exact.by_columns(matrices, run.spent, run.report, run.pieces)
    elif blocks_exact.affordable(problem):
        try:
            found = blocks_exact.by_pairs(matrices, run.spent, run.report, run.pieces)
        except NotInNeuronSpaceError:
            return None
        prefix, suffix = "pairs of samples in neuron space (linear layers); ", " (others, and to certify)"
    else:
        return None
    numbers = assembled(problem, found.squares, run.precision, exact=True)
    masses: Masses = Estimated(plain(found.masses, stopped=True))
    engine = f"{prefix}{matrices.engine}{suffix}"
    return _Computed(found.squares, numbers, masses, engine, found.squares.interrupted)


def _sampled(run: _Run, probes: int, seed: int) -> _Computed:
    """From random vectors on one layer at a time, and rows for the masses."""
    problem, matrices, pieces = run.problem, run.matrices, run.pieces
    n, count, rows = problem.n_parameters, len(problem.executed_layers), most_rows(problem, probes)
    block_squares.plan(run.spent, matrices, probes, rows)
    disk = pieces.said(block_squares.kept_bytes(matrices, probes), anew=True)
    said = f"{n:,} parameters: {probes:,} x {count} products of the {matrices.said}, an estimate{where(problem)}{disk}"
    run.report(0, probes * count, said)
    squares = block_squares.sampled(matrices, probes, seed, run.report, pieces, then=Work(rows))
    numbers = assembled(problem, squares, run.precision, exact=False)
    masses, products, interrupted = NO_MASSES, 0, squares.interrupted
    if not interrupted:
        try:
            masses, products = _masses(matrices.hessian, numbers, probes, seed)
        except KeyboardInterrupt:
            if processes.together():
                raise
            interrupted = True
    return _Computed(squares, numbers, masses, matrices.engine, interrupted, products)


def _masses(operator: HessianOperator, numbers: Assembled, rows: int, seed: int) -> tuple[Masses, int]:
    """Sum of |H_ii| per layer: the trace, where no diagonal entry can be negative, else from a sample of rows."""
    if numbers.residual_diagonal_vanishes and convex(operator.problem):
        return Estimated(numbers.trace.value, numbers.trace.stderr), 0
    mass, error, products = diagonal_masses(operator, rows, seed)
    return Estimated(plain(mass), plain(error)), products


def _judged(run: _Run, found: _Computed, split: _Split, checks: Examination) -> Blocks:
    """The result, with what it proves where the self-checks passed, and the verdict."""
    problem, numbers = run.problem, found.numbers
    engine = run.pieces.choice("engine", lambda: found.engine)
    layers, norms = problem.executed_layers, np.array(numbers.norms.blocks.value, dtype=float)
    pair = numbers.indefinite_pair
    proof = certificate(
        witnesses(layers, norms, found.squares.traces, pair=pair, exact=numbers.exact, precision=run.precision),
        trusted=not checks.failed,
        otherwise="neither the layers' norms nor their traces prove a negative eigenvalue",
    )
    measured = replace(
        examined(_result(problem, found, split, proof, engine, weight_gains(problem)), checks),
        status="interrupted" if found.interrupted else "inexact" if checks.failed else "ok",
        provenance=Provenance(resumed_pieces=run.pieces.taken, sharding=sharding(problem)),
        indefinite_pair=None if checks.failed else pair,  # it would prove something
    )
    return replace(measured, findings=tuple(findings(measured)))


def unmeasured(problem: Problem, by: str | Sequence[str] | None = None) -> Blocks | BlocksBy:
    """The result of a run that was interrupted before a layer was done."""
    if by is not None:
        return nothing_by(problem, by)
    count = len(problem.executed_layers)
    nothing = Squares(np.full((1, 1, count, count), np.nan), np.full((1, count), np.nan), 0, interrupted=True)
    found = _Computed(nothing, assembled(problem, nothing, 0.0, exact=True), NO_MASSES, "", interrupted=True)
    gains = None if isinstance(problem, ShardedProblem) else weight_gains(problem)  # which others would have to hear of
    measured = _result(problem, found, NO_SPLIT, NOTHING_MEASURED, "", gains)
    return replace(measured, findings=(interrupted_early(),))


def _result(
    problem: Problem, found: _Computed, split: _Split, proof: Certificate, engine: str, gains: Numbers | None
) -> Blocks:
    """The numbers in their places; self-checks and verdict are still to come."""
    layers, numbers = problem.executed_layers, found.numbers
    norms, gauss_newton, residual = numbers.norms, numbers.gauss_newton, numbers.residual
    return Blocks(
        status="interrupted",
        problem=described(problem),
        names=tuple(layer.name for layer in layers),
        kinds=tuple(layer.kind for layer in layers),
        sizes=tuple(layer.size for layer in layers),
        depths=tuple(problem.depths),
        weight_gains=gains,
        parameters=problem.n_parameters,
        frobenius=norms.blocks.value,
        frobenius_stderr=norms.blocks.stderr,
        frobenius_interval=norms.blocks.interval,
        gauss_newton=gauss_newton.blocks.value,
        gauss_newton_stderr=gauss_newton.blocks.stderr,
        gauss_newton_interval=gauss_newton.blocks.interval,
        residual=residual.blocks.value,
        residual_stderr=residual.blocks.stderr,
        residual_interval=residual.blocks.interval,
        split_missing=split.missing,
        loss_in_output=split.loss,
        loss_uses_parameters=split.elsewhere,
        trace=numbers.trace.value,
        trace_stderr=numbers.trace.stderr,
        trace_interval=numbers.trace.interval,
        diagonal_mass=found.masses.value,
        diagonal_mass_stderr=found.masses.stderr,
        norm=norms.whole.value,
        norm_stderr=norms.whole.stderr,
        norm_interval=norms.whole.interval,
        gauss_newton_norm=gauss_newton.whole.value,
        gauss_newton_norm_stderr=gauss_newton.whole.stderr,
        gauss_newton_norm_interval=gauss_newton.whole.interval,
        residual_norm=residual.whole.value,
        residual_norm_stderr=residual.whole.stderr,
        residual_norm_interval=residual.whole.interval,
        between_layers=numbers.between_layers.value,
        between_layers_stderr=numbers.between_layers.stderr,
        residual_share=numbers.residual_share.value,
        residual_share_stderr=numbers.residual_share.stderr,
        residual_diagonal=numbers.residual_diagonal,
        residual_diagonal_vanishes=numbers.residual_diagonal_vanishes,
        indefinite_pair=numbers.indefinite_pair,
        negative_certificate=proof,
        eigenvalue_bounds=numbers.eigenvalue_bounds,
        method="exact" if numbers.exact else "probes",
        probes=0 if numbers.exact else len(found.squares.parts),
        hvps=found.squares.products + found.rows,
        engine=engine,
    )
