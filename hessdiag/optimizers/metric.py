"""The metric of an ellipsoidal trust region, from the gradients so far.

What is held is the root of a second moment, and not the moment: squares of gradients vanish below 1e-19 in float32.
"""

import math

import torch
from torch import Tensor


def remembered(held: Tensor | None, sample: Tensor, beta: float | None) -> Tensor:
    """The root of the second moment, with one more sample.

    Args:
        held: So far, (n,); `None` at the start. It is written to.
        sample: (n,).
        beta: Decay of the average; `None` for the sum.

    >>> remembered(torch.tensor([3.0]), torch.tensor([-4.0]), None)
    tensor([5.])
    """
    old, new = (1.0, 1.0) if beta is None else (math.sqrt(beta), math.sqrt(1 - beta))
    if held is None:
        return sample.abs().mul_(new)
    return torch.hypot(held.mul_(old), new * sample, out=held)


def remembered_whole(held: Tensor | None, sample: Tensor, beta: float | None) -> Tensor:
    """The second moment itself, (n, n): of all pairs."""
    old, new = (1.0, 1.0) if beta is None else (beta, 1 - beta)
    if held is None:
        return new * torch.outer(sample, sample)
    return held.mul_(old).addr_(sample, sample, alpha=new)


def metric_of(roots: Tensor, eps: float, *, relative: bool) -> Tensor:
    """The diagonal of the metric, sqrt(v + eps), from the roots of v.

    Args:
        roots: (n,).
        eps: Added to v; if `relative`, the root of what is added, relative to the median of `roots` that are not zero.
            The root mean square would be that of a few large gradients (an output's biases, say), and a floor relative
            to it hides those of the layers far below them.
        relative: Whether the metric shall have the mean 1, too.

    >>> metric_of(torch.tensor([3e-30, 1e-30, 0.0]), 1.0, relative=True).square()
    tensor([2.8941, 0.5788, 0.2894])
    """
    if not relative:
        return torch.hypot(roots, roots.new_tensor(math.sqrt(eps)))
    some = roots[roots > 0]
    if not len(some):
        return torch.ones_like(roots)
    found = torch.hypot(roots / some.median(), roots.new_tensor(eps))
    return found.div_(found.mean())


def whole_metric_of(moment: Tensor, eps: float, *, relative: bool) -> Tensor:
    """The metric (n, n), the root of the matrix of second moments with the floor on its diagonal.

    >>> whole_metric_of(torch.tensor([[25.0, 0.0], [0.0, 9.0]]), 0.0, relative=True)
    tensor([[1.2500, 0.0000],
            [0.0000, 0.7500]])
    """
    some = moment.diagonal()[moment.diagonal() > 0]
    if relative and not len(some):
        return torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    values, vectors = torch.linalg.eigh(moment / some.median() if relative else moment)
    roots = (values.clamp(min=0) + (eps**2 if relative else eps)).sqrt()
    found: Tensor = (vectors * roots) @ vectors.T
    return found / found.diagonal().mean() if relative else found
