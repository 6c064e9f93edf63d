"""What holds around every measurement: IEEE arithmetic, and on a GPU one stream for all of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

from hessdiag.machine.arithmetic import ieee

_beside: ContextVar[bool] = ContextVar("beside", default=False)


def own_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream on which this process measures on a device; `None` where there are no streams, or is to be none.

    There is one: autograd remembers the stream on which a graph was built, and a product can be recorded only if
    nothing that it meets was built on another.
    """
    if device.type != "cuda" or _beside.get():
        return None
    return _stream(torch.cuda.current_device() if device.index is None else device.index)


@cache
def _stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)  # type: ignore[no-untyped-call]


@contextmanager
def on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Compute on `stream`, after what was begun before and before what comes next."""
    outside = None if stream is None else torch.cuda.current_stream(stream.device)
    if stream is None or outside is None or outside == stream:
        yield
        return
    stream.wait_stream(outside)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outside.wait_stream(stream)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def beside_other_graphs(device: torch.device) -> Iterator[None]:
    """Measure on the default stream of the device, where a graph of the same parameters was built and is alive.

    Autograd keeps a leaf on the stream of the oldest graph of it.
    """
    token = _beside.set(True)
    try:
        with on(torch.cuda.default_stream(device) if device.type == "cuda" else None):
            yield
    finally:
        _beside.reset(token)


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """IEEE arithmetic, and the one stream of the device; undone afterwards."""
    with ieee(), on(own_stream(device)):
        yield
