"""Where records go: the log and the curves, of which none may end the training."""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hessdiag.errors import SpecError, said
from hessdiag.monitor.log import Log
from hessdiag.monitor.sinks import to_tensorboard, to_wandb
from hessdiag.questions.report.run.record import Record

Line = Callable[[dict[str, Any]], object]


class Outlets:
    """All of them.

    Args:
        header: Of the log.
        log: A file, or a function of each line; or `None`.
        resume: Whether to add to a file that is there.
        tensorboard: A writer, a folder, or `None`.
        wandb: A run, or `None`.

    Attributes:
        last: The last step in a file that is added to.

    Raises:
        SpecError: if one cannot be meant so.
        LoadError: if the file cannot be written, or a package is missing.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        log: str | os.PathLike[str] | Line | None,
        *,
        resume: bool,
        tensorboard: Any,
        wandb: Any,
    ) -> None:
        self.last: int | None = None
        self._writes: dict[str, Callable[[Record], object]] = {}
        self._closes: list[Callable[[], object]] = []
        self._warned: set[str] = set()
        if tensorboard is not None:
            write, close = to_tensorboard(tensorboard)
            self._writes["TensorBoard"] = write
            self._closes.append(close)
        if wandb is not None:
            self._writes["Weights & Biases"] = to_wandb(wandb)
        if isinstance(log, (str, os.PathLike)):
            file = Log(log, header, resume=resume)
            self.last = file.last
            self._writes[str(log)] = lambda record: file.write(record.line())
            self._closes.append(file.close)
        elif callable(log):
            log(dict(header))
            self._writes["log"] = lambda record: log(record.line())
        elif log is not None:
            raise SpecError(f"a log is a file or a function, not a {type(log).__name__}.", "log='run.jsonl'")

    def write(self, record: Record) -> None:
        """Write a record wherever it goes; what fails is left alone from then on, with a warning."""
        for name, write in list(self._writes.items()):
            try:
                write(record)
            except Exception as error:
                del self._writes[name]
                self.warn([name], f"nothing more is written to {name}: {said(error)}")

    def warn(self, about: Iterable[str], what: str) -> None:
        """Warn unless all of these things were warned of; where warnings are made errors, on stderr."""
        if self._warned.issuperset(about):
            return
        self._warned.update(about)
        try:
            warnings.warn(f"hessdiag.Monitor: {what}", RuntimeWarning, stacklevel=2)
        except RuntimeWarning as warning:
            print(warning, file=sys.stderr)

    def close(self) -> None:
        """Close what was opened here."""
        self._writes = {}
        while self._closes:
            self._closes.pop()()
