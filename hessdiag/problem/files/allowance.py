"""How much a file may unpack to: a multiple of its own size, so that no small file takes a large memory."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hessdiag.errors import LoadError

FACTOR, FLOOR = 16, 256 * 10**6
OPTION = "--max-unpacked"
_MOST = 10**27 - 10**12  # a shape's product may be beyond every float; the option takes no more digits
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Allowance:
    """What one file may take.

    Attributes:
        path: The file, for messages.
        size: Its own bytes.
        most: Bytes that it may unpack to.
    """

    path: Path
    size: int
    most: int

    @classmethod
    def of(cls, path: Path, most: int | None = None) -> "Allowance":
        """The usual allowance of a file, or another one that was asked for."""
        return cls.of_files(path, [path], most)

    @classmethod
    def of_files(cls, path: Path, files: Iterable[Path], most: int | None = None) -> "Allowance":
        """The allowance of several files together."""
        size = sum(file.stat().st_size for file in files)
        return cls(path, size, max(FLOOR, FACTOR * size) if most is None else most)

    def check(self, unpacked: int) -> None:
        """Refuse a file that would unpack to so many bytes, before it does.

        Raises:
            LoadError: if these are more than it may.
        """
        if unpacked > self.most:
            raise LoadError(
                f"{self.path} would unpack from {amount(self.size)} to {amount(unpacked)}, "
                f"and at most {amount(self.most)} are read.",
                f"{OPTION} {amount(unpacked, up=True)}, if that is what it should hold",
            )


def amount(size: int, *, up: bool = False) -> str:
    """Bytes for people, as the option takes them.

    Args:
        size: A number of bytes.
        up: Round up, so that the size is within.

    >>> amount(12), amount(2_345_678_900), amount(2_345_678_900, up=True)
    ('12 bytes', '2.35 GB', '3GB')
    """
    size = min(size, _MOST)
    for unit, name in _UNITS:
        if size >= unit:
            return f"{math.ceil(size / unit)}{name}" if up else f"{min(size / unit, 1e9):.3g} {name}"
    return f"{size} bytes" if not up else "1kB"


def nominal(shape: Iterable[int]) -> int:
    """Entries that a shape stands for. An axis without length counts as one: nobody walks along 2**40 empty rows.

    >>> nominal((3, 4)), nominal((2**40, 0))
    (12, 1099511627776)
    """
    return math.prod(max(int(length), 1) for length in shape)
