"""What holds around every measurement: IEEE arithmetic, and on a GPU one stream for all of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from hessdiag.arithmetic import ieee


def own_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream on which this process measures on a device; `None` where there are no streams.

    There is one: autograd remembers the stream on which a graph was built, and a product can be recorded only if
    nothing that it meets was built on another.
    """
    if device.type != "cuda":
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


@contextmanager
def measuring(device: torch.device) -> Iterator[None]:
    """IEEE arithmetic, and the one stream of the device; undone afterwards."""
    with ieee(), on(own_stream(device)):
        yield
