"""What other libraries are asked to do, with the checks that would cost them time switched off."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import curvlinops
import hessian_eigenthings
import torch
from torch import Tensor, nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem

try:  # not among the test dependencies: its last release is of 2021
    import pyhessian
except ImportError:
    pyhessian = None


def versions() -> dict[str, str]:
    """Releases of those that are installed."""
    found = {}
    for name in ("curvlinops-for-pytorch", "hessian-eigenthings", "PyHessian", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gradient(problem: Problem) -> Callable[[], Any]:
    """One plain gradient of the loss."""
    x, y = problem.data[0]
    return lambda: torch.autograd.grad(nn.functional.cross_entropy(problem.model(x), y), problem.parameters)


def curvlinops_hessian(problem: Problem) -> Any:
    """Their Hessian as an operator."""
    return curvlinops.HessianLinearOperator(
        problem.model, nn.CrossEntropyLoss(), list(problem.parameters), list(problem.data), check_deterministic=False
    )


def functional_hessian(problem: Problem) -> Callable[[], Tensor]:
    """The dense Hessian by `torch.func.hessian`."""
    names = [name for name, _ in problem.named_parameters]
    x, y = problem.data[0]

    def loss(theta: Tensor) -> Tensor:
        parts = torch.split(theta, [p.numel() for p in problem.parameters])
        values = {name: part.reshape(p.shape) for name, part, p in zip(names, parts, problem.parameters, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(problem.model, values, (x,)), y)

    theta = torch.cat([p.detach().reshape(-1) for p in problem.parameters])
    return lambda: torch.func.hessian(loss)(theta)


def double_backward_hessian(problem: Problem) -> Callable[[], Tensor]:
    """The dense Hessian by torch's own batched double backward, 256 unit vectors a pass."""
    x, y = problem.data[0]
    sizes, shapes = [p.numel() for p in problem.parameters], [p.shape for p in problem.parameters]

    def run() -> Tensor:
        loss = nn.functional.cross_entropy(problem.model(x), y)
        gradient = torch.autograd.grad(loss, problem.parameters, create_graph=True)
        rows = []
        for units in torch.eye(sum(sizes), device=x.device).split(256):
            parts = [part.reshape(-1, *shape) for part, shape in zip(units.split(sizes, 1), shapes, strict=True)]
            found = torch.autograd.grad(gradient, problem.parameters, parts, retain_graph=True, is_grads_batched=True)
            rows.append(torch.cat([part.flatten(1) for part in found], dim=1))
        return torch.cat(rows)

    return run


def pyhessian_product(problem: Problem, vector: Tensor) -> Callable[[], Any]:
    """Their product with a vector: the gradient of one batch is kept."""
    from pyhessian.utils import hessian_vector_product

    on_gpu = problem.device.type == "cuda"
    theirs = pyhessian.hessian(problem.model, nn.CrossEntropyLoss(), data=problem.data[0], cuda=on_gpu)
    parts = torch.split(vector, [p.numel() for p in problem.parameters])
    shaped = [part.reshape(p.shape) for part, p in zip(parts, problem.parameters, strict=True)]
    return lambda: hessian_vector_product(theirs.gradsH, theirs.params, shaped)


def eigenthings_hessian(problem: Problem) -> Any:
    """Their Hessian as an operator."""
    return hessian_eigenthings.HessianOperator(
        problem.model, list(problem.data), lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1])
    )


def eigenthings(problem: Problem, steps: int, lowest: int = 5, highest: int = 5) -> list[Any]:
    """Pairs at each end by their Lanczos, which takes one end at a time."""
    operator = eigenthings_hessian(problem)
    ends = (("LA", highest), ("SA", lowest))
    return [hessian_eigenthings.lanczos(operator, k=k, which=which, max_iter=steps) for which, k in ends]


def eigenthings_worst(problem: Problem, steps: int, lowest: int = 5, highest: int = 5) -> float:
    """The largest true residual of those pairs, relative to the eigenvalue: they have to be told how many steps."""
    operator = HessianOperator(problem)
    worst = 0.0
    for found in eigenthings(problem, steps, lowest, highest):
        values = torch.as_tensor(found.eigenvalues).to(operator.device).double()
        vectors = torch.as_tensor(found.eigenvectors).to(operator.device)
        vectors = vectors if len(vectors) == operator.shape[0] else vectors.T
        residuals = ((operator @ vectors).double() - vectors.double() * values).norm(dim=0)
        worst = max(worst, float((residuals / vectors.double().norm(dim=0) / values.abs()).max()))
    return worst
