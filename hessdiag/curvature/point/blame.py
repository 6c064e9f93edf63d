"""In which parameters something is wrong at a point: names for sentences, the worst first."""

import torch
from torch import Tensor

from hessdiag.curvature.differences import Moved
from hessdiag.curvature.point.line import Line, finite
from hessdiag.linalg.tridiagonal import safe_norm

NAMED_BY_LOSS = 64  # parameter tensors that are looked at one by one where the gradient is not the loss's


def _tensors(moved: Moved) -> list[tuple[str, slice]]:
    names = (name for name, _ in moved.problem.named_parameters)
    return list(zip(names, moved.problem.places(), strict=True))


def apart_in(moved: Moved, apart: Tensor, scale: float) -> tuple[str, ...]:
    """Parameters in which a difference is large or not finite, the worst first."""
    found = []
    for name, place in _tensors(moved):
        part = apart[place]
        size = safe_norm(part) if bool(torch.isfinite(part).all()) else float("inf")
        if size > 1e-3 * scale:
            found.append((size, name))
    return tuple(name for _, name in sorted(found, key=lambda entry: -entry[0]))


def not_finite_in(moved: Moved, values: Tensor) -> tuple[str, ...]:
    """Parameters in which a vector is not finite."""
    return tuple(name for name, place in _tensors(moved) if not finite(values[place]))


def rows_not_finite(moved: Moved, values: Tensor) -> tuple[int, int] | None:
    """Of the first parameter in which a vector is not finite: how many of its rows are not, and of how many."""
    for parameter, place in zip(moved.problem.parameters, moved.problem.places(), strict=True):
        part = values[place]
        if not finite(part):
            rows = part.view(len(parameter), -1) if parameter.ndim else part.view(1, 1)
            return int((~torch.isfinite(rows).all(1)).sum()), len(rows)
    return None


def misled(moved: Moved, gradient: Tensor, line: Line) -> tuple[str, ...]:
    """Parameters along which the loss does not change as the gradient says, the worst first."""
    tensors = _tensors(moved)
    if len(tensors) > NAMED_BY_LOSS:
        return ()
    h = moved.step(line.v, line.first)
    found = []
    for name, place in tensors:
        part = torch.zeros_like(line.v)
        part[place] = line.v[place]
        if not bool(part.any()):
            continue
        losses = []
        for side in (1, -1):
            moved.to(part, side * h)
            losses.append(moved.loss())
        change, expected = (losses[0] - losses[1]) / (2 * h), float(gradient @ part)
        apart, size = abs(change - expected), max(abs(change), abs(expected))
        if apart > 1e-3 * size and apart > 1e-6 * abs(float(gradient @ line.v)):
            found.append((apart, name))
    moved.origin()
    return tuple(name for _, name in sorted(found, key=lambda entry: -entry[0]))
