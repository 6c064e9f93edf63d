"""Forward norms of random networks: all seeds in batches, several gains on the same weights, and logs throughout."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hessdiag.errors import ComputeError
from hessdiag.machine import processes
from hessdiag.nets.activations import Activation
from hessdiag.nets.initializers import Distribution, draw, source
from hessdiag.questions.common.ensembles.statistics import FEWEST_FOR_TAILS, average_stderr, of_few, upper_spread
from hessdiag.questions.common.runs.pieces import Arrays, Pieces, digest
from hessdiag.questions.forward.result import RatioStatistics

Floats = NDArray[np.float64]

CHUNK_NUMBERS = 2**18  # numbers in one layer's weights of one chunk of networks: about what a cache holds
PACE_LAYERS = 3  # of the first networks, by which is measured how long they take
# Beyond e^-69 = 1e-30 and e^69, activations are linear on either side of zero to the last digit of float64.
MODERATE = 69.0
UNIT_INITS: dict[Distribution | None, str] = {"normal": "lecun_normal", "uniform": "lecun_variance", None: "orthogonal"}

NO_VARIATIONS: Floats = np.empty((0, 0, 0))


class Stopped(KeyboardInterrupt):
    """An interrupt after some networks, which are a sample as good as any of their size.

    Args:
        logs: Of those that were finished, two or more, (K, networks, layers).
        names: Of the layers, where these have names.
        variations: Between samples, likewise, where these were measured.
    """

    def __init__(self, logs: Floats, names: tuple[str, ...] = (), variations: Floats = NO_VARIATIONS) -> None:
        super().__init__()
        self.logs, self.names, self.variations = logs, names, variations


@dataclass(frozen=True)
class Networks:
    """Some random networks, whose layers are drawn one after another.

    Attributes:
        inputs: Uniform on the unit sphere, (networks, width, 1).
        draw: Weights of their next layer, (networks, width, width), of variance 1 / width or orthogonal.
    """

    inputs: Tensor
    draw: Callable[[], Tensor]


def chunk_count(width: int, seeds: int) -> int:
    """How many pieces an ensemble is measured in."""
    return -(-seeds // _together(width))


def _together(width: int) -> int:
    """Networks in one piece."""
    return max(1, CHUNK_NUMBERS // width**2)


def chunks(
    distribution: Distribution | None, *, width: int, seeds: int, seed: int, device: torch.device
) -> Iterator[Networks]:
    """All networks of an ensemble, as many at a time as fit a cache.

    They are drawn on the CPU and moved, so that the same arguments give the same networks on every device.
    """
    for start in range(0, seeds, size := _together(width)):
        count = min(size, seeds - start)
        generator = source(seed, width, start)
        x = torch.randn((count, width, 1), generator=generator, dtype=torch.float64)
        law = partial(draw, UNIT_INITS[distribution], (count, width, width), generator=generator)
        yield Networks((x / x.norm(dim=1, keepdim=True)).to(device), partial(_moved, law, device))


def _moved(drawn: Callable[[], Tensor], device: torch.device) -> Tensor:
    return drawn().to(device)


def activate(phi: Activation, product: Tensor, log: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """One layer, given its weights times normalized inputs, (networks, width, K), and logs of these inputs' norms.

    Returns:
        Normalized outputs of the same shape, and logs of their norms, (networks, K); -inf where an output is zero.
    """
    scale = log.clamp(-MODERATE, MODERATE).exp().unsqueeze(1)
    h = phi.function(product * gains * scale) / scale
    length = h.norm(dim=1)
    return h / length.clamp_min(torch.finfo(h.dtype).tiny).unsqueeze(1), log + length.log()


def log_ratios(
    gains: ArrayLike,
    distribution: Distribution | None,
    *,
    depth: int,
    width: int,
    phi: Activation,
    seeds: int,
    seed: int = 0,
    device: torch.device | None = None,
    advance: Callable[[int], None] | None = None,
    pieces: Pieces | None = None,
) -> Floats:
    """`log(norm(h_l) / norm(x))` in all layers of many random networks, for several gains on the same weights.

    Layers are `h_l = phi(gain W_l h_{l-1})` for l = 1 .. depth, all `width` wide. The entries of W_l have variance
    1 / width. Inputs lie uniformly on the unit sphere. Each layer is normalized and its length kept as a log, so that
    nothing underflows, at any depth.

    Args:
        gains: K factors of the weights, (K,), or of each layer's, (K, depth).
        distribution: Of the weights; `None` makes W_l orthogonal.
        depth: Layers.
        width: Units per layer.
        phi: The activation.
        seeds: Networks.
        seed: Of all randomness.
        device: Where to compute; the CPU by default.
        advance: Called with the number of layers of networks that were done.
        pieces: Where finished chunks of networks are kept.

    Returns:
        Array (K, seeds, depth); -inf where a network is dead.

    Raises:
        ComputeError: if an activation is not finite, or the ratios do not fit into memory.
        Stopped: after an interrupt, if there are two networks by then.

    >>> from hessdiag.nets.activations import activation
    >>> logs = log_ratios([1.0, 2.0], "normal", depth=3, width=4, phi=activation("tanh"), seeds=5)
    >>> logs.shape, bool((logs[1] > logs[0]).all())
    ((2, 5, 3), True)
    """
    place, advance = device or torch.device("cpu"), advance or (lambda count: None)
    factors = torch.tensor(np.asarray(gains, dtype=float), dtype=torch.float64, device=place)
    factors = factors.reshape(len(factors), -1).expand(-1, depth)
    kept, factors_name = pieces or Pieces(None, {}), digest(factors.cpu().numpy())

    def found() -> Iterator[Arrays | None]:
        for index, networks in enumerate(chunks(distribution, width=width, seeds=seeds, seed=seed, device=place)):
            count = len(networks.inputs)
            if processes.is_own(index):
                name = f"{distribution or 'orthogonal'}-{factors_name}-{seed}-{index}-{count}"
                yield kept.get(name, partial(_chunk, networks, factors, phi, advance))
            else:
                advance(count * depth)
                yield None

    parts, stopped = gathered(found(), place)
    logs = _finite([part["logs"] for part in parts])
    if stopped:
        raise interrupt_after(logs)
    return logs


def gathered(parts: Iterable[Arrays | None], device: torch.device) -> tuple[list[Arrays], bool]:
    """What all processes have measured, in order, and whether an interrupt left some of it out.

    Args:
        parts: One after the other; `None` where it is another process's to do.
        device: Where processes meet.

    Raises:
        KeyboardInterrupt: if it comes before the first part, or to one of several processes.
    """
    own: dict[int, Arrays] = {}
    try:
        for index, part in enumerate(parts):
            if part is not None:
                own[index] = part
    except KeyboardInterrupt:
        if not own or processes.together():
            raise
        return list(own.values()), True
    return processes.merged(own, device), False


def interrupt_after(logs: Floats, names: tuple[str, ...] = (), variations: Floats = NO_VARIATIONS) -> KeyboardInterrupt:
    """What to raise: an interrupt with the networks that it left, (K, networks, layers), where there are two."""
    return Stopped(logs, names, variations) if logs.shape[1] > 1 else KeyboardInterrupt()


def _finite(chunks: list[Floats]) -> Floats:
    """All networks of some chunks.

    Raises:
        ComputeError: if there is a norm that is none.
    """
    found = np.concatenate(chunks, axis=1)
    if np.isnan(found).any() or np.isposinf(found).any():
        raise ComputeError("a layer's norm is not a number: the gain is out of range.", "a smaller gain")
    return found


def pace(distribution: Distribution | None, gains: int, *, width: int, phi: Activation, device: torch.device) -> float:
    """Seconds that a layer of one network takes under so many gains, measured on the first networks.

    Normal weights can take ten times as long to draw as uniform ones.
    """
    networks = next(chunks(distribution, width=width, seeds=CHUNK_NUMBERS, seed=0, device=device))
    times: list[float] = [time.perf_counter()]
    factors = torch.ones(gains, PACE_LAYERS, dtype=torch.float64, device=device)
    _chunk(networks, factors, phi, lambda count: times.append(time.perf_counter()))
    return min(after - before for before, after in pairwise(times)) / len(networks.inputs)


def _chunk(networks: Networks, factors: Tensor, phi: Activation, advance: Callable[[int], None]) -> Arrays:
    """Logs (K, networks, depth) of one chunk, for factors (K, depth)."""
    h = networks.inputs.expand(-1, -1, len(factors))
    log = torch.zeros((len(h), len(factors)), dtype=torch.float64, device=h.device)
    found = torch.empty((factors.shape[1], *log.shape), dtype=torch.float64, device=h.device)
    for layer, gains in enumerate(factors.unbind(1)):
        h, log = activate(phi, torch.bmm(networks.draw(), h), log, gains)
        found[layer] = log
        advance(len(h))
    return {"logs": found.permute(2, 1, 0).cpu().numpy()}


def ratio_statistics(logs: ArrayLike) -> RatioStatistics:
    """Summarize the logs of a ratio, one per network; -inf is a dead network.

    The standard error of the median is a quarter of the distance between the order statistics that lie a square root
    of the number of networks to either side of it: 95 % of such intervals hold the median, whatever the law.

    >>> s = ratio_statistics(np.log([2.0, 2.0, 2.0, 2.0]).tolist() + [-math.inf])
    >>> round(s.median, 9), round(s.mean, 9), s.live, round(s.dead_fraction, 9)
    (2.0, 1.6, 4, 0.2)
    """
    values = np.asarray(logs, dtype=float)
    alive = np.sort(values[np.isfinite(values)])
    if not len(alive):
        nan = math.nan
        return RatioStatistics(
            median=nan, median_stderr=nan, mean=0.0, mean_stderr=None, rms=0.0, rms_stderr=None, q05=None, q95=None,
            log_median=nan, log_median_stderr=nan, dead_fraction=1.0, live=0, carriers=0.0, kurtosis=nan,
            kurtosis_stderr=nan,
        )  # fmt: skip
    away = 1 / math.sqrt(len(alive))
    low, q05, middle, q95, high = np.quantile(alive, [max(0.5 - away, 0), 0.05, 0.5, 0.95, min(0.5 + away, 1)])
    stderr = float(high - low) / 4 * of_few(len(alive)) if len(alive) > 1 else math.nan
    top = alive[-1]
    scaled, count = np.exp(values - top), len(values)
    root = math.sqrt(float(np.mean(scaled**2)))
    squares, mean = (scaled / root) ** 2, float(scaled.mean())
    kurtosis, spread = float(np.mean(squares**2)), upper_spread(alive)
    with np.errstate(over="ignore"):
        unit, median = float(np.exp(top)), float(np.exp(middle))
        error = math.sqrt(count) if count > 1 else math.nan
        return RatioStatistics(
            median=median,
            median_stderr=median * stderr,
            mean=mean * unit,
            mean_stderr=average_stderr(mean * unit, (root / mean) ** 2, count, spread),
            rms=root * unit,
            rms_stderr=average_stderr(root * unit / 2, kurtosis, count, 2 * spread),
            q05=None if len(alive) < FEWEST_FOR_TAILS else float(np.exp(q05)),
            q95=None if len(alive) < FEWEST_FOR_TAILS else float(np.exp(q95)),
            log_median=float(middle),
            log_median_stderr=stderr,
            dead_fraction=1 - len(alive) / count,
            live=len(alive),
            carriers=count / kurtosis,
            kurtosis=kurtosis,
            kurtosis_stderr=float((squares**2 - 2 * kurtosis * squares).std()) / error,  # by the delta method
        )
