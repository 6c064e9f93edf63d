"""Ctrl-C, SIGTERM and SIGHUP: the first ends the computation, and what is there is delivered; the next ends at once.

Only the command line installs this. Of the standard library it imports little: it stands before everything else.
"""

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hessdiag.errors import ExitCode

CODES = {
    number: code
    for name, code in (
        ("SIGINT", ExitCode.INTERRUPTED),
        ("SIGTERM", ExitCode.TERMINATED),
        ("SIGHUP", ExitCode.TERMINATED),
    )
    if (number := getattr(signal, name, None)) is not None
}
TOGETHER = 1.0  # seconds: `timeout`, torchrun and terminals send what is meant as one signal to many, and often twice
SHOW_CURSOR = "\x1b[?25h"


@dataclass
class _State:
    received: int | None = None  # the first signal
    held: bool = True  # noted, not raised: nothing can be lost yet, or all is computed
    idle: bool = True  # nothing has begun that would have to be ended in order
    delivered: bool = False  # all is said
    again: bool = False  # an interruption was lost in code that swallows everything, and is on its way once more


_state = _State()


@contextmanager
def watched() -> Iterator[None]:
    """Handle signals of this process. What ignores them (nohup, a background job of a script) goes on ignoring them.

    The handlers stay: until its end, a process that is told to stop stops.
    """
    global _state
    _state = _State()
    taken = [number for number in CODES if signal.getsignal(number) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in taken:
        signal.signal(number, _first)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _forget(taken))
    threading.Thread(target=_second, args=(reading,), daemon=True).start()
    atexit.register(_ignore, taken)  # the last of its kind: what is left is Python taking itself apart
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda lost: _raise_again() if _is_ours(lost) else unraisable(lost)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        _state.idle = _state.delivered = True


@contextmanager
def computing() -> Iterator[None]:
    """Within, an interruption is raised as KeyboardInterrupt. Afterwards it waits: what was computed is delivered."""
    _state.held = _state.idle = False
    try:
        yield
    finally:
        _state.held = True


def leave(code: int) -> None:
    """End the process with its code, also where it is told to stop once more on its way out."""
    if _state.received is not None:
        # While Python takes itself apart, signals have their default again, and would end it with a code of theirs.
        atexit._run_exitfuncs()
        os._exit(code)
    if os.environ.get("WORLD_SIZE"):  # torchrun stops all once one has failed: the others keep their own codes
        _ignore(list(CODES))
    sys.exit(code)


def received() -> int | None:
    """The first signal that came."""
    return _state.received


def exit_code() -> ExitCode:
    """How an interrupted command ends."""
    return CODES.get(_state.received or signal.SIGINT, ExitCode.INTERRUPTED)


def word() -> str:
    """What happened to it."""
    return "terminated" if exit_code() is ExitCode.TERMINATED else "interrupted"


def _first(number: int, _: FrameType | None) -> None:
    """Runs in the main thread, between two steps of Python."""
    if _state.received is not None and not _state.again and not _state.delivered:
        return  # `_second` sees to it
    _state.received, _state.again = _state.received or number, False
    if _state.idle or (not _state.held and _is_importing_torch()):
        # A KeyboardInterrupt inside the start of a C library comes out as anything. There is nothing to end in order.
        # Where what was computed is about to be delivered, none is raised, and the import ends as it should.
        _end(number)
    if not _state.held:
        raise KeyboardInterrupt


def _second(reading: int) -> None:
    """Runs in a thread of its own: the main one may be inside a product that takes minutes."""
    first: float | None = None
    while numbers := os.read(reading, 64):  # all that came since: on a busy machine this thread may be late
        stops = [number for number in numbers if number in CODES]
        if not stops:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > TOGETHER:
            _end(stops[0])


def _end(number: int) -> None:
    files = sys.modules.get("hessdiag.files")
    if files is not None:
        files.discard_unfinished()
    _state.received = _state.received or number
    with suppress(OSError):
        if not _state.delivered and os.environ.get("RANK", "0") == "0":  # the first of several speaks for all
            os.write(2, (f"{SHOW_CURSOR}\n" if os.isatty(2) else "").encode() + f"{word()}\n".encode())
    os._exit(exit_code())


def as_usual() -> None:
    """Let a signal end the process at once, and in silence."""
    for number in CODES:
        signal.signal(number, signal.SIG_DFL)


def _ignore(numbers: list[signal.Signals]) -> None:
    """Python keeps this to its end; any other handler it takes away before, for the default that ends a process."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _is_importing_torch() -> bool:
    torch = sys.modules.get("torch")
    return bool(torch is not None and getattr(torch.__spec__, "_initializing", False))


def _is_ours(lost: Any) -> bool:
    return isinstance(lost.exc_value, KeyboardInterrupt) and _state.received is not None


def _raise_again() -> None:
    """A callback without a caller (a weak reference's, say) swallowed the interruption: it comes once more."""
    _state.again = True
    _thread.interrupt_main(signal.Signals(_state.received or signal.SIGINT))


def _forget(taken: list[int]) -> None:
    """In a forked child, such as a worker of a DataLoader: signals are its parent's affair, and it ends as usual."""
    signal.set_wakeup_fd(-1)
    for number in taken:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
