"""The check that all measurements of a model share: products, their symmetry, and the point they are taken at."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hessdiag.curvature.differences import Moved, loss_and_gradient, reason
from hessdiag.curvature.point import words
from hessdiag.curvature.point.gates import beside
from hessdiag.curvature.point.held import coarsest
from hessdiag.curvature.point.line import Place, finite
from hessdiag.curvature.point.resolve import Found, Scene, resolve
from hessdiag.curvature.point.result import Kind, Pieces, Point
from hessdiag.curvature.point.standing import FAILS, Standing, UnsteadyError, seeded, standing
from hessdiag.errors import ComputeError, ExitCode
from hessdiag.linalg.tridiagonal import LONG, safe_norm
from hessdiag.machine import memory
from hessdiag.machine.collectives import summed
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem

# Largest relative error at which products are still believed, by dtype.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.2}
ANOTHER = 0.5  # relative distance of gradients of the model and of its copy beyond which these are two functions
_CLOSURE = "the objective reaches the model by another way than its argument, so that a copy cannot take its place"
COMPANY = 4  # vectors whose symmetry is checked, where they can share a pass
FEWEST = 2  # where differences tell of them anyway: still as many as share a pass, so that what is checked is in use


class NoHessianError(ComputeError):
    """There is no Hessian at this point, or none that can be had."""

    exit_code = ExitCode.INEXACT


class PointWarning(UserWarning):
    """What is special about the point at which a matrix of second derivatives is taken."""


class Matrix(Protocol):
    """What is asked of a matrix of second derivatives."""

    problem: Problem
    matrix: str
    second: bool
    missing: str | None
    batched: bool
    unbatched: str | None

    @property
    def chunk(self) -> int:
        """Vectors that share a pass."""

    @property
    def precision(self) -> float:
        """Relative error of products."""

    @property
    def moved(self) -> Moved | None:
        """The copy that differences are taken on, if they are."""

    def raw(self, vectors: Tensor, *, share: bool = False) -> Tensor:
        """Products with the columns of a matrix as autograd gives them, NaN included; in one pass with `share`."""

    def on(self, problem: Problem) -> "Matrix":
        """The same matrix of another problem."""

    def turn_to(self, moved: Moved, why: str) -> None:
        """Take differences of gradients from now on."""

    def forget(self) -> None:
        """Drop graphs that were made under other circumstances."""


@dataclass(frozen=True)
class Examination:
    """What the self-checks of a matrix found.

    Attributes:
        checks: Relative errors by name, as result documents hold them.
        point: What kind of point it is taken at.
        tolerance: What errors are allowed.
        size: Of the largest entry of its products.
        moved: The copy that products come from, where they are differences; `None` elsewhere.
    """

    checks: dict[str, float | None]
    point: Point
    tolerance: float
    size: float
    moved: Moved | None = None

    @property
    def reason(self) -> str:
        """Why products are differences, for the report."""
        return self.point.why or _reason(self.point) if self.point.kind == "once" else _reason(self.point)

    @property
    def failed(self) -> bool:
        """Whether the numbers of this run cannot be trusted: then nothing is proven by them."""
        errors = [value for value in self.checks.values() if value is not None]
        return not self.point.trusted or any(not value <= self.tolerance for value in errors)

    def also(self, more: dict[str, float | None], inside: torch.dtype | None = None) -> "Examination":
        """With other checks beside these, and the coarser dtype inside the model if they met one."""
        if inside is None:
            return replace(self, checks=self.checks | more)
        point = replace(self.point, computes_in=str(inside).removeprefix("torch."))
        tolerance = max(self.tolerance, TOLERANCE[inside])
        return replace(self, checks=self.checks | more, point=point, tolerance=tolerance)

    @property
    def special(self) -> bool:
        """Whether this is anything but a smooth point of a function that is always the same."""
        return self.point.kind != "smooth" or bool(self.point.draw)

    def tell(self) -> None:
        """Say what a person has to know before believing the matrix.

        Raises:
            NoHessianError: if it cannot be trusted.
        """
        said = words.describe(self.point)
        if self.failed:
            if said is None or said.level != "bad":
                errors = ", ".join(f"{name} {value:.1e}" for name, value in self.checks.items() if value is not None)
                raise NoHessianError(
                    f"the products are not those of a Hessian: {errors}, allowed {self.tolerance:.0e}.",
                    "check=False, to have them nevertheless",
                )
            raise NoHessianError(
                f"{said.says[0].lower()}{said.says[1:].rstrip('.')} ({said.because}).",
                f"{said.remedy}; check=False, to have the numbers nevertheless",
            )
        for sentence in (said, words.drawn(self.point)):
            if sentence is not None and sentence.level == "warn":
                warnings.warn(f"{sentence.says} ({sentence.because})", PointWarning, stacklevel=5)


def examine(operator: Matrix, seed: int = 0, how: Callable[[Matrix, int], Examination] | None = None) -> Examination:
    """Check a matrix once for its problem and parameters, and let it take differences where autograd fails.

    Args:
        operator: The matrix. Where the point asks for it, it turns to differences.
        seed: Of the random vectors.
        how: What checks it; by default a copy of the model is moved.
    """
    problem = operator.problem
    entry = _entry(problem, operator.matrix)
    if entry is not None and entry[1] == seed:
        found = entry[2]
        operator.batched, operator.unbatched = entry[3]  # which products of the check have shown
    else:
        found = (how or _examine)(operator, seed)
        if problem.n_parameters > LONG:
            memory.give_back()
        passes = operator.batched, operator.unbatched
        vars(problem).setdefault("_examinations", {})[operator.matrix] = fingerprint(problem), seed, found, passes
    if found.moved is not None and operator.missing is None:
        operator.turn_to(found.moved, found.reason)
    return found


_Entry = tuple[Tensor, int, Examination, tuple[bool, str | None]]


def known(problem: Problem, matrix: str) -> Examination | None:
    """What was found of a problem's matrix at these parameters; `None` where it was not looked at."""
    entry = _entry(problem, matrix)
    return None if entry is None else entry[2]


