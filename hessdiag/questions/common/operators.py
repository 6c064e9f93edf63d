"""The matrices that can be asked about by name, with their self-checks, and how much of them fits in memory."""

from dataclasses import dataclass
from typing import Any

import torch

from hessdiag.curvature import registry
from hessdiag.curvature.gauss_newton import OutputSpaceOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.curvature.registry import OperatorName
from hessdiag.curvature.shared import SharedOperator
from hessdiag.errors import SpecError
from hessdiag.linalg.operator import SymmetricOperator
from hessdiag.linalg.spread import spread_of
from hessdiag.machine import cost, processes
from hessdiag.machine.memory import free_bytes
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.matrices import LossInOutput

Operator = CurvatureOperator[Any]
Products = CurvatureOperator[Any] | SharedOperator


def operator(problem: Problem, name: OperatorName) -> Operator:
    """The matrix of a problem that has a name in the registry; whoever asks for it checks it.

    Raises:
        SpecError: if the name is none of them, or the problem has no such matrix.
    """
    try:
        entry = registry.named(name)
    except KeyError:
        known = ", ".join(registry.NAMES)
        raise SpecError(f"unknown operator {name!r}: not one of {known}.", "--operator hessian") from None
    return entry.operator(problem, check=False)


@dataclass(frozen=True)
class OutputChecks:
    """What one comparison with the linearized model tells of a Gauss-Newton or Fisher matrix.

    Attributes:
        checks: `ggn_quadratic_form`, the relative error of v'Gv.
        loss: What is known of the loss in what it receives: that it is convex, or that it is linear here.
        elsewhere: Whether the loss uses parameters by another way than what it receives.
        at_kink: Whether the outputs have a kink here.
        inside: The coarser dtype that the model computes in inside, where the checks allow for its rounding.
    """

    checks: dict[str, float | None]
    loss: LossInOutput
    elsewhere: bool
    at_kink: bool
    inside: torch.dtype | None = None


def output_checks(matrix: OutputSpaceOperator, seed: int = 0) -> OutputChecks:
    """Compare a product with the loss along the linearized model.

    Raises:
        ComputeError: if products cannot be computed.
    """
    found = matrix.compared(seed)
    cost.begin()
    linear = found is not None and found.linear
    known: LossInOutput = "linear" if linear else "convex" if matrix.semidefinite else "unknown"
    if found is None:
        return OutputChecks({"ggn_quadratic_form": None}, known, elsewhere=False, at_kink=False)
    return OutputChecks({"ggn_quadratic_form": found.error}, known, found.elsewhere, found.held, found.inside)


def together(operator: HessianOperator, most: int) -> int:
    """Vectors of one product: those of one pass, or many where each pass rebuilds the graphs of several batches."""
    if len(operator.problem.data) == 1:
        return operator.chunk
    return max(operator.chunk, min(most, vectors_that_fit(operator) // 4))


def vectors_that_fit(matrix: SymmetricOperator) -> int:
    """How many vectors, or pieces of them where processes hold pieces, a quarter of the free memory of each holds."""
    fitting = max(free_bytes(matrix.device) // 4 // (spread_of(matrix).own * matrix.dtype.itemsize), 1)
    return processes.least(fitting, matrix.device)
