"""From a product and a copy that can be moved to the kind of point, and to what gives right products there."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hessdiag.curvature.differences import Moved
from hessdiag.curvature.point.blame import apart_in, misled, not_finite_in, rows_not_finite
from hessdiag.curvature.point.classify import CLEAR, CONVERGED, DEEP_NOISE, ONE_SIDED, Judge, Outcome
from hessdiag.curvature.point.held import HeldPieces
from hessdiag.curvature.point.line import Line, Place, Sample, finite
from hessdiag.curvature.point.result import Kind, Kink, Point
from hessdiag.curvature.point.sides import Kinks, Side
from hessdiag.curvature.point.standing import Standing
from hessdiag.curvature.point.watch import OtherPathError
from hessdiag.errors import ComputeError
from hessdiag.linalg.tridiagonal import LONG, safe_norm
from hessdiag.machine.shortage import ran_out

CLEARLY = 1e-4  # error from which a product in a coarse dtype is looked at again in float64
FARTHEST = 1e3  # ratio of two directions' products up to which one sum shows both
DEEP_COARSE = (2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6)  # levels of small steps where a model computes in a coarse dtype

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """The point, the pieces that differences must hold there, if any, and the level at which a line was clean."""

    point: Point
    held: HeldPieces | None = None
    level: float | None = None


@dataclass(frozen=True)
class Scene:
    """What a point is judged by.

    Attributes:
        standing: A copy of the problem, in float64 where that can be, with loss and gradient at theta.
        product: H v by autograd where the copy stands.
        tolerances: Of products, by dtype.
        inside: The coarsest dtype that the copy computes in, where that was looked at before.
    """

    standing: Standing
    product: Product
    tolerances: dict[torch.dtype, float]
    inside: torch.dtype | None = None

    @property
    def moved(self) -> Moved:
        """The copy."""
        return self.standing.moved

    @property
    def eps(self) -> float:
        """Rounding of the copy."""
        return float(torch.finfo(self.moved.problem.dtype).eps)

    def without_gradient(self) -> Point:
        """The point where the gradient itself is not finite."""
        gradient = self.standing.here.gradient
        return Point(
            "no_hessian",
            error=math.inf,
            parameters=not_finite_in(self.moved, gradient),
            rows=rows_not_finite(self.moved, gradient),
            why="the gradient itself is NaN or infinite",
        )


def resolve(scene: Scene, directions: list[Tensor], products: list[Tensor], own: torch.dtype) -> Found:
    """The kind of point, from products along one or two directions.

    Args:
        scene: The copy, and what it gives at theta.
        directions: Random vectors: on all coordinates, and on those that are exactly zero.
        products: With them, in the problem's own dtype.
        own: That dtype.
    """
    together = _together(scene, directions, products, own)
    if together is not None:
        return together
    found: list[Found] = []
    for v, product in zip(directions, products, strict=True):
        inside = scene.inside
        if found and found[0].point.computes_in is not None:
            inside = getattr(torch, found[0].point.computes_in)
        found.append(_along(scene, v, product, own, found[0].level if found else None, inside))
    worst = next((one for one in found if one.point.kind != "smooth"), None)
    if worst is None:
        errors = [one.point.error or 0.0 for one in found]
        return found[errors.index(max(errors))]
    if worst.point.kind == "kink" and len(found) > 1 and found[1].point.kind.startswith("kink_"):
        return found[1]  # that autograd is wrong beside the kink shows best where parameters are zero
    return worst


def _together(scene: Scene, directions: list[Tensor], products: list[Tensor], own: torch.dtype) -> Found | None:
    """Both directions at once, each with the same weight in the product; `None` where that is not clean at once.

    Products are linear, so that the one with a sum is known. Of a coarse dtype alone: elsewhere tensors are looked at
    one by one.
    """
    fine = scene.moved.problem.dtype == torch.float64 and scene.inside in (None, torch.float64)
    if len(directions) < 2 or own == torch.float64 or not fine:
        return None
    sizes = [safe_norm(product) for product in products]
    if not 0 < sizes[0] < math.inf or not sizes[0] / FARTHEST < sizes[1] < sizes[0] * FARTHEST:
        return None
    weight = sizes[0] / sizes[1]
    line = Line(scene.moved, directions[0] + weight * directions[1], scene.standing.here, scene.eps)
    level = _first(line)
    if level is None:
        return None
    judge = Judge(line, products[0] + weight * products[1], CLEARLY, ())
    clean = judge.at_once(level)
    scene.standing.settle(judge, clean)
    return _still(scene, line, judge) if clean is None else _smooth(line, clean)


def _along(
    scene: Scene, v: Tensor, product: Tensor, own: torch.dtype, likely: float | None, inside: torch.dtype | None
) -> Found:
    moved, dtype = scene.moved, scene.moved.problem.dtype
    line = Line(moved, v, scene.standing.here, scene.eps)
    if inside not in (None, torch.float64):  # known before: small steps would show rounding only
        assert inside is not None
        precise = product.to(line.v) if own == dtype else _at_theta(scene, line.v)
        found = _coarse(scene, line, precise, inside)
        return found if own == dtype else _rounded(found, product.to(precise), precise, scene.tolerances[own])
    precise = product.to(line.v)
    if dtype != torch.float64:  # the copy is as coarse as the model: its steps cross kinks
        return _coarse(scene, line, precise, dtype)
    if own == dtype:
        return _precisely(scene, line, precise, scene.tolerances[dtype], likely)
    judge = Judge(line, precise, CLEARLY, ())
    first = _first(line) if likely is None else likely
    clean = judge.at_once(0 if first is None else first)
    scene.standing.settle(judge, clean)
    still = _still(scene, line, judge) if clean is None else None
    if still is not None:
        return still
    clean = clean or judge.clean(first)
    if clean is not None:
        return _smooth(line, clean)
    precise = _at_theta(scene, line.v)
    found = _precisely(scene, line, precise, scene.tolerances[dtype], likely)
    return _rounded(found, product.to(precise), precise, scene.tolerances[own])


def _first(line: Line) -> int | None:
    """A level that crosses few kinks, where losses still tell to first order whose gradients these are.

    What a coarse dtype allows leaves room for the rounding of a small step, and a larger one would cross the kinks of
    most piecewise-linear networks, in vain.
    """
    return CLEAR if line.sharp(CLEAR) else None


def _smooth(line: Line, clean: Outcome) -> Found:
    point = Point(error=clean.error, step=clean.sample.relative)
    return Found(point, level=line.level(clean.sample))


def _precisely(scene: Scene, line: Line, product: Tensor, tolerance: float, likely: float | None) -> Found:
    """The kind of point from a product in float64."""
    judge = Judge(line, product, tolerance, scene.moved.problem.places())
    clean = judge.clean(likely)
    scene.standing.settle(judge, clean)
    if clean is not None:
        return _smooth(line, clean)
    kinks = Kinks(scene.moved, line)
    if kinks.dtype != torch.float64:
        return _coarse(scene, line, product, kinks.dtype)
    still = _still(scene, line, judge, kinks)
    if still is not None:
        return still
    outcome = judge.judge(lambda: bool(kinks.units()))
    return _explained(scene, line, product, outcome, judge, kinks)


def _still(scene: Scene, line: Line, judge: Judge, kinks: Kinks | None = None) -> Found | None:
    """A smooth point where every step crosses kinks, from one step with the pieces held; `None` where it does not show.

    Millions of units have some within any step. Beside a point at which none of them is at its kink, the function is
    that with the pieces held, and so is its second derivative.

    Args:
        scene: The copy.
        line: Along v.
        judge: Of the product.
        kinks: Of the line, where they are known.
    """
    moved = scene.moved
    if len(line.v) > LONG or not finite(judge.product):
        return None
    try:
        kinks = kinks or Kinks(moved, line)
        if not kinks.any or kinks.dtype != torch.float64 or kinks.jumping or kinks.units():
            return None
        moved.holding = HeldPieces(moved, tight=False)
        sample = Line(moved, line.v, scene.standing.here, line.eps).sample(0)
    except (OtherPathError, ComputeError, RuntimeError, TypeError, ValueError) as error:
        if ran_out(error):
            raise
        return None
    finally:
        moved.holding = None
    return Found(Point(error=judge.error(sample), step=sample.relative)) if judge.agrees(sample) else None


def _at_theta(scene: Scene, v: Tensor) -> Tensor:
    scene.moved.origin()
    return scene.product(v).to(v)


def _rounded(found: Found, product: Tensor, precise: Tensor, tolerance: float) -> Found:
    """Whether a product in the model's own dtype is far from the same in float64."""
    if not finite(precise) or found.point.engine != "autograd" or not found.point.trusted:
        return found
    size = safe_norm(precise)
    apart = (
        safe_norm(product - precise) / size if size and finite(product) else 0.0 if finite(product) else float("inf")
    )
    if apart > tolerance:
        return Found(Point("rounding", error=apart, step=found.point.step))
    return Found(replace(found.point, error=max(apart, found.point.error or 0.0)), found.held)


