"""A copy of a model that may be changed."""

import copy
from typing import Any

from torch import Tensor, nn


def copied(model: nn.Module) -> nn.Module | None:
    """A copy of a model that shares nothing with it that training changes; `None` where it cannot be copied.

    Tensors that a forward pass left behind, with their graph, cannot be copied by torch: their values go along.

    >>> model = nn.Linear(1, 1)
    >>> copied(model).weight is model.weight
    False
    """
    left_behind: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                left_behind[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, left_behind)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError, ValueError):
        return None
