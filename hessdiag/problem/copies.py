"""A copy of a model that may be changed."""

import copy
from typing import Any

from torch import Tensor, nn


def copied(model: nn.Module) -> nn.Module | None:
    """A copy of a model that shares nothing with it that training changes; `None` where it cannot be copied.

    >>> model = nn.Linear(1, 1)
    >>> copied(model).weight is model.weight
    False
    """
    try:
        return copy.deepcopy(model, left_behind(model))
    except (RuntimeError, TypeError, AttributeError, NotImplementedError, ValueError):
        return None


def left_behind(model: nn.Module) -> dict[int, Any]:
    """Tensors that a forward pass left behind in modules, with their graph, which torch cannot copy: their values.

    Returns:
        A memo for `copy.deepcopy`, so that the values go along.
    """
    kept = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value.detach().clone() for value in kept if isinstance(value, Tensor) and not value.is_leaf}
