"""What can go wrong, as one line for a person and one number for a script.

The exit codes are public: scripts and CI jobs rely on them.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a `hessdiag` command ended."""

    OK = 0
    GATE = 1  # a --fail-if or --baseline gate is violated, and nothing else
    USAGE = 2  # usage, configuration or spec error
    FAILED = 3  # could not load or compute
    INEXACT = 4  # computed, but not trustworthy, and --allow-inexact was not given
    INTERRUPTED = 130  # by Ctrl-C: SIGINT
    TERMINATED = 143  # by SIGTERM or SIGHUP, as `timeout` and schedulers send them


class HessdiagError(Exception):
    """Base of all errors that a user can cause or mend.

    Args:
        what: One sentence: what went wrong, and why.
        hint: The command or the change that would work, where one is known.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what if hint is None else f"{what}\n  try: {hint}")
        self.what = what
        self.hint = hint


class SpecError(HessdiagError):
    """The command line, the configuration or a spec cannot be understood."""

    exit_code = ExitCode.USAGE


class LoadError(HessdiagError):
    """A model, a batch or a loss could not be loaded, or does not fit the others."""


class UntrustedFileError(LoadError):
    """A file would run code of its own when loaded, and `--trust-code` was not given."""


class ComputeError(HessdiagError):
    """The computation itself failed: a non-finite loss, no memory."""


class NotFiniteError(ComputeError):
    """The loss is NaN or infinite."""


class OutputError(HessdiagError):
    """An answer was computed, and could not be written where it was to go."""


def said(error: BaseException) -> str:
    r"""An exception in one line: its type and the first line of its message, with the next where that ends in a colon.

    >>> said(ValueError("wrong field:\n  no number\n\nsee the manual")), said(KeyError())
    ('ValueError: wrong field: no number', 'KeyError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def first_line(error: BaseException) -> str:
    r"""The first line of an exception's message, or its type where it has none.

    >>> first_line(ValueError("no number\nsee the manual")), first_line(KeyError())
    ('no number', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
