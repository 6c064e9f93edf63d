"""An operator whose parameters are changed in place, as by an optimizer's step, is the one at the new point."""

import pytest
import torch
from torch import nn

from hessdiag import FisherOperator, GaussNewtonOperator, HessianOperator, Problem
from hessdiag.curvature.metric import in_metric

X, Y = torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double(), torch.arange(16) % 3
V = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)).double()


class Gated(nn.Module):
    """No chain of layers, whose products autograd makes."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(36, 36), nn.Linear(36, 3)

    def forward(self, images):
        flat = images.flatten(1)
        return self.last(torch.tanh(self.first(flat)) * flat)


MODELS = {
    "chain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)),
    "convolution": lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)),
    "gated": Gated,
    "no second derivative": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), Once(), nn.Linear(8, 3)),
}


class Once(nn.Module):
    """A function that torch differentiates once."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, slope):
            return 2 * slope * ctx.saved_tensors[0]

    def forward(self, x):
        return self.Square.apply(x)


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.linspace(-1, 1, parameter.numel(), dtype=torch.float64).view_as(parameter))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("matrix", [HessianOperator, GaussNewtonOperator, FisherOperator])
@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_at_the_new_parameters(name, matrix, check):
    torch.manual_seed(0)
    problem = Problem(MODELS[name]().double(), data=[(X, Y)], loss="ce")
    vectors = V[:, : problem.n_parameters].T
    operator = matrix(problem, check=check)
    scaled = in_metric(operator, 1 + torch.arange(problem.n_parameters, dtype=torch.float64))
    before = operator @ vectors, scaled @ vectors[:, 0]
    step(problem.model)
    fresh = matrix(Problem(problem.model, data=[(X, Y)], loss="ce"), check=check)
    assert not torch.allclose(operator @ vectors, before[0], rtol=1e-2)
    torch.testing.assert_close(operator @ vectors, fresh @ vectors, rtol=1e-9, atol=1e-10)
    again = in_metric(fresh, 1 + torch.arange(problem.n_parameters, dtype=torch.float64))
    torch.testing.assert_close(scaled @ vectors[:, 0], again @ vectors[:, 0], rtol=1e-9, atol=1e-10)


def test_the_new_point_is_looked_at():
    problem = Problem(
        nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).double(), data=[(X, Y)], loss="ce"
    )
    operator = HessianOperator(problem)
    operator @ V[0, : problem.n_parameters]
    with torch.no_grad():
        problem.model[1].weight.zero_()
        problem.model[1].bias.zero_()
    with pytest.warns(match="kink"):
        operator @ V[0, : problem.n_parameters]
