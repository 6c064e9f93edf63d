"""Memory that ran out: how libraries say so, and what they say. Loads no torch."""

import re

from hessdiag.errors import ComputeError
from hessdiag.machine.sizes import gib

# Of torch for GPU and host, of the libraries that it calls, of the C++ runtime, numpy and the system. If its
# workspace cannot be had, cuBLAS calls itself not initialized.
_SIGNS = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|unable to|failed to) allocate|_ALLOC_FAILED|bad_?alloc"
    r"|bad allocation|CUBLAS_STATUS_NOT_INITIALIZED when calling .?cublasCreate",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_FREE = re.compile(r"of which ([\d.]+) ?(bytes|[KMGT]i?B) is free", re.IGNORECASE)
_RAN_OUT = "memory ran out"
_UNITS = {"bytes": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class ShortageError(ComputeError, MemoryError):
    """Memory ran out, with what would need less."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host.

    >>> ran_out(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    >>> ran_out(RuntimeError("vmap: this operation cannot be batched")), ran_out(MemoryError())
    (False, True)
    """
    return isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, OSError)) and _says(error))


def _says(error: BaseException) -> bool:
    return _SIGNS.search(str(error)) is not None


def asked(error: BaseException) -> int | None:
    """How many bytes could not be had, where the error tells.

    >>> asked(RuntimeError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.11 GiB"))
    1610612736
    """
    return _bytes(_ASKED.search(str(error)))


def free(error: BaseException) -> int | None:
    """How many bytes were free then, where the error tells."""
    return _bytes(_FREE.search(str(error)))


def _bytes(found: re.Match[str] | None) -> int | None:
    if found is None:
        return None
    unit = found[2].lower()
    return int(float(found[1]) * _UNITS[unit if unit == "bytes" else unit[0]])


def sentence(error: BaseException, available: int | None = None, where: str = "") -> str:
    """What happened, with the numbers that are known, as the end of a sentence.

    >>> sentence(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes."))
    'memory ran out: 4.0 GiB more were asked'
    >>> sentence(MemoryError(), 2**30, where="cuda:0")
    'memory ran out on cuda:0: 1.0 GiB are free'
    """
    told = free(error)
    left = available if told is None else told
    known = ((asked(error), "more were asked"), (left, "are free"))
    parts = [f"{gib(size, 1 if size >= 2**30 else None)} {verb}" for size, verb in known if size is not None]
    what = f"{_RAN_OUT} on {where}" if where else _RAN_OUT
    return f"{what}: {', and '.join(parts)}" if parts else what


def tells_of_shortage(text: str) -> bool:
    """Whether a text holds what `sentence` says.

    >>> tells_of_shortage(sentence(MemoryError())), tells_of_shortage("the model cannot be copied")
    (True, False)
    """
    return _RAN_OUT in text


def fewer(count: int) -> int:
    """Of what is held at a time, how many to try next: the largest power of two below.

    >>> fewer(100), fewer(64), fewer(2)
    (64, 32, 1)
    """
    return 1 << ((count - 1).bit_length() - 1)
