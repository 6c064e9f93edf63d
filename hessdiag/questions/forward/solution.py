"""A gain that was solved for, and what became of it on fresh networks."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hessdiag.questions.forward.gain import Gain, log_statistic
from hessdiag.questions.forward.layers import LayerGains
from hessdiag.questions.forward.norms import Floats, ratio_statistics
from hessdiag.questions.forward.result import Achieved, LayerGain, Solution, Target


def solution(
    target: Target,
    found: Gain | LayerGains,
    fresh: Floats,
    *,
    scale: float = 1.0,
    growth: float | None = None,
    growth_deep: float | None = None,
    names: Sequence[str] | None = None,
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
    if isinstance(found, Gain):
        value, log_stderr = found.value, found.log_stderr
        last, layers = _achieved(target, fresh[:, -1], found.ratio_log_stderr), None
        z = last.z
    else:
        value, log_stderr = math.exp(np.log(found.values).mean()), found.mean_log_stderr
        layers = _layers(target, found, fresh, scale, names)
        last, z = layers[-1], max((layer.z for layer in layers if layer.z is not None), key=abs, default=None)
    return Solution(
        target=target,
        gain=value / scale,
        gain_stderr=None if found.method == "exact" else value / scale * log_stderr,
        method=found.method,
        mean_square_growth=None if growth is None else growth * value**2,
        mean_square_growth_deep=growth_deep,
        achieved=last.achieved,
        achieved_stderr=last.achieved_stderr,
        z=z,
        carriers=last.carriers,
        layers=layers,
    )


def _layers(
    target: Target, found: LayerGains, fresh: Floats, scale: float, names: Sequence[str] | None
) -> tuple[LayerGain, ...]:
    layers = []
    for index, (value, log_stderr, ratio_log_stderr) in enumerate(
        zip(found.values.tolist(), found.log_stderrs.tolist(), found.ratio_log_stderrs.tolist(), strict=True)
    ):
        tried, gain = _achieved(target, fresh[:, index], ratio_log_stderr), value / scale
        layers.append(
            LayerGain(
                layer=index + 1,
                name=None if names is None else names[index],
                gain=gain,
                gain_stderr=None if found.method == "exact" else gain * log_stderr,
                achieved=tried.achieved,
                achieved_stderr=tried.achieved_stderr,
                z=tried.z,
                carriers=tried.carriers,
            )
        )
    return tuple(layers)


def _achieved(target: Target, logs: Floats, solved_log_stderr: float) -> Achieved:
    """What became of one layer's ratio, given what the gain's own error means for its log."""
    ratio = ratio_statistics(logs)
    value, stderr = (ratio.median, ratio.median_stderr) if target == "median" else (ratio.rms, ratio.rms_stderr)
    log, log_stderr = log_statistic(ratio, target)
    total = math.hypot(log_stderr, solved_log_stderr)
    tried = Achieved(
        achieved=value,
        achieved_stderr=stderr,
        z=log / total if total > 0 else None,
        carriers=None if target == "median" else ratio.carriers,
    )
    return tried if tried.tried else replace(tried, z=None)
