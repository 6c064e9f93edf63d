"""What kind of point: from a product with v and differences of gradients along v, at two or more steps.

Where gradient and product belong to a smooth function, a difference D of gradients converges to the product. Where D
converges to something else, autograd is wrong; where it grows as 1/h, a kink lies at the point; where both one-sided
differences converge, but not to the same, there is no Hessian; and where gradients do not add up to differences of
losses, they are gradients of something else. A step that crosses a distant kink looks like none of these at the next.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hessdiag.curvature.point.line import Line, Sample, cosine, finite
from hessdiag.linalg.tridiagonal import safe_norm

Finding = Literal["agrees", "wrong", "kink", "sides", "inconsistent", "unresolved"]

ONE_SIDED = 1e-3  # |S| over |D|: on clean points at most 6e-5, where sides differ from 1e-3 up
INCONSISTENT = 1e-5  # mismatch of losses over slopes
BENT = 0.1  # of a second difference of losses over the curvature that gradients say; far beyond its noise
CONVERGED = 1e-4  # distance of two steps' differences; true ones agree to 1e-9
SMALL_TENSOR = 1e-3  # error in one tensor that the whole would hide
SMALLEST = 1e-3  # size below which a tensor's part is not looked at by itself, of the whole
GROWS, ALIGNED, ABOVE_NOISE = 5.0, 0.98, 100.0  # of a kink's part in D from one step to the next
SCATTERED = 0.9
DEEPEST, DEEPEST_AT_KINKS, HIGHEST = 3, 5, -3  # levels
DEEP_NOISE = 1e-2  # part of a product that rounding may be at a small step for it to be believed
CLEAR = 2  # a level that crosses few kinks
CLEAR_NOISE = 0.1  # of what is allowed: where noise is less, that level is believed at once


@dataclass(frozen=True)
class Outcome:
    """What a line says.

    Attributes:
        finding: The kind.
        sample: Where it was decided.
        error: Relative distance of the product from D there.
        jump: Of the gradient across the kinks at the point, a vector; `None` elsewhere.
    """

    finding: Finding
    sample: Sample
    error: float
    jump: Tensor | None = None


class Judge:
    """Compares one product with samples of one line.

    Args:
        line: Along v.
        product: H v by autograd; not finite where autograd fails.
        tolerance: Relative distance that is put up with.
        places: Of the parameter tensors, where each is to be looked at by itself.
        coarse: Whether the model computes in a coarser dtype inside.
    """

    def __init__(
        self, line: Line, product: Tensor, tolerance: float, places: tuple[slice, ...], *, coarse: bool = False
    ) -> None:
        self.line, self.product, self.tolerance = line, product.to(line.v), tolerance
        self._places, self._coarse = places, coarse
        self._finite = finite(product)

    def error(self, sample: Sample) -> float:
        """|Hv - D| over the larger of the two."""
        if not self._finite or not finite(sample.mean):
            return float("inf")
        scale = self.scale(sample)
        return self.apart(sample) / scale if scale else 0.0

    def apart(self, sample: Sample) -> float:
        """|Hv - D|, where both are finite."""
        return safe_norm(self.product - sample.mean)

    def scale(self, sample: Sample) -> float:
        """The larger of |Hv| and |D|."""
        return max(safe_norm(self.product), sample.size) if self._finite else sample.size

    def agrees(self, sample: Sample, deep: bool = False) -> bool:
        """Whether product, both sides and losses agree; with a deep step only where rounding is small."""
        if not self._finite or not finite(sample.mean):
            return False
        scale, noise = self.scale(sample), sample.noise
        if deep and noise > DEEP_NOISE * scale:
            return False
        one_sided = max(ONE_SIDED, self.tolerance) if self._coarse else ONE_SIDED
        return (
            self.apart(sample) <= self.tolerance * scale + noise
            and safe_norm(sample.half) <= one_sided * scale + noise
            and not self.mismatched(sample)
            and self._tensors_agree(sample, scale, noise)
        )

    def mismatched(self, sample: Sample) -> bool:
        """Whether the gradients do not add up to the differences of losses."""
        return abs(sample.mismatch) > max(INCONSISTENT * sample.slope, sample.loss_noise) or self._bent(sample)

    def _bent(self, sample: Sample) -> bool:
        return abs(sample.bend) > BENT * sample.curvature + 10 * sample.loss_noise / sample.h

    def _tensors_agree(self, sample: Sample, scale: float, noise: float) -> bool:
        if self._coarse or self.tolerance >= SMALL_TENSOR or not 0 < len(self._places) <= 512:
            return True
        lengths = [place.stop - place.start for place in self._places]
        whole = (self.product - sample.mean, sample.mean)
        norms = [torch.stack(torch._foreach_norm(torch.split(one / (scale or 1.0), lengths))) for one in whole]
        apart, sizes = torch.stack(norms).mul_(scale).cpu()  # a GPU is waited for once
        return not bool((apart > SMALL_TENSOR * (sizes + SMALLEST * scale) + noise).any())

    def clean(self, likely: float | None = None) -> Outcome | None:
        """The verdict where one of the first steps agrees; `None` where there is more to find out.

        Args:
            likely: A level to look at first, where another line needed it: what is astride kinks along one direction
                is so along others.
        """
        levels: tuple[float, ...] = (0, CLEAR, 1)
        for level in levels if likely is None else dict.fromkeys((likely, *levels)):
            found = self.at_once(level)
            if found is not None or not self._finite:
                return found
        return None

    def at_once(self, level: float) -> Outcome | None:
        """That product, gradients and losses agree, where one look at this level settles it."""
        sample = self.line.sample(level)
        exact = sample.noise <= CLEAR_NOISE * self.tolerance * self.scale(sample)
        if (exact or level < CLEAR) and self.agrees(sample, deep=level > 0):
            return self.outcome("agrees", sample)
        return None

    def judge(self, at_kink: Callable[[], bool]) -> Outcome:
        """The kind of point, where `clean` does not tell.

        Args:
            at_kink: Whether some unit is exactly at a kink and moves along v.
        """
        sample = self.line.sample
        first, second = sample(0), sample(1)
        decided = self._from_two(first, second)
        if decided is not None:
            return decided
        suspected = False
        for level in range(2, DEEPEST_AT_KINKS + 1):
            if level > DEEPEST and not suspected:
                break
            before, now = sample(level - 1), sample(level)
            if self.agrees(now, deep=True):
                return self.outcome("agrees", now)
            last = now.mean - before.mean
            earlier = before.mean - sample(level - 2).mean
            if self._grows(earlier, last, now.noise):
                suspected = True
                if at_kink() or level == DEEPEST_AT_KINKS:
                    jump = 2 * last / (1 / now.h - 1 / before.h)
                    return self.outcome("kink", now, jump)
            elif suspected:
                break
        return self._downwards() or self._upwards()

    def _downwards(self) -> Outcome | None:
        """The smallest steps, of functions that bend within them: for agreement alone, and where rounding is small."""
        for level in range(DEEPEST + 1, DEEPEST_AT_KINKS + 1):
            found = self.at_once(level)
            if found is not None:
                return found
        return None

    def _grows(self, earlier: Tensor, last: Tensor, noise: float) -> bool:
        """Whether D changes as 1/h does, and in one direction: rounding grows likewise, but turns."""
        size = safe_norm(last)
        return size > GROWS * safe_norm(earlier) and size > ABOVE_NOISE * noise and cosine(earlier, last) > ALIGNED

    def _from_two(self, first: Sample, second: Sample) -> Outcome | None:
        """A verdict where two steps give the same D."""
        scale = max(self.scale(first), self.scale(second))
        apart = safe_norm(first.mean - second.mean)
        if not finite(first.mean) or not finite(second.mean) or apart > CONVERGED * scale + second.noise:
            return None
        if self._inconsistent(first, second):
            return self.outcome("inconsistent", first)
        half, before = safe_norm(second.half), safe_norm(first.half)
        if half > max(0.5 * before, CONVERGED * scale, second.noise) and cosine(first.half, second.half) > SCATTERED:
            return self.outcome("sides", first)
        falling = half <= max(0.3 * before, CONVERGED * scale + second.noise)
        noise = 10 * (apart + first.noise)
        if falling and (not self._finite or safe_norm(self.product - first.mean) > noise):
            return self.outcome("wrong", first)
        return None

    def _inconsistent(self, first: Sample, second: Sample) -> bool:
        """Whether losses and gradients are apart by the same at several steps, and not for a kink in one of them."""
        wider, widest = self.line.sample(-1), self.line.sample(-2)
        if self._bent(wider) and self._bent(widest) and abs(widest.bend - wider.bend) <= 0.25 * abs(wider.bend):
            return True
        r, smaller = first.mismatch, second.mismatch
        if not (self.mismatched(first) and self.mismatched(second)) or abs(smaller - r) > 0.25 * abs(r):
            return False
        larger = wider.mismatch
        return 0.5 * abs(r) <= abs(larger) <= 2 * abs(r) and larger * r > 0

    def _upwards(self) -> Outcome:
        """Larger steps, where rounding or an inner iteration hides what small ones would show."""
        samples = [self.line.sample(level) for level in range(0, HIGHEST - 1, -1)]
        for now in samples[1:]:
            if self.agrees(now):
                return self.outcome("agrees", now)
        pairs = list(itertools.pairwise(samples))
        apart = [safe_norm(now.mean - before.mean) / (self.scale(now) or 1.0) for before, now in pairs]
        best = min(range(len(pairs)), key=lambda index: apart[index] if math.isfinite(apart[index]) else math.inf)
        before, now = pairs[best]
        proportional = safe_norm(before.half) <= max(0.3 * safe_norm(now.half), CONVERGED * self.scale(now))
        if apart[best] <= CONVERGED and proportional and not self.mismatched(now) and self.error(now) > 10 * CONVERGED:
            # Above the best pair truncation rules, below it rounding: the step between both is the one to take.
            return self.outcome("wrong", now if best == 0 else before)
        levels = [self.line.sample(level) for level in range(HIGHEST, 2)]
        return self.outcome("unresolved", min(levels, key=self.error))

    def outcome(self, finding: Finding, sample: Sample, jump: Tensor | None = None) -> Outcome:
        """What was found at a sample."""
        return Outcome(finding, sample, self.error(sample), jump)
