"""One picture, read by Pillow from a few formats that run nothing, as numbers in [0, 1] of the size that is wanted."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import HessdiagError, LoadError, said
from hessdiag.problem.batches.known import printable
from hessdiag.problem.files.allowance import Allowance

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # others may start programs, as EPS does
SUFFIXES = frozenset(
    f".{name}" for name in ("png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm")
)
BILINEAR = 2  # of Pillow's resampling filters
_SIXTEEN = 65535
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Preparation:
    """What is done to each picture before a model sees it.

    Attributes:
        channels: 1 (grey), 3 (colours) or 4 (with transparency).
        size: Height and width; `None` leaves it as it is.
        shorter: What the shorter side becomes before the middle of `size` is cut out; by default as little as needed.
        stretched: Bring both sides to `size`, whatever the proportions, and cut nothing out.
        resample: One of Pillow's filters.
        mean: Taken off each channel of values in [0, 1], before they are divided by `std`.
        std: See there.
    """

    channels: int = 3
    size: tuple[int, int] | None = None
    shorter: int | None = None
    stretched: bool = False
    resample: int = BILINEAR
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as a model takes it.

    Attributes:
        values: float64 (channels, height, width).
        filed: Width and height in the file, once upright.
        turned: Whether its EXIF data say that it lies on its side or head.
        mode: Pillow's name for its kind.
    """

    values: Tensor
    filed: tuple[int, int]
    turned: bool
    mode: str


def pillow(name: str = "PIL.Image") -> Any:
    """A module of Pillow.

    Raises:
        LoadError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoadError(
            f"pictures are read by Pillow, which does not work here ({said(error)}).", "pip install pillow"
        ) from error


@contextlib.contextmanager
def _opened(source: Path | IO[bytes], where: str, allowance: Allowance) -> Iterator[Any]:
    """A picture whose size is known and whose pixels are not yet read."""
    images = pillow()
    most, images.MAX_IMAGE_PIXELS = images.MAX_IMAGE_PIXELS, None  # the allowance decides, and can be raised
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with images.open(source, formats=FORMATS) as picture:
                width, height = picture.size
                allowance.check(4 * width * height)
                yield picture
    except HessdiagError:
        raise
    except images.UnidentifiedImageError as error:
        raise LoadError(f"{where} is no picture of {', '.join(FORMATS)}.", "take it out, or copy it again") from error
    except Exception as error:
        raise LoadError(f"{where} is damaged: {said(error)}", "take it out, or copy it again") from error
    finally:
        images.MAX_IMAGE_PIXELS = most


def size_of(source: Path, allowance: Allowance) -> tuple[int, int]:
    """Width and height of a picture, upright, of which only the head is read.

    Raises:
        LoadError: if it is none, or would unpack to more than it may.
    """
    with _opened(source, printable(str(source)), allowance) as picture:
        width, height = picture.size
        return (height, width) if picture.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE else (width, height)


_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)


def decoded(
    source: Path | IO[bytes], preparation: Preparation, allowance: Allowance, where: str | None = None
) -> Picture:
    """A picture as a model takes it: upright, in the model's channels, brought to size, scaled to [0, 1], centred.

    Args:
        source: The file, or a stream of its bytes.
        preparation: What is done to it.
        allowance: What it may unpack to.
        where: Its name for messages; by default the file's.

    Raises:
        LoadError: if it cannot be read, or would unpack to more than it may.
    """
    where = printable(where or str(source))
    with _opened(source, where, allowance) as picture:
        mode = picture.mode
        upright = pillow("PIL.ImageOps").exif_transpose(picture)
        turned = picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
        plain, white = _in_channels(upright, preparation.channels, where)
        filed = plain.size
        values = np.asarray(_brought_to_size(plain, preparation), dtype=np.float64) / white
    values = np.repeat(values[None], preparation.channels, 0) if values.ndim == 2 else np.moveaxis(values, -1, 0)
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if preparation.mean is not None:
        tensor = tensor - _column(preparation.mean)
    if preparation.std is not None:
        tensor = tensor / _column(preparation.std)
    return Picture(tensor, filed, turned, mode)


def _column(numbers: tuple[float, ...]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None, None]


def _in_channels(picture: Any, channels: int, where: str) -> tuple[Any, int]:
    """A picture in one of Pillow's modes for so many channels, and the value of its white."""
    if picture.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        deep = np.asarray(picture, dtype=np.float32)
        if deep.min() < 0 or deep.max() > _SIXTEEN:
            raise LoadError(f"{where} has values beyond 16 bits.", "a picture of 8 or 16 bits, or arrays in an npz")
        return pillow().fromarray(deep), _SIXTEEN
    if picture.mode == "F":
        raise LoadError(f"{where} holds real numbers, whose black and white are not known.", "arrays in an npz")
    return picture.convert(_MODES[channels]), 255


def _brought_to_size(picture: Any, preparation: Preparation) -> Any:
    """The middle of a picture, of the size that is wanted."""
    if preparation.size is None:
        return picture
    height, width = preparation.size
    if preparation.stretched:
        return picture if picture.size == (width, height) else picture.resize((width, height), preparation.resample)
    wide, tall = picture.size
    if preparation.shorter is not None:
        short = preparation.shorter
        wide, tall = (short, int(short * tall / wide)) if wide <= tall else (int(short * wide / tall), short)
    elif (wide, tall) != (width, height):
        scale = max(width / wide, height / tall)
        wide, tall = max(round(wide * scale), width), max(round(tall * scale), height)
    if (wide, tall) != picture.size:
        picture = picture.resize((wide, tall), preparation.resample)
    left, top = round((wide - width) / 2), round((tall - height) / 2)
    return picture.crop((left, top, left + width, top + height))
