"""Self-checks of a Hessian operator: is it symmetric, and does it agree with differences of gradients?"""

import copy
import math

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CPU_FEWEST
from hessdiag.errors import HessdiagError
from hessdiag.problem import batch as batches
from hessdiag.problem.problem import Problem

# Relative steps of the central difference, likely ones first. A step can cross a ReLU kink or drown in rounding: the
# best one counts, and the first that is far better than needed ends the search.
_STEPS = (1e-8, 1e-7, 1e-6, 1e-9, 1e-5, 1e-4)
_FAR_BETTER = 0.1
_GENERIC = 1e-3  # relative size of a move away from kinks, such as those of units that are exactly zero

# Largest relative error at which products are still believed, by dtype.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.2}


def hvp_symmetry(operator: HessianOperator, seed: int = 0) -> float:
    """Relative asymmetry |u'Hv - v'Hu| / (|u||Hv|), the worst among a few random vectors; 0 when their products vanish.

    As many vectors as share a pass, so that what is checked is what commands use.
    """
    V = torch.stack(_random_vectors(operator, CPU_FEWEST if operator.chunk >= CPU_FEWEST else 2, seed), dim=1)
    HV = operator @ V
    scale = V.norm(dim=0)[:, None] * HV.norm(dim=0)
    forms = V.T @ HV
    return float(torch.where(scale > 0, (forms - forms.T).abs() / scale, 0.0).max())


def hvp_finite_difference(operator: HessianOperator, seed: int = 0) -> float | None:
    """Relative distance of Hv from a central difference of gradients along a random v, taken in float64.

    Where the difference disagrees, as it does astride kinks, product and difference are compared once more at a random
    point nearby, where parameters are generic.

    Returns:
        |Hv - (g(theta + h v) - g(theta - h v)) / 2h|, relative to the larger of the two, for the best of several steps
        h that scale with |theta| / |v|. `None` where no copy of the model can be made and moved.
    """
    problem = operator.problem
    (v,) = _random_vectors(operator, 1, seed)
    v *= _movable(problem).to(v)
    try:
        dtype = None if problem.device.type == "mps" else torch.float64
        copied = _copied(problem, copy.deepcopy(problem.model).to(dtype=dtype), dtype)
        distance = _distance_from_difference(copied, v, operator @ v)
        if distance > _enough(operator.dtype):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in copied.parameters:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
                    size = parameter.norm().clamp_min(_GENERIC) / parameter.numel() ** 0.5
                    parameter.add_(_GENERIC * size * noise)
            nearby = HessianOperator(copied)
            distance = min(distance, _distance_from_difference(copied, v, nearby @ v.to(nearby.dtype)))
    except (HessdiagError, RuntimeError, TypeError, AttributeError):
        return None
    return distance


def _distance_from_difference(moved: Problem, v: Tensor, product: Tensor) -> float:
    """The best agreement of a product with differences; the parameters are put back."""
    dtype, product = product.dtype, product.double()
    theta = [parameter.detach().clone() for parameter in moved.parameters]
    size = float(torch.cat([t.reshape(-1) for t in theta]).norm())
    direction = _split(v.to(theta[0].dtype), theta)
    best = math.inf
    for step in _STEPS:
        h = step * (size or 1.0) / float(v.norm())
        forward, backward = (_gradient_at(moved, theta, direction, sign * h) for sign in (1, -1))
        difference = ((forward - backward).double() / (2 * h)).to(product.device)
        scale = max(float(product.norm()), float(difference.norm()))
        best = min(best, float((product - difference).norm()) / scale if scale else 0.0)
        if best <= _enough(dtype):
            break
    _move(moved, theta, direction, 0.0)
    return best


def _enough(dtype: torch.dtype) -> float:
    return _FAR_BETTER * TOLERANCE[dtype]


def _movable(problem: Problem) -> Tensor:
    """1 for every parameter, but 0 for the rows of embeddings that padding freezes."""
    masks: dict[Tensor, Tensor] = {parameter: torch.ones(parameter.shape) for parameter in problem.parameters}
    for module in problem.model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None and module.weight in masks:
            masks[module.weight][module.padding_idx] = 0.0
    return torch.cat([mask.reshape(-1) for mask in masks.values()])


def _copied(problem: Problem, model: torch.nn.Module, dtype: torch.dtype | None) -> Problem:
    return Problem(
        model,
        data=[batches.to(batch, dtype=dtype) for batch in problem.data],
        loss=problem.loss,
        objective=problem.objective,
        reduction=problem.reduction,
        layers=problem.layers,
        train_mode=problem.train_mode,
        seed=problem.seed,
    )


def _move(problem: Problem, theta: list[Tensor], direction: list[Tensor], h: float) -> None:
    with torch.no_grad():
        for parameter, value, step in zip(problem.parameters, theta, direction, strict=True):
            parameter.copy_(value + h * step)


def _gradient_at(problem: Problem, theta: list[Tensor], direction: list[Tensor], h: float) -> Tensor:
    """The gradient a step away, without the graph that products need."""
    _move(problem, theta, direction, h)
    total = torch.zeros(problem.n_parameters, dtype=torch.float64, device=problem.device)
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        with problem.evaluation():
            parts = torch.autograd.grad(problem.evaluate(batch), problem.parameters, materialize_grads=True)
        total += weight * torch.cat([part.reshape(-1).to(total) for part in parts])
    return total


def _split(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, like, strict=True)]


def _random_vectors(operator: HessianOperator, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, operator.shape[0], generator=generator, dtype=torch.float64)
    return list(vectors.to(operator.device, operator.dtype))
