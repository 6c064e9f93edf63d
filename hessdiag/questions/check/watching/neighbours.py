"""Whether targets belong to inputs: do neighbours among the inputs have like targets, more often than by chance?"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hessdiag.problem.batches.batch import sample_axis
from hessdiag.questions.check.watching.signals import laid_out

FEWEST = 32  # samples
_MOST = 256
_FEATURES = 512
_NEAREST = 3
_PERMUTATIONS = 200
ABOVE, SURE = 1.3, 4.0  # times the usual squared correlation, and standard errors above that, up to which it is noise


class Likeness(NamedTuple):
    """What neighbours tell.

    Attributes:
        z: How many standard deviations more alike their targets are than under permutations.
        excess: How much more.
        closeness: How far nearest neighbours are apart over what any two samples are, by medians.
        noise: Whether the features are no more correlated than those of independent noise.
    """

    z: float
    excess: float
    closeness: float
    noise: bool


def likeness(inputs: Sequence[Tensor], target: Tensor, samples: int, seed: int) -> Likeness | None:
    """How much more alike the targets of neighbours are than under random permutations of them.

    Likeness is the share of nearest neighbours that are of the same class; of real targets, the mean product with the
    neighbours', standardized: a correlation.

    Args:
        inputs: What the model receives.
        target: One for each sample, (samples,) whole or (samples, outputs) real.
        samples: How many.
        seed: Of the permutations.

    Returns:
        What neighbours tell; `None` for inputs that are not real, and too few samples.
    """
    if samples < FEWEST or len(target) != samples:
        return None
    few = min(samples, _MOST)
    laid = [laid_out(_first(tensor, samples, few), few, most=_FEATURES * few) for tensor in inputs]
    real = [one.flatten(1) for one in laid if one is not None and len(one) == few]
    if len(real) < len(inputs) or not real:
        return None
    features = torch.cat(real, 1)
    features = features - features.mean(0)
    spread = features.std(0)
    features = features[:, spread > 0] / spread[spread > 0]
    if not features.shape[1] or not bool(features.isfinite().all()):
        return None
    nearest, closeness = _nearest(features)
    values = target.detach()[:_MOST].to(features.device)
    if bool((values == values[0]).all()):
        return None
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(len(values), generator=generator) for _ in range(_PERMUTATIONS)])
    found = _alike(values[None], nearest)
    others = _alike(values[orders.to(features.device)], nearest)
    deviation = float(others.std())
    excess = float(found.mean() - others.mean())
    return Likeness(excess / deviation, excess, closeness, independent(features)) if deviation > 0 else None


def independent(features: Tensor) -> bool:
    """Whether standardized features, (samples, features), are no more correlated than independent ones.

    The squared correlation of two independent features has the mean 1 / (samples - 1), and about twice its square for
    variance.

    >>> noise = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> independent(noise), independent(noise + noise[:, :1])
    (True, False)
    """
    samples, count = features.shape
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    correlations = (standard.T @ standard / samples).double()
    pairs = count * (count - 1)
    usual = max(float(correlations.square().sum()) - count, 0.0) * (samples - 1) / max(pairs, 1)
    return bool(usual < ABOVE + SURE * (2 / max(pairs / 2, 1)) ** 0.5)


def _first(tensor: Tensor, samples: int, few: int) -> Tensor:
    """The first few samples of a tensor."""
    axis = sample_axis(tensor, samples)
    return tensor if axis is None else tensor.narrow(axis, 0, few)


def _nearest(features: Tensor) -> tuple[Tensor, float]:
    """The nearest neighbours of each sample, (samples, k); their distance over that of any two samples, by medians."""
    apart = torch.cdist(features, features)
    usual = float(apart.median())
    apart.fill_diagonal_(torch.inf)
    distances, nearest = apart.topk(_NEAREST, largest=False)
    return nearest, float(distances[:, 0].median()) / usual if usual > 0 else 1.0


def _alike(values: Tensor, nearest: Tensor) -> Tensor:
    """Likeness of neighbours for each order (orders, samples, ...) of targets."""
    if not values.is_floating_point():
        return (values[:, :, None] == values[:, nearest]).double().mean((1, 2))
    flat = values.double().flatten(2) if values.ndim > 2 else values.double().unsqueeze(-1)
    spread = flat[0].std(0, correction=0)
    flat = (flat - flat[0].mean(0))[..., spread > 0] / spread[spread > 0]
    return (flat[:, :, None] * flat[:, nearest]).mean((1, 2, 3))
