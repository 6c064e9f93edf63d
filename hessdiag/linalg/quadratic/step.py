"""What a model of a function recommends."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hessdiag.errors import ComputeError
from hessdiag.linalg.spread import Spread
from hessdiag.linalg.tridiagonal import safe_norm

Exit = Literal["interior", "boundary", "negative curvature", "limit"]


@dataclass(frozen=True)
class ModelStep:
    """A step that a model of a function recommends.

    Attributes:
        step: s, (n,).
        decrease: -m(s), how far the model falls: not negative.
        exit: "interior" where the model's minimum was found inside the region to the tolerance; "boundary" where the
            region ends the step; "negative curvature" where the model has no minimum; "limit" where products ran out.
        products: With the matrix.
        length: ||s||_M.
    """

    step: Tensor
    decrease: float
    exit: Exit
    products: int
    length: float


def size_of(vector: Tensor, name: str = "the gradient", spread: Spread | None = None) -> float:
    """Its Euclidean norm, also of a piece of one that is spread over processes.

    Raises:
        ComputeError: if it is not finite.
    """
    return finite(safe_norm(vector, spread), name)


def finite(number: float, name: str = "a product with the matrix") -> float:
    """The number.

    Raises:
        ComputeError: if it is not finite.
    """
    if not math.isfinite(number):
        raise ComputeError(f"{name} is not finite.")
    return number
