"""Work that several measurements need, done once: within a `sharing`, and nowhere else."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_KEPT: ContextVar[dict[Hashable, Any] | None] = ContextVar("once", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Keep what is computed within by `once`, until the end. It must not be changed by who gets it.

    >>> with sharing():
    ...     once("sum", lambda: 1 + 1), once("sum", lambda: 1 + 2)
    (2, 2)
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(key: Hashable, compute: Callable[[], T]) -> T:
    """What `compute` gives, or gave before for this key where work is shared.

    >>> once("sum", lambda: 1 + 1), once("sum", lambda: 1 + 2)
    (2, 3)
    """
    kept = _KEPT.get()
    if kept is None:
        return compute()
    if key not in kept:
        kept[key] = compute()
    found: T = kept[key]
    return found
