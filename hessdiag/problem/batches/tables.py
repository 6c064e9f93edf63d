"""Tables of numbers as text: rows are samples, one column or several are the target."""

import heapq
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batches.batch import TARGET_KEYS
from hessdiag.problem.batches.known import Known, printable
from hessdiag.problem.files.lines import Form, has_header, is_number, looked_at, rows

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-", ".")
MOST_CLASSES = 10_000
OPTIONS = ("header", "inputs", "shuffle")
_TARGETS = (*TARGET_KEYS, "class")
_WHOLE = re.compile(r"[+-]?\d+")
_SHOWN = 10  # classes in a note

Row = tuple[int, list[str]]


@dataclass(frozen=True, eq=False)
class Table(Known):
    """Rows of a table: inputs (n, columns) and a target, classes (n,) or real numbers (n, targets).

    Attributes:
        inputs: Numbers as they are in the file.
        target: int64, or float64.
        said: What a reader must know.
        path: The file.
        total: Its rows; `None` where they were not counted.
    """

    inputs: Tensor
    target: Tensor
    said: tuple[str, ...] = ()
    path: Path = field(default=Path())
    total: int | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index], self.target[index]

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Known`."""
        return self.said

    @property
    def sources(self) -> tuple[Path, ...]:
        """See `Known`."""
        return (self.path,)


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Attributes:
        names: Of all, or their numbers from 1.
        inputs: Places of the inputs.
        targets: Places of the targets.
        header: Whether the first row holds the names.
        index: Whether the first column only counts the rows, as pandas writes it.
    """

    names: tuple[str, ...]
    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    header: bool
    index: bool = False


def read(
    path: Path,
    form: Form,
    key: str | None = None,
    *,
    seed: int = 0,
    most: int | None = None,
    whole_inputs: bool = False,
    header: bool | None = None,
    inputs: Sequence[str] | None = None,
    shuffle: bool = True,
) -> Table:
    """Rows of a table, drawn without replacement; fewer are the first of more.

    Args:
        path: The file.
        form: How it is written.
        key: Names, or numbers from 1, of the target's columns; by default one that is called so, or the last.
        seed: Of the draw.
        most: How many rows are needed; by default all.
        whole_inputs: Whether whole numbers stay so, for models with an embedding.
        header: Whether the first row holds names; by default that is told from what stands below it.
        inputs: Names or numbers of the inputs' columns; by default all others.
        shuffle: Draw them; else take the first of the file, and read no further than needed.

    Raises:
        SpecError: if there is no such column, or an option is none of these.
        LoadError: if a row has another length, or a cell that is used holds no number.
    """
    first = looked_at(path, form)
    columns = _columns(path, [row for _, row in first], key, header, inputs)
    kept, found = _drawn(path, columns, _body(path, form, columns), random.Random(seed) if shuffle else None, most)
    if not kept:
        raise LoadError(f"{path} has no row of numbers.", "a row for each sample")
    cells = [[_number(path, columns, row, place) for place in columns.inputs] for row in kept]
    tokens = whole_inputs and all(_WHOLE.fullmatch(row[1][place]) for row in kept for place in columns.inputs)
    target, more = _target(path, columns, kept, found)
    order = f"rows in an order drawn from seed {seed}; (shuffle=False) keeps the file's" if shuffle else "rows as filed"
    several = "columns " if len(columns.targets) > 1 else "column "
    counted = f"{found.rows:,}" if found.whole else f"the first {len(kept):,}"
    about = (
        f"data: {counted} rows of {len(columns.inputs)} numbers, not standardized; the target is "
        f"{several}{', '.join(printable(columns.names[place]) for place in columns.targets)}"
    )
    names = "data: the first row holds the names of the columns" if columns.header else None
    left = "data: the first column only counts the rows, and is left out" if columns.index else None
    return Table(
        torch.tensor(cells, dtype=torch.int64 if tokens else torch.float64),
        target,
        tuple(note for note in (about, names, left, *more, f"data: {order}") if note),
        path,
        found.rows if found.whole else None,
    )


def _columns(
    path: Path, first: Sequence[list[str]], key: str | None, header: bool | None, inputs: Sequence[str] | None
) -> Columns:
    width = len(first[0])
    wanted = [part.strip() for part in (key or "").split(",")]
    if header is None:
        named = {key, *wanted} & {cell for cell in first[0] if not is_number(cell)}
        header = has_header(first[0], first[1:]) or bool(named)
    names = tuple(first[0]) if header else tuple(str(place + 1) for place in range(width))
    index = header and not names[0] and _counts([row[0] for row in first[1:]])
    if key is None:
        called = [place for place, name in enumerate(names) if name.lower() in _TARGETS]
        targets = called if len(called) == 1 else [width - 1]
    else:
        targets = [_place(path, names, name) for name in ([key] if key in names else wanted)]
    if inputs is None:
        taken = [place for place in range(width) if place not in targets and not (index and place == 0)]
    else:
        taken = [_place(path, names, str(name)) for name in ([inputs] if isinstance(inputs, str) else inputs)]
    if not taken:
        raise SpecError(f"no column of {path} is left for the inputs.", f"--data '{path}#NAME' with one target")
    return Columns(names, tuple(taken), tuple(targets), header, index and inputs is None)


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells are successive whole numbers."""
    return all(map(_WHOLE.fullmatch, cells)) and [int(cell) - place for place, cell in enumerate(cells)] == [
        int(cells[0])
    ] * len(cells)


def _place(path: Path, names: Sequence[str], name: str) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return int(name) - 1
    shown = ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    raise SpecError(f"{path} has no column {name!r}; there is {shown}.", f"--data '{path}#{printable(names[-1])}'")


def _body(path: Path, form: Form, columns: Columns) -> Iterator[Row]:
    width = len(columns.names)
    for number, row in itertools.islice(rows(path, form), int(columns.header), None):
        if len(row) != width:
            raise LoadError(
                f"{path}, line {number}: {len(row)} cells, where the first row has {width}.",
                "quotes around cells that hold the delimiter, or a file that is whole",
            )
        yield number, row


@dataclass
class _Found:
    """What is known of the target after a pass: how many rows, which words, whether all numbers are whole."""

    rows: int = 0
    whole: bool = True
    words: dict[str, int] = field(default_factory=dict)
    number: int | None = None
    fractional: bool = False

    def look(self, path: Path, columns: Columns, row: Row) -> None:
        self.rows += 1
        for place in columns.targets:
            cell = row[1][place]
            if _WHOLE.fullmatch(cell):
                self.number = self.number or row[0]
            elif is_number(cell) and cell.lower() not in MISSING:
                self.number, self.fractional = self.number or row[0], True
            elif cell.lower() not in MISSING:
                self.words.setdefault(cell, row[0])
        if self.words and len(columns.targets) == 1 and (self.number or len(self.words) > MOST_CLASSES):
            word, line = next(iter(self.words.items()))
            name = printable(columns.names[columns.targets[0]])
            what = f"{printable(word)!r} in line {line}"
            if self.number:
                why = f"the target {name} holds both numbers (line {self.number}) and text ({what})"
            else:
                why = f"the target {name} holds more than {MOST_CLASSES:,} words ({what}), which are no classes"
            raise LoadError(f"{path}: {why}.", f"--data '{path}#NAME' with the name of the target's column")


def _drawn(
    path: Path, columns: Columns, body: Iterator[Row], source: random.Random | None, most: int | None
) -> tuple[list[Row], _Found]:
    """The rows that are used, in their order, after as much of the file as that takes."""
    found = _Found()

    def seen() -> Iterator[tuple[float, Row]]:
        for row in body:
            found.look(path, columns, row)
            yield (float(found.rows) if source is None else source.random()), row

    stream = seen()
    if source is not None:
        pairs = sorted(stream) if most is None else heapq.nsmallest(most, stream)
        return [row for _, row in pairs], found
    kept = [row for _, row in itertools.islice(stream, most)]
    if found.words:  # classes are numbered by all of their names
        for _ in stream:
            pass
    found.whole = next(stream, None) is None
    return kept, found


def _target(path: Path, columns: Columns, kept: Sequence[Row], found: _Found) -> tuple[Tensor, tuple[str, ...]]:
    if found.words and len(columns.targets) == 1:
        place = columns.targets[0]
        names = sorted(found.words)
        numbers = {name: number for number, name in enumerate(names)}
        for row in kept:
            if row[1][place] not in numbers:
                raise _missing(path, columns, row, place)
        return torch.tensor([numbers[row[1][place]] for row in kept]), (classes(names),)
    values = [[_number(path, columns, row, place) for place in columns.targets] for row in kept]
    if len(columns.targets) == 1 and not found.fractional:
        return torch.tensor([int(row[1][columns.targets[0]]) for row in kept]), ()
    return torch.tensor(values, dtype=torch.float64), ()


def classes(names: Sequence[str]) -> str:
    """A note that says which class has which number.

    >>> classes(["cat", "dog"])
    'data: 2 classes in the order of their names: 0 cat, 1 dog'
    """
    if list(names) == list(map(str, range(len(names)))):
        return f"data: {len(names):,} classes, by their names 0 to {len(names) - 1}"
    shown = ", ".join(f"{number} {printable(name)}" for number, name in enumerate(names[:_SHOWN]))
    more = f", ... {len(names) - 1} {printable(names[-1])}" if len(names) > _SHOWN else ""
    return f"data: {len(names):,} classes in the order of their names: {shown}{more}"


def _number(path: Path, columns: Columns, row: Row, place: int) -> float:
    cell = row[1][place]
    if cell.lower() in MISSING:
        raise _missing(path, columns, row, place)
    if is_number(cell):
        return float(cell)
    where = f"{path}, line {row[0]}, column {printable(columns.names[place])}"
    if re.fullmatch(r"[+-]?\d+,\d+", cell):
        raise LoadError(f"{where}: {cell!r} has a decimal comma.", f"tr ',' '.' < {path} > dots.csv, --data ./dots.csv")
    others = tuple(
        columns.names[other] for other in columns.inputs if is_number(row[1][other]) and other not in columns.targets
    )
    target = ",".join(columns.names[other] for other in columns.targets)
    named = ", ".join(f'"{name}"' for name in others[:_SHOWN])  # in quotes that may stand within a shell's
    hint = f"--data '{path}#{target}(inputs=({named}))'" if others else "numbers in its place"
    raise LoadError(f"{where}: {printable(cell[:40])!r} is no number.", hint)


def _missing(path: Path, columns: Columns, row: Row, place: int) -> LoadError:
    return LoadError(
        f"{path}, line {row[0]}, column {printable(columns.names[place])}: the value is missing "
        f"({printable(row[1][place]) or 'empty'}).",
        "fill it in or leave the row out as your training does; or (inputs=('a', 'b')) names the columns to use",
    )
