"""Arrays of numpy as tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import LoadError


def from_numpy(array: Any) -> Tensor:
    """An array as a tensor: of either byte order, in any strides.

    Raises:
        LoadError: if it holds text, objects, or numbers wider than torch has.
    """
    wide = array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8)
    if array.dtype.kind not in "biufc" or wide:
        raise LoadError(
            f"there is an array of {array.dtype} of shape {array.shape}, and tensors hold numbers.",
            "numpy.unique(y, return_inverse=True)[1] for classes by name, or x.astype('float64')",
        )
    native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
    usable = native.flags.writeable and all(stride >= 0 for stride in native.strides)
    return torch.from_numpy(native if usable else native.copy())
