"""The diagonal of an operator: exact where it is at hand or worth a product for each row, else from random signs.

Bekas, Kokiopoulou and Saad (2007); the sketch as in Baston and Nakatsukasa's Diag++ (2022).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.linalg.estimators import diagonal_by_products, refuse_few
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.sketches import sketched
from hessdiag.linalg.spread import spread_of
from hessdiag.machine.arithmetic import ieee
from hessdiag.statistics import quantiles


@dataclass(frozen=True)
class DiagonalEstimate:
    """An estimated diagonal, in float64.

    Squares and magnitudes of the values are too large on average, by the errors' variance.

    Attributes:
        values: Unbiased, (n,).
        stderr: Standard error of each, (n,); zero where all is known.
        interval: Ends of 95 % intervals by Student's t, (n,) each; normal where many entries of a row matter.
        products: Products with vectors spent on it.
    """

    values: Tensor
    stderr: Tensor
    interval: tuple[Tensor, Tensor]
    products: int


def at_hand(operator: SymmetricOperator) -> Tensor | None:
    """The diagonal where it takes no product: of tensors, and of operators that say so; `None` elsewhere."""
    if isinstance(operator, Tensor):
        return operator.detach().diagonal() if operator.layout == torch.strided else None
    known = getattr(operator, "diagonal_at_hand", None)
    return None if known is None else known()


def of_rows(rows: Tensor, numbers: Tensor) -> Tensor:
    """The diagonal entries in some rows (k, n) of a matrix, (k,), in float64.

    >>> of_rows(torch.tensor([[5.0, 2.0, 6.0]]), torch.tensor([1]))
    tensor([2.], dtype=torch.float64)
    """
    return rows.gather(1, numbers.to(rows.device)[:, None])[:, 0].double()


@ieee()
def exact(operator: SymmetricOperator) -> Tensor:
    """The diagonal itself, (n,), in the operator's dtype: one product for each row, unless it is at hand.

    >>> exact(torch.tensor([[1.0, 5.0], [5.0, 2.0]]))
    tensor([1., 2.])
    """
    known = at_hand(operator)
    return diagonal_by_products(operator) if known is None else known.to(operator.dtype)


@ieee()
def diagonal(operator: SymmetricOperator, count: int, seed: int | None = None, *, sketch: int = 0) -> DiagonalEstimate:
    """The diagonal by random signs, exactly on the range of a sketch and by chance on the rest.

    Args:
        operator: Symmetric, (n, n). Where its vectors are spread over processes, each gets its piece of the diagonal,
            with zeros where that is filled up.
        count: Products to spend, at least 2 `sketch` + 2. With n or more, the diagonal is computed instead.
        seed: `None` for fresh randomness.
        sketch: Random vectors for the range; each costs two products.

    Raises:
        ValueError: if fewer than two products are left beside the sketch.

    >>> found = diagonal(torch.tensor([[1.0, 5.0], [5.0, 2.0]]), 2)
    >>> found.values, found.stderr
    (tensor([1., 2.], dtype=torch.float64), tensor([0., 0.], dtype=torch.float64))
    """
    n = operator.shape[0]
    free = at_hand(operator)
    enough = n if free is None else 0
    refuse_few(count, sketch, enough)
    if count >= enough:
        known = (exact(operator) if free is None else free).double()
        return DiagonalEstimate(known, torch.zeros_like(known), (known, known), enough)
    part = sketched(operator, count, sketch, seed)
    mean, squares = torch.zeros(2, spread_of(operator).own, dtype=torch.float64, device=operator.device)
    scale = done = 0.0
    for signs, products in part.signed():
        samples = signs * products.double()
        scale = scale or float(samples.abs().max()) or 1.0
        samples /= scale
        for sample in samples.T:  # Welford's update: differences of sums of squares would cancel
            done += 1
            before = sample - mean
            mean += before / done
            squares += before * (sample - mean)
    values = part.diagonal() + scale * mean
    stderr = scale * (squares / (done * (done - 1))).sqrt()
    reach = float(quantiles.student(0.975, done - 1)) * stderr
    return DiagonalEstimate(values, stderr, (values - reach, values + reach), count)
