"""How the numbers of one pass lie in what their dtype holds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.problem import finite
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.readings import RangeReading
from hessdiag.questions.check.watching.layers import Gradients
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.check.watching.signals import even_part, known

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}


def read(
    problem: Problem, model: nn.Module, batch: Any, passing: Passing, gradients: Gradients, value: Tensor
) -> RangeReading:
    """Where numbers leave their range, and how close they come to its ends."""
    arrived = [gradient for gradient in gradients.values() if gradient is not None]
    found = [float(one[-1]) for seen in passing.seen for one in (seen.output, seen.signal) if one is not None]
    broken = not finite.is_finite(value) or not all(map(torch.isfinite, map(torch.tensor, found)))
    origin = finite.origin(model, lambda: problem.objective_function(model, batch)) if broken else None
    subnormal = subnormal_share(arrived)
    return RangeReading(
        dtype=str(problem.dtype).removeprefix("torch."),
        not_finite=None if origin is None else origin.rpartition(" (")[0],
        largest=known(max(found) / torch.finfo(problem.dtype).max) if found else None,
        zero_share=_lost(problem, model, batch, gradients, subnormal),
        subnormal_share=subnormal,
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
        below = looked.abs() < torch.finfo(values.dtype).tiny
        found = int(torch.count_nonzero(below)) - int(torch.count_nonzero(looked == 0))
        small += found * values.numel() / max(len(looked), 1)
    return small / entries


def _lost(
    problem: Problem, model: nn.Module, batch: Any, gradients: Gradients, subnormal: float | None
) -> float | None:
    """Share of gradient entries that are zero only for their dtype; `None` where that could not be found out.

    The pass is repeated in a wider one, but only where numbers come near the end of their range.
    """
    wider = _WIDER.get(problem.dtype)
    if subnormal is None or wider is None:
        return None
    half = problem.dtype in (torch.float16, torch.bfloat16)
    arrived = [gradient for gradient in gradients.values() if gradient is not None]
    if not subnormal and not (half and any(bool((part == 0).any()) for part in arrived if not part.is_sparse)):
        return 0.0
    try:
        if (other := copied(model)) is None:
            return None
        other.to(wider)
        with torch.enable_grad():
            value = problem.objective_function(other, batches.to(batch, dtype=wider))
            pairs = list(zip(model.parameters(), other.parameters(), strict=True))
            kept = [(gradients[id(own)], wide) for own, wide in pairs if gradients.get(id(own)) is not None]
            found = torch.autograd.grad(value, [wide for _, wide in kept], allow_unused=True)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):  # what it is made of is narrow
        return None
    lost = sum(
        int(((own.to_dense() == 0) & (wide.to_dense() != 0)).sum())
        for (own, _), wide in zip(kept, found, strict=True)
        if own is not None and wide is not None
    )
    return lost / sum(part.numel() for part in arrived)
