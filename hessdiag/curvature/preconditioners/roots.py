"""Square roots of a loss's curvature in the output: vectors whose outer products are the Hessian of each sample's loss.

Sent back through a network, they are the gradients whose second moments are the Gauss-Newton matrix.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.gauss_newton import Sandwich

EXACT_UP_TO = 128  # numbers of a sample's output: so many gradients a sample are taken, more are drawn
DRAWS = 64  # of random signs, where there are more
CLOSE = 1e-6  # relative distance at which a form of the loss's curvature is recognised, in float64


class NoRootError(Exception):
    """Why the loss's curvature has no root that is known."""


@dataclass(frozen=True)
class Roots:
    """Vectors s_c of the form of one batch's output, (k, *z.shape), with sum_c s_c s_c' = B within every sample.

    Attributes:
        columns: All of them, where a sample has few outputs; `None` where they are many.
        root: From random signs of the form of z, (k, *z.shape), to as many vectors with the outer product B on average.
    """

    columns: Tensor | None
    root: Callable[[Tensor], Tensor]
    output: Tensor

    def all(self, seed: int, at_once: int) -> Iterator[Tensor]:
        """The columns, a few at a time; where they are many, draws in their place."""
        return self.draws(seed, at_once) if self.columns is None else iter(torch.split(self.columns, at_once))

    def draws(self, seed: int, at_once: int) -> Iterator[Tensor]:
        """64 random combinations with signs that are independent between samples, divided by 8."""
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, DRAWS, at_once):
            drawn = signs(generator, min(at_once, DRAWS - start), self.output)
            yield self.root(drawn) / DRAWS**0.5


def roots(sandwich: Sandwich) -> Roots:
    """Roots of the curvature of one batch's loss in the output.

    Raises:
        NoRootError: if the loss receives several tensors, is not convex, or couples samples.
    """
    if len(sandwich.outputs) != 1:
        raise NoRootError("the loss receives several tensors, or none that depends on parameters")
    z = sandwich.outputs[0].detach()
    numbers = z[0].numel() if z.ndim else 0
    if not numbers:
        raise NoRootError("the output has no samples")
    if numbers > EXACT_UP_TO:
        return Roots(None, _closed_root(sandwich, z), z)
    columns = _columns(sandwich, numbers)
    flat = columns.flatten(2) if z.ndim > 1 else columns[..., None]  # (columns, samples, numbers)

    def combined(drawn: Tensor) -> Tensor:
        return torch.einsum("knc,cnj->knj", drawn.reshape(len(drawn), len(z), numbers), flat).view_as(drawn)

    return Roots(columns, combined, z)


def signs(generator: torch.Generator, count: int, like: Tensor) -> Tensor:
    """Random signs, (count, *like.shape)."""
    drawn = torch.randint(2, (count, *like.shape), generator=generator) * 2 - 1
    return drawn.to(like.device, like.dtype)


def _columns(sandwich: Sandwich, numbers: int) -> Tensor:
    """The columns of B's root, (numbers, *z.shape): those of all samples side by side."""
    z = sandwich.outputs[0].detach()
    units = torch.eye(numbers, dtype=z.dtype, device=z.device).view(numbers, 1, *z.shape[1:]).expand(-1, *z.shape)
    B = torch.stack([sandwich.middle([unit[None]])[0][0] for unit in units]).detach()
    B = B.reshape(numbers, len(z), numbers).transpose(0, 1)  # (samples, numbers, numbers)
    generator = torch.Generator().manual_seed(0)
    tried = signs(generator, 1, z)
    _same(torch.einsum("nij,nj->ni", B, tried.reshape(len(z), numbers)), sandwich.middle([tried])[0], "couples samples")
    values, vectors = torch.linalg.eigh(((B + B.mT) / 2).double())
    if float(values.min()) < -CLOSE * float(values.abs().max()):
        raise NoRootError("the loss is not convex in the output")
    columns = vectors * values.clamp(min=0).sqrt()[:, None]
    found: Tensor = columns.permute(2, 0, 1).reshape(numbers, *z.shape).to(z.dtype)
    return found


def _closed_root(sandwich: Sandwich, z: Tensor) -> Callable[[Tensor], Tensor]:
    """A root of B where that is a diagonal, as of squared errors, or of softmax and cross-entropy at each position."""
    generator = torch.Generator().manual_seed(0)
    tried, ones = signs(generator, 1, z), torch.ones_like(z)[None]
    curved = sandwich.middle([tried])[0].detach()
    diagonal = sandwich.middle([ones])[0].detach()
    if _distance(diagonal * tried, curved) <= _close(z):
        if float(diagonal.min()) < 0:
            raise NoRootError("the loss is not convex in the output")
        return lambda drawn: diagonal.sqrt() * drawn
    for dim in {1, z.ndim - 1}:
        p = torch.softmax(z.detach(), dim)[None]
        plain = p * tried - p * (p * tried).sum(dim + 1, keepdim=True)
        size = plain.square().sum(dim + 1, keepdim=True)
        weights = (plain * curved).sum(dim + 1, keepdim=True) / size.clamp(min=torch.finfo(z.dtype).tiny)
        if _distance(weights * plain, curved) <= _close(z) and float(weights.min()) >= 0:
            return _softmax_root(p, weights.sqrt(), dim + 1)
    raise NoRootError("its curvature in an output of more than 128 numbers is neither a diagonal nor softmax's")


def _softmax_root(p: Tensor, scales: Tensor, dim: int) -> Callable[[Tensor], Tensor]:
    """(diag(p)^(1/2) - p p^(1/2)') u, whose outer product on average is diag(p) - p p'."""
    root = p.sqrt()
    return lambda drawn: scales * (root * drawn - p * (root * drawn).sum(dim, keepdim=True))


def _close(z: Tensor) -> float:
    return CLOSE if z.dtype == torch.float64 else 1e-3


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=torch.finfo(expected.dtype).tiny))


def _same(found: Tensor, expected: Tensor, otherwise: str) -> None:
    if _distance(found.flatten(), expected.detach().flatten()) > _close(expected):
        raise NoRootError(f"the loss {otherwise}")
