"""Gates: which side of its kink every unit is on, how many change side along a step, and the loss with all held.

A network of ReLUs is one smooth function for every pattern of its gates, and autograd's Hessian is that of the pattern
at hand. How much it leaves out shows in the loss beyond: as it is, and with every gate held to its side.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hessdiag.curvature.differences import Moved
from hessdiag.curvature.point.line import LOSS_ROUNDING
from hessdiag.curvature.point.pieces import Piece
from hessdiag.curvature.point.result import Pieces
from hessdiag.curvature.point.watch import Call, OtherPathError, holding, rule_of, tracked
from hessdiag.errors import NotFiniteError

BENT = frozenset({"elu", "celu", "huber_loss", "smooth_l1_loss"})  # whose slope does not jump: held, and no gates
# Piecewise operations that there is no rule for.
UNHELD = frozenset(
    {
        "cosine_embedding_loss",
        "cummax",
        "cummin",
        "fractional_max_pool2d",
        "fractional_max_pool3d",
        "hinge_embedding_loss",
        "margin_ranking_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "nanmedian",
        "nanquantile",
        "quantile",
        "rnn_relu",
        "rnn_relu_cell",
        "rrelu",
        "rrelu_",
        "triplet_margin_loss",
        "triplet_margin_with_distance_loss",
    }
)
BESIDE = 1e-3  # of the parameters' length: a step as a first learning rate makes it
RESOLVED = 0.05  # of a difference of losses, that rounding may do to it
OTHER_PATH = "beyond the step the forward pass calls other operations"


@dataclass
class _Seen:
    """The gates of one batch at one point.

    Attributes:
        calls: Piecewise ones in their order, to be held.
        sides: Of every call, on which side each unit is; `None` for one whose slope does not jump.
        unheld: Names of piecewise operations that cannot be held.
    """

    calls: list[Call] = field(default_factory=list)
    sides: list[Tensor | None] = field(default_factory=list)
    unheld: dict[str, None] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Gates, of all samples of the batch."""
        return sum(side.numel() for side in self.sides if side is not None)

    def flipped(self, other: "_Seen") -> int:
        """How many gates are on another side there.

        Raises:
            OtherPathError: if other operations were called there.
        """
        if [call.operation for call in self.calls] != [call.operation for call in other.calls]:
            raise OtherPathError
        pairs = zip(self.sides, other.sides, strict=True)
        counts = [_differing(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        return int(torch.stack(counts).sum()) if counts else 0  # a GPU is waited for once


def _differing(ours: Tensor, theirs: Tensor) -> Tensor:
    if ours.shape != theirs.shape:
        raise OtherPathError
    return (ours != theirs).sum()


class _Looking(TorchFunctionMode):
    """Notes the side of every unit of a forward pass, and keeps no activation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = _Seen()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, rule = rule_of(func, args)
        if rule is not None:
            try:
                piece = rule(*(arg.detach() if isinstance(arg, Tensor) else arg for arg in args), **kwargs)
            except (RuntimeError, TypeError, ValueError, IndexError):  # a form of the call that the rule does not know
                self.seen.unheld[name] = None
            else:
                self.seen.calls.append(Call("", name, replace(piece, margins=())))
                self.seen.sides.append(None if name in BENT else _side(piece))
        elif getattr(func, "__name__", "") in UNHELD and tracked(tree_leaves((args, kwargs))):
            self.seen.unheld[name] = None
        return func(*args, **kwargs)


def _side(piece: Piece) -> Tensor:
    """A number for each unit that changes when its side does."""
    if piece.choice is not None:
        return piece.choice
    on = [margin.values >= 0 if margin.side > 0 else margin.values > 0 for margin in piece.margins]
    return reduce(lambda code, bit: 2 * code.to(torch.int8) + bit, on)


@dataclass(frozen=True)
class Ahead:
    """What the loss is after a step.

    Attributes:
        loss: As it is; infinite where it is not finite.
        frozen: With every gate held to its side before the step; `None` where there is no gate, or it cannot be held.
        flipped: Gates that are on another side; `None` where there are none, or they cannot be compared.
    """

    loss: float
    frozen: float | None
    flipped: int | None


class Noted:
    """The gates where the parameters stand, noted while something else evaluates the batches.

    It is what a copy's `holding` asks for.

    Args:
        keep: Whether to keep them, which holds a number for each unit, or to count them only.

    Attributes:
        count: Gates, over all samples.
        unheld: Names of piecewise operations that cannot be held.
        kept: What was seen last.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self.count, self.unheld = 0, dict[str, None]()
        self.kept: _Seen | None = None

    @contextmanager
    def __call__(self, batch: Any) -> Iterator[None]:
        """Note the gates of a batch."""
        mode = _Looking()
        with mode:
            yield
        self.add(mode.seen)

    def add(self, seen: _Seen) -> None:
        """Count the gates of another batch."""
        self.count += seen.count
        self.unheld |= seen.unheld
        self.kept = seen if self._keep else None


class Gates:
    """The loss of a problem away from its parameters, with its gates free and with all of them held.

    The choices of one batch are kept; of several they are taken anew for every step, one more forward pass for each.

    Args:
        moved: A copy of the problem, whose parameters move, and stand afterwards where they were moved last.
        before: Its loss where no step was made, and the gates of that pass. Default: they are looked at.

    Attributes:
        count: Gates, over all samples.
        loss: Before any step.
        why: Why gates cannot be held, or could not after some step; `None` otherwise.

    Example: at w = 1 both gates of |w| = relu(w) + relu(-w) are held, so that beyond zero the loss falls on.

    >>> from hessdiag.curvature.differences import movable
    >>> from hessdiag.problem.problem import Problem
    >>> model = torch.nn.Linear(1, 1, bias=False).double()
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> bowl = lambda model, batch: model.weight.relu().sum() + (-model.weight).relu().sum()
    >>> gates = Gates(movable(Problem(model, data=[None], objective=bowl)))
    >>> gates.count, gates.at(torch.tensor([-3.0]).double())
    (2, Ahead(loss=2.0, frozen=-2.0, flipped=2))
    """

    def __init__(self, moved: Moved, before: tuple[float, Noted] | None = None) -> None:
        self._moved = moved
        self.loss, noted = before or self._standing()
        self.count, self._kept = noted.count, noted.kept
        self._hold = bool(self.count) and not noted.unheld
        self.why = f"no rule holds {', '.join(noted.unheld)} to a side" if noted.unheld else None

    def at(self, step: Tensor, scale: float = 1.0) -> Ahead:
        """The loss after `scale` times a step (N,) from the parameters."""
        loss, frozen = 0.0, 0.0
        flipped = 0 if self.count else None
        for weight, batch in self._batches():
            before = self._before(batch) if flipped is not None else None
            self._moved.to(step, scale)
            value, after = self._look(batch)
            loss += weight * value
            if before is None or flipped is None:
                continue
            try:
                flipped += before.flipped(after)
                frozen += weight * self._value(batch, holding(before.calls)) if self._hold else 0.0
            except OtherPathError:
                flipped, self.why = None, OTHER_PATH
        return Ahead(loss, frozen if self._hold and flipped is not None else None, flipped)

    def share(self, ahead: Ahead) -> float | None:
        """Of the gates, those that are on another side after a step; `None` where they cannot be compared."""
        return None if ahead.flipped is None else ahead.flipped / self.count

    def missing(self, ahead: Ahead, bend: float | None, eps: float) -> float | None:
        """What kinks do to the loss along a step, over that and what the piece's own curvature does.

        Args:
            ahead: After the step.
            bend: What the curvature of the piece does; `None` where it is not known.
            eps: Rounding of the loss.

        Returns:
            The share; `None` where gates cannot be held, or rounding covers it.
        """
        if bend is None or ahead.frozen is None or not math.isfinite(ahead.loss) or not math.isfinite(ahead.frozen):
            return None
        kinks = abs(ahead.loss - ahead.frozen)
        noise = LOSS_ROUNDING * eps * max(abs(self.loss), abs(ahead.loss))
        return kinks / (kinks + abs(bend)) if kinks + abs(bend) > noise / RESOLVED else None

    def _batches(self) -> Iterator[tuple[float, Any]]:
        problem = self._moved.problem
        return zip(problem.batch_weights, problem.data, strict=True)

    def _standing(self) -> tuple[float, Noted]:
        loss, noted = 0.0, Noted(keep=len(self._moved.problem.data) == 1)
        self._moved.origin()
        for weight, batch in self._batches():
            value, seen = self._look(batch)
            loss += weight * value
            noted.add(seen)
        return loss, noted

    def _before(self, batch: Any) -> _Seen:
        """The gates of a batch where no step was made."""
        if self._kept is not None:
            return self._kept
        self._moved.origin()
        return self._look(batch)[1]

    def _look(self, batch: Any) -> tuple[float, _Seen]:
        mode = _Looking()
        return self._value(batch, mode), mode.seen

    def _value(self, batch: Any, around: AbstractContextManager[Any]) -> float:
        """The loss of a batch where the parameters stand."""
        try:
            with torch.enable_grad(), self._moved.problem.evaluation(), around:  # what is differentiated shows by that
                return float(self._moved.problem.evaluate(batch).detach())
        except NotFiniteError:
            return math.inf


def beside(moved: Moved, gradient: Tensor, eps: float, before: tuple[float, Noted] | None = None) -> Pieces | None:
    """What a step down the gradient says of a network whose units have kinks, from two forward passes beside it.

    Args:
        moved: A copy of the problem, whose parameters move.
        gradient: At the parameters, (N,).
        eps: Rounding of the loss.
        before: The loss at the parameters, and the gates of that pass. Default: they are looked at.

    Returns:
        `None` for a network without kinks.
    """
    gates = Gates(moved, before)
    if not gates.count:
        return None
    length = float(gradient.norm())
    if not 0 < length < math.inf:
        return Pieces(gates.count, BESIDE)
    h = moved.multiple(length, BESIDE)
    ahead = gates.at(gradient, -h)
    bend = None if ahead.frozen is None else ahead.frozen - gates.loss + h * length**2
    return Pieces(gates.count, BESIDE, gates.share(ahead), gates.missing(ahead, bend, eps))