def _entry(problem: Problem, matrix: str) -> _Entry | None:
    entry: _Entry | None = vars(problem).get("_examinations", {}).get(matrix)
    return entry if entry is not None and torch.equal(entry[0], fingerprint(problem)) else None


def fingerprint(problem: Problem) -> Tensor:
    """Numbers that change when parameters do; in every process the same, where each holds a piece of them."""
    spread = isinstance(problem, ShardedProblem)
    leaves: Sequence[Tensor] = problem.pieces if isinstance(problem, ShardedProblem) else problem.parameters
    with torch.no_grad():
        place = leaves[0].device
        sums = [leaf.sum().double().to(place) for leaf in leaves]
        norms = torch._foreach_norm(list(leaves))  # a GPU is asked and waited for once
        own = torch.stack([*sums, *(norm.double().to(place) for norm in norms)]).cpu().nan_to_num()
        return summed(own) if spread else own


def _reason(point: Point) -> str:
    where = words.listed(point.parameters)
    if point.kind == "nan":
        return f"autograd's second derivative is not finite in {where}"
    if point.engine == "held differences":
        return f"the point is at a kink and autograd fails in {where}; choices are held"
    return f"autograd's second derivative is wrong in {where}"


def _examine(operator: Matrix, seed: int) -> Examination:
    problem = operator.problem
    passes = operator.batched, operator.unbatched
    with seeded(problem):
        stand, why = standing(problem)
        try:
            return _looked(operator, seed, stand, why)
        except UnsteadyError as found:
            draw = found.draw
    assert stand is not None
    operator.batched, operator.unbatched = passes
    for one in (problem, *(() if operator.moved is None else (operator.moved.problem,))):
        one.draw_once()  # torch's random numbers start from the same seed in every evaluation
    operator.forget()
    random = stand.freeze()
    return _looked(operator, seed, stand, why, draw, random=random)


def _looked(
    operator: Matrix, seed: int, stand: Standing | None, why: str | None, draw: float = 0.0, *, random: bool = False
) -> Examination:
    """What is found from a copy at theta; `why` says why there is none.

    Raises:
        UnsteadyError: if passes there turn out to differ, and one draw was not settled on before.
    """
    problem, moved = operator.problem, None if stand is None else stand.moved
    whole = _vectors(operator, seed)
    V = whole[:, :FEWEST] if operator.second and stand is not None else whole
    HV = operator.raw(V, share=whole.shape[1] >= COMPANY)
    rewritten = problem.rewritten or (() if moved is None else moved.problem.rewritten)
    size = float(HV.abs().max()) if finite(HV) else math.inf
    held = Found(Point())
    if stand is not None and (rewritten or operator.missing is not None or not operator.second):
        stand.insist()
    if random:
        point = Point("random")
    elif rewritten:
        point = Point("rewritten", parameters=rewritten)
    elif operator.missing is not None:
        point = Point("once", "differences", why=operator.missing)
    elif not operator.second:
        point = Point()
    elif stand is None:
        point = Point("unchecked" if finite(HV) else "no_hessian", error=None if finite(HV) else math.inf, why=why)
    else:
        held = _resolved(operator, stand, V, HV)
        point = held.point
    if point.kind not in ("smooth", "random", "rewritten") and stand is not None and _elsewhere(problem, stand.here):
        point = Point("unchecked" if operator.missing is None else "unresolved", why=_CLOSURE)
    point = replace(point, draw=draw)
    if stand is not None and operator.second and point.kind in ("smooth", "kink"):
        point = replace(point, pieces=_pieces(stand, point))
    engine = operator.moved
    if point.engine != "autograd" and operator.missing is None and moved is not None:
        moved.holding = held.held
        if point.step is not None and held.held is None:
            moved.relative = point.step
        moved.origin()
        operator.turn_to(moved, _reason(point))
        engine = moved
        V = V[:, :2]
        HV = operator.raw(V)
        size = float(HV.abs().max()) if finite(HV) else math.inf
    if point.error is None and V.shape[1] < whole.shape[1]:  # symmetry is all that there is
        V, HV = whole, torch.cat([HV, operator.raw(whole[:, FEWEST:])], dim=1)
    checks: dict[str, float | None] = {"hvp_symmetry": asymmetry(V, HV)}
    if operator.missing is not None:
        checks["hvp_two_steps"] = operator.precision
    elif operator.second:
        checks["hvp_finite_difference"] = point.error
    inside = problem.dtype if point.computes_in is None else getattr(torch, point.computes_in)
    tolerance = max(TOLERANCE[dtype] for dtype in (inside, *(parameter.dtype for parameter in problem.parameters)))
    return Examination(checks, point, tolerance, size, engine)


