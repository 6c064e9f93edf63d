"""Self-checks of a sharded problem's matrix, in a few local vectors: there is no copy of the model to compare with.

Products are compared with differences of gradients in the model's own dtype, and the gradient with differences of the
loss, while the pieces move where they lie.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hessdiag.curvature.differences import STEP
from hessdiag.curvature.point.examine import TOLERANCE, Examination, Matrix
from hessdiag.curvature.point.line import LOSS_ROUNDING, ROUNDING
from hessdiag.curvature.point.result import Point
from hessdiag.curvature.point.standing import SAME_COARSE, SAME_LOSS
from hessdiag.curvature.point.watch import DIGITS, OtherPathError
from hessdiag.curvature.sharded import local
from hessdiag.curvature.sharded.judge import Step, Told, judged
from hessdiag.curvature.sharded.kinks import Held, Looking, Seen, merged
from hessdiag.curvature.sharded.moved import Around, MovedPieces, moving
from hessdiag.shards.problem import ShardedProblem

# Steps: half a cube root of rounding over powers of ten. The first two are always taken, for they tell the error.
LEVELS = (0.0, 0.5, 1.0, 2.0, -1.0, -2.0)
RECOMPUTED = "and the units of a sharded model draw anew whenever they compute anew"


def examined(operator: Matrix, seed: int) -> Examination:
    """Check a matrix of a sharded problem.

    Its products stay whatever is found, for there are no differences to turn to. It takes two products, five gradients
    and six values; of memory, five local vectors at a time beside what a product or a gradient takes, and for networks
    with kinks two bytes for each of their units.

    Args:
        operator: The matrix.
        seed: Of the random vectors.
    """
    problem = operator.problem
    assert isinstance(problem, ShardedProblem)
    generator = torch.Generator().manual_seed(seed)
    v = local.direction(problem, generator)
    product = _product(operator, v)
    size = local.largest(product)
    asymmetry = math.inf
    if math.isfinite(size):
        asymmetry = _asymmetry(operator, v, product, local.direction(problem, generator))
    checks: dict[str, float | None] = {"hvp_symmetry": asymmetry}
    point, inside = Point(), problem.dtype
    if operator.second:
        if math.isfinite(size):
            point, inside = _point(problem, v, product)
        else:
            point = Point("no_hessian", error=math.inf, parameters=local.not_finite_in(problem, product))
        checks["hvp_finite_difference"] = point.error
    tolerance = max(TOLERANCE[dtype] for dtype in (inside, *(piece.dtype for piece in problem.pieces)))
    return Examination(checks, point, tolerance, size)


def _product(operator: Matrix, v: Tensor) -> Tensor:
    return operator.raw(v[:, None])[:, 0]


def _asymmetry(operator: Matrix, v: Tensor, Hv: Tensor, u: Tensor) -> float:
    """|u'Hv - v'Hu| over |u||Hv|, or over |v||Hu| where that is less; infinite if Hu is not finite."""
    Hu = _product(operator, u)
    if not math.isfinite(local.largest(Hu)):
        return math.inf
    forms, squares = local.inner((u, Hv), (v, Hu)), local.inner((u, u), (v, v), (Hv, Hv), (Hu, Hu))
    scales = math.sqrt(squares[0] * squares[2]), math.sqrt(squares[1] * squares[3])
    return max(abs(forms[0] - forms[1]) / scale if scale else 0.0 for scale in scales)


def _point(problem: ShardedProblem, v: Tensor, product: Tensor) -> tuple[Point, torch.dtype]:
    """The kind of point, and the coarsest dtype of anything that is differentiated."""
    with moving(problem) as moved:
        look = Looking(problem.model)
        losses = moved.loss(), moved.loss()
        gradient = torch.zeros_like(v)
        moved.add_gradient(gradient, 1.0, look)
        inside = min((seen.dtype for seen in look.seen), key=DIGITS.index)
        inside = min(inside, problem.dtype, key=DIGITS.index)
        scene = _Scene(moved, v, product, look.seen, float(torch.finfo(inside).eps), TOLERANCE[inside])
        draw = abs(losses[0] - losses[1]) / (max(map(abs, losses)) or 1.0)
        if draw > max(SAME_LOSS, SAME_COARSE * scene.eps):
            return Point("random", draw=draw, why=RECOMPUTED), inside
        slope = scene.slope(gradient, losses[0])
        del gradient
        point = scene.point()
    coarser = inside != problem.dtype
    point = replace(point, computes_in=str(inside).removeprefix("torch.") if coarser else None)
    if slope.off and point.kind != "kink":
        point = replace(point, kind="inconsistent", error=slope.error, step=slope.relative)
    unsearched = tuple(dict.fromkeys(name for seen in look.seen for name in seen.unsearched))
    return replace(point, unsearched=unsearched or None), inside


@dataclass(frozen=True)
class _Scene:
    """What a product is judged by.

    Attributes:
        moved: The problem, whose pieces move.
        v: The direction, (own,).
        product: H v.
        seen: The piecewise operations of each batch's gradient at theta.
        eps: Rounding of what is computed.
        tolerance: What is put up with.
    """

    moved: MovedPieces
    v: Tensor
    product: Tensor
    seen: list[Seen]
    eps: float
    tolerance: float

    def slope(self, gradient: Tensor, loss: float) -> Told:
        """The gradient's squared length beside differences of the loss along it, where they are largest."""
        squared = local.inner((gradient, gradient))[0]
        if not squared:
            return Told(0.0, self._relative(0), agrees=True, off=False)
        noise = LOSS_ROUNDING * self.eps * abs(loss)

        def steps() -> Iterator[Step[float]]:
            for level in LEVELS[:2]:
                h = self.moved.step(gradient, self._relative(level))
                ends = []
                for side in (1, -1):
                    self.moved.to(gradient, side * h)
                    ends.append(self.moved.loss())
                yield Step(self._relative(level), (ends[0] - ends[1]) / (2 * h), noise / h)

        return judged(steps(), squared, self.tolerance, size=abs, distance=lambda a, b: abs(a - b))

    def point(self) -> Point:
        """The kind of point."""
        ahead = Looking(self.moved.problem.model)
        kinked = any(seen.units or seen.unheld for seen in self.seen)
        told = self._told(LEVELS[:2] if kinked else LEVELS, first=ahead)
        if told.agrees:
            return Point(error=told.error, step=told.relative)
        kinks = merged(zip(self.seen, ahead.seen, strict=True))
        unheld = tuple(dict.fromkeys(name for seen in self.seen for name in seen.unheld))
        if unheld:
            told = self._told(LEVELS)
        elif kinked:
            told = self._held() or told
        if told.agrees and kinks:
            return Point("kink", error=told.error, step=told.relative, kinks=kinks, beside="held")
        if told.agrees or told.off:  # the check says what is wrong
            return Point(error=told.error, step=told.relative, kinks=kinks)
        if unheld:
            return Point("unchecked", why=f"steps cross kinks, and no rule holds {', '.join(unheld)} to a side")
        return Point("unresolved", error=told.error, kinks=kinks)

    def _relative(self, level: float) -> float:
        """The step of a level over |theta| / |v|."""
        return STEP * math.pow(self.eps, 1 / 3) * math.pow(10.0, -level)

    def _held(self) -> Told | None:
        """With all choices held as they are at theta; `None` where other operations are called beside it."""
        told = None
        for tight in (False, True):
            held = Held(self.moved, self.seen, tight=tight)
            with suppress(OtherPathError):
                told = self._told(LEVELS, around=held)
                if told.agrees:
                    return told
        return told

    def _told(self, levels: Sequence[float], around: Around | None = None, first: Around | None = None) -> Told:
        """The product beside differences of gradients, with what is done around each gradient, and around the first."""
        steps = self._steps(levels, around, first or around)
        return judged(steps, self.product, self.tolerance, size=local.norm, distance=local.distance)

    def _steps(self, levels: Sequence[float], around: Around | None, first: Around | None) -> Iterator[Step[Tensor]]:
        for level in levels:
            h = self.moved.step(self.v, self._relative(level))
            difference, largest = torch.zeros_like(self.v), 0.0
            for side in (1, -1):
                self.moved.to(self.v, side * h)
                largest = max(largest, self.moved.add_gradient(difference, side / (2 * h), first))
                first = around
            yield Step(self._relative(level), difference, ROUNDING * self.eps * largest / h)
            del difference
