"""Blocks of a symmetric matrix that is known by eigenpairs, as preconditioners: its diagonal, or one block a layer."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hessdiag.curvature.preconditioners.form import Part, Preconditioner, diagonal

Bend = Callable[[Tensor], Tensor]  # of eigenvalues: to what is not negative


def diagonal_of(values: Tensor, vectors: Tensor, bend: Bend) -> Preconditioner:
    """The diagonal of V diag(values) V', bent to what is not negative: one number for each parameter.

    >>> diagonal_of(torch.tensor([-2.0, 3.0]), torch.eye(2), torch.abs).parts[0].values
    tensor([2., 3.])
    """
    return diagonal("diagonal", bend(vectors.square() @ values))


def blocks_of(values: Tensor, vectors: Tensor, spans: Sequence[slice], bend: Bend) -> Preconditioner:
    """The diagonal blocks of V diag(values) V', each bent to what is not negative: |B|, or the positive part of B.

    Args:
        values: (k,).
        vectors: (N, k), orthonormal.
        spans: Places of each block's parameters.
        bend: What is done to the eigenvalues of each block.
    """
    parts = []
    for span in spans:
        own = vectors[span]
        places = torch.arange(span.start, span.stop, device=vectors.device)
        basis, block = None, (own * values) @ own.T if len(own) <= len(values) else None
        if block is None:  # of rank k at most
            basis, triangle = torch.linalg.qr(own)
            block = (triangle * values) @ triangle.T
        spectrum, turned = torch.linalg.eigh((block + block.T) / 2)
        parts.append(Part(places, bend(spectrum), turned if basis is None else basis @ turned))
    return Preconditioner("blocks", tuple(parts), sum((span.stop - span.start) ** 2 for span in spans))
