"""Finished pieces of a long computation, kept in a folder: a run that ended early goes on where it stopped."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag import __version__
from hessdiag.curvature import parallel
from hessdiag.errors import LoadError, SpecError

Arrays = Mapping[str, NDArray[Any]]

SETTINGS = "settings.json"
SUFFIX = ".npz"
LONGEST = 60  # characters of a setting in a message
CPU = torch.device("cpu")


class Pieces:
    """The pieces of one computation, as arrays by name. Without a folder nothing is kept.

    A piece is written whole or not at all. The folder remembers the settings and the versions of hessdiag, torch and
    numpy, and takes no others. Of several processes, all must see the folder; they agree on what is there at the start.

    Args:
        folder: Where pieces are kept; it is made if need be. `None` keeps nothing.
        settings: All that the numbers depend on besides the device, in JSON's types.
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
        if self._folder is not None:
            versions = {"hessdiag": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
            # Of several GPUs each process has its own: what tells numbers apart is the kind.
            _open(self._folder, dict(settings) | versions | {"device": device.type})
            own = {path.stem for path in self._folder.glob(f"*{SUFFIX}")}
            rank, _ = parallel.ranks()
            self._there = frozenset.intersection(*map(frozenset, parallel.merged({rank: own}, device)))

    @property
    def taken(self) -> int:
        """How many pieces were there when the folder was opened, and could be read."""
        return len(self._there)

    @property
    def said(self) -> str:
        """The end of a sentence about the cost: what of it is there already."""
        return f"; {self.taken:,} finished pieces are taken up" if self.taken else ""

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The piece of that name: from the folder, or computed and kept.

        Raises:
            LoadError: if it cannot be written.
        """
        if self._folder is None:
            return compute()
        path = self._folder / f"{name}{SUFFIX}"
        if name in self._there:
            found = _read(path)
            if found is not None:
                return found
            self._there -= {name}
        arrays = compute()
        _write(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        return arrays


def digest(numbers: NDArray[np.float64]) -> str:
    """A short name for some numbers, the same for the same bits.

    >>> digest(np.array([1.0, 2.0]))
    'dc91ce9a50dd'
    """
    return hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()[:12]


def _open(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or see that it holds pieces of the same settings."""
    place, elsewhere = folder / SETTINGS, f"--resume {folder}-2, or any folder that does not exist yet"
    if folder.exists() and not folder.is_dir():
        raise SpecError(f"{folder} is a file; finished pieces are kept in a folder.", elsewhere)
    if place.is_file():
        change = _difference(_settings(place), json.loads(json.dumps(settings)))
        if change is not None:
            raise SpecError(f"{folder} holds pieces of another run: {change}.", elsewhere)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != SETTINGS]
    except OSError as error:
        raise LoadError(f"cannot use {folder}: {error.strerror}.", "--resume with another folder") from None
    if foreign:
        raise SpecError(f"{folder} holds other files ({min(foreign)}), and no {SETTINGS} of a run.", elsewhere)
    _write(place, lambda file: file.write(json.dumps(settings, indent=2).encode()))


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise SpecError(f"{path} cannot be read.", f"--resume with another folder, or delete {path.parent}")
    return found


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words; `None` if all are the same."""
    for name in sorted(there.keys() | here.keys()):
        values = [json.dumps(settings.get(name)) for settings in (there, here)]
        if values[0] != values[1]:
            what, (was, now) = name.replace("_", " "), values
            return f"{what} was {was} and is {now}" if max(map(len, values)) <= LONGEST else f"other {what}"
    return None


def _read(path: Path) -> Arrays | None:
    """What a piece holds; `None` if it is damaged, as after a crash of the machine: then it is computed again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            fill(file)
        part.replace(path)
    except OSError as error:
        raise LoadError(f"cannot write {path}: {error.strerror}.", "--resume with a folder on another disk") from None
    finally:
        part.unlink(missing_ok=True)
