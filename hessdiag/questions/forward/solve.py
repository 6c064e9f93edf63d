"""Built-in networks measured, and the gains that keep their signal found by the cheapest way there is."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from hessdiag.machine import processes
from hessdiag.nets.activations import Activation
from hessdiag.nets.initializers import Distribution, WeightLaw
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.forward.gain import Gain, exact_gain, scaled_gain, search_gain
from hessdiag.questions.forward.layers import LayerGains, exact_layer_gains, scaled_layer_gains, sequential_layer_gains
from hessdiag.questions.forward.norms import Floats, Stopped, log_ratios
from hessdiag.questions.forward.result import Target

FRESH = 2**32  # beyond every seed that the command line takes, so that these networks are new


@dataclass(frozen=True)
class Ensemble:
    """Random networks, always the same ones; attributes are the arguments of `log_ratios`."""

    distribution: Distribution | None
    depth: int
    width: int
    phi: Activation
    seeds: int
    seed: int
    device: torch.device
    advance: Callable[[int], None]
    pieces: Pieces

    def log_ratios(self, gains: ArrayLike, count: int | None = None, *, fresh: bool = False) -> Floats:
        """Of all networks, of the first few, or of others that were never seen."""
        return log_ratios(
            gains,
            self.distribution,
            depth=self.depth,
            width=self.width,
            phi=self.phi,
            seeds=count or self.seeds,
            seed=self.seed + FRESH * fresh,
            device=self.device,
            advance=self.advance,
            pieces=self.pieces,
        )


@dataclass(frozen=True)
class Solved:
    """What `measure_and_solve` found.

    Attributes:
        logs: Log ratios of the measured networks, (networks, depth), by the name of the scale.
        gains: What makes the target 1, relative to variance 1 / width; `None` if none was asked for, or not found yet.
        fresh: Log ratios of fresh networks with these gains, (networks, depth); `None` likewise.
        stopped: Whether an interrupt ended it.
    """

    logs: Mapping[str, Floats]
    gains: Gain | LayerGains | None = None
    fresh: Floats | None = None
    stopped: bool = False


def measure_and_solve(
    ensemble: Ensemble,
    scales: Mapping[str, float],
    weights: WeightLaw | None,
    target: Target | None,
    *,
    per_layer: bool,
) -> Solved:
    """Log ratios at several scales of the weights, the gains that make the target 1, and fresh networks with these.

    Args:
        ensemble: The networks.
        scales: K factors of the weights by name, relative to variance 1 / width.
        weights: Law of these weights; `None` for dependent ones.
        target: What is to be 1; `None` solves nothing.
        per_layer: Whether after every layer, with a gain for each, or after the last.

    Raises:
        ComputeError: if no gain does it.
        KeyboardInterrupt: if it comes before two networks.
    """
    logs = np.empty((len(scales), 0, ensemble.depth))

    def measure(gains: Sequence[float] = (), count: int | None = None) -> Floats:
        """At the scales, then at gains: once weights are drawn, one more costs little. The last call is for all."""
        nonlocal logs
        try:
            found = ensemble.log_ratios([*scales.values(), *gains], count)
        except Stopped as stopped:
            logs = max(logs, stopped.logs[: len(scales)], key=lambda known: known.shape[1])
            raise
        logs = found[: len(scales)]
        return found

    def named() -> dict[str, Floats]:
        return dict(zip(scales, logs, strict=True))

    try:
        gains = _solved(ensemble, list(scales.values()), weights, target, measure, per_layer=per_layer)
    except KeyboardInterrupt:
        if not logs.shape[1] or processes.together():
            raise
        return Solved(named(), stopped=True)
    if gains is None:
        return Solved(named())
    try:
        return Solved(named(), gains, ensemble.log_ratios([gains.factors], fresh=True)[0])
    except KeyboardInterrupt:
        if processes.together():
            raise
        return Solved(named(), stopped=True)


def _solved(
    ensemble: Ensemble,
    scales: Sequence[float],
    weights: WeightLaw | None,
    target: Target | None,
    measure: Callable[..., Floats],
    *,
    per_layer: bool,
) -> Gain | LayerGains | None:
    """The gains, while the networks are measured."""
    if target is None:
        measure()
        return None
    setting = (target, weights, ensemble.phi.slope, ensemble.width, ensemble.depth)
    exact = exact_layer_gains(*setting) if per_layer else exact_gain(*setting)
    if exact is not None:
        measure()
        return exact
    if ensemble.phi.slope is not None:
        unit = measure()[0] - math.log(scales[0]) * np.arange(1, ensemble.depth + 1)
        return scaled_layer_gains(target, unit) if per_layer else scaled_gain(target, unit[:, -1], ensemble.depth)
    if per_layer:
        measure()
        return sequential_layer_gains(
            target,
            ensemble.distribution,
            depth=ensemble.depth,
            width=ensemble.width,
            phi=ensemble.phi,
            seeds=ensemble.seeds,
            seed=ensemble.seed,
            device=ensemble.device,
            advance=ensemble.advance,
        )

    def simulate(gains: Sequence[float], count: int) -> Floats:
        return measure(gains, count)[len(scales) :, :, -1]

    return search_gain(target, depth=ensemble.depth, seeds=ensemble.seeds, simulate=simulate)
