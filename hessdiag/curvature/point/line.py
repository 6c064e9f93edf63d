"""Gradients and losses along one direction: what they say of the second derivative, and how much of it is rounding."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import STEP, Moved
from hessdiag.linalg.tridiagonal import LONG, safe_norm

ROUNDING = 30.0  # units of the last digit of a gradient that its differences may be off
LOSS_ROUNDING = 100.0  # of a loss, likewise
SHARP = 1e-3  # part of a gradient that differences of losses still see as missing
HELD_WHERE_LONG = 1  # samples of long vectors that are held; an earlier one is taken anew if it is asked for


@dataclass(frozen=True)
class Place:
    """Loss and gradient at one point."""

    loss: float
    gradient: Tensor


@dataclass(frozen=True)
class Sample:
    """Both ends of a step h along v.

    Attributes:
        relative: The step over |theta| / |v|.
        h: The step.
        mean: D = (g+ - g-) / 2h, the mean of the one-sided second derivatives along v.
        half: S = (g+ + g- - 2 g) / 2h, half of what they differ by.
        mismatch: (L+ - L-) / h - (g+ + g-)'v: zero to second order where g is the gradient of L, even at a kink.
        slope: |g+'v| + |g-'v|, what `mismatch` is measured by.
        noise: What rounding may do to `mean`.
        loss_noise: What it may do to `mismatch`.
        bend: (L+ - 2 L + L-) / h^2 - v'D: zero likewise, also where gradients along v are odd.
        curvature: |v'D|, what `bend` is measured by.
    """

    relative: float
    h: float
    mean: Tensor
    half: Tensor
    mismatch: float
    slope: float
    noise: float
    loss_noise: float
    bend: float
    curvature: float

    @cached_property
    def size(self) -> float:
        """|D|."""
        return safe_norm(self.mean)


class Line:
    """Samples along v from theta, each taken once where memory is no concern.

    Args:
        moved: A copy of the problem.
        v: The direction, (N,).
        here: At theta.
        eps: Rounding of what is computed.
    """

    def __init__(self, moved: Moved, v: Tensor, here: Place, eps: float) -> None:
        self.moved, self.v, self.here, self.eps = moved, v.to(here.gradient), here, eps
        self._samples: dict[float, Sample] = {}

    @property
    def first(self) -> float:
        """The relative step of level 0, where truncation and rounding of a difference meet."""
        return float(STEP * self.eps ** (1 / 3))

    def sample(self, level: float) -> Sample:
        """The step of level 0 over 10^level; larger ones where `level` is negative."""
        if level not in self._samples:
            while len(self.v) > LONG and len(self._samples) >= HELD_WHERE_LONG:
                del self._samples[next(iter(self._samples))]
            self._samples[level] = self._sample(self.relative(level))
        return self._samples[level]

    def sharp(self, level: int) -> bool:
        """Whether rounding will leave `mismatch` small beside `slope` at a level, from what is known at theta."""
        noise = LOSS_ROUNDING * self.eps * abs(self.here.loss) / self.moved.step(self.v, self.relative(level))
        return noise <= SHARP * 2 * abs(float(self.here.gradient @ self.v))

    def relative(self, level: float) -> float:
        """The relative step of a level."""
        return self.first * math.pow(10, -level)

    def level(self, sample: Sample) -> float:
        """Of one of this line's samples."""
        return next(level for level, known in self._samples.items() if known is sample)

    def _sample(self, relative: float) -> Sample:
        h = self.moved.step(self.v, relative)
        ahead, behind = self.place(h), self.place(-h)
        g = self.here.gradient
        sizes = max(safe_norm(x) for x in (g, ahead.gradient, behind.gradient))
        slopes = float(ahead.gradient @ self.v), float(behind.gradient @ self.v)
        # In place: vectors can be long.
        mean = (ahead.gradient - behind.gradient).div_(2 * h)
        half = ahead.gradient.add_(behind.gradient).sub_(g, alpha=2).div_(2 * h)
        curvature = float(mean @ self.v)
        return Sample(
            relative=relative,
            h=h,
            mean=mean,
            half=half,
            mismatch=(ahead.loss - behind.loss) / h - sum(slopes),
            slope=abs(slopes[0]) + abs(slopes[1]),
            noise=ROUNDING * self.eps * sizes / h,
            loss_noise=LOSS_ROUNDING * self.eps * max(abs(ahead.loss), abs(behind.loss)) / h,
            bend=(ahead.loss - 2 * self.here.loss + behind.loss) / h**2 - curvature,
            curvature=abs(curvature),
        )

    def place(self, h: float) -> Place:
        """Loss and gradient at theta + h v."""
        self.moved.to(self.v, h)
        return Place(*self.moved.here())

    def like(self, eps: float) -> "Line":
        """The same line, with the steps of another rounding."""
        return Line(self.moved, self.v, self.here, eps)


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two vectors; 0 where one vanishes."""
    sizes = safe_norm(a) * safe_norm(b)
    return float(a @ b) / sizes if sizes else 0.0


def finite(tensor: Any) -> bool:
    """Whether every number is."""
    # A sum is quicker to look at, and can overflow where no number does.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
