"""The function with its pieces held as they are at theta: smooth, whatever kinks the point itself lies on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from hessdiag.curvature.differences import Moved
from hessdiag.curvature.point.watch import DIGITS, Call, Recorded, holding, recording


def record(moved: Moved, batch: Any) -> Recorded:
    """The piecewise calls of one batch where the parameters stand, with margins that can be differentiated."""
    problem = moved.problem
    with torch.enable_grad(), problem.evaluation(), recording(problem.model) as found:
        problem.evaluate(batch)
    return found


def coarsest(moved: Moved) -> torch.dtype:
    """The coarsest dtype of anything that is differentiated, where the parameters stand."""
    return min((record(moved, batch).dtype for batch in moved.problem.data), key=DIGITS.index)


class HeldPieces:
    """Evaluates batches with the pieces of theta; what a copy's `holding` asks for.

    Args:
        moved: The copy.
        tight: Whether absolute values of exactly zero are held too.
    """

    def __init__(self, moved: Moved, *, tight: bool) -> None:
        self._moved, self.tight = moved, tight
        self._last: tuple[Any, Sequence[Call]] | None = None

    @contextmanager
    def __call__(self, batch: Any) -> Iterator[None]:
        """Hold the batch's pieces."""
        if self._last is None or self._last[0] is not batch:
            self._last = batch, self._pieces(batch)
        with holding(self._last[1], tight=self.tight):
            yield

    def _pieces(self, batch: Any) -> Sequence[Call]:
        parameters = self._moved.problem.parameters
        there = [parameter.detach().clone() for parameter in parameters]
        self._moved.origin()
        calls = record(self._moved, batch).calls
        with torch.no_grad():
            for parameter, value in zip(parameters, there, strict=True):
                parameter.copy_(value)
        # Without margins, whose graphs hold the activations.
        return [replace(call, piece=replace(call.piece, margins=())) for call in calls]
