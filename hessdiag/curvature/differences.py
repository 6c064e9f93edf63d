"""Products by central differences, for models that cannot be differentiated twice.

A fallback and never a default: an operator turns to it only after double backward is found to be missing, and says so.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hessdiag.errors import ComputeError, HessdiagError, first_line
from hessdiag.linalg.tridiagonal import LONG
from hessdiag.machine import cost
from hessdiag.machine.shortage import ran_out, sentence
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.layers import Layer
from hessdiag.problem.once import once
from hessdiag.problem.problem import Problem

# Of the cube root of rounding, where truncation and rounding of a central difference meet. Measured on smooth and on
# piecewise-linear networks: relative errors of 2e-11 to 3e-10 in float64, which extrapolation from two steps does not
# better at this size, and at larger ones only where no kink is crossed.
STEP = 0.5
UNITS = 4  # unit vectors among those that tell the error of differences


class NoDoubleBackwardError(Exception):
    """What in a model cannot be differentiated twice."""


def reason(error: Exception) -> str:
    """The first line of what an error says, or that memory ran out."""
    if ran_out(error):
        return sentence(error)
    return first_line(error)


def refuse_cut(tensors: Iterable[Tensor]) -> None:
    """Look for functions in the graph of tensors that autograd cannot differentiate again.

    Raises:
        NoDoubleBackwardError: naming the first that is found.
    """
    if (found := once(tensors)) is not None:
        raise NoDoubleBackwardError(found)


class CannotCopyError(ComputeError):
    """The model itself cannot be copied."""


def copied(problem: Problem, dtype: torch.dtype | None) -> "Moved":
    """A copy of a problem in another dtype (`None`: in its own), whose parameters can be moved.

    Raises:
        CannotCopyError: if the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    if dtype is not None:  # at once in that dtype, which is less to do and to hold
        memo = {
            id(one): nn.Parameter(one.detach().to(dtype, copy=True), one.requires_grad)
            for one in problem.model.parameters()
            if type(one) is nn.Parameter and one.is_floating_point()
        }
    try:
        model = copy.deepcopy(problem.model, memo)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        if ran_out(error):
            raise
        raise CannotCopyError(
            f"the model cannot be copied: {reason(error)}", "give it as a function that builds it"
        ) from error
    data = [batches.to(batch, dtype=dtype) for batch in problem.data]
    return Moved(problem.as_written(model=model.to(dtype=dtype), data=data), dtype, problem)


def movable(problem: Problem) -> "Moved":
    """A copy to take differences on: in float64 where the model can be evaluated in it, else in its own dtype.

    Raises:
        CannotCopyError: if the model cannot be copied.
    """
    try:
        moved = copied(problem, torch.float64)
        moved.gradient(moved.problem.data[0])
    except CannotCopyError:
        raise
    except (HessdiagError, RuntimeError, TypeError, NotImplementedError, MemoryError):
        return copied(problem, None)
    return moved


Holding = Callable[[Any], AbstractContextManager[None]]


def loss_and_gradient(problem: Problem, holding: Holding | None = None) -> tuple[float, Tensor]:
    """Over all batches, in float64; with what is to be done around each evaluation of a batch."""
    loss, total = 0.0, torch.zeros(problem.n_parameters, dtype=torch.float64, device=problem.device)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        with nullcontext() if holding is None else holding(batch):
            value = problem.evaluate(batch)
            with problem.evaluation():  # checkpointed parts of the model run again here
                parts = list(torch.autograd.grad(value, problem.parameters, materialize_grads=True, allow_unused=True))
        loss += weight * float(value.detach().double())
        for place in reversed(problem.places()):  # each part is let go once it is added: one copy fewer at the peak
            total[place].add_(parts.pop().reshape(-1).to(total), alpha=weight)
    cost.enter_gradient()
    return loss, total


