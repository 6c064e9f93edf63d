"""The Hessian as a dense matrix: whole, or one block of layers."""

from contextlib import suppress

import torch
from torch import Tensor

from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.memory import free_bytes
from hessdiag.curvature.neuron_space import NotInNeuronSpaceError
from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Layer, Problem


def hessian(problem: Problem, *, check: bool = True) -> Tensor:
    """The dense Hessian of a problem.

    Args:
        problem: What is differentiated, N parameters.
        check: Whether to look at the point first, as `HessianOperator` does.

    Returns:
        Tensor of shape (N, N), parameters in the order of `model.parameters()`. It is not symmetrized: what differs
        between H and its transpose is rounding, and shows its size.

    Raises:
        ComputeError: if N^2 numbers do not fit in half of the free memory, or H cannot be computed or trusted.

    >>> model = torch.nn.Linear(1, 1).double()
    >>> data = [(torch.tensor([[2.0]]).double(), torch.zeros(1, 1).double())]
    >>> hessian(Problem(model, data=data, loss="mse"))
    tensor([[8., 4.],
            [4., 2.]], dtype=torch.float64)
    """
    operator = HessianOperator(problem, check=check)
    n = operator.shape[0]
    needed, free = n * n * operator.dtype.itemsize, free_bytes(problem.device)
    if needed > free // 2:
        largest = int((free / 2 / operator.dtype.itemsize) ** 0.5)
        raise ComputeError(
            f"the dense Hessian of {n:,} parameters takes {needed / 2**30:.1f} GiB; here {largest:,} parameters fit.",
            "HessianOperator(problem).rows(...), or Problem(..., layers='GLOB') for some of the layers",
        )
    operator.settle()
    with suppress(NotInNeuronSpaceError):
        return exact.dense(operator)
    return operator.rows(torch.arange(n))


def hessian_block(problem: Problem, row_layer: Layer, column_layer: Layer, *, check: bool = True) -> Tensor:
    """One block of the Hessian, computed without the rest.

    Args:
        problem: What is differentiated.
        row_layer: One of `problem.layer_slices`.
        column_layer: Likewise.
        check: Whether to look at the point first, as `HessianOperator` does.

    Returns:
        Tensor of shape (row_layer.size, column_layer.size).

    Raises:
        ComputeError: if it cannot be computed or trusted.
    """
    rows = torch.arange(row_layer.start, row_layer.stop)
    return HessianOperator(problem, check=check).rows(rows, column_layer)
