"""The Hessian as a dense matrix: whole, or one block of layers."""

from contextlib import suppress

import torch
from torch import Tensor

from hessdiag.curvature import exact
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.curvature.point.examine import fingerprint
from hessdiag.errors import ComputeError
from hessdiag.machine import cost
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.once import once
from hessdiag.machine.pages import large_pages
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem

ROOMY = 4  # times the matrix: with so much memory free, nothing needs to be counted
ROW_COPIES = 4  # of each row: its unit vector, the parts of the product, the product, and the sum over batches
PASS_COPIES = 3  # of what a forward pass keeps, for each vector of a product


@measurement()
def hessian(
    problem: Problem,
    *,
    check: bool = True,
    finished: exact.Finished = lambda numbers, rows: None,
    out: Tensor | None = None,
) -> Tensor:
    """The dense Hessian of a problem.

    Args:
        problem: What is differentiated, N parameters.
        check: Whether to look at the point first, as `HessianOperator` does.
        finished: Called with the numbers of rows that were computed, and these rows; perhaps with some of them again,
            which then replace the first.
        out: Memory that is there, for the result: an earlier one whose numbers are no longer wanted. To be given fresh
            memory takes a third of the time of a small Hessian.

    Returns:
        Tensor of shape (N, N), parameters in the order of `model.parameters()`. It is not symmetrized: what differs
        between H and its transpose is rounding, and shows its size.

    Raises:
        ComputeError: if N^2 numbers and one pass do not fit in the free memory, or H cannot be computed or trusted.
        ValueError: if `out` has another shape, dtype or device, or is differentiated.

    >>> model = torch.nn.Linear(1, 1).double()
    >>> data = [(torch.tensor([[2.0]]).double(), torch.zeros(1, 1).double())]
    >>> hessian(Problem(model, data=data, loss="mse"))
    tensor([[8., 4.],
            [4., 2.]], dtype=torch.float64)
    """
    return of(HessianOperator(problem, check=check), finished, out)


def of(
    operator: HessianOperator,
    finished: exact.Finished = lambda numbers, rows: None,
    out: Tensor | None = None,
) -> Tensor:
    """The same of an operator, in its metric. Where several questions are asked of one problem, it is formed once."""
    if out is not None or operator.scale is not None:
        return _formed(operator, finished, out)
    formed: list[None] = []

    def form() -> tuple[Tensor, str]:
        formed.append(None)
        return _formed(operator, finished, None), operator.method

    operator.settle()
    key = ("dense", operator.problem, operator.missing, tuple(fingerprint(operator.problem).tolist()))
    H, operator.method = once(key, form)
    if not formed:
        finished(torch.arange(len(H), device=H.device), H)
    return H


def _formed(operator: HessianOperator, finished: exact.Finished, out: Tensor | None) -> Tensor:
    n = operator.shape[0]
    if out is None:
        _fit(operator, free_bytes(operator.device))
    elif (out.shape, out.dtype, out.device) != ((n, n), operator.dtype, operator.device) or out.requires_grad:
        raise ValueError(f"out has to be ({n}, {n}), {operator.dtype}, on {operator.device}, without a gradient")
    operator.settle()
    with suppress(NotInNeuronSpaceError):
        return exact.dense(operator, finished, out)
    H = large_pages(torch.empty(n, n, dtype=operator.dtype, device=operator.device)) if out is None else out
    for rows, block in operator.blocks(torch.arange(n, device=operator.device)):
        H[rows] = block
        finished(rows, block)
    return H


def _fit(operator: HessianOperator, free: int) -> None:
    """Let passes take no more than the matrix leaves them.

    Raises:
        ComputeError: if it leaves too little for one.
    """
    n, each = operator.shape[0], operator.dtype.itemsize
    whole, spare = n * n * each, cost.SPARE * free
    if ROOMY * whole <= free:  # what a pass saves is not asked, which takes an evaluation
        return
    if whole <= spare:
        while whole + _beside(operator) > spare and operator.chunk > 1:
            operator.chunk //= 2
        whole += _beside(operator)
    if whole > spare:
        half = ROW_COPIES / 2  # of the rows beside the matrix: the solution of a quadratic equation
        largest = min(int((spare / each + half**2) ** 0.5 - half), n - 1)
        raise ComputeError(
            f"the dense Hessian of {n:,} parameters takes {whole / 2**30:.1f} GiB; here {largest:,} parameters fit.",
            "HessianOperator(problem).rows(...), or Problem(..., layers='GLOB') for some of the layers",
        )


def _beside(operator: HessianOperator) -> int:
    """Bytes held beside the matrix: rows before they are copied into it, and a pass."""
    vectors = ROW_COPIES * operator.portion * operator.shape[0] * operator.dtype.itemsize
    return vectors + PASS_COPIES * operator.chunk * (operator.saved_bytes or 0)


@measurement()
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
