"""What kind of point the parameters are at, as a result: no torch is needed to read it."""

from dataclasses import dataclass, field
from typing import Literal

from hessdiag.fields import Count, Interval, Number, Real

Kind = Literal[
    "smooth",  # autograd and differences agree
    "wrong",  # smooth, and autograd's second derivative is another
    "nan",  # smooth, and autograd's second derivative is not finite
    "kink",  # products are those of one piece beside the point
    "kink_and_wrong",  # on a kink, and autograd is wrong on every piece
    "kink_and_nan",  # on a kink, and autograd is not finite
    "no_hessian",  # curvature depends on the side, or is not finite from any
    "random",  # the forward pass draws numbers that are not torch's
    "rewritten",  # the forward pass changes parameters
    "inconsistent",  # the gradient is not that of the loss
    "rounding",  # products in the model's dtype are too coarse
    "unresolved",  # no step says
    "once",  # there is no second derivative: products are differences anyway
    "unchecked",  # no copy of the model can be made, or evaluated
]
Engine = Literal["autograd", "differences", "held differences"]
Beside = Literal["adjacent", "everywhere", "held"]

_UNTRUSTED = ("no_hessian", "random", "rewritten", "inconsistent", "rounding", "unresolved")


@dataclass(frozen=True)
class Kink:
    """Units of one kind in one module that lie exactly at a kink.

    Attributes:
        module: Its path; empty for what the model or the loss computes itself.
        operation: The piecewise operation, such as "relu".
        units: How many lie at the kink.
        share: Of all units of that operation there.
        jump: What the gradient jumps by across all kinks along a random direction, relative to its norm; `None` where
            it is only the curvature that jumps.
    """

    module: str
    operation: str
    units: int
    share: float
    jump: Number


@dataclass(frozen=True)
class Pieces:
    """What a step beside the point says of a network whose units have kinks: its Hessian is that of one piece.

    Attributes:
        gates: Units with a kink, over all samples.
        step: Length of a step down the gradient, relative to that of the parameters.
        flipped: Share of the gates that change side along it; `None` where no step was taken.
        missing: What kinks do to the loss along it, over that and the quadratic term; `None` where rounding covers it.
    """

    gates: Count
    step: Real
    flipped: Number = None
    missing: Number = None


@dataclass(frozen=True)
class Point:
    """What kind of point a problem's parameters are at.

    Attributes:
        kind: One of those above.
        engine: What gives the right products here.
        error: Relative distance of autograd's product from a difference of gradients along a random direction; `None`
            where there is none to compare, infinite where autograd's is not finite.
        step: Relative step of the difference that was believed.
        parameters: Where autograd is wrong or not finite, what the forward pass rewrites, or where the gradient is not
            the loss's; the worst first.
        rows: Of those, how many rows are not finite, and of how many.
        kinks: Where units lie at a kink.
        beside: Which pieces have these products: one "adjacent" one, those "everywhere" that was looked, or that of the
            choices "held"; `None` away from kinks.
        spread: By what share one-sided curvatures differ along a random direction; `None` away from kinks.
        one_sided: Curvature along that direction from either side, per squared length.
        draw: Relative distance of two forward passes, where they are random; 0 else.
        computes_in: The coarser dtype that the model computes in inside; `None` where there is none.
        rounds: Modules in which values are rounded or cut off from the graph, with the operation.
        why: What hindered the check, or what lacks a second derivative.
        pieces: Of a network whose units have kinks, what a step beside the point says.
        unsearched: Operations whose units were not looked at for being exactly at a kink; `None` where all were.
    """

    kind: Kind = "smooth"
    engine: Engine = "autograd"
    error: Number = None
    step: Number = None
    parameters: tuple[str, ...] = ()
    rows: tuple[int, int] | None = None
    kinks: tuple[Kink, ...] = field(default=(), metadata={"apart": True})  # documents have them beside the point
    beside: Beside | None = None
    spread: Number = None
    one_sided: Interval | None = None
    draw: Real = 0.0
    computes_in: str | None = None
    rounds: tuple[tuple[str, str], ...] = ()
    why: str | None = None
    pieces: Pieces | None = field(default=None, metadata={"optional": True})
    unsearched: tuple[str, ...] | None = field(default=None, metadata={"optional": True})

    @property
    def trusted(self) -> bool:
        """Whether products at this point can be believed."""
        return self.kind not in _UNTRUSTED
