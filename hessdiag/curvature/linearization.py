"""An independent route to the Gauss-Newton matrix: v'Gv is the loss's second derivative along the linearized model.

Outputs z along v move with u = J v, here a central difference; u'Bu is a difference of the loss's gradients along u. No
second derivative by automatic differentiation is used, and no product with J'.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from hessdiag.curvature.differences import Holding, Moved, copied, movable
from hessdiag.curvature.point.examine import TOLERANCE, unfrozen
from hessdiag.curvature.point.held import HeldPieces, coarsest
from hessdiag.curvature.point.watch import OtherPathError
from hessdiag.curvature.received import LEAST, Function, Received, evaluated, length, loss_and_slopes, output_of, scalar
from hessdiag.errors import ComputeError
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.problem.graph import behind
from hessdiag.problem.losses.loss import Loss
from hessdiag.problem.problem import Problem

# Relative steps of the outputs' difference, in cube roots of rounding, likely ones first. A step can cross a kink or
# drown in rounding: the best one counts, and the first that is far better than needed ends the search.
STEPS = (0.5, 0.02, 0.002, 2.0, 20.0)
_FAR_BETTER = 0.1


@dataclass(frozen=True)
class Linearization:
    """What the loss does along the linearized model, for one random direction v.

    Attributes:
        error: Relative distance of v'Gv from the second derivative of the loss there.
        moves: Whether any output moves along v.
        curves: Whether the loss curves along the outputs' way.
        elsewhere: Whether the loss also depends on parameters by another way than the tensors that it receives.
        held: Whether the outputs have a kink here along v, so that they were compared on the piece that autograd takes.
        allowed: The largest error at which products are believed.
        inside: The coarser dtype that the model computes in inside, if that is why no smaller error can be asked for.
    """

    error: float
    moves: bool
    curves: bool
    elsewhere: bool
    held: bool
    allowed: float
    inside: torch.dtype | None = None

    @property
    def linear(self) -> bool:
        """Whether the loss is linear in what it receives, which makes G zero though the outputs move."""
        return self.moves and not self.curves


class OutputMatrix(SymmetricOperator, Protocol):
    """J' M J of a problem, with M the Hessian of a function of what the loss receives."""

    problem: Problem
    function: Callable[[Loss], Function] | None