def _pieces(stand: Standing, point: Point) -> Pieces | None:
    """What a step beside the point says of kinks; `None` where there are none, or it cannot be taken."""
    inside = stand.moved.problem.dtype if point.computes_in is None else getattr(torch, point.computes_in)
    before = None if stand.noted is None else (stand.here.loss, stand.noted)
    try:
        return beside(stand.moved, stand.here.gradient, float(torch.finfo(inside).eps), before)
    except FAILS:
        return None


def _elsewhere(problem: Problem, copy: Place) -> bool:
    """Whether the copy is another function: one that does not reach the copied parameters."""
    gradient = loss_and_gradient(problem)[1]
    if not finite(gradient) or not finite(copy.gradient):
        return False
    size = max(safe_norm(gradient), safe_norm(copy.gradient))
    return safe_norm(gradient - copy.gradient) > ANOTHER * size


def _vectors(operator: Matrix, seed: int) -> Tensor:
    """Random vectors, (N, k): one on all coordinates, one on those that are exactly zero, and company.

    As many as share a pass, so that what is checked is what commands use. None moves what padding freezes.
    """
    problem = operator.problem
    count = COMPANY if operator.chunk >= COMPANY else 2
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn(count, problem.n_parameters, generator=generator)
    mask = unfrozen(problem)
    V[0] *= mask
    zero = zeros(problem) * mask
    if 0 < float(zero.sum()) < float(mask.sum()):
        V[1] *= zero
    return V.to(problem.device, torch.promote_types(problem.dtype, torch.float32)).T


def zeros(problem: Problem) -> Tensor:
    """1 for every parameter that is exactly zero."""
    return torch.cat([(parameter.detach() == 0).reshape(-1) for parameter in problem.parameters]).cpu().float()


def unfrozen(problem: Problem) -> Tensor:
    """1 for every parameter, but 0 for the rows of embeddings that padding freezes."""
    masks: dict[Tensor, Tensor] = {parameter: torch.ones(parameter.shape) for parameter in problem.parameters}
    for module in problem.model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None and module.weight in masks:
            masks[module.weight][module.padding_idx] = 0.0
    return torch.cat([mask.reshape(-1) for mask in masks.values()])


def asymmetry(V: Tensor, HV: Tensor) -> float:
    """Relative asymmetry |u'Hv - v'Hu| / (|u||Hv|), the worst pair; 0 when their products vanish."""
    HV = HV / (HV.abs().max() or 1.0)  # squares of small numbers would vanish
    scale = V.norm(dim=0)[:, None] * HV.norm(dim=0)
    forms = V.T @ HV
    return float(torch.where(scale > 0, (forms - forms.T).abs() / scale, 0.0).max())


def _resolved(operator: Matrix, stand: Standing, V: Tensor, HV: Tensor) -> Found:
    moved = stand.moved

    def product(v: Tensor) -> Tensor:
        return operator.on(moved.problem).raw(v[:, None])[:, 0]

    # Of long vectors few samples are held and each takes long, so that it pays to know beforehand which steps to take.
    inside = coarsest(moved) if len(V) > LONG else None
    scene = Scene(stand, product, TOLERANCE, inside)
    zero = bool((V[:, 1] == 0).sum() > (V[:, 0] == 0).sum())
    columns = (0, 1) if zero else (0,)
    try:
        if not finite(stand.here.gradient):
            stand.insist()
            return Found(scene.without_gradient())
        found = resolve(scene, [V[:, c] for c in columns], [HV[:, c] for c in columns], operator.problem.dtype)
        stand.insist()
        return found
    except FAILS as error:
        kind: Kind = "unchecked" if finite(HV) else "no_hessian"
        return Found(Point(kind, error=None if finite(HV) else math.inf, why=f"at a step aside: {reason(error)}"))
