"""Finished pieces of a long computation, kept in a folder: a run that ended early goes on where it stopped."""

import contextlib
import hashlib
import json
import math
import os
import shlex
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag import files
from hessdiag.errors import LoadError, SpecError
from hessdiag.machine import processes
from hessdiag.problem.files.allowance import amount
from hessdiag.version import __version__

Arrays = Mapping[str, NDArray[Any]]
T = TypeVar("T", int, str)

SETTINGS = "settings.json"
OF_A_FOLDER = 8_000  # bytes of the settings, and of what the run chose
OF_A_PIECE = 2_500  # bytes beside its numbers: names and the settings' key
SUFFIX = ".npz"
LONGEST = 60  # characters of a setting in a message
STALE = 3600.0  # seconds after which an unfinished file is that of a process that was killed
SAVE_EVERY = 0.5  # seconds of work, at least, between two states of a loop
SAVE_SHARE = 0.05  # of the time that a loop may spend on saving its state
CPU = torch.device("cpu")
_CHOICE = "choice "
_KEY, _UNITS = "hessdiag key", "hessdiag units"  # in every file, beside the arrays


class PiecesWarning(UserWarning):
    """Pieces are no longer kept, and the computation goes on."""


class _Kept(dict[str, NDArray[Any]]):
    """The arrays of a piece that was there, which another state of the code may have kept under the same version.

    Args:
        arrays: By name.
        path: The piece.
    """

    def __init__(self, arrays: Arrays, path: Path) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise SpecError(
            f"{self._path} has no {name}: other code of this version kept it.",
            f"--resume with another folder, or delete {self._path.parent}",
        )


