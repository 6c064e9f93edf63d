"""Units that are copies of each other: rows of incoming weights that are equal to the bit."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOST = 10_000_000  # entries of a matrix that are compared
PARTED = 1e-2  # of a gradient's norm, by which copies' gradients differ if the next step parts them
_FIRST = 8  # columns by which rows mostly differ already


def incoming_rows(
    module: Any, matrices: Sequence[Tensor], biases: Sequence[Tensor], turned: bool, columns: int | None = None
) -> Tensor | None:
    """What comes into each unit, its bias last, (units, inputs); `None` where that is not known.

    Units that take other inputs, or are of other gates, differ.

    Args:
        module: Whose they are.
        matrices: Its matrices.
        biases: Its biases.
        turned: Whether a matrix is one of (inputs, units).
        columns: How many inputs to take; without it, all.
    """
    with torch.no_grad():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return _recurrent(module)
        weight = matrices[0].detach()
        groups = int(getattr(module, "groups", 1)) if isinstance(module, nn.modules.conv._ConvNd) else 1
        if groups and isinstance(module, nn.modules.conv._ConvTransposeNd):
            weight = weight.reshape(groups, -1, *weight.shape[1:]).movedim(2, 1).flatten(0, 1)
        rows = (weight.T if turned and weight.ndim == 2 else weight.flatten(1))[:, :columns]
        if isinstance(module, nn.MultiheadAttention):
            groups = len(rows) // module.embed_dim if module.in_proj_weight is not None else 1
        parts = [rows.double()]
        if groups > 1:
            parts.append(torch.arange(len(rows), device=rows.device)[:, None] // max(len(rows) // groups, 1))
        parts += [bias.detach().reshape(-1, 1).double() for bias in biases if bias.numel() == len(rows)]
        return torch.cat([part.double() for part in parts], 1)


def _recurrent(module: Any) -> Tensor | None:
    """All gates of each unit of the first layer in one row."""
    hidden = int(module.hidden_size)
    first = re.compile(r"^[^.]*(_l0|_ih|_hh)$")  # of a bidirectional one, the way forward
    own = [item for name, item in module.named_parameters() if first.match(name)]
    rows = [item.detach().double().reshape(len(item), -1) for item in own if len(item) % hidden == 0]
    return (
        torch.cat([row.reshape(-1, hidden, row.shape[1]).movedim(0, 1).flatten(1) for row in rows], 1) if rows else None
    )


def copies(module: Any, matrices: Sequence[Tensor], biases: Sequence[Tensor], turned: bool) -> float | None:
    """Share of units whose incoming weights and bias equal those of an earlier one; `None` of what is too large."""
    if sum(matrix.numel() for matrix in matrices) > MOST:
        return None
    for columns in (_FIRST, None):
        rows = incoming_rows(module, matrices, biases, turned, columns)
        if rows is None:
            return None
        if not (found := identical_fraction(rows)):
            break
    return found


def part(module: Any, matrix: Tensor, biases: Sequence[Tensor], turned: bool, gradient: Tensor | None) -> bool:
    """Whether units that are copies get gradients that differ by more than rounding, and so do not stay copies.

    Args:
        module: Whose units they are.
        matrix: Its weights.
        biases: Its biases.
        turned: Whether the matrix is one of (inputs, units).
        gradient: Of the matrix; `None` where none arrived.
    """
    if gradient is None or gradient.shape != matrix.shape or gradient.layout is not torch.strided:
        return False
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)):
        return False
    rows, slopes = (incoming_rows(module, [item], own, turned) for item, own in ((matrix, biases), (gradient, ())))
    if rows is None or slopes is None:
        return False
    same = torch.unique(keys(rows), return_inverse=True)[1]
    count = torch.bincount(same)[:, None]
    means = torch.zeros(len(count), slopes.shape[1], dtype=slopes.dtype, device=slopes.device)
    apart = slopes - (means.index_add_(0, same, slopes) / count)[same]
    return bool(apart.norm() > PARTED * gradient.double().norm())


def identical_fraction(rows: Tensor) -> float:
    """Share of rows that equal an earlier one.

    >>> identical_fraction(torch.tensor([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0], [1.0, 2.0]]))
    0.5
    """
    return (len(rows) - len(torch.unique(keys(rows)))) / len(rows) if len(rows) else 0.0


def keys(rows: Tensor) -> Tensor:
    """A number of 64 bits for each row, equal for rows that are, and else different but for one chance in 2^64."""
    bits = (rows.double() + 0.0).contiguous().view(torch.int64)
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator).to(rows.device) * 2 + 1
    return (bits ^ (bits >> 29)).mul(odd).sum(1)