def _coarse(scene: Scene, line: Line, product: Tensor, dtype: torch.dtype) -> Found:
    """A model that computes in a coarse dtype: steps are long and cross kinks, so that pieces are held if need be."""
    eps = float(torch.finfo(dtype).eps)
    coarse = line.like(eps)
    name = str(dtype).removeprefix("torch.")
    tolerance = scene.tolerances[dtype]
    judge = Judge(coarse, product, tolerance, (), coarse=True)
    sample = _first_that_agrees(coarse, judge)
    clean = judge.outcome("agrees", sample) if judge.agrees(sample) else None
    scene.standing.settle(judge, clean)
    point = Point(error=judge.error(sample), step=sample.relative, computes_in=name)
    if clean is not None:
        return Found(point)
    held = _held(scene, coarse, converged=False)
    if held is not None and judge.agrees(held[1]):
        return Found(replace(point, error=judge.error(held[1])))
    if not finite(product):
        return Found(_not_finite(scene, product, point))
    return Found(replace(point, kind="rounding"))


def _first_that_agrees(line: Line, judge: Judge) -> Sample:
    """Of two steps and, where the network bends along both, smaller ones, as long as rounding leaves enough of them.

    A normalization of values that are all zero bends within 1e-6 of them, and its slopes are so large that rounding
    leaves much of such a step.

    Where none agrees it is the better one of the two, along a long vector taken anew.
    """
    levels: tuple[int, ...] = (0, 1)
    if len(line.v) <= LONG:
        levels = tuple(sorted(levels, key=lambda level: judge.error(line.sample(level))))
    errors = []
    for level in levels:
        if judge.agrees(line.sample(level)):
            return line.sample(level)
        errors.append(judge.error(line.sample(level)))
    for deep in DEEP_COARSE:
        sample = line.sample(deep)
        if judge.agrees(sample, deep=True):
            return sample
        if not 3 * sample.noise <= DEEP_NOISE * judge.scale(sample):  # which grows as the step shrinks
            break
    return line.sample(levels[errors.index(min(errors))])


