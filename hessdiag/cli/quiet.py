"""What other people's libraries say while they load and compute: their bars, advice and log lines, kept short."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hessdiag.cli.speech import say

LONGEST = 200  # characters of a warning

_ALWAYS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",  # else it warns of every process that is forked
}
_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
# What whoever writes the library ought to read, and not whoever uses it.
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


@contextmanager
def third_parties() -> Iterator[None]:
    """Keep libraries that are loaded from now on quiet; what is set in the environment, or with `python -W`, stands.

    Their bars show on a terminal only. A warning is one line on stderr, once; so is a log line that no one handles.
    """
    wanted = _ALWAYS if sys.stderr is not None and sys.stderr.isatty() else _ALWAYS | _BARS
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    said: set[str] = set()
    last_resort = logging.lastResort
    with warnings.catch_warnings():
        if not sys.warnoptions:
            for category in _FOR_DEVELOPERS:
                warnings.simplefilter("ignore", category)
            warnings.showwarning = lambda message, *_, **__: _say_once(str(message), said)
        logging.lastResort = _Short(said)
        try:
            yield
        finally:
            logging.lastResort = last_resort


class _Short(logging.Handler):
    """Says a record in one line, once."""

    def __init__(self, said: set[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        _say_once(record.getMessage(), self._said)


def _say_once(message: Any, said: set[str]) -> None:
    text = " ".join(str(message).split())
    short = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
    if short and short not in said:
        said.add(short)
        say(f"warning: {short}")
