"""Attributes of somebody else's, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replaced(owner: object, **values: object) -> Iterator[None]:
    """Give an object or a module other attributes within this context, and those that it had afterwards.

    >>> import math
    >>> with replaced(math, tau=6, pi=3):
    ...     math.tau, math.pi
    (6, 3)
    >>> math.tau == 2 * math.pi
    True
    """
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
