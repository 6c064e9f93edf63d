"""Self-checks of a Hessian operator: is it symmetric, and does it agree with differences of gradients?"""

import copy

import torch
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import HessdiagError
from hessdiag.problem import batch as batches
from hessdiag.problem.problem import Problem

# Relative steps of the central difference. A step can cross a ReLU kink or drown in rounding: the best one counts.
_STEPS = (1e-4, 1e-5, 1e-6)

# Largest relative error at which products are still believed, by dtype.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.2}


def hvp_symmetry(operator: HessianOperator, seed: int = 0) -> float:
    """Relative asymmetry |u'Hv - v'Hu| / (|u||Hv|) for two random vectors; 0 when both products vanish."""
    u, v = _random_vectors(operator, 2, seed)
    Hu, Hv = (operator @ torch.stack([u, v], dim=1)).unbind(1)
    scale = float(u.norm() * Hv.norm())
    return abs(float(u @ Hv - v @ Hu)) / scale if scale else 0.0


def hvp_finite_difference(operator: HessianOperator, seed: int = 0) -> float | None:
    """Relative distance of Hv from a central difference of gradients along a random v, taken in float64.

    Returns:
        |Hv - (g(theta + h v) - g(theta - h v)) / 2h|, relative to the larger of the two, for the best of three steps h
        that scale with |theta| / |v|.
        `None` where no copy of the model can be made and moved.
    """
    problem = operator.problem
    (v,) = _random_vectors(operator, 1, seed)
    product = (operator @ v).double()
    try:
        model = copy.deepcopy(problem.model)
        double = None if problem.device.type == "mps" else torch.float64
        model = model.to(double) if double is not None else model
        moved = _copied(problem, model, double)
        theta = [parameter.detach().clone() for parameter in moved.parameters]
        size = float(torch.cat([t.reshape(-1) for t in theta]).norm())
        direction = _split(v.to(theta[0].dtype), theta)
        errors = []
        for step in _STEPS:
            h = step * (size or 1.0) / float(v.norm())
            forward, backward = (_gradient_at(moved, theta, direction, sign * h) for sign in (1, -1))
            difference = (forward - backward).double() / (2 * h)
            difference = difference.to(product.device)
            scale = max(float(product.norm()), float(difference.norm()))
            errors.append(float((product - difference).norm()) / scale if scale else 0.0)
    except (HessdiagError, RuntimeError, TypeError, AttributeError):
        return None
    return min(errors)


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


def _gradient_at(problem: Problem, theta: list[Tensor], direction: list[Tensor], h: float) -> Tensor:
    with torch.no_grad():
        for parameter, value, step in zip(problem.parameters, theta, direction, strict=True):
            parameter.copy_(value + h * step)
    return HessianOperator(problem).gradient()


def _split(vector: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = torch.split(vector, [tensor.numel() for tensor in like])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, like, strict=True)]


def _random_vectors(operator: HessianOperator, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, operator.shape[0], generator=generator, dtype=torch.float64)
    return list(vectors.to(operator.device, operator.dtype))
