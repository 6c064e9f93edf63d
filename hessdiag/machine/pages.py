"""Large pages for memory that is about to be filled: the first touch of a small page costs more than filling it."""

import contextlib
import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MADV_HUGEPAGE = 14  # as Linux has it
LARGE_PAGE = 2**21  # bytes, on x86-64 and mostly elsewhere: where it is more, the system rounds, or says no


@cache
def _advise() -> Any:
    """The system's `madvise`; `None` where there is none."""
    with contextlib.suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return advise
    return None


def large_pages(tensor: "torch.Tensor") -> "torch.Tensor":
    """The same tensor, fresh memory of which the system may give in large pages when it is filled.

    Only pages that lie in it as a whole are asked for, so that what is filled takes no more memory than it would
    otherwise. Where the system has none, nothing changes.

    Args:
        tensor: Contiguous. On a GPU nothing is done.

    >>> import torch
    >>> large_pages(torch.empty(1024, 1024)).shape
    torch.Size([1024, 1024])
    """
    start = -(-tensor.data_ptr() // LARGE_PAGE) * LARGE_PAGE
    size = (tensor.data_ptr() + tensor.numel() * tensor.itemsize) // LARGE_PAGE * LARGE_PAGE - start
    if tensor.device.type == "cpu" and size > 0 and (advise := _advise()) is not None:
        advise(start, size, MADV_HUGEPAGE)
    return tensor
