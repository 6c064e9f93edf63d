"""From samples of squares to the numbers of a result: norms, traces, shares, and what follows from them."""

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hessdiag.fields import Interval, Matrix, Numbers
from hessdiag.linalg.blocks import norm_matrix
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import estimates
from hessdiag.questions.blocks.outputs import outputs_bend
from hessdiag.questions.blocks.proof import indefinite
from hessdiag.questions.blocks.result import IndefinitePair
from hessdiag.questions.common.block_squares import Squares
from hessdiag.statistics.intervals import Average, Estimated, EstimatedNumber

Floats = NDArray[np.float64]
V_co = TypeVar("V_co", covariant=True)

ROUNDING = 1e3  # units of the last digit of |H| that cannot be told from zero


@dataclass(frozen=True)
class Norms(Generic[V_co]):
    """Frobenius norms of one matrix: of its layer blocks, (L, L), and of the whole."""

    blocks: Estimated[V_co, Matrix]
    whole: EstimatedNumber


NO_NORMS: Norms[None] = Norms(Estimated(None), Estimated(None))


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """What squares tell; `Blocks` says what each means."""

    exact: bool
    norms: Norms[Matrix]
    gauss_newton: Norms[Matrix] | Norms[None]
    residual: Norms[Matrix] | Norms[None]
    trace: Estimated[Numbers, Numbers]
    between_layers: EstimatedNumber
    residual_share: EstimatedNumber
    residual_diagonal: float | None
    residual_diagonal_vanishes: bool | None
    indefinite_pair: IndefinitePair | None
    eigenvalue_bounds: Interval | None


def assembled(problem: Problem, squares: Squares, precision: float, *, exact: bool) -> Assembled:
    """All that squares tell.

    Args:
        problem: Whose they are.
        squares: Samples, or the truth.
        precision: Relative error of products.
        exact: Whether they are the truth. Where an interrupt left layers out, what needs them is `None`.
    """
    stopped = exact and squares.interrupted
    parts, rounding = squares.parts, ROUNDING * precision
    found = [_norms(squares, kind) for kind in range(parts.shape[1])]
    hessian, rest = found[0][0].value, found[2][0].value if len(found) > 1 else None

    def written(average: Average) -> Estimated[Any, Any]:
        return _written(average, exact=exact, stopped=stopped)

    def known(value: float) -> float | None:
        return None if stopped and math.isnan(value) else value

    def share(part: Floats, whole: Floats) -> EstimatedNumber:
        value, error = estimates.share(part, whole)
        return Estimated(known(value), None if exact else error)

    norms = [Norms(written(blocks), written(whole)) for blocks, whole in found]
    own, rows = parts.diagonal(axis1=2, axis2=3), parts.sum(3)  # (samples, kinds, L)
    inside, vanishes = None, None
    if rest is not None:
        whole = float(found[0][1].value)
        inside, vanishes = _inside(rest, whole), None if stopped else _vanishes(problem, hessian, rest, whole, rounding)
    return Assembled(
        exact=exact,
        norms=norms[0],
        gauss_newton=norms[1] if len(norms) > 1 else NO_NORMS,
        residual=norms[2] if len(norms) > 1 else NO_NORMS,
        trace=written(estimates.traces(squares)),
        between_layers=share(rows[:, 0] - own[:, 0], rows[:, 0]),
        residual_share=Estimated(None) if rest is None else share(rows[:, 2], rows[:, 1] + rows[:, 2]),
        residual_diagonal=None if inside is None else known(inside),
        residual_diagonal_vanishes=vanishes,
        indefinite_pair=indefinite(problem.executed_layers, hessian, rounding) if exact else None,
        eigenvalue_bounds=None if stopped else _bounds(problem, hessian, rest),
    )


def plain(values: Floats, *, stopped: bool = False) -> Any:
    """Numbers in tuples; after an interrupt with `None` for NaN, which stands for what it left out."""
    if values.ndim:
        return tuple(plain(row, stopped=stopped) for row in values)
    value = float(values)
    return None if stopped and math.isnan(value) else value


def convex(problem: Problem) -> bool:
    """Whether the loss is known to be convex in the output: then G is positive semidefinite."""
    loss = problem.loss_of_output
    return loss is not None and loss.is_convex


def _written(average: Average, *, exact: bool, stopped: bool) -> Estimated[Any, Any]:
    value = plain(average.value, stopped=stopped)
    if exact:
        return Estimated(value)
    return Estimated(value, plain(average.stderr), (plain(average.low), plain(average.high)))


def _norms(squares: Squares, kind: int) -> tuple[Average, Average]:
    """Of the blocks of one of the matrices, and of the whole."""
    samples = squares.parts[:, kind]
    rows = samples.sum(2)
    own_variance = None if squares.own_variances is None else squares.own_variances[kind]
    whole = estimates.root(rows.mean(0).sum(), estimates.mean_variance(rows).sum())
    return estimates.norms(samples, own_variance), whole


def _inside(rest: Floats, norm: float) -> float:
    """The norm of the residual's layer-diagonal blocks over |H|."""
    return float(np.linalg.norm(rest.diagonal())) / norm if norm else math.nan


def _vanishes(problem: Problem, hessian: Floats, rest: Floats, norm: float, rounding: float) -> bool | None:
    """Whether the residual's layer-diagonal blocks are zero to rounding; `None` where nothing tells.

    Beside the layer's own block, for in deep networks these may all be tiny beside the whole. What is larger than that
    may yet be the rounding of numbers that cancelled in the block, as where logits are all alike or one layer is far
    too large: whether there is any curvature to be seen, the outputs say by themselves.
    """
    inside = rest.diagonal()
    if (inside <= rounding * hessian.diagonal()).all():
        return True
    bend = outputs_bend(problem)
    if bend is not None:
        return not bend
    return None if (inside <= rounding * norm).all() else False


def _bounds(problem: Problem, hessian: Floats, rest: Floats | None) -> Interval:
    """The norm-matrix bound. For a convex loss no eigenvalue of H_ll is below -|R_ll|."""
    below = hessian.diagonal()
    if rest is not None and convex(problem):
        below = np.minimum(below, rest.diagonal())
    return norm_matrix(-below, hessian.diagonal(), hessian)