def _explained(scene: Scene, line: Line, product: Tensor, outcome: Outcome, judge: Judge, kinks: Kinks) -> Found:
    sample = outcome.sample
    point = Point(error=outcome.error, step=sample.relative)
    if outcome.finding == "agrees":
        return Found(point)
    scale = judge.scale(sample)
    if outcome.finding == "wrong":
        names, rows = apart_in(scene.moved, product - sample.mean, scale), rows_not_finite(scene.moved, product)
        kind: Kind = "wrong" if finite(product) else "nan"
        return Found(replace(point, kind=kind, engine="differences", parameters=names, rows=rows))
    if outcome.finding == "inconsistent":
        share = abs(sample.mismatch) / sample.slope if sample.slope else float("inf")
        names = misled(scene.moved, scene.standing.here.gradient, line)
        return Found(replace(point, kind="inconsistent", error=share, parameters=names, rounds=kinks.jumping))
    if outcome.finding == "unresolved":
        held = _held(scene, line)
        if held is not None and judge.agrees(held[1]) and not kinks.units():
            return Found(replace(point, error=judge.error(held[1]), step=held[1].relative))
        return Found(_not_finite(scene, product, point) if not finite(product) else replace(point, kind="unresolved"))
    return _at_kink(scene, line, product, outcome, judge, kinks)


