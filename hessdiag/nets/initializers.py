"""Weight initializations by name, for one matrix or for a whole ensemble of them at once."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hessdiag.errors import SpecError
from hessdiag.nets import INITS
from hessdiag.suggest import question

Distribution = Literal["uniform", "normal"]

KURTOSIS: dict[Distribution, float] = {"normal": 3.0, "uniform": 9 / 5}

_LAWS: dict[str, tuple[Distribution, str]] = {
    "lecun": ("uniform", "third_of_in"),
    "lecun_normal": ("normal", "in"),
    "lecun_variance": ("uniform", "in"),
    "xavier_uniform": ("uniform", "mean_of_in_and_out"),
    "xavier_normal": ("normal", "mean_of_in_and_out"),
    "he_uniform": ("uniform", "half_of_in"),
    "he_normal": ("normal", "half_of_in"),
}


@dataclass(frozen=True)
class WeightLaw:
    """Law of i.i.d. weights: a distribution and its variance."""

    distribution: Distribution
    variance: float

    @property
    def kurtosis(self) -> float:
        """E w^4 / (E w^2)^2."""
        return KURTOSIS[self.distribution]


def source(*words: int) -> torch.Generator:
    """A source of random numbers on the CPU, another one for every sequence of words that are not negative.

    >>> torch.equal(*(torch.randn(2, generator=source(0, 1)) for _ in range(2)))
    True
    """
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def fans(shape: torch.Size) -> tuple[int, int]:
    """Inputs and outputs of a unit of a linear or convolutional layer, as torch counts them: times the kernel's area.

    >>> fans(torch.Size([6, 3, 5, 5]))
    (75, 150)
    """
    area = shape[2:].numel()
    return shape[1] * area, shape[0] * area


def law(init: str, fan_in: int, fan_out: int, distribution: Distribution | None = None) -> WeightLaw | None:
    """The law that an initialization draws each weight from; `None` for `orthogonal`, whose entries are dependent.

    Args:
        init: A key of `hessdiag.nets.INITS`.
        fan_in: Inputs of the layer.
        fan_out: Outputs of the layer.
        distribution: Use this distribution at the same variance, instead of the initialization's own.

    Raises:
        SpecError: if the name is unknown.

    >>> law("he_normal", fan_in=32, fan_out=64)
    WeightLaw(distribution='normal', variance=0.0625)
    """
    if init not in INITS:
        what = f"unknown initialization {init!r}: not one of {', '.join(INITS)}.{question(str(init), INITS)}"
        raise SpecError(what, "hessdiag ls inits")
    if init == "orthogonal":
        return None
    own, scaling = _LAWS[init]
    variance = {
        "third_of_in": 1 / (3 * fan_in),
        "in": 1 / fan_in,
        "mean_of_in_and_out": 2 / (fan_in + fan_out),
        "half_of_in": 2 / fan_in,
    }[scaling]
    return WeightLaw(distribution or own, variance)


def default_init(activation: str) -> str:
    """He for ReLU, whose gates halve the squared norm; Xavier otherwise."""
    return "he_uniform" if activation in ("relu", "leaky_relu") else "xavier_uniform"


def draw(
    init: str,
    shape: tuple[int, ...],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    distribution: Distribution | None = None,
) -> Tensor:
    """Draw weight matrices.

    Args:
        init: A key of `hessdiag.nets.INITS`.
        shape: `(..., fan_out, fan_in)`; leading dimensions are independent networks.
        generator: Source of randomness; its device is the result's. `None` uses torch's global one.
        dtype: Of the result. Numbers are drawn in this dtype.
        distribution: See `law`.

    Returns:
        Tensor of the given shape.

    Raises:
        SpecError: if the name is unknown.

    >>> g = torch.Generator().manual_seed(0)
    >>> W = draw("orthogonal", (5, 3, 4), generator=g)
    >>> torch.allclose(W @ W.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    True
    """
    fan_out, fan_in = shape[-2:]
    device = generator.device if generator is not None else torch.device("cpu")
    weights = law(init, fan_in, fan_out, distribution)
    if weights is None:
        tall = torch.randn(
            *shape[:-2],
            max(fan_out, fan_in),
            min(fan_out, fan_in),
            generator=generator,
            dtype=dtype,
            device=device,
        )
        q, r = torch.linalg.qr(tall)
        q = q * r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)  # makes the law uniform over orthogonal matrices
        basis: Tensor = q if fan_out >= fan_in else q.mT.contiguous()
        return basis
    values = torch.empty(shape, dtype=dtype, device=device)
    if weights.distribution == "uniform":
        bound = math.sqrt(3 * weights.variance)
        return values.uniform_(-bound, bound, generator=generator)
    return values.normal_(0.0, math.sqrt(weights.variance), generator=generator)
