"""Functions that autograd differentiates only once: what lies beyond has a gradient and no second derivative."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable

from hessdiag.problem.graph import behind

_ONCE = once_differentiable(lambda ctx: None).__code__


def once(tensors: Iterable[Tensor], until: Any = None) -> str | None:
    """The first function in the graph of tensors that cannot be differentiated again, in words; `None` without one.

    Autograd does not complain: where unused parameters are allowed, all that lies beyond is silently zero.

    Args:
        tensors: Where to begin.
        until: A node of the graph beyond which it does not matter.
    """
    for node in behind(tensors, until):
        function: Any = getattr(node, "_forward_cls", None)
        if any(getattr(getattr(function, name, None), "__code__", None) is _ONCE for name in ("backward", "vjp")):
            return f"the function {function.__name__} is differentiable only once"
        if node.name() == "torch::autograd::Error":
            return "a function in the model is differentiable only once"
    return None