def _at_kink(scene: Scene, line: Line, product: Tensor, outcome: Outcome, judge: Judge, kinks: Kinks) -> Found:
    """Whose numbers autograd's are, where the gradient or the curvature jumps."""
    sample, size = outcome.sample, safe_norm(scene.standing.here.gradient)
    jump = None if outcome.jump is None else safe_norm(outcome.jump) / (size or 1.0)
    held = _held(scene, line)
    smooth_abs = held is not None and not held[0].tight  # |p|^2 is no kink
    where = tuple(
        Kink(units.module, units.operation, units.at, units.at / units.of, jump)
        for units in kinks.units(("abs", "absolute", "l1_loss") if smooth_abs else ())
    )
    half, squared = float(sample.half @ line.v), float(line.v @ line.v)
    mean = float(sample.mean @ line.v)
    point = Point(
        "kink",
        error=outcome.error,
        step=sample.relative,
        kinks=where,
        spread=None if outcome.jump is not None else 2 * safe_norm(sample.half) / (judge.scale(sample) or 1.0),
        one_sided=((mean - half) / squared, (mean + half) / squared),
    )
    if not finite(product):
        point = _not_finite(scene, product, point)
        if held is None:
            return Found(point)
        return Found(replace(point, kind="kink_and_nan", engine="held differences", beside="held"), held[0])
    sides = _sides(scene, line, product, kinks)
    matching = [side for side in sides if side.same]
    right = [side.error for side in matching if side.right]
    held_error = None if held is None else judge.error(held[1])
    if right:
        error = held_error if held_error is not None and held_error <= CLEARLY else min(right)
        everywhere = len(matching) == len(sides) and not kinks.sided
        return Found(replace(point, error=error, beside="everywhere" if everywhere else "adjacent"))
    if held is not None and held_error is not None:
        if held_error > CLEARLY:
            apart = product - held[1].mean
            names = apart_in(scene.moved, apart, max(safe_norm(product), held[1].size))
            wrong = replace(point, kind="kink_and_wrong", engine="held differences", beside="held", parameters=names)
            return Found(replace(wrong, error=held_error), held[0])
        if kinks.unseen:
            return Found(replace(point, error=held_error, beside="held"))
    jumped = outcome.jump if outcome.jump is not None else sample.half
    return Found(replace(point, kind="no_hessian", parameters=apart_in(scene.moved, jumped, safe_norm(jumped))))


def _sides(scene: Scene, line: Line, product: Tensor, kinks: Kinks) -> list[Side]:
    """What H v is on the sides that autograd took, on the opposite ones, and on a random one; as many as it takes."""
    generator = torch.Generator().manual_seed(1)
    aside = torch.randn(len(line.v), generator=generator, dtype=torch.float64).to(line.v)
    found: list[Side] = []
    for sign in (1, -1, 0):
        w = kinks.towards(sign) if sign else aside * (line.v != 0)
        if w is not None:
            with suppress(ComputeError):
                found.append(kinks.side(w, product, scene.product))
        if kinks.sided and found and found[-1].same and found[-1].right:
            break
    return found


def _held(scene: Scene, line: Line, *, converged: bool = True) -> tuple[HeldPieces, Sample] | None:
    """Differences with all pieces held, where those are smooth along the line; `None` where they are not."""
    moved = scene.moved
    for tight in (False, True):
        pieces = HeldPieces(moved, tight=tight)
        moved.holding = pieces
        try:
            moved.origin()
            held = Line(moved, line.v, Place(*moved.here()), line.eps)
            sample = held.sample(0)
            if not finite(sample.mean):
                continue
            if not converged:
                return pieces, sample
            finer = held.sample(1)
        except (OtherPathError, ComputeError, RuntimeError, TypeError, ValueError) as error:
            if ran_out(error):
                raise
            continue
        finally:
            moved.holding = None
        scale = max(sample.size, finer.size)
        if (
            safe_norm(sample.mean - finer.mean) <= CONVERGED * scale + finer.noise
            and safe_norm(sample.half) <= ONE_SIDED * scale + sample.noise
        ):
            return pieces, sample
    return None


def _not_finite(scene: Scene, product: Tensor, point: Point) -> Point:
    names, rows = not_finite_in(scene.moved, product), rows_not_finite(scene.moved, product)
    return replace(point, kind="no_hessian", error=float("inf"), parameters=names, rows=rows)
