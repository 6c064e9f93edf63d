"""Many independent random networks of one shape, each with data of its own, as stacked tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.nets.initializers import Distribution, draw, source

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sample:
    """Some networks of an ensemble, with their data.

    Attributes:
        weights: W_1 .. W_L, each (networks, width, width).
        x: Inputs (networks, samples, width), each of norm sqrt(width).
        y: Targets likewise, from a random one-hidden-layer network of the same width.
        u: A random cotangent of the output, (networks, width).
    """

    weights: tuple[Tensor, ...]
    x: Tensor
    y: Tensor
    u: Tensor

    def __getitem__(self, part: slice) -> "Sample":
        return Sample(tuple(weight[part] for weight in self.weights), self.x[part], self.y[part], self.u[part])

    def to(self, device: torch.device) -> "Sample":
        """The same on a device."""
        return Sample(
            tuple(w.to(device) for w in self.weights), *(part.to(device) for part in (self.x, self.y, self.u))
        )


@dataclass(frozen=True)
class Ensemble:
    """A law of random bias-free square networks with Gaussian-like data (Vanishing Curvature, section 3 and Figure 4).

    Attributes:
        depth: Weight matrices L.
        width: Of every layer.
        init: A key of `hessdiag.nets.INITS`.
        batch: Samples per network.
        seed: Of all randomness.
        device: Where the networks go. They are drawn on the CPU, so that a seed names the same ones everywhere.
        distribution: Overrides the initialization's own, at the same variance.
    """

    depth: int
    width: int
    init: str
    batch: int
    seed: int = 0
    device: torch.device = CPU
    distribution: Distribution | None = None

    def draw(self, start: int, count: int) -> Sample:
        """Networks number `start` to `start + count`; the same call gives the same networks.

        >>> Ensemble(depth=3, width=4, init="he_normal", batch=2).draw(0, 5).weights[0].shape
        torch.Size([5, 4, 4])
        """
        generator = source(self.seed, self.depth, self.width, start)
        d = self.width

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        weights = tuple(
            draw(self.init, (count, d, d), generator=generator, distribution=self.distribution)
            for _ in range(self.depth)
        )
        x = _on_sphere(normal(count, self.batch, d))
        hidden = torch.tanh(x @ normal(count, d, d) / d**0.5)
        y = _on_sphere(hidden @ normal(count, d, d))
        return Sample(weights, x, y, normal(count, d)).to(self.device)


def _on_sphere(vectors: Tensor) -> Tensor:
    """Scale each vector to norm sqrt(width): a Gaussian vector without the scatter of its length."""
    length = vectors.norm(dim=-1, keepdim=True)
    scale: Tensor = vectors.shape[-1] ** 0.5 / length.clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors * scale
