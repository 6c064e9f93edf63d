"""What a result says of the problem that it was measured of, and of the check of its products."""

from dataclasses import replace
from typing import TypeVar

import msgspec

from hessdiag.curvature.checks import Examination
from hessdiag.problem.describe import describe
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.result import Measured, ModelSubject

M = TypeVar("M", bound=Measured)


def described(problem: Problem) -> ModelSubject:
    """A problem as results hold it: names, sizes and hashes, no tensor.

    >>> import torch
    >>> found = described(Problem(torch.nn.Linear(2, 1), data=[(torch.ones(4, 2), torch.ones(4, 1))], loss="mse"))
    >>> found.model, found.parameters, found.samples
    ('Linear', 3, 4)
    """
    return msgspec.convert(describe(problem), ModelSubject)


def examined(result: M, found: Examination) -> M:
    """A result with what the check of its products found: whether to trust it, and the point it was taken at."""
    return replace(
        result,
        checks=found.checks,
        thresholds=dict.fromkeys(found.checks, found.tolerance),
        trusted=not found.failed,
        check_tolerance=found.tolerance,
        point=found.point,
        kinks=found.point.kinks,
    )
