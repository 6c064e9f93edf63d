"""Matrix products of a unit that are not computed anew each time it runs: they are most of what a run costs.

A unit runs again at both levels of differentiation, each time alike. What its products with weights gave is kept from
the first of these runs on, as far as there is room, and handed out in the next ones instead of being computed; all else
is computed, so that graphs are what they would be. Slopes of weights are never looked at where only their graph is
needed: in their place come zeros that take no memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hessdiag.machine import capacity
from hessdiag.shards.units import Unit

ROOM = 2  # bytes that a unit's calls may keep, for each byte of its pieces

_aten = torch.ops.aten
_PRODUCTS: dict[Any, Callable[..., int]] = {
    _aten.mm.default: lambda x, weight, *_: 2 * prod(x.shape) * weight.shape[1],
    _aten.addmm.default: lambda bias, x, weight, *_: 2 * prod(x.shape) * weight.shape[1],
    _aten.convolution.default: lambda x, weight, *_: 2 * prod(x.shape[:1] + x.shape[2:]) * prod(weight.shape),
    _aten.convolution_backward.default: lambda slope, x, weight, *_: (
        2 * prod(slope.shape[:1] + slope.shape[2:]) * prod(weight.shape)
    ),
}  # operations of each, about


@dataclass(frozen=True, eq=False)
class _Product:
    """One product.

    Attributes:
        key: The operation, and the forms of what it was given.
        found: What it gave; `None` where that is not kept.
    """

    key: tuple[Any, ...]
    found: tuple[Tensor | None, ...] | None


class Kept:
    """The products of something in a unit that runs several times alike.

    Args:
        unit: What is kept counts among what all calls of it keep.

    Attributes:
        bytes: That are kept.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._products: tuple[_Product, ...] = ()
        self.bytes = 0

    @contextmanager
    def recorded(self) -> Iterator[list[Tensor]]:
        """Keep the products of what runs within, if that pays.

        Yields:
            A list for slopes of which later runs need only the graph.
        """
        ends: list[Tensor] = []
        if self._unit.is_cheap:
            yield ends
            return
        with _Recording() as recording:
            yield ends
        self._unit.is_cheap = not recording.pays()
        if not self._unit.is_cheap:
            self._products, self.bytes = recording.kept(ends, ROOM * self._unit.bytes - self._unit.kept())
            self._unit.keepers.add(self)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Hand out the products that are kept to what runs within."""
        if not self._products:
            yield
            return
        with _Again(self._products):
            yield


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What each product gives, and what becomes of it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: list[tuple[tuple[Any, ...], tuple[Tensor | None, ...]]] = []
        self._work, self._device = 0, torch.device("cpu")
        self._used: set[int] = set()  # storages of what is computed with,
        self._written: set[int] = set()  # and of what is written to

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self._note(func, args, kwargs or {})
        if func in _PRODUCTS and _plain(args):
            outputs = tuple(_alias(item) for item in (found if isinstance(found, tuple) else (found,)))
            fresh = set(map(_place, _tensors(outputs)))
            self._used, self._written = self._used - fresh, self._written - fresh  # others lay there, and are gone
            self._found.append((_key(func, args), outputs))
            self._work, self._device = self._work + _PRODUCTS[func](*args), args[0].device
        return found

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """What is computed with, views aside, and what is written to."""
        schema = func._schema
        if any(given.alias_info is not None and not given.alias_info.is_write for given in schema.returns):
            return
        given = dict(zip((spec.name for spec in schema.arguments), args, strict=False)) | dict(kwargs)
        for spec in schema.arguments:
            places = {_place(part) for part in _tensors(given.get(spec.name))}
            self._used |= places
            if spec.alias_info is not None and spec.alias_info.is_write:
                self._written |= places

    def pays(self) -> bool:
        """Whether there is so much to save that it pays to look at each operation."""
        return self._work >= capacity.of(self._device).least_kept

    def kept(self, ends: Sequence[Tensor], room: int) -> tuple[tuple[_Product, ...], int]:
        """The products, of which as many as there is room for are kept, and how many bytes they take."""
        blank = {_place(item) for item in ends} - self._used
        products, taken = [], 0
        for key, outputs in self._found:
            here = tuple(_blank(item) if item is not None and _place(item) in blank else item for item in outputs)
            size = sum(item.untyped_storage().nbytes() for item in _tensors(outputs) if _place(item) not in blank)
            fits = taken + size <= room and self._written.isdisjoint(map(_place, _tensors(outputs)))
            taken += size * fits
            products.append(_Product(key, here if fits else None))
        return tuple(products), taken


class _Again(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Products handed out in order, for as long as they are asked for as they were the first time."""

    def __init__(self, products: Sequence[_Product]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waiting = iter(products)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS and _plain(args):
            product = next(self._waiting, None)
            if product is None or product.key != _key(func, args):
                self._waiting = iter(())  # it runs otherwise: nothing is known from here on
            elif product.found is not None:
                given = tuple(map(_alias, product.found))
                return given if len(func._schema.returns) > 1 else given[0]
        return func(*args, **(kwargs or {}))


def _key(func: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    return func, *((item.shape, item.dtype, item.device) for item in args if isinstance(item, Tensor))


def _plain(args: Sequence[Any]) -> bool:
    """Whether no tensor is of a class of its own."""
    return all(type(item) in (Tensor, torch.nn.Parameter) for item in args if isinstance(item, Tensor))


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple)):
        for part in item:
            yield from _tensors(part)


def _alias(item: Tensor | None) -> Tensor | None:
    return None if item is None else item.detach()


def _place(item: Tensor) -> int:
    return item.untyped_storage().data_ptr()


def _blank(item: Tensor) -> Tensor:
    """Zeros of the same form, in place of numbers that are not looked at."""
    return item.new_zeros(()).expand(item.shape)
