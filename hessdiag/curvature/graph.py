"""What a graph of autograd's is made of, and what that means for differentiating it again."""

from collections.abc import Hashable, Iterable, Iterator
from functools import cache
from typing import Any

from torch import Tensor
from torch.autograd.function import once_differentiable

from hessdiag.curvature.differences import NoDoubleBackwardError

_ONCE = once_differentiable(lambda ctx: None).__code__


def refuse_cut(tensors: Iterable[Tensor]) -> None:
    """Look for functions in the graph of tensors that autograd cannot differentiate again.

    It would not complain: where unused parameters are allowed, all that lies beyond such a function is silently zero.

    Raises:
        NoDoubleBackwardError: naming the first that is found.
    """
    for node in _nodes(tensors):
        function: Any = getattr(node, "_forward_cls", None)
        if any(getattr(getattr(function, name, None), "__code__", None) is _ONCE for name in ("backward", "vjp")):
            raise NoDoubleBackwardError(f"the function {function.__name__} is differentiable only once")
        if node.name() == "torch::autograd::Error":
            raise NoDoubleBackwardError("a function in the model is differentiable only once")


def runs_python(tensors: Iterable[Tensor]) -> bool:
    """Whether differentiating tensors again may run code of the model, as with checkpointed parts.

    Only functions in Python and saved tensors that are packed can do that. Where torch does not tell, they may.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> runs_python([x.exp()]), runs_python([torch.utils.checkpoint.checkpoint(torch.exp, x, use_reentrant=False)])
    (False, True)
    """
    return any(
        hasattr(node, "_forward_cls") or any(_is_packed(getattr(node, name)) for name in _saved(node.__class__))
        for node in _nodes(tensors)
    )


def _nodes(tensors: Iterable[Tensor]) -> Iterator[Any]:
    ahead: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen = set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        ahead += [successor for successor, _ in node.next_functions]


@cache
def _saved(kind: Hashable) -> list[str]:
    return [name for name in dir(kind) if name.startswith("_raw_saved_")]


def _is_packed(saved: Any) -> bool:
    if isinstance(saved, (tuple, list)):
        return any(_is_packed(one) for one in saved)
    return saved is not None and getattr(saved, "unpack_hook", True) is not None
