"""Independent oracles: dense Hessians by torch.func, and the deterministic networks whose numbers are known."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from hessdiag.problem.problem import Problem
from hessdiag.questions import documents


def brute_force_hessian(problem: Problem) -> Tensor:
    """The Hessian by nested torch.func transforms of the flat parameter vector: shares no code with the operator."""
    names = [name for name, _ in problem.named_parameters]
    shapes = [parameter.shape for _, parameter in problem.named_parameters]
    fixed = {k: v for k, v in problem.model.named_parameters() if k not in names} | dict(problem.model.named_buffers())
    problem.model.train(problem.train_mode)

    def function(theta: Tensor) -> Tensor:
        parts = [
            part.reshape(shape) for part, shape in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        values = {k: v.clone() for k, v in fixed.items()} | dict(zip(names, parts, strict=True))

        class Stateless:
            def __call__(self, *args, **kwargs):
                return torch.func.functional_call(problem.model, values, args, kwargs, tie_weights=True)

        total = 0.0
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
                total = total + weight * problem.objective_function(Stateless(), batch)
        return total

    theta = torch.cat([parameter.detach().reshape(-1) for _, parameter in problem.named_parameters])
    modules = (torch.nn.LayerNorm, torch.nn.modules.batchnorm._BatchNorm)
    if any(isinstance(module, modules) for module in problem.model.modules()):
        # torch.func.hessian is jacfwd(jacrev), whose first backward runs under vmap: with torch 2.13 it is wrong and
        # asymmetric through these layers. The gradient must be a plain one.
        return torch.func.jacrev(torch.func.grad(function))(theta)
    return torch.func.hessian(function)(theta)


def share(H: Tensor) -> float:
    """The definition, word for word."""
    return float(H.abs().diagonal().sum() / H.abs().sum())


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """(1 / 2 samples) sum |z - y|^2, the loss of the deterministic networks."""
    return (output - target).square().sum() / 2 / len(output)


class _Activation(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Backwards(nn.Module):
    """Two linear layers, 4 to 5 to 3, that run in another order than they are registered."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(5, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def cosine_net(dims: list[int], activation: str) -> nn.Sequential:
    """W_l[i, j] = cos(l + 2 i + 3 j), bias-free."""
    functions = {"linear": lambda x: x, "relu": torch.relu, "tanh": torch.tanh}
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(dims), start=1):
        linear = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
        i, j = torch.meshgrid(torch.arange(fan_out), torch.arange(fan_in), indexing="ij")
        linear.weight.data = torch.cos((index + 2 * i + 3 * j).double())
        layers += [linear, _Activation(functions[activation])]
    return nn.Sequential(*layers[:-1])


def cosine_problem(dims: list[int], samples: int, activation: str, classes: bool = False) -> Problem:
    """The networks called NET-B and NET-C in the tests below."""
    b = torch.arange(samples)[:, None].double()
    x = torch.sin(b + 2 * torch.arange(dims[0]) + 1)
    y = torch.cos(2 * b + torch.arange(dims[-1]))
    if classes:
        return Problem(cosine_net(dims, activation), data=[(x, torch.arange(samples) % 2)], loss="ce")
    return Problem(cosine_net(dims, activation), data=[(x, y)], loss=half_squared_error)


def net_a() -> Problem:
    """Two linear layers with integer weights: every number can be checked by hand."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    model[0].weight.data = torch.tensor([[1.0, 2.0], [3.0, -1.0]]).double()
    model[1].weight.data = torch.tensor([[1.0, -2.0]]).double()
    data = [(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[1.0]]).double())]
    return Problem(model, data=data, loss=half_squared_error)


def quadratic(A: Tensor) -> Problem:
    """theta' A theta / 2: a problem whose Hessian is the symmetric matrix A."""
    model = nn.Linear(len(A), 1, bias=False).double()

    def objective(model: nn.Module, batch: object) -> Tensor:
        theta = model.weight[0]
        return theta @ A @ theta / 2

    return Problem(model, data=[torch.zeros(1)], objective=objective)


def numbers(found):
    """A result's own numbers, as its document holds them."""
    return documents.document(found)["result"]
