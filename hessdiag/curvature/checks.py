"""Self-checks of a Hessian operator: is it symmetric, and does it agree with differences of gradients?"""

import math
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import Moved, copied, wide
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CPU_FEWEST, CurvatureOperator
from hessdiag.errors import ComputeError, HessdiagError
from hessdiag.linalg.lanczos import safe_norm
from hessdiag.problem.problem import Problem

# Relative steps of the central difference, likely ones first. A step can cross a ReLU kink or drown in rounding: the
# best one counts, and the first that is far better than needed ends the search.
_STEPS = (1e-8, 1e-7, 1e-6, 1e-9, 1e-5, 1e-4)
_FAR_BETTER = 0.1
_SQUARABLE = (1e-140, 1e140)  # sizes whose squares, and those of their relative errors, float64 can hold
_GENERIC = 1e-3  # relative size of a move away from kinks, such as those of units that are exactly zero

# Largest relative error at which products are still believed, by dtype.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.2}


def self_checks(operator: CurvatureOperator[Any], seed: int = 0, *, squared: bool = False) -> dict[str, float | None]:
    """Relative errors of an operator's products, by name.

    Args:
        operator: The matrix of second derivatives.
        seed: Of the random vectors.
        squared: Refuse a matrix whose squared norms would vanish or overflow, in silence, even in float64.

    Returns:
        `hvp_symmetry`, the asymmetry |u'Hv - v'Hu| / (|u||Hv|) of random vectors; for the Hessian by double backward
        `hvp_finite_difference`, how far one of these products is from a difference of gradients; for products that are
        differences themselves `hvp_two_steps`, how far those of two step sizes disagree.

    Raises:
        ComputeError: with the size of its products, if those are refused.
    """
    V, HV = _products(operator, seed)
    size = float(HV.abs().max())
    if squared and size and not _SQUARABLE[0] <= size <= _SQUARABLE[1]:
        raise ComputeError(
            f"products with {operator.matrix} are of size {size:.0e}: their squares are beyond float64.",
            f"--objective FILE.py:f that returns the loss times 1e{-round(math.log10(size)):+d}",
        )
    found: dict[str, float | None] = {"hvp_symmetry": _asymmetry(V, HV)}
    if operator.missing is not None:
        return found | {"hvp_two_steps": operator.precision}
    if isinstance(operator, HessianOperator):
        found["hvp_finite_difference"] = _finite_difference(operator.problem, V[:, 0], HV[:, 0], seed)
    return found


def _products(operator: CurvatureOperator[Any], seed: int) -> tuple[Tensor, Tensor]:
    """Random vectors and their products: as many as share a pass, so that what is checked is what commands use.

    The first vector moves nothing that padding freezes.
    """
    count = CPU_FEWEST if operator.chunk >= CPU_FEWEST else 2
    generator = torch.Generator().manual_seed(seed)
    V = torch.randn(count, operator.shape[0], generator=generator)
    V[0] *= _movable(operator.problem)
    V = V.to(operator.device, operator.dtype).T
    return V, operator @ V


def _asymmetry(V: Tensor, HV: Tensor) -> float:
    """Relative asymmetry |u'Hv - v'Hu| / (|u||Hv|), the worst pair; 0 when their products vanish."""
    HV = HV / (HV.abs().max() or 1.0)  # squares of small numbers would vanish
    scale = V.norm(dim=0)[:, None] * HV.norm(dim=0)
    forms = V.T @ HV
    return float(torch.where(scale > 0, (forms - forms.T).abs() / scale, 0.0).max())


def _finite_difference(problem: Problem, v: Tensor, product: Tensor, seed: int) -> float | None:
    """Relative distance of Hv from a central difference of gradients along v, taken in float64.

    Where the difference disagrees, as it does astride kinks, product and difference are compared once more at a random
    point nearby, where parameters are generic.

    Returns:
        |Hv - (g(theta + h v) - g(theta - h v)) / 2h|, relative to the larger of the two, for the best of several steps
        h that scale with |theta| / |v|. `None` where no copy of the model can be made and moved.
    """
    try:
        dtype = wide(problem.device)
        moved = copied(problem, dtype)
        distance = _distance_from_difference(moved, v, product)
        if distance > _enough(product.dtype):
            generator = torch.Generator().manual_seed(seed)
            moved.to(v, 0.0)
            with torch.no_grad():
                for parameter in moved.problem.parameters:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
                    size = parameter.norm().clamp_min(_GENERIC) / parameter.numel() ** 0.5
                    parameter.add_(_GENERIC * size * noise)
            nearby = HessianOperator(moved.problem)
            there = nearby @ v.to(nearby.dtype)
            distance = min(distance, _distance_from_difference(Moved(moved.problem, dtype), v, there))
    except (HessdiagError, RuntimeError, TypeError, AttributeError):
        return None
    return distance


def _distance_from_difference(moved: Moved, v: Tensor, product: Tensor) -> float:
    """The best agreement of a product with differences of several steps."""
    dtype, product = product.dtype, product.double()
    best = math.inf
    for step in _STEPS:
        difference = moved.difference(v, moved.step(v, step), lambda: [_whole_gradient(moved)])[0].to(product.device)
        scale = max(safe_norm(product), safe_norm(difference))
        best = min(best, safe_norm(product - difference) / scale if scale else 0.0)
        if best <= _enough(dtype):
            break
    return best


def _whole_gradient(moved: Moved) -> Tensor:
    problem = moved.problem
    total = torch.zeros(problem.n_parameters, dtype=torch.float64, device=problem.device)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        total += weight * torch.cat([part.reshape(-1).to(total) for part in moved.gradient(batch)])
    return total


def _enough(dtype: torch.dtype) -> float:
    return _FAR_BETTER * TOLERANCE[dtype]


def _movable(problem: Problem) -> Tensor:
    """1 for every parameter, but 0 for the rows of embeddings that padding freezes."""
    masks: dict[Tensor, Tensor] = {parameter: torch.ones(parameter.shape) for parameter in problem.parameters}
    for module in problem.model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None and module.weight in masks:
            masks[module.weight][module.padding_idx] = 0.0
    return torch.cat([mask.reshape(-1) for mask in masks.values()])
