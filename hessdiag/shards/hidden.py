"""Tensors in objects that no tree can be made of: a graph that leads to them passes by a unit."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.shards.placeholder import OutsideUnitError, Placeholder, outside
from hessdiag.shards.units import Unit

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Generator, nn.Module, Enum)
DEEPEST = 4  # levels of objects in which tensors are looked for


def refuse_hidden(unit: Unit, flat: Sequence[Any], verb: str) -> None:
    """Make sure that no graph passes by the unit, in a parameter of another or in an object that is no container.

    Raises:
        OutsideUnitError: if one does; the unit has to be larger.
    """
    unseen = verb == "returns" and not torch.is_grad_enabled()  # as when it runs first: then tensors have no graph
    for item in flat:
        if isinstance(item, Placeholder):
            raise outside(item, f"an argument of {unit.path}, which is", unit)
        if not isinstance(item, (Tensor, *PLAIN)) and any(
            part.requires_grad or (unseen and part.dtype.is_floating_point) for part in hidden(item)
        ):
            raise OutsideUnitError(
                unit.parameters[0], f"{unit.path} {verb} a {type(item).__name__} that holds tensors with a graph."
            )


def hidden(item: Any, depth: int = 0) -> Iterator[Tensor]:
    """Tensors in an object."""
    if isinstance(item, Tensor):
        yield item
    elif depth < DEEPEST and not isinstance(item, PLAIN):
        inside = item.values() if isinstance(item, Mapping) else item if isinstance(item, (list, tuple, set)) else ()
        for part in (*inside, *getattr(item, "__dict__", {}).values()):
            yield from hidden(part, depth + 1)
