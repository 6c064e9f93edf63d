"""A log of JSON lines: a header, then one line for each record, each written at once, so that a killed run is read."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from hessdiag.errors import LoadError, SpecError
from hessdiag.files import reason
from hessdiag.questions.report.run.record import SCHEMA
from hessdiag.report.document import dumps

SAME = ("model", "parameters", "layers", "loss", "reduction", "data_sha256", "dtype", "train_mode")  # of a run


class Log:
    """A file that lines are added to.

    Args:
        path: Where.
        header: The first line of a new one; one that is there already has to be of the same run.
        resume: Whether to add to one that is there.

    Raises:
        SpecError: if there is a file and `resume` is false, or it is of another run.
        LoadError: if it is no log, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], header: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        self.last: int | None = None  # step of the last record that is there
        try:
            there = self.path.exists() and self.path.stat().st_size > 0
            if there:
                if not resume:
                    raise SpecError(f"{self.path} is there already.", "another name, or resume=True to add to it")
                self._take_up(header)
            self._file: IO[str] = self.path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise LoadError(f"{self.path} cannot be written: {reason(error)}.", "log='run.jsonl'") from error
        self.write({"resumed": {"versions": header["versions"]}} if there else header)

    def _take_up(self, header: Mapping[str, Any]) -> None:
        """Look whether the file is of the same run, and cut off the half of a line that a killed one may have left."""
        before, lines = read(self.path)
        differing = differences(before, json.loads(dumps(header, indent=None)))
        if differing:
            raise SpecError(
                f"{self.path} is of another run: {', '.join(differing)} differ{'s' * (len(differing) == 1)}.",
                "another name for the log",
            )
        self.last = max((line["step"] for line in lines if "step" in line), default=None)
        whole = self.path.read_bytes()
        kept = whole.rfind(b"\n") + 1
        if kept < len(whole):
            os.truncate(self.path, kept)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        self._file.write(dumps(line, indent=None) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header and the other lines of a log. Half a line at the end, as a killed run leaves it, is left out.

    Raises:
        LoadError: if it is no log of this schema, or a line within is broken.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {reason(error)}.") from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            one = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict):
            raise LoadError(f"line {number} of {path} is no JSON object.", "a file that Monitor(log=...) wrote")
        found.append(one)
    if not found or found[0].get("schema") != SCHEMA:
        raise LoadError(f"{path} is no log of a run: its first line has no schema {SCHEMA}.", "Monitor(log='x.jsonl')")
    return found[0], found[1:]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two headers are not of the same run.

    >>> differences({"problem": {"model": "A"}, "quantities": []}, {"problem": {"model": "B"}, "quantities": []})
    ['model']
    """
    mine, others = one.get("problem") or {}, other.get("problem") or {}
    found = [key for key in SAME if mine.get(key) != others.get(key)]
    kinds = [(header.get("optimizer") or {}).get("kind") for header in (one, other)]
    found += ["optimizer"] * (kinds[0] != kinds[1])
    return found + ["quantities"] * (one.get("quantities") != other.get("quantities"))
