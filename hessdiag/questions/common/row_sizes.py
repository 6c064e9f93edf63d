"""How large the rows of a matrix are, guessed from a few products: what a sample of rows is drawn by."""

import numpy as np
import torch
from numpy.typing import NDArray

from hessdiag.linalg import cauchy
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.tridiagonal import LONG

SKETCHES = 8  # Cauchy probes for the first guess of the rows' sizes


def row_scales(operator: SymmetricOperator, seed: int) -> NDArray[np.float64]:
    """Two guesses of every row's absolute sum, (2, N), zero for zero rows only.

    H times a Cauchy vector is Cauchy in every entry, with that sum for a scale.
    """
    n, half = operator.shape[0], SKETCHES // 2
    together = 1 if n > LONG else half
    tiny = torch.finfo(torch.float64).tiny
    found = torch.zeros(2, n, dtype=torch.float64, device=operator.device)
    alive = torch.zeros(n, dtype=torch.bool, device=operator.device)
    for index, images in enumerate(cauchy.images(operator, SKETCHES, seed, together=together)):
        sizes = images.abs_()
        alive |= (sizes > 0).any(1)
        logs = found[index * together // half]
        for total, part in zip(torch.split(logs, LONG), torch.split(sizes, LONG), strict=True):
            total += part.double().clamp_(min=tiny).log_().sum(1)
    guesses: NDArray[np.float64] = found.div_(half).exp_().mul_(alive).cpu().numpy()
    return guesses
