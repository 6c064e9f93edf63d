"""How the numbers of one pass lie in what their dtype holds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem import finite
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.readings import RangeReading
from hessdiag.questions.check.watching.layers import Gradients
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.check.watching.signals import even_part, known


def read(
    problem: Problem, model: nn.Module, batch: Any, passing: Passing, gradients: Gradients, value: Tensor
) -> RangeReading:
    """Where numbers leave their range, and how close they come to its ends."""
    arrived = [gradient for gradient in gradients.values() if gradient is not None]
    found = [float(one[-1]) for seen in passing.seen for one in (seen.output, seen.signal) if one is not None]
    broken = not finite.is_finite(value) or not all(map(torch.isfinite, map(torch.tensor, found)))
    origin = finite.origin(model, lambda: problem.objective_function(model, batch)) if broken else None
    return RangeReading(
        dtype=str(problem.dtype).removeprefix("torch."),
        not_finite=None if origin is None else origin.rpartition(" (")[0],
        largest=known(max(found) / torch.finfo(problem.dtype).max) if found else None,
        subnormal_share=subnormal_share(arrived),
    )


def subnormal_share(gradients: Sequence[Tensor]) -> float | None:
    """Share of entries below the smallest normal number of their dtype, but not zero."""
    entries = sum(part.numel() for part in gradients)
    if not entries:
        return None
    small = 0.0
    for part in gradients:
        values = part if part.layout is torch.strided else part.coalesce().values()
        looked = even_part(values)
        normal = looked.abs() >= torch.finfo(values.dtype).tiny
        found = int(torch.count_nonzero(looked)) - int(torch.count_nonzero(normal))
        small += found * values.numel() / max(len(looked), 1)
    return small / entries