class Pieces:
    """The pieces of one computation, as arrays by name. Without a folder nothing is kept.

    A piece is written whole or not at all, and bears the settings and its name: one of another run, or one that is
    damaged, is computed again; one that lacks an array is refused where that is looked up. The folder remembers the
    settings and the versions of hessdiag, torch and numpy, and takes no others. Several runs may use it at once: each
    piece is that of one of them, and they are all the same. Of several processes of one run, all must see the folder;
    they agree on what is there at the start.

    Where a piece cannot be written (a full disk), a `PiecesWarning` says so once, and the computation goes on.

    Args:
        folder: Where pieces are kept; it is made if need be. `None` keeps nothing.
        settings: All that the numbers depend on besides the device, in JSON's types. Names that end in sha256 are
            hashes, whose values no message shows. For a given problem, see `identity`.
        device: Where the computation runs, and processes meet.

    Raises:
        SpecError: if the folder holds something else, or pieces of other settings.
        LoadError: if it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Pieces(folder, {"seed": 0}).get("a", lambda: {"x": np.ones(2)})
    ...     again = Pieces(folder, {"seed": 0})
    ...     again.get("a", lambda: {})["x"].tolist(), again.taken
    ([1.0, 1.0], 1)
    """

    def __init__(self, folder: str | Path | None, settings: Mapping[str, Any], device: torch.device = CPU) -> None:
        self._folder = None if folder is None else Path(folder)
        self._there: frozenset[str] = frozenset()
        self._states = 0
        self._key = ""
        if self._folder is not None:
            versions = {"hessdiag": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
            # Of several GPUs each process has its own: what tells numbers apart is the kind.
            every = dict(settings) | versions | {"device": device.type}
            _open(self._folder, every)
            self._key = hashlib.sha256(json.dumps(every, sort_keys=True).encode()).hexdigest()
            own = {path.stem for path in self._folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")}
            rank, _ = processes.ranks()
            self._there = frozenset.intersection(*map(frozenset, processes.merged({rank: own}, device)))

    @property
    def kept(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    @property
    def taken(self) -> int:
        """How many pieces were there when the folder was opened, and could be read; of a state, how many it joins."""
        return sum(not name.startswith(_CHOICE) for name in self._there) + self._states

    def said(self, numbers: float, files: float = 1, *, anew: bool = False) -> str:
        """The end of a sentence about the cost: what of it is there already, and what the folder will take.

        Args:
            numbers: Bytes of all arrays that will be kept, at most.
            files: In how many pieces.
            anew: Whether they are one state, that is written anew from time to time.
        """
        taken = f"; {self.taken:,} finished pieces are taken up" if self.taken else ""
        return taken + on_disk(self._folder, numbers, files, anew=anew)

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The piece of that name: from the folder, or computed and kept."""
        if self._folder is None:
            return compute()
        if name in self._there:
            found = self._read(name)
            if found is not None:
                return found
            self._there -= {name}
        arrays = compute()
        self._write(name, arrays)
        return arrays

    def choice(self, name: str, choose: Callable[[], T]) -> T:
        """A number or word that hangs on circumstances, such as free memory: as the first run chose it.

        >>> Pieces(None, {}).choice("vectors a pass", lambda: 64)
        64
        """
        found: T = self.get(f"{_CHOICE}{name}", lambda: {"chosen": np.array(choose())})["chosen"].item()
        return found

    def arrays(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """What the computation starts from, as the first run had it to the last bit; no finished work."""
        return self.get(f"{_CHOICE}{name}", compute)

    def state(self, name: str) -> "State":
        """The state of a loop, one file that is written anew from time to time; each process of a run has its own.

        Args:
            name: Of the loop.
        """
        rank, size = processes.ranks()
        return State(self, name if size == 1 else f"{name}-{rank}-of-{size}")

    def _found(self, name: str) -> _Kept | None:
        """What a state holds; from now on it counts by the units in it, and no longer as one piece."""
        if name not in self._there:
            return None
        self._there -= {name}
        return self._read(name)

    def _read(self, name: str) -> _Kept | None:
        """What a piece holds; `None` if it is damaged, as after a crash of the machine, or of another run."""
        assert self._folder is not None
        path = self._folder / f"{name}{SUFFIX}"
        try:
            with zipfile.ZipFile(path) as members:
                if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                    return None  # none of ours; and its size would say nothing of the memory that it takes
            with np.load(path, allow_pickle=False) as file:
                if _KEY not in file.files or file[_KEY].tolist() != [self._key, name]:
                    return None
                return _Kept({member: file[member] for member in file.files if member != _KEY}, path)
        except (OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile):
            return None

    def _write(self, name: str, arrays: Arrays) -> bool:
        if self._folder is None:
            return False
        marked = {**arrays, _KEY: np.array([self._key, name])}
        try:
            _write(self._folder / f"{name}{SUFFIX}", lambda file: np.savez(file, **marked))  # type: ignore[arg-type]
        except LoadError as error:
            self._folder = None
            warnings.warn(f"{error.what} From now on nothing is kept.", PiecesWarning, stacklevel=3)
            return False
        return True


class State:
    """How far a loop is, saved while it runs: for what is too large, or in too small parts, for one piece each.

    Saving is skipped while it would take more than a twentieth of the loop's time, or where less than half a second
    of work was done since; so much is at most computed again. A state that was saved replaces the one before.

    Args:
        pieces: Where it is kept.
        name: Of the loop.

    Attributes:
        units: How much of the loop the state holds that was there; 0 for none.
        arrays: That state; empty if there is none. Whoever copies it lets it go.
    """

    def __init__(self, pieces: Pieces, name: str) -> None:
        self._pieces, self._name = pieces, name
        found: dict[str, NDArray[Any]] = pieces._found(name) or {}
        self.units = int(found.pop(_UNITS, np.zeros(())))
        self.arrays: Arrays = found
        pieces._states += self.units
        self._next = time.monotonic() + SAVE_EVERY

    def save(self, units: int, arrays: Callable[[], Arrays], *, last: bool = False) -> None:
        """Keep the state, if it is time.

        Args:
            units: How much of the loop it holds.
            arrays: Gives the state; called only where it is kept, and it may be a view of what goes on changing.
            last: Whether the loop is done: then it is kept at any rate.
        """
        began = time.monotonic()
        if not self._pieces.kept or (began < self._next and not last):
            return
        self._pieces._write(self._name, {**arrays(), _UNITS: np.array(units)})
        ended = time.monotonic()
        self._next = ended + max(SAVE_EVERY, (ended - began) / SAVE_SHARE)


def below(folder: str | Path | None, index: int, count: int) -> Path | None:
    """Where the pieces of one of several measurements are kept; those of a single one lie in the folder itself.

    >>> below("kept", 1, 3).as_posix(), below("kept", 0, 1).as_posix()
    ('kept/2', 'kept')
    """
    if folder is None or count == 1:
        return None if folder is None else Path(folder)
    return Path(folder) / str(index + 1)


def on_disk(folder: str | Path | None, numbers: float, files: float = 1, *, anew: bool = False) -> str:
    """The end of a sentence about the cost: what a folder for finished pieces will take; see `Pieces.said`.

    >>> on_disk("kept", 3e9, anew=True)
    '; kept takes up to 3 GB of disk, and twice that while it is written anew'
    >>> on_disk(None, 3e9)
    ''
    """
    if folder is None:
        return ""
    twice = ", and twice that while it is written anew" if anew else ""
    return f"; {folder} takes up to {amount(math.ceil(numbers + OF_A_FOLDER + files * OF_A_PIECE))} of disk{twice}"


def digest(numbers: NDArray[np.float64]) -> str:
    """A short name for some numbers, the same for the same bits.

    >>> digest(np.array([1.0, 2.0]))
    'dc91ce9a50dd'
    """
    return hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()[:12]


def _open(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or see that it holds pieces of the same settings."""
    place, elsewhere = folder / SETTINGS, f"--resume {_unused(folder)}, or any folder that does not exist yet"
    if folder.exists() and not folder.is_dir():
        what = "a file" if folder.is_file() else "a device or a pipe"
        raise SpecError(f"{folder} is {what}; finished pieces are kept in a folder.", elsewhere)
    if not place.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise LoadError(f"cannot use {folder}: {error.strerror}.", "--resume with another folder") from None
        if foreign and SETTINGS not in foreign:  # which another process may have written just now
            raise SpecError(f"{folder} holds other files ({min(foreign)}), and no {SETTINGS} of a run.", elsewhere)
        _write(place, lambda file: file.write(json.dumps(settings, indent=2).encode()), first=True)
    change = _difference(_settings(place), json.loads(json.dumps(settings)))
    if change is not None:
        raise SpecError(f"{folder} holds pieces of another run: {change}.", elsewhere)
    _tidy(folder)


def _unused(folder: Path) -> str:
    """The name of a folder that can be made: beside the one that was asked for, if that is an own one."""
    own = folder.name not in ("", "..") and (not folder.exists() or folder.is_dir() or folder.is_file())
    names = (folder.with_name(f"{folder.name}-{number}") if own else Path(f"pieces-{number}") for number in count(2))
    return shlex.quote(str(next(name for name in names if not os.path.lexists(name))))


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise SpecError(f"{path} cannot be read.", f"--resume with another folder, or delete {path.parent}")
    return found


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words; `None` if all are the same."""
    for name in [*here, *sorted(there.keys() - here.keys())]:
        values = [json.dumps(settings.get(name)) for settings in (there, here)]
        if values[0] != values[1]:
            what, (was, now) = name.replace("_", " "), values
            hidden = name.endswith("sha256") or max(map(len, values)) > LONGEST
            return f"other {what}" if hidden else f"{what} was {was} and is {now}"
    return None


def _tidy(folder: Path) -> None:
    """Remove what processes that were killed left unfinished, but not what others are writing now."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _write(path: Path, fill: Callable[[BinaryIO], object], *, first: bool = False) -> None:
    """Write a file whole or not at all; with `first` only where no other process has done so."""
    try:
        files.write(path, fill, replace=not first)
    except FileExistsError:
        if not first:
            raise
    except (OSError, ValueError) as error:
        raise LoadError(
            f"cannot write {path}: {files.reason(error)}.", "--resume with a folder on another disk"
        ) from None
