"""stdout and stderr as a run may find them: full, closed, or gone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from hessdiag.errors import OutputError
from hessdiag.files import reason

ELSEWHERE = "-o FILE, and > /dev/null where stdout is not wanted"


class _Stream:
    """A stream that passes everything on, and knows what to do where that fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write."""
        if text == "":
            return 0  # asked of a stream to see what it takes; /dev/full refuses even that
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:
            return self._failed(error, len(text))

    def flush(self) -> None:
        """Write what was held back."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._failed(error, 0)

    def _failed(self, error: OSError | ValueError, size: int) -> int:
        raise NotImplementedError

    def _let_go(self) -> None:
        """Python flushes once more at exit: let that go nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Answer(_Stream):
    """stdout: an answer that cannot be printed is an error; a reader that has gone (`| head`) is none."""

    def _failed(self, error: OSError | ValueError, size: int) -> int:
        self._let_go()
        if isinstance(error, BrokenPipeError):
            return size
        raise OutputError(f"cannot write to stdout: {reason(error)}.", ELSEWHERE) from None


class Remarks(_Stream):
    """stderr: where nobody can be told, nothing is said, and the work goes on."""

    def _failed(self, error: OSError | ValueError, size: int) -> int:
        self._let_go()
        return size


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Give the run streams that it can rely on, and the old ones back afterwards."""
    before = sys.stdout, sys.stderr
    _fill_descriptors()
    # Python has no stream for what was closed when it started. Descriptor 1 is open for reading only then: it refuses.
    out: TextIO = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    err: TextIO = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (out, err):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode gets question marks, not a crash
    sys.stdout, sys.stderr = Answer(out), Remarks(err)
    try:
        yield
    finally:
        with contextlib.suppress(OutputError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Open what is closed of 0, 1 and 2: else the next file gets that number, and what others print goes into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                opened = os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
