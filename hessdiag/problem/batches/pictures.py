"""Folders of pictures: one folder for each class, or one of all with a table of labels beside them."""

import functools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError, said
from hessdiag.problem.batches.decoding import SUFFIXES, Picture, Preparation, decoded, size_of
from hessdiag.problem.batches.known import Known, printable, shuffled
from hessdiag.problem.batches.tables import classes
from hessdiag.problem.files import lines
from hessdiag.problem.files.allowance import Allowance

LABELS = ("labels.csv", "labels.tsv", "metadata.csv")
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "eval"})
_IGNORED = ("__MACOSX", "__pycache__")


@dataclass(frozen=True)
class Folder:
    """What a folder of pictures holds; none of them is read yet.

    Attributes:
        path: The folder.
        files: Of all pictures, sorted by class and name.
        labels: A class for each, or real numbers; `None` where nothing says what they show.
        names: Of the classes, sorted; empty where labels are numbers.
        notes: What was left aside.
        table: The table of labels, if that said them.
    """

    path: Path
    files: tuple[Path, ...]
    labels: tuple[float, ...] | None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: Path | None = None


def listed(path: Path) -> Folder:
    """The pictures of a folder.

    Folders in it are classes, numbered in the order of their names, with all pictures below them; hidden ones are none.
    Without folders, `labels.csv` or `metadata.csv` says what each file shows.

    Raises:
        LoadError: if there are no pictures, the folders are splits and no classes, or the table does not fit.
    """
    try:
        folders = sorted((entry for entry in path.iterdir() if entry.is_dir() and _counts(entry)), key=lambda e: e.name)
        table = next((path / name for name in LABELS if (path / name).is_file()), None)
        if table is not None:
            return _by_table(path, table)
        if not folders:
            found = tuple(sorted(_pictures(path)))
            if not found:
                raise _no_pictures(path)
            return Folder(path, found, None)
        _refuse_splits(path, folders)
        held = {folder.name: sorted(_pictures(folder)) for folder in folders}
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {said(error)}") from error
    if not any(held.values()):
        raise _no_pictures(path)
    empty = [name for name, files in held.items() if not files]
    loose = sum(entry.suffix.lower() in SUFFIXES and _counts(entry) for entry in path.iterdir() if entry.is_file())
    notes = []
    if empty:
        notes.append(f"data: classes without pictures keep their numbers: {', '.join(map(printable, empty[:5]))}")
    if loose:
        notes.append(f"data: {loose:,} pictures beside the folders of classes are left out")
    pairs = [(file, number) for number, files in enumerate(held.values()) for file in files]
    return Folder(
        path,
        tuple(file for file, _ in pairs),
        tuple(number for _, number in pairs),
        tuple(held),
        tuple(notes),
    )


def _counts(entry: Path) -> bool:
    return not entry.name.startswith(".") and entry.name not in _IGNORED


def _pictures(folder: Path) -> Iterator[Path]:
    """All files below a folder whose names end as pictures' do; links are followed, each folder once."""
    met: set[str] = set()
    for here, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        inner[:] = sorted(name for name in inner if _counts(Path(name))) if real not in met else []
        if real in met:
            continue
        met.add(real)
        for name in names:
            entry = Path(here, name)
            if entry.suffix.lower() in SUFFIXES and _counts(entry) and entry.is_file():
                yield entry


def _no_pictures(path: Path) -> LoadError:
    kinds = Counter(entry.suffix.lower() or "without a suffix" for entry in path.rglob("*") if entry.is_file())
    there = ", ".join(f"{count:,} {printable(kind)}" for kind, count in kinds.most_common(3)) or "none at all"
    return LoadError(
        f"{path} holds no pictures, no model's weights and no data set of Hugging Face's; its files: {there}.",
        f"{path}/CLASS/*.png or .jpg, one folder for each class; or --data 'FILE.py:f', where f() returns a DataLoader",
    )


def without_labels(path: Path) -> LoadError:
    """That nothing says what pictures show, where a loss needs it."""
    return LoadError(
        f"{path} holds pictures without labels.",
        f"a folder for each class, or {path}/labels.csv with lines such as  cat01.png,cat; "
        f"or --data '{path}#images,images' --loss mse: each picture is its own target",
    )


def _refuse_splits(path: Path, folders: Sequence[Path]) -> None:
    names = [folder.name for folder in folders]
    if all(name.lower() in _SPLITS for name in names):
        below = [folder for folder in folders if any(entry.is_dir() for entry in folder.iterdir())]
        if below:
            raise LoadError(
                f"the folders of {path} are splits of the data and not classes: {', '.join(names)}.",
                f"--data {below[0]}{os.sep}",
            )


def _by_table(path: Path, table: Path) -> Folder:
    """Pictures that a table names, with their labels."""
    form = lines.form_of(table)
    found = list(lines.rows(table, form)) if form is not None else []
    if form is None or len(found[0][1]) < 2:
        raise LoadError(f"{table} is no table of files and labels.", "lines such as  cat01.png,cat")
    cells = [row for _, row in found]
    place = next((place for place in range(len(cells[0])) if _names_file(path, cells[-1], place)), None)
    if place is None:
        raise LoadError(f"no column of {table} names files of {path}.", "lines such as  cat01.png,cat")
    label = next(other for other in range(len(cells[0])) if other != place)
    body = found if _names_file(path, cells[0], place) else found[1:]
    files, values = [], []
    for number, row in body:
        if len(row) <= max(place, label) or not row[label]:
            raise LoadError(f"{table}, line {number}: no label.", "a file and a label in each line")
        file = path / row[place]
        if not _within(path, row[place]):
            raise LoadError(f"{table}, line {number}: {printable(row[place])!r} leaves the folder.", "files within it")
        if not file.is_file():
            raise LoadError(f"{table}, line {number}: {printable(row[place])!r} does not exist.", "files within it")
        files.append(file)
        values.append(row[label])
    if all(map(lines.is_number, values)):
        return Folder(
            path, tuple(files), tuple(float(value) if "." in value else int(value) for value in values), table=table
        )
    names = sorted(set(values))
    return Folder(path, tuple(files), tuple(map(names.index, values)), tuple(names), table=table)


