"""A gain for each layer, with which a typical network, or the average, keeps the norm after every layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from hessdiag.errors import ComputeError
from hessdiag.nets.activations import Activation
from hessdiag.nets.initializers import Distribution, WeightLaw
from hessdiag.numbers import of_log
from hessdiag.questions.forward.gain import WIDEST, log_statistic
from hessdiag.questions.forward.norms import Floats, activate, chunks, ratio_statistics
from hessdiag.questions.forward.result import Target
from hessdiag.questions.forward.theory import unit_log_medians
from hessdiag.theory.gaussian_nets import gate_moments

NUDGE = 0.02  # of a log gain, over which the response of a layer's norm is measured
SETTLED = 0.01  # of a standard error: how near to 0 the log of the ratio is brought in every layer
ROUNDING = 1e-6  # which float32 can still show


@dataclass(frozen=True)
class LayerGains:
    """Factors of the weights of L layers, relative to variance 1 / width.

    Attributes:
        values: The factors, (L,).
        log_stderrs: Standard errors of their logarithms, (L,); 0 for closed forms.
        mean_log_stderr: Standard error of the mean of these logarithms.
        ratio_log_stderrs: What the errors of all gains up to a layer mean for the log of its ratio, (L,).
        method: "exact", "scaling" (differences of one measurement) or "sequential" (one layer after the other).
    """

    values: Floats
    log_stderrs: Floats
    mean_log_stderr: float
    ratio_log_stderrs: Floats
    method: Literal["exact", "scaling", "sequential"]

    @property
    def factors(self) -> list[float]:
        """One for each layer."""
        found: list[float] = self.values.tolist()
        return found


def exact_layer_gains(
    target: Target, weights: WeightLaw | None, slope: float | None, width: int, depth: int
) -> LayerGains | None:
    """The gains at which the median (root mean square) is 1 after every layer, where closed forms hold.

    For the median of Gaussian networks they are ratios of the exact medians of l - 1 and l layers; for the root mean
    square of independent weights all are `p^(-1/2)`.

    >>> gains = exact_layer_gains("median", WeightLaw("normal", 1 / 8), 0.0, width=8, depth=16)
    >>> round(2 * float(np.log(gains.values * 0.5**0.5).sum()), 5)  # minus the log of the median at p d sigma^2 = 1
    6.03266
    """
    if weights is None or slope is None or (target == "median" and weights.distribution != "normal"):
        return None
    if target == "rms":
        logs = np.full(depth, -math.log(gate_moments(slope)[0]) / 2)
    else:
        logs = -np.diff(unit_log_medians(depth, width, slope), prepend=0.0)
    return LayerGains(np.exp(logs), np.zeros(depth), 0.0, np.zeros(depth), "exact")


def scaled_layer_gains(target: Target, logs: Floats) -> LayerGains:
    """The same from one measurement at gain 1, for linear and (leaky) ReLU layers: ratios of what was measured.

    Args:
        target: What is to be 1.
        logs: Of the ratios, (networks, layers).

    Raises:
        ComputeError: if all networks are dead.
    """
    values = np.array([log_statistic(ratio_statistics(layer), target)[0] for layer in logs.T])
    if not np.isfinite(values).all():
        raise ComputeError(f"no gains keep the {target}: all networks are dead.", "a wider layer, or leaky ReLU")
    return LayerGains(np.exp(-np.diff(values, prepend=0.0)), *_errors(target, logs, np.ones(len(values))), "scaling")


def sequential_layer_gains(
    target: Target,
    distribution: Distribution | None,
    *,
    depth: int,
    width: int,
    phi: Activation,
    seeds: int,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> LayerGains:
    """The same for any activation: each layer's gain is found with all gains before it in place, on the same networks.

    One draw of the weights is enough, since a layer's product with its inputs is kept while its gain is sought.

    Raises:
        ComputeError: if a layer has no such gain: a bounded activation cannot keep a long input.
    """
    parts = list(chunks(distribution, width=width, seeds=seeds, seed=seed, device=device))
    sizes = [len(part.inputs) for part in parts]
    h = torch.cat([part.inputs for part in parts])
    log = torch.zeros((seeds, 1), dtype=torch.float64, device=device)
    found, slopes, logs = np.empty(depth), np.empty(depth), np.empty((seeds, depth))
    for layer in range(depth):
        product = torch.cat([torch.bmm(part.draw(), x) for part, x in zip(parts, torch.split(h, sizes), strict=True)])

        def after(log_gain: float, product: Tensor = product, log: Tensor = log) -> tuple[Tensor, Tensor]:
            gain = torch.full((1,), math.exp(log_gain), dtype=torch.float64, device=device)
            return activate(phi, product, log, gain)

        def statistic(log_gain: float, after: Callable[[float], tuple[Tensor, Tensor]] = after) -> float:
            return log_statistic(ratio_statistics(after(log_gain)[1][:, 0].cpu().numpy()), target)[0]

        least, most = statistic(-WIDEST), statistic(WIDEST)
        if not least < 0 <= most < math.inf:
            raise ComputeError(
                f"no gain makes the {target} of the ratio 1 after layer {layer + 1}: between "
                f"{of_log(-WIDEST)} and {of_log(WIDEST)} it goes from {of_log(least)} to {of_log(most)}.",
                "more width, or more seeds",
            )
        root = float(brentq(statistic, -WIDEST, WIDEST, xtol=1e-12))
        slopes[layer] = (statistic(root + NUDGE) - statistic(root - NUDGE)) / (2 * NUDGE)
        h, log = after(root)
        found[layer], logs[:, layer] = root, log[:, 0].cpu().numpy()
        advance(seeds)
    return LayerGains(np.exp(found), *_errors(target, logs, slopes), "sequential")


def iterated_layer_gains(target: Target, logs: Floats, simulate: Callable[[Floats], Floats]) -> LayerGains:
    """The same for a network of unknown form, from outputs before their activations, in the order of the calls.

    A layer's output is proportional to its own gain and does not depend on later ones. So each pass over the networks
    divides every gain by what its layer added, and after as many passes as there are layers all are right; where a
    scale passes through the network unchanged, the first pass is enough.

    Args:
        target: What is to be 1.
        logs: Of the ratios at gains 1, (networks, L).
        simulate: Gains, (L,), to logs of the ratios of the same networks.

    Returns:
        The gains; their errors are upper bounds, since it is not known how much of a scale passes through.

    Raises:
        ComputeError: if the outputs do not come to 1, as in a network that calls a layer several times.
    """
    gains = np.zeros(logs.shape[1])
    for _ in range(len(gains) + 1):
        values, errors = np.array([log_statistic(ratio_statistics(layer), target) for layer in logs.T]).T
        if not np.isfinite(values).all():
            raise ComputeError(
                f"no gains keep the {target}: all networks are dead.", "--dtype float64, or wider layers"
            )
        if (np.abs(values) <= SETTLED * errors + ROUNDING).all():
            return LayerGains(np.exp(gains), errors, float(errors.mean()), errors, "sequential")
        gains = gains - np.diff(values, prepend=0.0)
        logs = simulate(np.exp(gains))
    raise ComputeError(
        f"no gains of single layers make the {target} 1: layers share weights, or are called several times.",
        "--solve without --per-layer",
    )


def _errors(target: Target, logs: Floats, slopes: Floats) -> tuple[Floats, float, Floats]:
    """Standard errors of the logs of the gains, of their mean, and of the log statistic after each layer.

    A gain sets its layer's statistic to 0, sampling error and all, and takes the error of the layer before as part of
    its input. So to first order its own error is that difference, and networks vote on both alike.

    Args:
        target: Which statistic.
        logs: Of the ratios at these gains, (networks, layers).
        slopes: How much of a change of a layer's log gain, or of its input's log norm, its log norm shows, (layers,).
    """
    votes = np.stack([_votes(target, layer) for layer in logs.T], axis=1)
    root = math.sqrt(len(votes))
    of_gains = votes / slopes - np.pad(votes, ((0, 0), (1, 0)))[:, :-1]
    return of_gains.std(axis=0) / root, float(of_gains.mean(axis=1).std()) / root, votes.std(axis=0) / root


def _votes(target: Target, logs: Floats) -> Floats:
    """By how much each network moves the log statistic, times the number of networks: its influence function."""
    value, stderr = log_statistic(ratio_statistics(logs), target)
    if target == "median":
        return np.where(np.isfinite(logs), np.sign(logs - value), 0.0) * stderr * math.sqrt(len(logs))
    return np.asarray(np.expm1(2 * (logs - value)) / 2)
