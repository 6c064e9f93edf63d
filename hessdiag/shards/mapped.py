"""Files in memory by their pages: those that were read are let go of, so that no process holds the whole file."""

import ctypes
import mmap
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_MAPS = Path("/proc/self/maps")


@dataclass(frozen=True)
class Pages:
    """Where files lie in memory, as they were read.

    Attributes:
        ranges: First addresses and those past the last.
        versions: Of tensors in them, by the address of their storage: what torch counts when they are written to.
    """

    ranges: tuple[tuple[int, int], ...]
    versions: dict[int, int]

    @classmethod
    def of(cls, files: Iterable[Path], tensors: Iterable[Tensor]) -> "Pages":
        """The pages of files, and the tensors that were just read from them; none where that cannot be told."""
        plain = (item for item in tensors if item.layout is torch.strided and item.device.type == "cpu")
        return cls(_ranges(files), {item.untyped_storage().data_ptr(): item._version for item in plain})

    def let_go(self, tensor: Tensor) -> None:
        """Give back the memory of a tensor of these that nobody has written to; where it is needed it is read anew."""
        storage = tensor.untyped_storage()
        start, stop = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        if self.versions.get(start) != tensor._version:
            return
        if not any(low <= start and stop <= high for low, high in self.ranges):
            return
        start, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def _ranges(files: Iterable[Path]) -> tuple[tuple[int, int], ...]:
    if sys.platform != "linux":
        return ()
    names = {str(path.resolve()) for path in files}
    found = []
    for line in _MAPS.read_text().splitlines() if _MAPS.exists() else ():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5] in names:
            start, stop = parts[0].split("-")
            found.append((int(start, 16), int(stop, 16)))
    return tuple(found)
