"""Tensors in nested arguments and results: in tuples, lists, dicts, all else that pytree knows, and in dataclasses."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True, eq=False)
class Form:
    """How leaves are put together.

    Attributes:
        spec: What pytree knows.
        inner: For each of its leaves that is a dataclass, an instance without values and the form of these.
    """

    spec: Any
    inner: tuple["tuple[Any, Form] | None", ...]


def flattened(tree: Any) -> tuple[list[Any], Form]:
    """The leaves of a tree, and how they are put together.

    >>> @dataclass
    ... class Pair:
    ...     left: int
    ...     right: list
    >>> leaves, form = flattened({"a": Pair(1, [2, 3]), "b": 4})
    >>> leaves, put_together([5, 6, 7, 8], form)
    ([1, 2, 3, 4], {'a': Pair(left=5, right=[6, 7]), 'b': 8})
    """
    found, spec = pytree.tree_flatten(tree)
    leaves: list[Any] = []
    inner: list[tuple[Any, Form] | None] = []
    for item in found:
        if not is_dataclass(item) or isinstance(item, (type, Tensor, nn.Module)):
            leaves.append(item)
            inner.append(None)
            continue
        values = {field.name: getattr(item, field.name) for field in fields(item)}
        below, form = flattened(values)
        leaves += below
        inner.append((_with(item, dict.fromkeys(values)), form))
    return leaves, Form(spec, tuple(inner))


def put_together(leaves: Sequence[Any], form: Form) -> Any:
    """The tree of these leaves."""
    start, found = 0, []
    for below in form.inner:
        stop = start + (1 if below is None else _count(below[1]))
        some = leaves[start:stop]
        found.append(some[0] if below is None else _with(below[0], put_together(some, below[1])))
        start = stop
    return pytree.tree_unflatten(found, form.spec)


def _count(form: Form) -> int:
    return sum(1 if below is None else _count(below[1]) for below in form.inner)


def _with(item: Any, values: dict[str, Any]) -> Any:
    """A copy of a dataclass's instance with other values, frozen or not."""
    other = copy.copy(item)
    for name, value in values.items():
        object.__setattr__(other, name, value)
    return other