def _names_file(path: Path, row: Sequence[str], place: int) -> bool:
    return place < len(row) and bool(row[place]) and _within(path, row[place]) and (path / row[place]).is_file()


def _within(path: Path, name: str) -> bool:
    """Whether a name leads to something below a folder, as far as its text tells."""
    return not os.path.isabs(name) and ".." not in Path(name).parts and "\0" not in name


@dataclass(frozen=True, eq=False)
class Pictures(Known):
    """Pictures of a folder, each read when it is asked for.

    Attributes:
        folder: What there is.
        preparation: What is done to each.
        seed: Of their order; `None` keeps that of the folder.
        most: Bytes that one may unpack to; by default what `Allowance` gives it.
        alone: Give pictures without labels.
        itself: Give each picture as its own target.
        about: Where size and normalization are from, in words.
    """

    folder: Folder
    preparation: Preparation
    seed: int | None = 0
    most: int | None = None
    alone: bool = False
    itself: bool = False
    about: tuple[str, ...] = ()
    _seen: list[Picture] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)  # of the folder, in the order in which they are drawn

    @functools.cached_property
    def total(self) -> int:  # type: ignore[override]
        """All pictures."""
        return len(self.folder.files)

    @functools.cached_property
    def _order(self) -> Iterator[int]:
        return iter(range(len(self))) if self.seed is None else shuffled(len(self), self.seed)

    def __len__(self) -> int:
        return len(self.folder.files)

    def __getitem__(self, index: int) -> Any:
        place = self._place(index)
        file = self.folder.files[place]
        picture = decoded(file, self.preparation, Allowance.of(file, self.most))
        first = self._seen[0].values.shape if self._seen else picture.values.shape
        if picture.values.shape != first:
            shapes = " and ".join(f"{shape[1]}x{shape[2]}" for shape in (first, picture.values.shape))
            raise LoadError(
                f"the pictures of {self.folder.path} have different sizes, such as {shapes}.",
                f"--data '{self.folder.path}{os.sep}(size={min(first[1:])})' brings all to one",
            )
        self._seen.append(Picture(torch.empty(picture.values.shape, device="meta"), *_rest(picture)))
        if self.itself or self.alone or self.folder.labels is None:
            return (picture.values, picture.values) if self.itself else picture.values
        return picture.values, self._label(place)

    def _place(self, index: int) -> int:
        while len(self._places) <= index:
            self._places.append(next(self._order))
        return self._places[index]

    def _label(self, place: int) -> Tensor:
        assert self.folder.labels is not None
        whole = all(isinstance(label, int) for label in self.folder.labels)
        label = self.folder.labels[place]
        return torch.tensor(label) if whole else torch.tensor([label], dtype=torch.float64)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Known`."""
        shape = "x".join(map(str, self._seen[0].values.shape)) if self._seen else "unknown size"
        sizes = {picture.filed for picture in self._seen}
        turned = sum(picture.turned for picture in self._seen)
        folder = self.folder
        order = "as filed" if self.seed is None else f"drawn from seed {self.seed}; (shuffle=False) keeps the folder's"
        said = [
            f"data: {len(self):,} pictures, read as {shape}" + (", each its own target" if self.itself else ""),
            *self.about,
            *([classes(folder.names)] if folder.names and not (self.itself or self.alone) else []),
            *folder.notes,
            f"data: pictures in an order {order}",
        ]
        height_width = tuple(self._seen[0].values.shape[1:]) if self._seen else ()
        if self._seen and sizes != {height_width[::-1]}:
            said.append(f"data: pictures of {_sizes(sizes)} were brought to {height_width[0]}x{height_width[1]}")
        if turned:
            said.append(f"data: {turned} pictures were turned upright, as their EXIF data say")
        return tuple(said)

    @property
    def sources(self) -> tuple[Path, ...]:
        """See `Known`."""
        return () if self.folder.table is None else (self.folder.table,)


def _rest(picture: Picture) -> tuple[tuple[int, int], bool, str]:
    return picture.filed, picture.turned, picture.mode


def _sizes(sizes: set[tuple[int, int]]) -> str:
    shown = [f"{height}x{width}" for width, height in sorted(sizes)]
    return shown[0] if len(shown) == 1 else f"{len(shown)} sizes from {shown[0]} to {shown[-1]}"


def common_size(folder: Folder, most: int | None, looked_at: int = 32) -> tuple[int, int] | None:
    """Height and width that some pictures of a folder have in common; `None` if they differ."""
    files = folder.files[:: max(1, len(folder.files) // looked_at)][:looked_at]
    sizes = {size_of(file, Allowance.of(file, most)) for file in files}
    return next(iter(sizes))[::-1] if len(sizes) == 1 else None
