"""Numbers of one tensor that goes through a network: its size, and how much of it differs between samples.

Tensors are laid out as (samples, positions, units) in float64, and large ones by an even part of their entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, isnan, prod

import torch
from torch import Tensor

from hessdiag.problem.batches.batch import sample_axis

MOST = 1 << 17  # entries that are looked at
_ROW = 1024  # entries whose squares are summed in the tensor's own precision


@dataclass(frozen=True)
class Signal:
    """What is read off one tensor; NaN where it has no such number.

    Attributes:
        rms: Root mean square.
        mean: Mean.
        variation: Root mean square of the standard deviation over samples, over `rms`.
        cosine: Mean cosine between two samples.
        largest: Largest absolute entry.
    """

    rms: float
    mean: float
    variation: float
    cosine: float
    largest: float


def known(value: float | None) -> float | None:
    """The same, or `None` for what is no number."""
    return None if value is None or isnan(value) else value


def laid_out(
    tensor: Tensor, samples: int, *, axis: int | None = None, unit: int = -1, most: int = MOST
) -> Tensor | None:
    """A tensor as (samples, positions, units) in float64, a part of it where it has more than `most` entries.

    Args:
        tensor: Of any shape; its samples may be folded with positions in its first dimension.
        samples: How many there are.
        axis: The dimension of samples, where it is known; without one, all of it is one sample.
        unit: The dimension of units.
        most: Entries to keep, about.

    Returns:
        `None` for what holds no real numbers, or none at all.
    """
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_nested or not tensor.numel():
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # within vmap there are no numbers to be seen
        return None
    whole = tensor.detach()
    unit = unit % whole.ndim if whole.ndim else 0
    axis = sample_axis(whole, samples) if axis is None else axis
    if axis is None and whole.ndim and samples and len(whole) % samples == 0:
        whole, axis, unit = whole.reshape(samples, -1, *whole.shape[1:]), 0, unit + 1
    if axis is None:
        whole, axis, unit = whole[None], 0, unit + 1
    if whole.ndim == 1 or unit == axis:
        whole, unit = whole.unsqueeze(-1), whole.ndim
    whole = whole.movedim((axis, unit), (0, -1))
    shape = whole.shape[1:-1]
    whole = whole.flatten(1, -2) if whole.ndim > 2 else whole.unsqueeze(1)
    return _part(whole, shape, most).to(torch.float64, memory_format=torch.contiguous_format)


def _part(whole: Tensor, shape: Sequence[int], most: int) -> Tensor:
    """Evenly spread entries: fewer positions first, then fewer units, then fewer samples."""
    whole = whole[:, :: _step(whole.numel(), most, whole.shape[1], prod(shape))]
    whole = whole[:, :, :: _step(whole.numel(), most, whole.shape[2])]
    return whole[:: _step(whole.numel(), most, len(whole))]


def _step(entries: int, most: int, length: int, period: int = 1) -> int:
    """A step through `length` places that leaves about `most` entries, and meets every row and column of images."""
    step = min(-(-entries // most), length)
    while step > 1 and gcd(step, period) > 1:
        step += 1
    return max(step, 1)


def measured(laid: Tensor) -> Tensor:
    """The fields of `Signal` of a tensor (samples, positions, units), as one tensor (5,) on its device.

    What is squared is scaled first, and what varies is taken from the first sample first: equal samples vary by 0.
    """
    samples = len(laid)
    largest = laid.abs().amax()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    flat = (laid / scale).flatten(1)
    sizes = flat.square().sum(1)
    rms = (sizes.mean() / flat.shape[1]).sqrt()
    nothing = torch.full_like(rms, torch.nan)
    variation = cosine = nothing
    if samples > 1:
        apart = flat - flat[:1]
        apart -= apart.mean(0)
        spread = (apart.square().sum(1).mean() * (samples / (samples - 1)) / flat.shape[1]).sqrt()
        variation = torch.where(rms > 0, spread / rms, torch.where(rms == 0, 0.0, nothing))
        norms = sizes.sqrt()
        count = (norms > 0).sum()
        weights = torch.where(norms > 0, 1 / norms, 0.0)
        total = (weights @ flat).square().sum()
        cosine = torch.where(count > 1, (total - count) / (count * (count - 1)), nothing)
    return torch.stack([rms * scale, flat.mean() * scale, variation, cosine, largest])


def even_part(tensor: Tensor, most: int = MOST) -> Tensor:
    """Evenly spread entries of a tensor, in one row: all of them, or about `most`."""
    values = tensor.detach().reshape(-1)
    return values[:: _step(len(values), most, len(values), prod(tensor.shape[1:]))]


def root_mean_square(tensor: Tensor) -> Tensor:
    """Of all entries, in float64; also of sparse ones, and where squares would underflow."""
    if tensor.layout is not torch.strided:
        values = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.to_dense()
        share: float = (values.numel() / max(tensor.numel(), 1)) ** 0.5
        return root_mean_square(values) * share
    flat = tensor.detach().reshape(-1)
    if not len(flat):
        return torch.zeros((), dtype=torch.float64, device=tensor.device)
    entries = len(flat)
    if flat.dtype == torch.float32 and entries >= _ROW:  # a pass without a copy, if no square leaves the range
        whole = entries - entries % _ROW
        rows = torch.linalg.vector_norm(flat[:whole].view(-1, _ROW), dim=1).double()
        size = torch.hypot(torch.linalg.vector_norm(rows), torch.linalg.vector_norm(flat[whole:].double()))
        mean: Tensor = size.div(entries**0.5)
        if 1e-12 < float(mean) < 1e15:
            return mean
    wide = flat.double()
    largest = wide.abs().amax()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    scaled: Tensor = torch.linalg.vector_norm(wide / scale)
    return scaled.div(entries**0.5).mul(scale)
