"""Data sets that this package reads itself: what a reader must know of them, and in which order they are drawn."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset


class Known(Dataset[Any]):
    """Samples that this package reads itself, from files that run no code.

    Attributes:
        total: How many samples there are, of which perhaps not all were read; `None` where that is not known.
    """

    total: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result must know of the data; asked for once the samples were read."""
        return ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files whose hashes stand in the result."""
        return ()


def shuffled(count: int, seed: int) -> Iterator[int]:
    """The numbers below `count` in an order that the seed makes; what is not asked for takes neither time nor memory.

    Fisher and Yates, with only those places kept that were exchanged.

    >>> sorted(shuffled(5, seed=0))
    [0, 1, 2, 3, 4]
    """
    source = random.Random(seed)
    moved: dict[int, int] = {}
    for place in range(count):
        other = source.randrange(place, count)
        yield moved.get(other, other)
        moved[other] = moved.pop(place, place)


def printable(name: str) -> str:
    r"""The name of a file or a class, with what no terminal and no JSON takes written out.

    >>> printable("caf\x1b\udce9")
    'caf\\x1b\\udce9'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in name)
