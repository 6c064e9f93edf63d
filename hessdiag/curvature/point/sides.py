"""Kinks at the point itself: which units lie on them, and on which pieces beside it autograd's numbers are right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.differences import Moved
from hessdiag.curvature.point.held import record
from hessdiag.curvature.point.line import ROUNDING, Line, finite
from hessdiag.curvature.point.watch import DIGITS, Recorded
from hessdiag.linalg.tridiagonal import safe_norm

ASIDE = 1e-6  # of |theta|: how far the sides are that are looked at
SAME = 1e-3  # distance of products at most that far apart; on wrong sides they differ by 2e-3 and more
TURNS = 6  # attempts to bring all units to the side that autograd took
SIDE_LEVELS = (2, 3)  # of steps there: well within the side


@dataclass(frozen=True)
class Units:
    """Units of one kind of operation in one module that lie exactly at a kink, and leave it along v."""

    module: str
    operation: str
    at: int
    of: int


@dataclass(frozen=True)
class Side:
    """A point beside theta.

    Attributes:
        same: Whether H v is the same there.
        error: Relative distance of autograd's H v there from a difference.
    """

    same: bool
    error: float

    @property
    def right(self) -> bool:
        """Whether autograd agrees with differences there."""
        return self.error <= SAME


class Kinks:
    """The units at a kink, batch by batch.

    Args:
        moved: A copy of the problem.
        line: Along v.
    """

    def __init__(self, moved: Moved, line: Line) -> None:
        self._moved, self._line = moved, line
        self._here = self._recorded()
        moved.to(line.v, moved.step(line.v, line.first))
        there = [record(moved, batch).without_graph() for batch in moved.problem.data]
        self._masks = [_at_kink(*pair) for pair in zip(self._here, there, strict=True)]
        moved.origin()

    def _recorded(self) -> list[Recorded]:
        """The calls at theta, without the graphs: those do not survive a move."""
        self._moved.origin()
        return [record(self._moved, batch).without_graph() for batch in self._moved.problem.data]

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest dtype of anything that is differentiated."""
        return min((found.dtype for found in self._here), key=DIGITS.index)

    @property
    def any(self) -> bool:
        """Whether there are piecewise operations at all."""
        return any(seen.calls for seen in self._here)

    @property
    def jumping(self) -> tuple[tuple[str, str], ...]:
        """Module and name of operations that round."""
        found = [(call.module, call.operation) for seen in self._here for call in seen.calls if call.piece.jumps]
        return tuple(dict.fromkeys(found))

    def units(self, leave_out: Sequence[str] = ()) -> tuple[Units, ...]:
        """Where they are, by module and operation."""
        counts: dict[tuple[str, str], list[int]] = {}
        for seen, masks in zip(self._here, self._masks, strict=True):
            for call, of_call in zip(seen.calls, masks, strict=True):
                for margin, mask in zip(call.margins, of_call, strict=True):
                    entry = counts.setdefault((call.module, call.operation), [0, 0])
                    entry[0] += int(mask.sum())
                    entry[1] += margin.values.numel()
        return tuple(Units(*key, at, of) for key, (at, of) in counts.items() if at and key[1] not in leave_out)

    @property
    def sided(self) -> bool:
        """Whether autograd takes one side of some unit at a kink: then one piece with its numbers is enough."""
        return any(
            margin.side and bool(mask.any())
            for seen, masks in zip(self._here, self._masks, strict=True)
            for call, of_call in zip(seen.calls, masks, strict=True)
            for margin, mask in zip(call.margins, of_call, strict=True)
        )

    @property
    def unseen(self) -> bool:
        """Whether some piecewise operation has no margins: sides of its units cannot be sought."""
        return any(not call.margins and not call.piece.jumps for seen in self._here for call in seen.calls)

    def towards(self, sign: int) -> Tensor | None:
        """A direction that brings the units to the sides that autograd took, or (`sign` -1) to the opposite ones."""
        w = self._gradient(self._masks, sign)
        if w is None:
            return None
        for _ in range(TURNS):
            violated = self._violated(w, sign)
            if not any(bool(mask.any()) for masks in violated for of_call in masks for mask in of_call):
                break
            more = self._gradient(violated, sign)
            if more is None:
                break
            w = w + more
        return w if float(w.norm()) else None

    def _gradient(self, masks: Sequence[Sequence[Sequence[Tensor]]], sign: int) -> Tensor | None:
        """Of the margins of some units, each towards its side."""
        problem = self._moved.problem
        total = torch.zeros_like(self._line.v)
        self._moved.origin()
        for batch, of_batch in zip(problem.data, masks, strict=True):
            seen = record(self._moved, batch)
            if len(seen.calls) != len(of_batch):
                return None
            parts = [
                (sign * (margin.side or 1)) * margin.values[mask].sum()
                for call, of_call in zip(seen.calls, of_batch, strict=True)
                for margin, mask in zip(call.margins, of_call, strict=True)
                if bool(mask.any()) and margin.values.requires_grad
            ]
            if not parts:
                continue
            with problem.evaluation():
                found = torch.autograd.grad(
                    torch.stack([part.to(total) for part in parts]).sum(),
                    problem.parameters,
                    materialize_grads=True,
                    allow_unused=True,
                )
            total += torch.cat([part.reshape(-1).to(total) for part in found])
        return total if bool(total.any()) and finite(total) else None

    def _violated(self, w: Tensor, sign: int) -> list[list[list[Tensor]]]:
        """Units that are not on the side that was sought, at theta + h w."""
        moved = self._moved
        moved.to(w, moved.step(w, ASIDE))
        there = [record(moved, batch).without_graph() for batch in moved.problem.data]
        moved.origin()
        found = []
        for seen, other, of_batch in zip(self._here, there, self._masks, strict=True):
            same = _same_path(seen, other)
            found.append(
                [
                    [
                        mask & (sign * (margin.side or 1) * beyond.values.detach() <= 0)
                        if same and beyond.values.shape == mask.shape
                        else torch.zeros_like(mask)
                        for margin, beyond, mask in zip(call.margins, after.margins, of_call, strict=True)
                    ]
                    for call, after, of_call in zip(seen.calls, other.calls, of_batch, strict=True)
                ]
                if same
                else [[torch.zeros_like(mask) for mask in of_call] for of_call in of_batch]
            )
        return found

    def side(self, w: Tensor, here: Tensor, product: Callable[[Tensor], Tensor]) -> Side:
        """What H v is at theta + h w, beside `here` at theta itself.

        Args:
            w: The direction.
            here: H v at theta.
            product: H v by autograd where the copy stands.
        """
        moved, line = self._moved, self._line
        aside = moved.step(w, ASIDE)
        moved.to(w, aside)
        there = product(line.v).to(here)
        scale = max(safe_norm(here), safe_norm(there))
        same = finite(there) and safe_norm(there - here) <= SAME * scale
        error = float("inf")
        for level in SIDE_LEVELS:
            h = moved.step(line.v, line.first * 10.0**-level)
            ends = []
            for sign in (1, -1):
                moved.along(w, aside, line.v, sign * h)
                ends.append(moved.here()[1])
            difference = (ends[0] - ends[1]) / (2 * h)
            noise = ROUNDING * line.eps * max(safe_norm(end) for end in ends) / h
            scale = max(safe_norm(there), safe_norm(difference))
            apart = max(safe_norm(there - difference) - noise, 0.0) if finite(there) else float("inf")
            error = min(error, apart / scale if scale else 0.0)
            if error <= SAME:
                break
        moved.origin()
        return Side(same, error)


def _same_path(seen: Recorded, other: Recorded) -> bool:
    return [call.operation for call in seen.calls] == [call.operation for call in other.calls]


def _at_kink(here: Recorded, there: Recorded) -> list[list[Tensor]]:
    """Of each margin of each call: which units are zero at theta and not along v."""
    if not _same_path(here, there):
        return [[margin.values.detach() == 0 for margin in call.margins] for call in here.calls]
    found = []
    for call, other in zip(here.calls, there.calls, strict=True):
        masks = []
        for margin, moved in zip(call.margins, other.margins, strict=True):
            mask = margin.values.detach() == 0
            if mask.shape == moved.values.shape:
                mask = mask & (moved.values.detach() != 0)
            masks.append(mask)
        found.append(masks)
    return found
