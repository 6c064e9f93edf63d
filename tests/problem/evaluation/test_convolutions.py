"""Second derivatives of convolutions on a CPU: right in every geometry, and made of the kernels of the first."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.evaluation.convolutions import plain_convolutions
from hessdiag.problem.problem import Problem

GEOMETRIES = [
    (1, {"stride": 2, "padding": 1}),
    (1, {"padding": "same"}),
    (2, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "bias": False}),
    (2, {"groups": 2, "padding": 1}),
    (3, {"stride": 2, "padding": 1, "padding_mode": "circular"}),
]


def network(dimensions: int, **geometry: object) -> Problem:
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]
    model = nn.Sequential(kind(2, 4, 3, **geometry), nn.Tanh(), kind(4, 2, 2), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(3, 2, *(5,) * dimensions).double()
    model(x)
    return Problem(model, data=[(x, torch.tensor([0, 2, 1]))], loss="ce")


def by_brute_force(problem: Problem) -> Tensor:
    """Every row by torch's own double backward, one after the other."""
    x, y = problem.data[0]
    loss = nn.functional.cross_entropy(problem.model(x), y)
    first = torch.autograd.grad(loss, problem.parameters, create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in first])
    rows = [torch.autograd.grad(entry, problem.parameters, retain_graph=True) for entry in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


@pytest.mark.parametrize(("dimensions", "geometry"), GEOMETRIES)
def test_products_are_those_of_torch(dimensions, geometry):
    problem = network(dimensions, **geometry)
    operator = HessianOperator(problem, check=False)
    truth = by_brute_force(problem)
    v = torch.randn(problem.n_parameters, 5, dtype=torch.float64)
    one, many = operator @ v[:, 0], operator @ v
    assert operator.missing is None
    assert torch.allclose(one, truth @ v[:, 0], rtol=1e-9, atol=1e-12)
    assert torch.allclose(many, truth @ v, rtol=1e-9, atol=1e-12)


def test_third_derivatives_go_on_through_it():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 2, 4), torch.randn(3, 2, 2), torch.randn(3)
    inputs = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]

    def gradient(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        with plain_convolutions():
            found = nn.functional.conv1d(x, weight, bias, stride=2).tanh().square().sum()
        return torch.autograd.grad(found, (x, weight, bias), create_graph=True)

    assert torch.autograd.gradcheck(gradient, inputs)
    assert torch.autograd.gradgradcheck(gradient, inputs)


def test_only_what_is_asked_for_is_differentiated():
    problem = network(2, padding=1)
    problem.model[0].weight.requires_grad_(False)
    some = Problem(problem.model, data=problem.data, loss="ce")
    v = torch.randn(some.n_parameters, dtype=torch.float64)
    assert torch.allclose(HessianOperator(some, check=False) @ v, by_brute_force(some) @ v, rtol=1e-9, atol=1e-12)


class Filters(TorchDispatchMode):
    """Notes how large the filters of all convolutions are, and how many kernels run."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.kernels = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.largest = max(self.largest, *args[1].shape[2:])
            self.kernels += 1
        if function is torch.ops.aten.convolution_backward.default:
            self.kernels += sum(args[-1][:2])
        return function(*args, **(kwargs or {}))


def test_no_filter_is_as_large_as_an_image_and_each_convolution_takes_six_kernels():
    problem = network(2, padding=1)
    operator = HessianOperator(problem, check=False)
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    operator @ v
    with Filters() as seen:
        operator @ v
    assert seen.largest == 3
    assert seen.kernels == 6 + 2  # the input of the first is not differentiated


def test_transforms_of_torch_keep_its_own():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 1, 4, dtype=torch.float64), torch.randn(3, 1, 2, dtype=torch.float64)

    def loss(weight: Tensor) -> Tensor:
        return nn.functional.conv1d(x, weight).square().sum() / 2

    with plain_convolutions():
        hessian, (_, slope) = torch.func.hessian(loss)(weight), torch.func.jvp(loss, (weight,), (weight,))
    windows = x.unfold(2, 2, 1).reshape(-1, 2)
    truth = torch.einsum("oa,ij->oiaj", torch.eye(3, dtype=torch.float64), windows.T @ windows)
    assert torch.allclose(hessian.reshape(3, 2, 3, 2), truth)
    assert torch.allclose(slope, 2 * loss(weight))
