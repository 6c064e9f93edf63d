"""Critical sharpness from losses alone: closed forms, counted passes, and losses that do not come back."""

import math
import random

import pytest
import torch
from torch import nn

from hessdiag import Problem
from hessdiag.questions.sharpness.along import loss_along
from hessdiag.questions.sharpness.critical import PASSES, critical_step


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, step):
        self.calls += 1
        return self.function(step)


@pytest.mark.parametrize("lr", [1e-3, 0.1, 1.0, 1.7, 40.0])
def test_of_a_quadratic_loss_it_is_the_curvature_over_the_slope(lr):
    """L = 3 - 4 s + 7 s^2 / 2 is back at 3 for s = 8 / 7."""
    loss = Counted(lambda s: 3 - 4 * s + 3.5 * s**2)
    found = critical_step(loss, 4.0, lr)
    assert found.sharpness == pytest.approx(7 / 4, rel=1e-9)
    assert found.passes == loss.calls <= 8
    assert 2 / found.high <= 7 / 4 <= 2 / found.low
    assert 0 < found.error <= 0.021 * 7 / 4


@pytest.mark.parametrize("power", [1.2, 1.5, 3.0, 4.0])
@pytest.mark.parametrize("lr", [1e-2, 0.7, 30.0])
def test_the_bracket_holds_the_step_in_at_most_ten_passes_whatever_the_shape(power, lr):
    """|1 - s|^p + (1 - s)^2 / 4 is back at its value for s = 2."""
    loss = Counted(lambda s: abs(1 - s) ** power + (1 - s) ** 2 / 4)
    found = critical_step(loss, power + 0.5, lr)
    assert found.passes == loss.calls <= PASSES == 10
    assert found.low <= 2 <= found.high
    assert abs(found.sharpness - 1) <= found.error <= 0.15


def test_most_brackets_are_narrow():
    draw, widths = random.Random(0), []
    for _ in range(300):
        power, share, lr = draw.choice([1.2, 2, 3, 4]), draw.random(), 10 ** draw.uniform(-3, 3)
        found = critical_step(lambda s, p=power, q=share: abs(1 - s) ** p + q * (1 - s) ** 2, power + 2 * share, lr)
        widths.append(found.high / found.low - 1)
    widths.sort()
    assert widths[150] < 0.025
    assert widths[270] < 0.1


def test_a_wall_is_found_and_what_is_not_finite_counts_as_above():
    for above in (math.inf, math.nan, 1e300):
        found = critical_step(lambda s, above=above: -s if s < 1 else above, 1.0, 0.1)
        assert found.low < 1 <= found.high
        assert found.high / found.low < 1.6


def test_a_loss_that_falls_for_good_gives_an_upper_bound_and_one_that_rises_at_once_a_lower_one():
    falls = critical_step(lambda s: math.exp(-s), 1.0, 0.1)
    assert falls.step is None
    assert (falls.high, falls.passes) == (math.inf, 10)
    assert falls.low > 200
    rises = critical_step(lambda s: float(s > 0), 1.0, 0.1)
    assert rises.step is None
    assert rises.low == 0
    assert rises.high < 1e-5


def test_uphill_nothing_is_evaluated():
    loss = Counted(lambda s: s)
    assert critical_step(loss, -1.0, 0.1).passes == loss.calls == 0


def test_rounding_of_the_loss_is_part_of_the_error():
    """At the root a rounding of 1e-4 of the loss 3 moves the step by 3e-4 / slope."""
    plain = critical_step(lambda s: 3 - 4 * s + 3.5 * s**2, 4.0, 0.1)
    noisy = critical_step(lambda s: 3 - 4 * s + 3.5 * s**2, 4.0, 0.1, rounding=1e-2)
    assert noisy.blur == pytest.approx(3e-2 / (4 * 8 / 7))
    assert noisy.error == pytest.approx(plain.error + noisy.blur * 7 / 4)


def squared_weights(values):
    model = nn.Linear(len(values), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([values]))
    scale = torch.tensor([[1.0, 5.0, 0.5]]).double()
    return Problem(model, data=[None], objective=lambda model, batch: (scale * model.weight.square()).sum() / 2)


def test_the_loss_along_a_step_leaves_the_model_where_it_is_and_has_the_decay_of_each_weight():
    problem = squared_weights([1.0, -2.0, 3.0])
    theta, scale = torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([1.0, 5.0, 0.5]).double()
    step, decay = torch.tensor([0.5, 1.0, -1.0]).double(), torch.tensor([0.1, 0.0, 2.0]).double()
    loss = loss_along(problem, step, decay)
    for s in (0.0, 0.3, -1.7):
        moved = theta - s * step
        assert loss(s) == pytest.approx(float(((scale + decay) * moved.square()).sum() / 2), rel=1e-12)
    assert torch.equal(problem.model.weight.detach().reshape(-1), theta)


def test_a_model_that_differentiates_in_its_forward_pass_has_a_loss_along_a_step():
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([2.0]).double())

        def forward(self, x):
            x = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad((self.w * x**2).sum(), x, create_graph=True)
            return slope

    problem = Problem(Field(), data=[(torch.ones(1).double(), torch.zeros(1).double())], loss="mse")
    assert loss_along(problem, torch.ones(1).double())(1.0) == pytest.approx(4.0)  # (2 w)^2 at w = 1