class Moved:
    """A copy of a problem whose parameters move along a direction.

    Args:
        problem: The copy. Its parameters stand wherever they were moved last.
        dtype: What batches are cast to; `None` to leave them.
        origin: What it is a copy of.

    Attributes:
        relative: The step of differences over |theta| / |v|.
        holding: What is done around each evaluation of a batch, such as to hold the pieces of a kink.
    """

    def __init__(self, problem: Problem, dtype: torch.dtype | None, origin: Problem | None = None) -> None:
        self.problem, self._dtype = problem, dtype
        self.factor = 1.0  # of the step; two sizes tell the error
        self.relative = STEP * torch.finfo(problem.dtype).eps ** (1 / 3)  # step over |theta| / |v|
        self.holding: Holding | None = None
        # Long vectors are not held twice: the original stands at theta while its copy moves.
        there = problem.parameters if origin is None or problem.n_parameters <= LONG else origin.parameters
        copied = there is problem.parameters
        self._theta = [parameter.detach().clone() if copied else parameter.detach() for parameter in there]
        place = self._theta[0].device
        norms = torch.stack([value.norm().double().to(place) for value in self._theta])
        self._size = math.hypot(*norms.cpu().tolist()) or 1.0

    def step(self, v: Tensor, relative: float | None = None) -> float:
        """The multiple of v to go: `relative`, or by default `STEP` cube roots of rounding, times |theta| / |v|."""
        return self.multiple(float(v.norm()), relative)

    def multiple(self, length: float, relative: float | None = None) -> float:
        """The same, for a v of this length."""
        best = self.relative * self.factor
        return (best if relative is None else relative) * self._size / length

    def to(self, v: Tensor, h: float) -> None:
        """Move to theta + h v."""
        parameters, places = self.problem.parameters, self.problem.places()
        alike = len({tensor.dtype for tensor in (v, *parameters, *self._theta)}) == 1
        with torch.no_grad():
            if alike and len(v) <= LONG:  # all at once, for on a GPU each would be some launches of its own
                parts = [v[place].view(value.shape) for value, place in zip(self._theta, places, strict=True)]
                torch._foreach_copy_(list(parameters), torch._foreach_add(self._theta, torch._foreach_mul(parts, h)))
                return
            for parameter, value, place in zip(parameters, self._theta, places, strict=True):
                moved = value.to(parameter)
                parameter.copy_(moved + h * v[place].view(value.shape).to(moved))

    def along(self, w: Tensor, aside: float, v: Tensor, h: float) -> None:
        """Move to theta + aside w + h v."""
        self.to(aside * w.to(v) + h * v, 1.0)

    def difference(self, v: Tensor, h: float, function: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
        """Central difference of a function of the parameters along v, in float64."""
        ends = []
        with self.problem.asked_once():
            for side in (1, -1):
                self.to(v, side * h)
                # Copied, for an output may be a parameter, which moves on.
                ends.append([tensor.detach().to(dtype=torch.float64, copy=True) for tensor in function()])
        return [(ahead - behind) / (2 * h) for ahead, behind in zip(*ends, strict=True)]

    def weighed(self) -> Iterable[tuple[float, Any]]:
        """Every batch with its weight."""
        return zip(self.problem.batch_weights, self.problem.data, strict=True)

    def whole(self, numbers: Sequence[float]) -> list[float]:
        """The numbers themselves, for all batches are evaluated here."""
        return list(numbers)

    def gradient(self, batch: Any, layer: Layer | None = None) -> Sequence[Tensor]:
        """The gradient of one batch's objective where the parameters stand, without a graph."""
        with self.problem.evaluation(), nullcontext() if self.holding is None else self.holding(batch):
            value = self.problem.evaluate(batch)
            return torch.autograd.grad(value, self.problem.parameters_of(layer), materialize_grads=True)

    def here(self) -> tuple[float, Tensor]:
        """Loss and gradient over all batches where the parameters stand, in float64."""
        return loss_and_gradient(self.problem, self.holding)

    def loss(self) -> float:
        """Loss over all batches where the parameters stand."""
        return self.problem.value()

    def origin(self) -> None:
        """Move back to theta."""
        with torch.no_grad():
            for parameter, value in zip(self.problem.parameters, self._theta, strict=True):
                parameter.copy_(value)

    def batch(self, batch: Any) -> Any:
        """A batch of the original problem in the copy's dtype."""
        return batches.to(batch, dtype=self._dtype)

    def products(
        self, vectors: Tensor, function: Callable[[], Sequence[Tensor]], zero: Sequence[Tensor]
    ) -> list[Tensor]:
        """Derivatives of a function of the parameters along each row of `vectors`, each stacked in the dtype of `zero`.

        Args:
            vectors: (k, N).
            function: Tensors at the place where the parameters stand.
            zero: Their derivative along zero.
        """
        if vectors.device.type == "cpu":
            lengths = [float(v.norm()) if bool(v.any()) else 0.0 for v in vectors]
        else:  # which is waited for once
            lengths = vectors.norm(dim=1).cpu().tolist()
        found = [
            self.difference(v, self.multiple(length), function) if length else zero
            for v, length in zip(vectors, lengths, strict=True)
        ]
        return [
            torch.stack([row.to(like) for row in rows])
            for rows, like in zip(zip(*found, strict=True), zero, strict=True)
        ]


class GradientDifferences:
    """One batch's part of the Hessian: differences of gradients instead of a second derivative."""

    def __init__(self, moved: Moved, batch: Any, dtype: torch.dtype) -> None:
        self._moved, self._batch, self._dtype = moved, moved.batch(batch), dtype

    def flat_gradient(self) -> Tensor:
        """The gradient as one vector, (N,)."""
        self._moved.origin()
        return torch.cat([part.reshape(-1).to(self._dtype) for part in self._moved.gradient(self._batch)])

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Hessian rows for each row of `vectors` (k, N): two gradients for each."""
        zero = [
            torch.zeros_like(parameter, dtype=self._dtype) for parameter in self._moved.problem.parameters_of(layer)
        ]
        return list(self._moved.products(vectors, lambda: self._moved.gradient(self._batch, layer), zero))


class Raw(Protocol):
    """A matrix whose products can be had as they come."""

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""

    def raw(self, vectors: Tensor) -> Tensor:
        """With the columns of a matrix (N, k)."""


def disagreement(matrix: Raw, moved: Moved) -> float:
    """Largest distance between products of two step sizes, for random vectors and some unit vectors.

    Relative to the products, but at least to what those of the random vector lead to expect.
    """
    generator = torch.Generator().manual_seed(0)
    n = matrix.shape[0]
    vectors = torch.zeros(1 + UNITS, n, dtype=torch.float64)
    vectors[0] = torch.randn(n, generator=generator, dtype=torch.float64) / n**0.5
    vectors[range(1, 1 + UNITS), torch.randint(n, (UNITS,), generator=generator)] = 1.0
    single = matrix.raw(vectors.T).T.double()
    moved.factor = 2.0
    try:
        double = matrix.raw(vectors.T).T.double()
    finally:
        moved.factor = 1.0
    sizes = torch.maximum(single.norm(dim=1), double.norm(dim=1))
    apart = (single - double).norm(dim=1)
    return float((apart / sizes.clamp_min(float(sizes[0])).clamp_min(torch.finfo(torch.float64).tiny)).max())
