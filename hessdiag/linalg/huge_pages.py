"""Memory for large matrices that a CPU can touch for the first time without delay."""

import numpy as np
import torch
from torch import Tensor


def empty(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A (rows, columns) matrix of undefined numbers.

    On a CPU it is numpy's memory: numpy asks the system for huge pages and torch does not, and without them a large
    matrix takes as long to touch for the first time as to compute.

    >>> empty(2, 3, torch.float64, torch.device("cpu")).shape
    torch.Size([2, 3])
    """
    if device.type == "cpu":
        return torch.from_numpy(np.empty((rows, columns), dtype=str(dtype).removeprefix("torch.")))
    return torch.empty(rows, columns, dtype=dtype, device=device)


def contiguous(matrix: Tensor) -> Tensor:
    """The same matrix in consecutive memory; itself, if it is already.

    >>> contiguous(torch.eye(2)[:, :1]).is_contiguous()
    True
    """
    if matrix.is_contiguous():
        return matrix
    rows, columns = matrix.shape
    return empty(rows, columns, matrix.dtype, matrix.device).copy_(matrix)
