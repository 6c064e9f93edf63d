"""The loss's curvature in what it receives by central differences of its gradients, where autograd fails."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hessdiag.curvature.received import LEAST, Function, Received, evaluated, length, loss_and_slopes, output_of
from hessdiag.errors import ComputeError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.problem import Problem

AGREE = 1e-3  # of two routes, and of both sides, where the loss is smooth; at a kink they are apart by all there is
PRECISION = 1e-9  # of these differences in float64, relative; measured: 2e-12 to 1e-10


class Slopes:
    """Loss and gradient of one batch as functions of what the loss receives, in the widest dtype that it takes.

    Args:
        problem: Whose loss it is.
        z: What was received; differences are taken around it.
        function: The loss.
    """

    def __init__(self, problem: Problem, z: Received, function: Function) -> None:
        self._problem, self._z, self._function = problem, z, function
        self.start = [tensor.detach().to(torch.float64) for tensor in z.tensors]
        try:
            self._at(self.start)
        except (ComputeError, RuntimeError, MemoryError) as error:
            if not isinstance(error, ComputeError) and not ran_out(error):
                raise
            # The loss mixes in tensors of the model's own dtype, or float64 does not fit.
            self.start = [tensor.detach() for tensor in z.tensors]
        self.scale = math.sqrt(sum(tensor.numel() for tensor in self.start))  # of numbers of size 1
        self.reach = length(self.start, LEAST)
        self.eps = max(torch.finfo(tensor.dtype).eps for tensor in self.start)

    @property
    def precision(self) -> float:
        """Relative error of differences of gradients: what rounding leaves of them over the step."""
        return PRECISION if self.eps <= torch.finfo(torch.float64).eps else self.eps ** (2 / 3)

    def at(self, directions: Sequence[Tensor], h: float) -> tuple[float, list[Tensor]]:
        """Loss and gradient at z + h u."""
        return self._at([z + h * u.to(z) for z, u in zip(self.start, directions, strict=True)])

    def step(self, directions: Sequence[Tensor], order: int) -> float:
        """The multiple of u to go: the root of rounding of that order, times |z| / |u|."""
        return float(self.eps ** (1 / order)) * self.reach / length(directions)

    def product(self, directions: Sequence[Tensor]) -> list[Tensor]:
        """B u, a central difference of gradients."""
        if not length(directions):
            return [torch.zeros_like(u) for u in directions]
        h = self.step(directions, 3)
        (_, ahead), (_, behind) = self.at(directions, h), self.at(directions, -h)
        return [((a - b) / (2 * h)).to(u) for a, b, u in zip(ahead, behind, directions, strict=True)]

    def smooth(self, directions: Sequence[Tensor]) -> bool:
        """Whether both sides' differences of gradients, and those of losses at two steps, agree along u."""
        h = self.step(directions, 3)
        loss, here = self.at(directions, 0.0)
        slope = sum(float((u.to(g) * g).sum()) for u, g in zip(directions, here, strict=True))
        (_, ahead), (_, behind) = self.at(directions, h), self.at(directions, -h)
        sides = [[(a - b) / h for a, b in zip(*ends, strict=True)] for ends in ((ahead, here), (here, behind))]
        size = max(length(side) for side in sides)
        if not math.isfinite(size) or length([a - b for a, b in zip(*sides, strict=True)]) > AGREE * size:
            return False
        form = sum(float((u.to(a) * (a + b)).sum()) for u, a, b in zip(directions, *sides, strict=True)) / 2
        k = self.step(directions, 4) * max(1.0, self.scale / self.reach)  # rounding of losses wants long steps
        for step in (k, k / 4):
            (ahead_loss, _), (behind_loss, _) = self.at(directions, step), self.at(directions, -step)
            noise = 100 * self.eps * abs(loss)
            rise, bend = (ahead_loss - behind_loss) / (2 * step), (ahead_loss - 2 * loss + behind_loss) / step**2
            if not abs(rise - slope) <= AGREE * max(abs(rise), abs(slope)) + noise / step:
                return False
            if not abs(bend - form) <= AGREE * max(abs(bend), abs(form)) + noise / step**2:
                return False
        return True

    def _at(self, tensors: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        with evaluated(self._problem):
            value, slopes = loss_and_slopes(self._function, self._z, leaves)
            return float(value), slopes


def middle(problem: Problem, z: Received, function: Function) -> Callable[[list[Tensor]], list[Tensor]]:
    """Products of B with rows of tensors (k, *z.shape), one for each tensor of z; two gradients of the loss each."""
    slopes = Slopes(problem, z, function)

    def products(vectors: list[Tensor]) -> list[Tensor]:
        rows = [slopes.product([part[row] for part in vectors]) for row in range(len(vectors[0]))]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    return products


def error_if_smooth(problem: Problem, function: Function, seed: int = 0) -> float | None:
    """Relative error of these differences where the loss of every batch has one curvature, else `None`.

    It is looked at along a random direction in what the loss receives.
    """
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    for batch in problem.data:
        with evaluated(problem):
            z = output_of(problem, batch)
        directions = [torch.randn(part.shape, generator=generator).to(part.device) for part in z.tensors]
        slopes = Slopes(problem, z, function)
        if not slopes.smooth(directions):
            return None
        largest = max(largest, slopes.precision)
    return largest
