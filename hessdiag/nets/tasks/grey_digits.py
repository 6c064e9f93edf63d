"""The handwritten digits that come with scikit-learn, which is imported where they are asked for."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from hessdiag.errors import LoadError, SpecError

WHITE = 16  # the brightest pixel


def grey_digits(size: int = 8) -> tuple[Tensor, Tensor]:
    """All 1,797 of them: pixels (1797, 1, size, size) from 0 to 16, float64, and classes (1797,).

    Args:
        size: Height and width, by bilinear interpolation.

    Raises:
        SpecError: if the size is below 1.
        LoadError: if scikit-learn is not installed.

    >>> pixels, labels = grey_digits(28)
    >>> pixels.shape, labels.shape, float(pixels.max())
    (torch.Size([1797, 1, 28, 28]), torch.Size([1797]), 16.0)
    """
    if size < 1:
        raise SpecError("digits are at least 1 pixel high and wide.", "size=8")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise LoadError(
            "the digits are those of scikit-learn, which is not installed.", "pip install scikit-learn"
        ) from error
    rows, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(rows).reshape(-1, 1, 8, 8)
    if size != 8:
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return pixels, torch.from_numpy(labels)
