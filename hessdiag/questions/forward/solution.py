"""A gain that was solved for, and what became of it on fresh networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hessdiag.numbers import number
from hessdiag.questions.forward.gain import Gain, Target, log_statistic
from hessdiag.questions.forward.layers import LayerGains
from hessdiag.questions.forward.norms import Floats, RatioStatistics, ratio_statistics

FEWEST_CARRIERS = 30  # networks on which a root mean square must rest for its error to be believed


@dataclass(frozen=True)
class Achieved:
    """The ratio at one layer of fresh networks with the gain.

    Attributes:
        target: Whether the median or the root mean square should be 1.
        ratio: What was measured.
        solved_log_stderr: What the gain's own error means for the log of the ratio.
    """

    target: Target
    ratio: RatioStatistics
    solved_log_stderr: float

    @property
    def tried(self) -> bool:
        """Whether the fresh networks can tell: a root mean square that rests on a few of them cannot."""
        return self.target == "median" or self.ratio.carriers >= FEWEST_CARRIERS

    @property
    def z(self) -> float | None:
        """How many standard errors the log is away from 0 (the gain's error counts too); `None` if untried."""
        if not self.tried:
            return None
        log, stderr = log_statistic(self.ratio, self.target)
        total = math.hypot(stderr, self.solved_log_stderr)
        return log / total if total > 0 else None

    @property
    def value(self) -> float:
        """The median or the root mean square."""
        return float(getattr(self.ratio, self.target))

    @property
    def stderr(self) -> float | None:
        """Its standard error; `None` where too few networks carry a root mean square to know."""
        return self.ratio.median_stderr if self.target == "median" else self.ratio.rms_stderr

    def __str__(self) -> str:
        return f"{number(self.value)}" + ("" if self.stderr is None else f" ± {number(self.stderr, 2)}")

    def as_dict(self) -> dict[str, Any]:
        """The form that result documents hold."""
        return {"achieved": self.value, "achieved_stderr": self.stderr, "z": self.z}


@dataclass(frozen=True)
class LayerGain:
    """The factor of one layer's weights.

    Attributes:
        layer: Counted from 1.
        gain: The factor.
        gain_stderr: Its standard error (of a model's layer an upper bound); `None` for a closed form.
        achieved: The ratio after this layer, with all layers' gains.
        name: Of the layer in the user's model; `None` in the built-in networks.
    """

    layer: int
    gain: float
    gain_stderr: float | None
    achieved: Achieved
    name: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form that result documents hold."""
        names = ("layer", "name", "gain", "gain_stderr")
        return {name: getattr(self, name) for name in names} | self.achieved.as_dict()


@dataclass(frozen=True)
class Solution:
    """The factor of an initialization's weights that makes the ratio 1, tried on fresh networks.

    Attributes:
        target: Whether the median or the root mean square is 1.
        gain: The factor; with one for each layer, their geometric mean.
        gain_stderr: Its standard error; `None` for a closed form.
        method: How it was found: "exact", "scaling", "bisection" or "sequential" (see `forward_gain` and
            `forward_layers`).
        mean_square_growth: `p d sigma^2` with it; `None` for curved activations and dependent weights.
        mean_square_growth_deep: The same in the limit of infinite depth; `None` where no closed form holds.
        achieved: The ratio at the last layer of fresh networks with the gain.
        layers: The factor of each layer, if each has its own.
    """

    target: Target
    gain: float
    gain_stderr: float | None
    method: Literal["exact", "scaling", "bisection", "sequential"]
    mean_square_growth: float | None
    mean_square_growth_deep: float | None
    achieved: Achieved
    layers: tuple[LayerGain, ...] = ()

    @property
    def tried(self) -> bool:
        """Whether the fresh networks can tell, at every layer that the gain is for."""
        return all(layer.achieved.tried for layer in self.layers) and self.achieved.tried

    @property
    def worst(self) -> LayerGain | None:
        """With a gain for each layer, the one whose ratio is farthest from 1 in standard errors."""
        judged = [layer for layer in self.layers if layer.achieved.z is not None]
        return max(judged, key=lambda layer: abs(layer.achieved.z or 0.0), default=None)

    @property
    def z(self) -> float | None:
        """How many standard errors the achieved log is away from 0: in the last layer, or in the worst of all."""
        return self.worst.achieved.z if self.worst is not None else self.achieved.z

    def of_layers(self, count: int) -> tuple[float, ...]:
        """The factor of each of so many layers."""
        return tuple(layer.gain for layer in self.layers) or (self.gain,) * count

    def as_dict(self) -> dict[str, Any]:
        """The form that result documents hold."""
        names = ("target", "gain", "gain_stderr", "method", "mean_square_growth", "mean_square_growth_deep")
        return (
            {name: getattr(self, name) for name in names}
            | self.achieved.as_dict()
            | {
                "z": self.z,
                "layers": [layer.as_dict() for layer in self.layers] or None,
            }
        )


def solution(
    target: Target,
    found: Gain | LayerGains,
    fresh: Floats,
    *,
    scale: float = 1.0,
    growth: float | None = None,
    growth_deep: float | None = None,
    names: Sequence[str | None] = (),
) -> Solution:
    """What was found, as factors of one initialization's weights, and how it did.

    Args:
        target: What should be 1.
        found: The gains, relative to variance 1 / width.
        fresh: Logs of the ratios of fresh networks with these gains, (networks, layers).
        scale: The initialization's own factor of such weights.
        growth: `p d sigma^2` of such weights; `None` where it decides nothing.
        growth_deep: The `p d sigma^2` that would do in the limit of infinite depth, where it is known.
        names: Of the layers of a user's model.
    """
    ratios = [ratio_statistics(layer) for layer in fresh.T]
    if isinstance(found, Gain):
        value, log_stderr = found.value, found.log_stderr
        errors = np.full(len(ratios), found.ratio_log_stderr)
    else:
        value, log_stderr = math.exp(np.log(found.values).mean()), found.mean_log_stderr
        errors = found.ratio_log_stderrs
    exact = found.method == "exact"
    achieved = [Achieved(target, ratio, float(error)) for ratio, error in zip(ratios, errors, strict=True)]
    layers = (
        ()
        if isinstance(found, Gain)
        else tuple(
            LayerGain(index + 1, gain / scale, None if exact else gain / scale * stderr, entry, name)
            for index, (gain, stderr, entry, name) in enumerate(
                zip(
                    found.values.tolist(),
                    found.log_stderrs.tolist(),
                    achieved,
                    names or [None] * len(achieved),
                    strict=True,
                )
            )
        )
    )
    return Solution(
        target=target,
        gain=value / scale,
        gain_stderr=None if exact else value / scale * log_stderr,
        method=found.method,
        mean_square_growth=None if growth is None else growth * value**2,
        mean_square_growth_deep=growth_deep,
        achieved=achieved[-1],
        layers=layers,
    )
