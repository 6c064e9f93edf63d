"""Second derivatives of ReLUs: those of torch at every number, without tensors of zeros."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.evaluation.rectifiers import plain_rectifiers
from hessdiag.problem.problem import Problem


class Kernels(TorchDispatchMode):
    """Notes what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def network(*layers: nn.Module) -> Problem:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), *layers, nn.Linear(5, 2)).double()
    return Problem(model, data=[(torch.randn(6, 3).double(), torch.randn(6, 2).double())], loss="mse")


def by_brute_force(problem: Problem) -> Tensor:
    """Every row by torch's own double backward."""
    x, y = problem.data[0]
    loss = nn.functional.mse_loss(problem.model(x), y)
    first = torch.autograd.grad(loss, problem.parameters, create_graph=True)
    rows = [torch.autograd.grad(e, problem.parameters, retain_graph=True) for part in first for e in part.reshape(-1)]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def test_products_are_those_of_torch_without_zeros():
    problem = network(nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
    problem.model[0].register_forward_hook(lambda *_: None)  # so that autograd differentiates it
    operator, truth = HessianOperator(problem, check=False), by_brute_force(problem)
    V = torch.randn(problem.n_parameters, 5, dtype=torch.float64)
    one = operator @ V[:, 0]
    with Kernels() as seen:
        assert torch.equal(operator @ V[:, 0], one)
    many = operator @ V
    assert torch.allclose(many, truth @ V, rtol=1e-9, atol=1e-12)
    assert torch.allclose(one, truth @ V[:, 0], rtol=1e-9, atol=1e-12)
    assert "threshold_backward" in seen.names
    assert not {"zeros_like", "relu"} & set(seen.names)


def test_values_and_derivatives_where_numbers_are_odd():
    x = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 2.0, torch.inf, torch.nan], requires_grad=True)
    expected = torch.relu(x)
    with plain_rectifiers():
        found, also = torch.relu(x), nn.functional.relu(x)
    slopes = [torch.autograd.grad(y, x, torch.full_like(x, 3.0))[0] for y in (expected, found)]
    for one, other in ((expected, found), (expected, also), slopes):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))


class Overwritten(nn.Module):
    """Goes on with the memory of its input."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        return y + x.mul_(x.detach().clone())


@pytest.mark.parametrize("layer", [Overwritten(), nn.ReLU(inplace=True)], ids=lambda x: type(x).__name__)
def test_models_that_write_over_what_is_kept(layer):
    """What torch differentiates is differentiated."""
    problem = network(nn.Tanh(), nn.Linear(5, 5), layer)
    operator = HessianOperator(problem, check=False)
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    assert torch.allclose(operator @ v, by_brute_force(problem) @ v, rtol=1e-9, atol=1e-12)
    assert operator.missing is None
