"""The graph that autograd keeps of how tensors were made."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor


def behind(tensors: Iterable[Tensor], until: Any = None) -> Iterator[Any]:
    """Each node that tensors depend on, once.

    Args:
        tensors: Where to begin.
        until: A node beyond which it does not matter.
    """
    ahead: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen = {None, until}
    while ahead:
        node = ahead.pop()
        if node not in seen:
            yield node
            seen.add(node)
            ahead += [successor for successor, _ in node.next_functions]
