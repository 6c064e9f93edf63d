"""The lines of a table of text (CSV, TSV, numpy.savetxt), plain or gzipped, and what divides its cells."""

import csv
import gzip
import io
import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hessdiag.errors import LoadError, said

_DELIMITERS = "\t;|,"
_LONGEST = 1 << 24  # characters of a line
_LOOKED_AT = 20  # lines that say what form a table has
_ALIKE = 0.75  # of these have as many cells as the first
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_NO_TABLES = ("{", "[", "<", "version https://git-lfs", "%", "---")


@dataclass(frozen=True)
class Form:
    """How a table is written.

    Attributes:
        delimiter: What stands between cells; " " for any white space.
        encoding: Of its text.
        zipped: Whether by gzip.
    """

    delimiter: str
    encoding: str
    zipped: bool


def form_of(path: Path) -> Form | None:
    """How a file is written as a table, by its content; `None` if it is none.

    A table's first two lines have as many cells, two at least, and so have most of the next ones.
    """
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        with _opened(path, zipped) as stream:
            head = stream.read(1 << 16)
    except (OSError, EOFError, zlib.error):
        return None
    encoding = next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        text = head[: error.start].decode(encoding, "ignore") if error.start > len(head) - 4 else ""
        if not text:
            text = head.decode("latin1") if b"\0" not in head and head[:1].isascii() else ""
    lines = [line for line in text.splitlines()[: -1 if len(head) == 1 << 16 else None] if line.strip()]
    start = text.lstrip()[:200].lower()
    if len(lines) < 2 or start.startswith(_NO_TABLES) or any(ord(char) < 9 for char in lines[0]):
        return None
    delimiter = _delimiter(lines[:_LOOKED_AT])
    return None if delimiter is None else Form(delimiter, encoding, zipped)


def _delimiter(lines: Sequence[str]) -> str | None:
    widths = {mark: _widths(lines, mark) for mark in _DELIMITERS}
    for mark, counts in widths.items():
        if counts[:1] != [1] and len(set(counts[:2])) == 1 and counts.count(counts[0]) >= _ALIKE * len(counts):
            return mark
    words = [line.lstrip("#").split() for line in lines]
    numbers = all(is_number(word) for row in words[1:] for word in row)
    return " " if numbers and len({len(row) for row in words}) == 1 and len(words[0]) > 1 else None


def _widths(lines: Sequence[str], mark: str) -> list[int]:
    try:
        return [len(row) for row in csv.reader(lines, delimiter=mark, skipinitialspace=True) if row]
    except csv.Error:
        return [1]


def is_number(cell: str) -> bool:
    """Whether a cell is a number as float takes it, without underscores.

    >>> is_number(" -1e3"), is_number("1_000"), is_number("")
    (True, False, False)
    """
    try:
        return "_" not in cell and float(cell) is not None
    except ValueError:
        return False


def rows(path: Path, form: Form) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table as cells of text, each with the number of the line that it ends on; empty ones are left out.

    Raises:
        LoadError: if the text is no text, or a line or a quoted cell does not end.
    """
    try:
        with _opened(path, form.zipped) as stream:
            lines = _lines(path, stream, form.encoding)
            if form.delimiter == " ":
                split = ((number, line.split()) for number, line in enumerate(lines, 1))
            else:
                reader = csv.reader(lines, delimiter=form.delimiter, skipinitialspace=True)
                split = ((reader.line_num, row) for row in reader)
            for number, row in split:
                if any(cell.strip() for cell in row):
                    yield number, [cell.strip() for cell in row]
    except csv.Error as error:
        raise LoadError(f"{path} is damaged as a table: {said(error)}", "a quote that opens must close") from error
    except UnicodeDecodeError as error:
        raise LoadError(
            f"{path} is not in {form.encoding} (byte {error.object[error.start]:#x}).",
            f"iconv -f latin1 -t utf-8 {path} > utf8.csv, then --data ./utf8.csv",
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise LoadError(f"{path} cannot be read: {said(error)}", "copy it again") from error


def _opened(path: Path, zipped: bool) -> IO[bytes]:
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, stream: IO[bytes], encoding: str) -> Iterator[str]:
    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    first = True
    while line := text.readline(_LONGEST):
        if len(line) >= _LONGEST:
            raise LoadError(f"{path} has a line of more than {_LONGEST:,} characters: it is no table.")
        yield line.lstrip("# ") if first and line.startswith("#") else line  # as numpy.savetxt writes a header
        first = False


def has_header(first: Sequence[str], later: Sequence[Sequence[str]]) -> bool:
    """Whether a first row holds names: text above numbers, or the numbers 0, 1, 2, ... that pandas gives columns.

    Args:
        first: Its cells.
        later: Some of the next rows.

    >>> has_header(["a", "class"], [["1", "cat"]]), has_header(["1", "dog"], [["1", "cat"]])
    (True, False)
    """
    if len(first) > 2 and list(first) == [str(place) for place in range(len(first))]:
        return True
    return any(
        cell and not is_number(cell) and _mostly_numbers([row[place] for row in later if len(row) > place])
        for place, cell in enumerate(first)
    )


def _mostly_numbers(cells: Sequence[str]) -> bool:
    kinds = Counter(is_number(cell) for cell in cells if cell)
    return kinds[True] > kinds[False]


def looked_at(path: Path, form: Form) -> list[tuple[int, list[str]]]:
    """The first rows, which say what form a table has."""
    return list(itertools.islice(rows(path, form), _LOOKED_AT))
