"""A GPU whose context is gone, as an index out of range leaves it: every later call fails. Loads no torch."""

_SIGNS = ("device-side assert", "cuda error: an illegal memory access", "cuda error: unspecified launch failure")

WHAT = "the GPU stopped at a number out of range, most likely a label or an id in the batch."
HINT = "the same command with --device cpu, which names it"


def is_lost(error: BaseException) -> bool:
    """Whether an error, or what it came of, says so: then nothing may be computed again.

    >>> is_lost(RuntimeError("CUDA error: device-side assert triggered")), is_lost(RuntimeError("out of memory"))
    (True, False)
    """
    seen: BaseException | None = error
    while seen is not None:
        if any(sign in str(seen).lower() for sign in _SIGNS):
            return True
        seen = seen.__cause__
    return False
