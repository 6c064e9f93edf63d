"""The width-one linear network, whose output is its input times a product of scalars."""

import torch

from hessdiag.errors import SpecError
from hessdiag.nets.network import Network, check_sizes, seeded, uninitialized


class Chain(Network):
    """Product of `length` scalars w_1 ... w_L, each a 1x1 linear layer without bias.

    Args:
        length: Number of scalars.
        scale: tau of U[-tau, tau], or sigma of N(0, sigma^2).
        distribution: `uniform` or `normal`.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.

    Raises:
        SpecError: if the distribution is unknown or the length is below 1.

    >>> chain = Chain(length=3, seed=0)
    >>> product = torch.stack([parameter.squeeze() for parameter in chain.parameters()]).prod()
    >>> bool(chain(torch.ones(1, 1, dtype=torch.float64)).squeeze() == product)
    True
    """

    def __init__(
        self,
        length: int = 8,
        scale: float = 1.0,
        distribution: str = "uniform",
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        if distribution not in ("uniform", "normal"):
            raise SpecError(f"unknown distribution {distribution!r}: uniform or normal.", "distribution='uniform'")
        if length < 1:
            raise SpecError(f"a chain has at least one factor, not {length}.", "length=8")
        check_sizes(length, length, dtype, depth="length", width=("length", length))
        generator = seeded(seed)
        weights = torch.empty(length, dtype=torch.float64)
        if distribution == "uniform":
            weights.uniform_(-scale, scale, generator=generator)
        else:
            weights.normal_(0.0, scale, generator=generator)
        layers = [uninitialized(1, 1, bias=False, dtype=dtype) for _ in weights]
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight.fill_(weight)
        super().__init__(*layers)
