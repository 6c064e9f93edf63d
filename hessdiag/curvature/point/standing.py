"""Where a copy stands before it is moved: loss and gradient at theta, and whether another pass there gives the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.differences import CannotCopyError, Moved, copied, reason
from hessdiag.curvature.point.classify import Judge, Outcome
from hessdiag.curvature.point.gates import Noted
from hessdiag.curvature.point.line import Place, finite
from hessdiag.errors import HessdiagError
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.problem.problem import Problem
from hessdiag.problem.seeds import sow

SAME_GRADIENT, SAME_LOSS = 1e-6, 1e-9  # of two passes in float64; atomic additions come in any order
SAME_COARSE = 1e3  # units of the last digit, in a coarser dtype
FAILS = (HessdiagError, RuntimeError, TypeError, AttributeError, NotImplementedError, MemoryError)


class UnsteadyError(Exception):
    """Two passes at one point differ.

    Args:
        draw: By how much, relative to their size.
    """

    def __init__(self, draw: float) -> None:
        super().__init__(draw)
        self.draw = draw


@dataclass
class Standing:
    """A copy at theta.

    Attributes:
        moved: The copy.
        here: What a pass there gave.
        noted: The gates of that pass; `None` where they could not be watched.
        state: Of torch's random numbers after it, on the host and on a GPU.
        steady: Whether another pass is known to give the same.
    """

    moved: Moved
    here: Place
    noted: Noted | None
    state: tuple[Tensor, Tensor | None]
    steady: bool = False

    def settle(self, judge: Judge, clean: Outcome | None) -> None:
        """Find out whether passes at theta give the same, from those on both sides of it if they can tell.

        A pass at theta and one on each side, three draws where two are asked for, add up to a product and to the slope
        of the losses. What of that is missing bounds how far any of them is from the function that the others are of.

        Args:
            judge: Of a product.
            clean: Where it found all to agree; `None` where it did not.

        Raises:
            UnsteadyError: if they do not.
        """
        if not self.steady and clean is not None:
            sample, allowed = clean.sample, self._allowed
            gradients = sample.h * (judge.apart(sample) + safe_norm(sample.half))
            losses = sample.h * abs(sample.mismatch) + sample.h**2 * abs(sample.bend)
            self.steady = gradients <= allowed(SAME_GRADIENT) * safe_norm(self.here.gradient) and losses <= allowed(
                SAME_LOSS
            ) * abs(self.here.loss)
        self.insist()

    def insist(self) -> None:
        """Make another pass, unless it is known what that gives.

        Raises:
            UnsteadyError: if it is not the same.
        """
        if self.steady:
            return
        draw = self._draw()
        self.steady = not draw
        if draw:
            raise UnsteadyError(draw)

    def freeze(self) -> bool:
        """Stand here anew with one draw of torch's random numbers; whether two passes differ all the same."""
        self.moved.problem.draw_once()
        self.here, self.noted = _noted(self.moved)
        random = self._draw() > 0
        self.steady = True  # or as steady as it will be
        return random

    def _draw(self) -> float:
        """Relative distance of another pass; 0 where it is rounding."""
        first, device = self.here, self.moved.problem.device
        host, gpu = self.state
        with _own_numbers(device):  # so that how far two passes differ is the same in every run
            torch.set_rng_state(host)
            if gpu is not None:
                torch.cuda.set_rng_state(gpu, device)
            self.moved.origin()
            second = Place(*self.moved.here())
        size = max(safe_norm(first.gradient), safe_norm(second.gradient))
        gradients = safe_norm(first.gradient - second.gradient) / size if size and finite(first.gradient) else 0.0
        losses = abs(first.loss - second.loss) / (max(abs(first.loss), abs(second.loss)) or 1.0)
        if gradients > self._allowed(SAME_GRADIENT) or losses > self._allowed(SAME_LOSS):
            return max(gradients, losses)
        return 0.0

    def _allowed(self, same: float) -> float:
        return max(same, SAME_COARSE * torch.finfo(self.moved.problem.dtype).eps)


@contextmanager
def seeded(problem: Problem) -> Iterator[None]:
    """Torch's random numbers from the problem's seed, and afterwards as they were."""
    with _own_numbers(problem.device):
        sow(problem.seed, problem.device)
        yield


@contextmanager
def _own_numbers(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def standing(problem: Problem) -> tuple[Standing | None, str | None]:
    """A copy that can be moved, with a pass at theta, in float64 where that can be evaluated; or why there is none."""
    why = None
    for dtype in (torch.float64, None):
        try:
            moved = copied(problem, dtype)
            here, noted = _noted(moved)
        except CannotCopyError as error:
            return None, error.what
        except FAILS as error:
            why = f"a copy of the model cannot be evaluated: {reason(error)}"
            continue
        device = problem.device
        gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return Standing(moved, here, noted, (torch.get_rng_state(), gpu)), None
    return None, why


def _noted(moved: Moved) -> tuple[Place, Noted | None]:
    """Loss and gradient at theta, with the gates of the same pass where watching does not hinder it."""
    moved.origin()
    noted = Noted(keep=len(moved.problem.data) == 1)
    moved.holding = noted
    try:
        return Place(*moved.here()), noted
    except FAILS:
        moved.holding = None
        return Place(*moved.here()), None
    finally:
        moved.holding = None
