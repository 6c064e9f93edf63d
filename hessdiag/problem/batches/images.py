"""Images with labels: IDX files (MNIST, Fashion-MNIST), CIFAR's Python batches, scikit-learn's digits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError, SpecError
from hessdiag.nets.tasks.grey_digits import WHITE, grey_digits
from hessdiag.problem.batches.known import Known
from hessdiag.problem.files.checkpoint import read

IMAGES = "images"  # name of the pixels, where a key says what is input and what is target

_CHANNELS = 3  # of CIFAR: each row of its data holds all red values, then green, then blue


@dataclass(frozen=True, eq=False)
class Images(Known):
    """Images and, as targets, one of their labels or the images themselves. A sample is float64 in [0, 1].

    Attributes:
        pixels: (n, channels, height, width), values from 0 to `white`.
        labels: Whole numbers (n,) by name; several in CIFAR-100.
        white: The largest value that a pixel can have.
        target: A key of `labels`, or `IMAGES`; `None` gives images alone.
        files: Where they were read.
    """

    pixels: Tensor
    labels: Mapping[str, Tensor]
    white: int = 255
    target: str | None = None
    files: tuple[Path, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        image = self.pixels[index].double() / self.white
        if self.target is None:
            return image
        return image, image if self.target == IMAGES else self.labels[self.target][index]

    @property
    def sources(self) -> tuple[Path, ...]:
        """See `Known`."""
        return self.files

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Known`."""
        shape = "x".join(map(str, self.pixels.shape[1:]))
        as_target = ", each its own target" if self.target == IMAGES else ""
        return (f"data: {len(self):,} images of {shape}, pixels scaled to [0, 1], not centred{as_target}",)


def from_idx(path: Path, read: Callable[[Path], Any] = read) -> Images:
    """Images in an IDX file, with the labels beside it: images is labels in its name, and idx3 is idx1.

    Args:
        path: The file of images.
        read: Gives what a file holds.

    Raises:
        LoadError: if the file holds no images, or the labels are not as many.
    """
    pixels = read(path)
    if pixels.ndim != 3 or pixels.dtype != torch.uint8:
        other = path.with_name(path.name.replace("labels", IMAGES).replace("idx1", "idx3"))
        what = f"an array of shape {tuple(pixels.shape)} and type {str(pixels.dtype).removeprefix('torch.')}"
        raise LoadError(f"{path} holds {what}, not images: those are bytes (n, height, width).", f"--data {other}")
    beside = _labels_beside(path)
    if not beside:
        return Images(pixels[:, None], {}, files=(path,))
    labels = read(beside[0]).long()
    if labels.shape != pixels.shape[:1]:
        raise LoadError(f"{path} holds {len(pixels)} images, and {beside[0]} labels of shape {tuple(labels.shape)}.")
    return Images(pixels[:, None], {"labels": labels}, files=(path, beside[0]))


def _labels_beside(path: Path) -> list[Path]:
    """The one file of labels that belongs to a file of images, zipped or not, if there is one."""
    plain = path.name.removesuffix(".gz")
    name = plain.replace(IMAGES, "labels").replace("idx3", "idx1")
    endings = ("", ".gz") if plain == path.name else (".gz", "")
    found = [path.with_name(name + ending) for ending in endings]
    return [file for file in found if name != plain and file.is_file()][:1]


def from_cifar(content: Any, path: Path) -> Images | None:
    """Images of a Python batch of CIFAR-10 or CIFAR-100: data of bytes (n, 3 side^2), and lists of labels.

    Returns:
        The images, with labels by name; `None` if the content has another form.
    """
    if not isinstance(content, Mapping):
        return None
    named = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    if "data" not in named or not _are_rows(named["data"]):
        return None
    rows = torch.tensor(named["data"])
    side = math.isqrt(rows.shape[1] // _CHANNELS)
    labels = {name: torch.tensor(named[name]) for name in ("labels", "fine_labels", "coarse_labels") if name in named}
    for name, values in labels.items():
        if values.shape != rows.shape[:1]:
            raise LoadError(f"{path} holds {len(rows)} images, and {name} of shape {tuple(values.shape)}.")
    return Images(rows.reshape(-1, _CHANNELS, side, side), labels, files=(path,))


def _are_rows(data: Any) -> bool:
    shape: tuple[int, ...] = getattr(data, "shape", ())
    pixels, rest = divmod(shape[1], _CHANNELS) if len(shape) == 2 else (0, 1)
    return str(getattr(data, "dtype", "")) == "uint8" and not rest and math.isqrt(pixels) ** 2 == pixels


def digits(size: int = 8, channels: int = 1) -> Images:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels from 0 to 16.

    Args:
        size: Height and width, by bilinear interpolation.
        channels: Copies of the grey values, for networks that take colours.

    Raises:
        SpecError: if a size is below 1.
        LoadError: if scikit-learn is not installed.

    >>> len(digits()), digits(size=32, channels=3)[0][0].shape
    (1797, torch.Size([3, 32, 32]))
    """
    if min(size, channels) < 1:
        raise SpecError("size and channels of the digits must be at least 1.", "builtin:digits(size=32, channels=3)")
    grey, labels = grey_digits(size)
    return Images(grey.expand(-1, channels, -1, -1), {"labels": labels}, white=WHITE, target="labels")


def paired(images: Images, key: str | None, where: str, *, reconstructs: bool, free_form: bool) -> Images:
    """Images with the targets that are asked for, or else that the model and its loss need.

    Args:
        images: As read.
        key: `images,TARGET`, where TARGET is a name of labels or `images`; `images` alone for an objective.
        where: The file, for messages.
        reconstructs: Whether the model's target is its input.
        free_form: Whether an objective will take batches of any form, images alone among them.

    Raises:
        LoadError: if there is no such target, or no labels where they are needed.
    """
    names = [name.strip() for name in key.split(",")] if key is not None else [IMAGES]
    there = (*images.labels, IMAGES)
    if names[0] != IMAGES or len(names) > 2 or not set(names) <= set(there):
        examples = " or ".join(f"--data '{where}#{IMAGES},{name}'" for name in there)
        raise LoadError(f"{where} has images with the targets {', '.join(there)}; {key!r} names no pair.", examples)
    if len(names) == 2:
        return replace(images, target=names[1])
    if key is not None and free_form:
        return images
    target = IMAGES if reconstructs else next(iter(images.labels), None)
    if target is None and not free_form:
        raise LoadError(
            f"{where} holds images without labels, and none lie beside it (named labels for images, idx1 for idx3).",
            f"the file of labels beside it, or --data '{where}#{IMAGES},{IMAGES}' --loss mse: the image as target",
        )
    return replace(images, target=target)