class Movable(Protocol):
    """A problem whose parameters can be moved along a direction."""

    holding: Holding | None

    @property
    def problem(self) -> Problem:
        """It, or the copy that moves."""

    def step(self, v: Tensor, relative: float | None = None) -> float:
        """The multiple of v to go."""

    def difference(self, v: Tensor, h: float, function: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Central difference of a function of the parameters along v, in float64."""

    def origin(self) -> None:
        """Move back."""

    def weighed(self) -> Iterable[tuple[float, Any]]:
        """What is evaluated here, with its weight."""

    def whole(self, numbers: Sequence[float]) -> list[float]:
        """Each number, of all that is evaluated anywhere."""


def linearization(operator: OutputMatrix, seed: int = 0) -> Linearization | None:
    """Compare one product with the loss along the linearized model, in float64 where the model can be evaluated in it.

    It takes one product, and for each step three forward passes, of which the first nearly always does.

    Args:
        operator: A Gauss-Newton matrix, or a Fisher matrix that is one of another function.
        seed: Of the direction.

    Returns:
        The comparison; `None` where no copy of the model can be made and moved.

    Raises:
        ComputeError: if the product cannot be computed.

    >>> from hessdiag.curvature.gauss_newton import GaussNewtonOperator
    >>> model = torch.nn.Linear(2, 1).double()
    >>> data = [(torch.ones(3, 2).double(), torch.zeros(3, 1).double())]
    >>> found = linearization(GaussNewtonOperator(Problem(model, data=data, loss="mse")))
    >>> found.error < 1e-8, found.moves, found.curves
    (True, True, True)
    """
    problem, function = operator.problem, operator.function
    assert function is not None
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(operator.shape[0], generator=generator) * unfrozen(problem)
    v = v.to(operator.device, operator.dtype)
    form = float(v.double() @ (operator @ v).double())
    try:  # what is drawn at random is drawn anew in another dtype
        moved = copied(problem, None) if problem.one_draw or problem.train_mode else movable(problem)
    except ComputeError:
        return None
    watched: set[Tensor] = {*problem.parameters, *moved.problem.parameters}
    allowed, inside = TOLERANCE[problem.dtype], None
    seen = list(steps(moved, v, function, moved.problem.dtype, watched, form, allowed))
    if least(seen, form) > allowed:
        inside = _inside(moved, allowed)
        if inside is not None:
            allowed = TOLERANCE[inside]
            seen += steps(moved, v, function, inside, watched, form, allowed)
    error, held = least(seen, form), False
    moves, elsewhere = any(one.moves for one in seen), any(one.elsewhere for one in seen)
    curves = any(one.size > 0 for one in seen)
    if error > allowed:  # astride a kink, such as that of units that are exactly zero; the loss may have none
        moved.holding = HeldPieces(moved, tight=True)
        with suppress(OtherPathError):
            beside = along(moved, v, function, moved.step(v, STEPS[0] * unit(moved.problem.dtype)), watched)
            held = beside.distance(form) <= allowed
            error = min(error, beside.distance(form))
    return Linearization(error, moves, curves, elsewhere, held, allowed, inside)


def least(seen: Sequence["Along"], form: float) -> float:
    """The smallest distance of any step."""
    return min([math.inf, *(one.distance(form) for one in seen)])  # a NaN is no distance


def unit(dtype: torch.dtype) -> float:
    """The cube root of rounding."""
    return float(torch.finfo(dtype).eps ** (1 / 3))


def _inside(moved: Moved, allowed: float) -> torch.dtype | None:
    """The dtype that a model computes in inside, where it is so coarse that more than `allowed` is asked too much."""
    inside = coarsest(moved)
    return inside if TOLERANCE[inside] > allowed else None


@dataclass(frozen=True)
class Along:
    """u'Bu over all batches, the sum of the magnitudes that it is made of, whether u is not zero, and `elsewhere`."""

    second: float
    size: float
    moves: bool
    elsewhere: bool

    def distance(self, form: float) -> float:
        """Of v'Gv, relative to what either is made of."""
        scale = max(abs(form), abs(self.second), self.size)
        return abs(form - self.second) / scale if scale else 0.0


def steps(
    moved: Movable,
    v: Tensor,
    function: Callable[[Loss], Function],
    dtype: torch.dtype,
    watched: set[Tensor],
    form: float,
    allowed: float,
) -> Iterator["Along"]:
    """Steps of several lengths, for the rounding of a dtype, until one is far better than needed."""
    for step in STEPS:
        found = along(moved, v, function, moved.step(v, step * unit(dtype)), watched)
        yield found
        if found.distance(form) <= _FAR_BETTER * allowed:
            return


def along(moved: Movable, v: Tensor, function: Callable[[Loss], Function], step: float, watched: set[Tensor]) -> Along:
    """What the loss does along the linearized model, after one step of the outputs' difference."""
    problem = moved.problem
    second, size, moves, elsewhere = 0.0, 0.0, False, False
    assert problem.loss_of_output is not None
    loss = function(problem.loss_of_output)
    for weight, batch in moved.weighed():
        directions = moved.difference(v, step, partial(_tensors, moved, batch))
        moved.origin()
        z = _outputs(moved, batch)
        start = [tensor.detach().to(torch.float64) for tensor in z.tensors]
        reach, size_of_u = length(start, LEAST), length(directions)
        elsewhere = elsewhere or _depends(problem, loss, z, watched)
        if not size_of_u:
            continue
        k = max(torch.finfo(tensor.dtype).eps for tensor in z.tensors) ** (1 / 3) * reach / size_of_u
        ends = [
            _slopes(moved, batch, loss, z, [s + side * k * u for s, u in zip(start, directions, strict=True)])
            for side in (1, -1)
        ]
        parts = [u * (ahead - behind) / (2 * k) for u, ahead, behind in zip(directions, *ends, strict=True)]
        second += weight * math.fsum(float(part.sum()) for part in parts)
        size += weight * math.fsum(float(part.abs().sum()) for part in parts)
        moves = True
    second, size, moving, reaching = moved.whole([second, size, float(moves), float(elsewhere)])
    return Along(second, size, moving > 0, reaching > 0)


def _outputs(moved: Movable, batch: Any) -> Received:
    with evaluated(moved.problem), nullcontext() if moved.holding is None else moved.holding(batch):
        return output_of(moved.problem, batch)


def _tensors(moved: Movable, batch: Any) -> tuple[Tensor, ...]:
    return _outputs(moved, batch).tensors


def _slopes(moved: Movable, batch: Any, loss: Function, z: Received, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of the loss with other tensors in the place of those received."""
    leaves = [tensor.to(like.dtype).requires_grad_() for tensor, like in zip(tensors, z.tensors, strict=True)]
    problem = moved.problem
    with evaluated(problem):
        if problem.one_draw or problem.train_mode:
            output_of(problem, batch)  # so that the loss goes on with the same random numbers
        _, found = loss_and_slopes(loss, z, leaves)
    return [part.to(tensor.dtype) for part, tensor in zip(found, tensors, strict=True)]


def _depends(problem: Problem, loss: Function, z: Received, watched: set[Tensor]) -> bool:
    """Whether the loss reaches a parameter though all that it receives is cut off from them."""
    with evaluated(problem):
        value = scalar(loss, z, [tensor.detach() for tensor in z.tensors])
    return any(getattr(node, "variable", None) in watched for node in behind([value]))
