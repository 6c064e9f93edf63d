"""What a model returns, of any form: the tensors in it that depend on parameters, and the same form around others."""

import copy
import copyreg
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[Iterator[Tensor]], Any]

_NO_CONTAINERS = (nn.Module, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, torch.Generator)


def flatten(value: Any, *, constants: bool = False) -> tuple[tuple[Tensor, ...], Callable[[Sequence[Tensor]], Any]]:
    """The differentiable tensors of a structure, and a function that builds the same structure around others.

    Tuples, lists, mappings, named tuples, dataclasses, model outputs, distributions and other objects with attributes
    are looked into, nested as they may be. Whatever does not depend on a parameter stays as it is, and so do whole
    numbers, `None` and settings. A complex tensor counts as its real and imaginary parts.

    Args:
        value: What a model returned.
        constants: Take the tensors too that do not depend on a parameter.

    Returns:
        Real tensors that require gradients, each as often as it occurs; and the function, which takes as many.

    >>> z = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> tensors, build = flatten({"mean": z, "sizes": (2, None), "more": [z * z]})
    >>> len(tensors), build([torch.zeros(2), torch.ones(2)])
    (2, {'mean': tensor([0., 0.]), 'sizes': (2, None), 'more': [tensor([1., 1.])]})
    """
    found: list[Tensor] = []
    build = _taken_apart(value, found, set(), constants)
    return tuple(found), lambda tensors: build(iter(tensors))


def _taken_apart(value: Any, found: list[Tensor], met: set[int], constants: bool) -> Build:
    """Add the tensors of `value` to `found`; `met` are what it lies in, and what holds none, so that circles end."""
    if isinstance(value, Tensor):
        return _tensor(value, found, constants)
    known = len(found)
    parts = None if id(value) in met else _parts(value)
    if parts is None:
        return lambda _: value
    children, around = parts
    met.add(id(value))
    builds = [_taken_apart(child, found, met, constants) for child in children]
    if len(found) == known:  # nothing in it depends on a parameter
        return lambda _: value
    met.remove(id(value))
    return lambda tensors: around([build(tensors) for build in builds])


def _tensor(value: Tensor, found: list[Tensor], constants: bool) -> Build:
    if not (value.requires_grad or constants):
        return lambda _: value
    if value.is_complex() and value.requires_grad:
        found.append(torch.view_as_real(value.resolve_conj()))
        return lambda tensors: torch.view_as_complex(next(tensors).contiguous())
    found.append(value)
    return next


def _parts(value: Any) -> tuple[list[Any], Callable[[list[Any]], Any]] | None:
    """The children of a container, and a function that puts others in their places; `None` for what is no container."""
    if isinstance(value, tuple):
        make = getattr(type(value), "_make", None) or type(value)  # of a named tuple
        return list(value), make
    if isinstance(value, list):
        return list(value), lambda children: _with_items(value, range(len(children)), children)
    if isinstance(value, (dict, UserDict)):  # model outputs among them, which keep attributes and items in step
        keys = list(value)
        return [value[key] for key in keys], lambda children: _with_items(value, keys, children)
    if isinstance(value, Mapping):
        return list(value.values()), lambda children: dict(zip(value, children, strict=True))
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, *_NO_CONTAINERS)):
        return None
    return _attributes(value)


def _with_items(value: Any, keys: Sequence[Any], children: list[Any]) -> Any:
    other = copy.copy(value)
    for key, child in zip(keys, children, strict=True):
        other[key] = child
    return other


def _attributes(value: Any) -> tuple[list[Any], Callable[[list[Any]], Any]] | None:
    """The attributes of an object; it is copied as it is, without running a constructor."""
    own = list(getattr(value, "__dict__", ()))
    slots = [name for name in copyreg._slotnames(type(value)) if hasattr(value, name)]  # type: ignore[attr-defined]
    if not own and not slots:
        return None

    def around(children: list[Any]) -> Any:
        other = copy.copy(value)
        if own:  # past properties and frozen classes
            vars(other).update(zip(own, children, strict=False))
        for name, child in zip(slots, children[len(own) :], strict=True):
            object.__setattr__(other, name, child)
        return other

    return [vars(value)[name] for name in own] + [getattr(value, name) for name in slots], around
