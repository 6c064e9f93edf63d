"""Sizes of signals, and how much of them differs from sample to sample, batch by batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

AT_ONCE = 2**22  # numbers that are held in float64 at a time
SAME = 1e-5  # of the largest output: units that differ by less are copies, up to float32's rounding


@dataclass
class Signal:
    """What was seen of one signal so far.

    Attributes:
        unit: The first size other than zero: squares of numbers beyond 1e±154 are held in its square.
        total: Sum of squares.
        count: Numbers.
        highest: The largest.
        zero: For each unit, whether it was zero all along.
        alike: Whether all units were the same all along.
    """

    unit: float = 0.0
    total: float = 0.0
    count: int = 0
    highest: float = -math.inf
    zero: Tensor | None = None
    alike: bool = True
    _moments: dict[Any, tuple[int, Tensor, float]] = field(default_factory=dict)

    def add(self, signal: Tensor, samples: int, call: int = 0) -> None:
        """One more batch of so many samples, in the same place of the forward pass as others with this number."""
        rows = by_sample(signal, samples)
        if not rows.numel():
            return
        count, parts = len(rows), []
        lowest, highest = map(float, torch.stack(torch.aminmax(rows)).cpu().double())  # a device is waited for twice
        largest = max(abs(lowest), abs(highest))
        self.highest = max(self.highest, highest)
        self.unit = self.unit or largest
        unit = self.unit if 0 < self.unit < math.inf else 1.0
        for part in torch.split(rows, max(AT_ONCE // max(count, 1), 1), dim=1):
            parts.append(torch.cat(torch.var_mean(part.double() / unit, 0, correction=0)).view(2, -1))
        variance, mean = torch.cat(parts, 1).cpu()
        squares = float(variance.sum()) * count
        self.total += squares + float(mean.square().sum()) * count if math.isfinite(largest) else largest
        self.count += rows.numel()
        key = call, rows.shape[1]
        if key in self._moments:  # Chan, Golub and LeVeque, 1983
            before, middle, kept = self._moments[key]
            away = float((mean - middle).square().sum()) * before * count / (before + count)
            mean = middle + (mean - middle) * (count / (before + count))
            count, squares = before + count, kept + squares + away
        self._moments[key] = count, mean, squares

    def add_units(self, signal: Tensor, axis: int) -> None:
        """The units of one more batch, along this dimension."""
        units = signal.detach().movedim(axis, 0).flatten(1)
        if not units.numel():
            return
        zero = (units == 0).all(1)
        self.zero = zero if self.zero is None or len(self.zero) != len(zero) else self.zero & zero
        self.alike = self.alike and len(units) > 1
        if self.alike:
            apart = (units - units[:1]).abs().amax()
            self.alike = bool(apart <= SAME * units.abs().amax())

    @property
    def rms(self) -> float:
        """Root mean square."""
        return self._size * self.unit if self.total else 0.0

    @property
    def log_rms(self) -> float:
        """Its natural log; -inf of zeros, and NaN where a number is not finite."""
        if not self.total:
            return -math.inf
        return math.log(self._size) + math.log(self.unit) if math.isfinite(self.total * self.unit) else math.nan

    @property
    def _size(self) -> float:
        return math.sqrt(self.total / self.count) if self.count else 0.0

    @property
    def variation(self) -> float | None:
        """Standard deviation over samples over the size; `None` of one sample, and of zeros."""
        known = [(count * len(mean), squares) for count, mean, squares in self._moments.values() if count > 1]
        entries = sum(count for count, _ in known)
        if not entries or not self._size > 0 or not math.isfinite(self._size):
            return None
        return math.sqrt(sum(squares for _, squares in known) / entries) / self._size

    @property
    def zero_units(self) -> float | None:
        """Share of the units that were zero all along."""
        return None if self.zero is None else float(self.zero.double().mean())


def by_sample(signal: Tensor, samples: int) -> Tensor:
    """One row for each sample; where no dimension runs over samples, for each row of the signal.

    Positions may stand beside samples in one dimension, samples first, as windows and tokens do.

    >>> [tuple(by_sample(torch.zeros(shape), 3).shape) for shape in ((4, 3, 2), (6, 2), (7, 2))]
    [(3, 8), (3, 4), (7, 2)]
    """
    signal = signal.detach()
    if signal.ndim < 2:
        return signal.reshape(-1, 1)
    if signal.shape[0] != samples and signal.shape[1] == samples:
        return signal.movedim(1, 0).flatten(1)
    if samples and signal.shape[0] % samples == 0 and signal.shape[0]:
        return signal.reshape(samples, -1)
    return signal.flatten(1)


def tensor_of(value: Any) -> Tensor | None:
    """The real tensor of what a layer takes or gives: itself, the first of several, rows of a packed or nested one."""
    if isinstance(value, PackedSequence):
        return value.data
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((found for item in value if (found := tensor_of(item)) is not None), None)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.is_nested:
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in value.unbind()])
    return value
