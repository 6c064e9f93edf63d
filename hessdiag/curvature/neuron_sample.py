"""In which order to take the neurons of a linear layer, so that those of every beginning stand for the others."""

import math

import torch
from torch import Tensor

FEW = 5  # neurons that are no sample of more
NARROW = 16  # neurons up to which a layer is not divided
HEAVY = 0.25  # share of a wider layer's neurons that come earlier, for they hold most
FIRST_HEAVY, FIRST_LIGHT = 4, 8  # of both, at the beginning
PREFERENCE = 2.0  # how much faster the heavy ones go


def first(neurons: int) -> int:
    """How many neurons of a layer come before the rest of any: with fewer, nothing is said of it.

    >>> [first(neurons) for neurons in (3, 10, 16, 100)]
    [3, 5, 8, 12]
    """
    if neurons <= NARROW:
        return min(neurons, max(FEW, neurons // 2))
    return FIRST_HEAVY + FIRST_LIGHT


def strata(sizes: Tensor) -> list[Tensor]:
    """Neurons that are alike, by a guess of what each holds, which need not be right.

    >>> [len(part) for part in strata(torch.arange(40.0))]
    [10, 30]
    """
    if len(sizes) <= NARROW:
        return [torch.arange(len(sizes))]
    heavy = max(FIRST_HEAVY, math.ceil(HEAVY * len(sizes)))
    by_size = torch.argsort(sizes, descending=True, stable=True).cpu()
    return [by_size[:heavy].sort().values, by_size[heavy:].sort().values]


def order(parts: list[Tensor], generator: torch.Generator) -> Tensor:
    """All neurons of some strata of `strata`, at random in each; the heavy ones early."""
    shuffled = [part[torch.randperm(len(part), generator=generator)] for part in parts]
    if len(parts) == 1:
        return shuffled[0]
    keys = []
    for part, least, speed in zip(shuffled, (FIRST_HEAVY, FIRST_LIGHT), (PREFERENCE, 1.0), strict=True):
        place = torch.arange(1, len(part) + 1, dtype=torch.float64)
        keys.append(torch.where(place <= least, 0.0, place / (speed * len(part))))
    return torch.cat(shuffled)[torch.argsort(torch.cat(keys), stable=True)]
