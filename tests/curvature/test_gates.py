"""Gates away from here: how many change side, and the loss with all of them held."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hessdiag.curvature.differences import movable
from hessdiag.curvature.point.gates import OTHER_PATH, Gates, beside
from hessdiag.problem.problem import Problem

D = torch.float64
COUNT = 12
SLOPES = torch.linspace(0.3, 1.7, COUNT, dtype=D)


class Weights(nn.Module):
    """A vector of weights that an operation is applied to."""

    def __init__(self, call):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1.3, 1.4, COUNT, dtype=D))
        self.call = call

    def forward(self, _):
        found = self.call(self.w)
        return (SLOPES[: found.numel()] * found.reshape(-1)).sum()


def gates_of(call):
    model = Weights(call)
    return model, Gates(movable(Problem(model, data=[None], objective=lambda model, batch: model(batch))))


STEP = torch.randn(COUNT, generator=torch.Generator().manual_seed(3), dtype=D) - torch.linspace(-3, 3, COUNT, dtype=D)
# Each linear on every piece, so that what is held is the tangent; with how many units there are.
PIECEWISE = {
    "nn.ReLU": (nn.ReLU(), COUNT),
    "F.relu": (functional.relu, COUNT),
    "torch.relu": (torch.relu, COUNT),
    "in place": (lambda w: functional.relu(2 * w, inplace=True), COUNT),
    "method": (lambda w: (3 * w).relu_(), COUNT),
    "leaky": (lambda w: functional.leaky_relu(w, 0.2), COUNT),
    "prelu": (lambda w: functional.prelu(w, torch.tensor([0.3], dtype=D)), COUNT),
    "clamp": (lambda w: w.clamp(-0.5, 0.6), COUNT),
    "clamp_min": (lambda w: w.clamp(min=0.1), COUNT),
    "clamp to weights": (lambda w: w[:6].clamp(w[6:] - 1.2, max=w[6:] - 0.9), 6),
    "clamp_max to weights": (lambda w: w[:6].clamp_max(w[6:].flip(0) - 1.5), 6),
    "hardtanh": (functional.hardtanh, COUNT),
    "relu6": (lambda w: functional.relu6(5 * w), COUNT),
    "abs": (torch.abs, COUNT),
    "builtin abs": (lambda w: abs(w), COUNT),
    "maximum": (lambda w: torch.maximum(w[:6], w[6:]), 6),
    "minimum": (lambda w: torch.minimum(w[:6], 0.5 * w[6:]), 6),
    "max of a dimension": (lambda w: w.view(3, 4).max(1).values, 3),
    "amax": (lambda w: w.view(3, 4).amax(0), 4),
    "max_pool1d": (lambda w: functional.max_pool1d(w.view(1, 1, -1), 3), 4),
    "max_pool2d": (lambda w: functional.max_pool2d(w.view(1, 1, 2, 6), 2), 3),
    "nn.MaxPool2d": (lambda w: nn.MaxPool2d(2)(w.view(1, 1, 2, 6)), 3),
    "comparison": (lambda w: torch.where(w > 0.2, w, 0.5 * w + 0.1), COUNT),
    "threshold": (lambda w: functional.threshold(w, 0.1, 0.1), COUNT),
    "top": (lambda w: w.topk(3).values, 3),
    "l1_loss": (lambda w: functional.l1_loss(w, SLOPES, reduction="none"), COUNT),
}


@pytest.mark.parametrize("name", PIECEWISE)
def test_with_gates_held_the_loss_of_linear_pieces_is_its_tangent(name):
    call, count = PIECEWISE[name]
    model, gates = gates_of(call)
    assert gates.count == count
    value = model(None)
    (slope,) = torch.autograd.grad(value, model.w)
    assert gates.loss == pytest.approx(value.item(), abs=1e-14)
    ahead = gates.at(STEP)
    assert ahead.frozen == pytest.approx(value.item() + float(slope @ STEP), abs=1e-12)
    assert ahead.loss == pytest.approx(_live(call, model.w.detach() + STEP), abs=1e-12)
    assert abs(ahead.loss - ahead.frozen) > 1e-3
    assert 0 < ahead.flipped <= count
    assert gates.why is None


def _live(call, w):
    model = Weights(call)
    with torch.no_grad():
        model.w.copy_(w)
        return float(model(None))


def test_flips_are_counted_unit_by_unit():
    model, gates = gates_of(functional.relu)  # weights -1.3, -1.05, ..., 1.4: six negative, six positive
    assert (model.w > 0).sum() == 6
    none = gates.at(torch.full((COUNT,), -0.01, dtype=D))
    assert none.flipped == 0
    step = torch.zeros(COUNT, dtype=D)
    step[0], step[-1], step[-2] = 1.0, -1.5, -1.0  # -0.3 stays off; -0.1 goes off; 0.15 stays on
    assert gates.at(step).flipped == 1
    step[0] = 1.5
    assert gates.at(step).flipped == 2
    assert gates.at(-2 * model.w.detach()).flipped == COUNT


def test_a_pool_flips_where_another_entry_leads():
    _, gates = gates_of(lambda w: functional.max_pool1d(w.view(1, 1, -1), 3))  # ascending: the last of each three leads
    step = torch.zeros(COUNT, dtype=D)
    step[1] = 2.0
    assert gates.at(step).flipped == 1
    step[3:] = 7.0  # all entries of the other windows alike: none flips
    assert gates.at(step).flipped == 1


def test_nothing_moves_the_users_model():
    model, gates = gates_of(functional.relu)
    before = model.w.detach().clone()
    first = gates.at(STEP)
    gates.at(-STEP)
    assert gates.at(STEP) == first
    assert torch.equal(model.w, before)
    assert model.w.grad is None


def test_smooth_operations_have_no_gates():
    for call in (functional.gelu, functional.silu, torch.tanh, functional.elu, functional.softplus):
        _, gates = gates_of(call)
        ahead = gates.at(STEP)
        assert gates.count == 0
        assert (ahead.frozen, ahead.flipped) == (None, None)


def test_batches_count_by_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)).double()
    x, y = torch.randn(8, 3, dtype=D), torch.randn(8, 1, dtype=D)
    one = Gates(movable(Problem(model, data=[(x, y)], loss="mse")))
    two = Gates(movable(Problem(model, data=[(x[:2], y[:2]), (x[2:], y[2:])], loss="mse")))
    step = torch.randn(26, dtype=D)
    whole, parts = one.at(step), two.at(step)
    assert one.count == two.count == 40
    assert parts.flipped == whole.flipped > 0
    assert two.loss == pytest.approx(one.loss, rel=1e-14)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-14)
    assert parts.frozen == pytest.approx(whole.frozen, rel=1e-14)


def test_other_operations_beyond_the_step_are_said():
    def path(w):
        return torch.relu(w) if float(w.detach().sum()) > 0 else torch.abs(w) + torch.relu(w)

    _, gates = gates_of(path)
    ahead = gates.at(torch.full((COUNT,), -1.0, dtype=D))
    assert (ahead.frozen, ahead.flipped, gates.why) == (None, None, OTHER_PATH)
    assert gates.at(torch.full((COUNT,), 0.1, dtype=D)).frozen is not None


def test_what_no_rule_holds_is_named():
    torch.manual_seed(0)
    model = nn.RNN(2, 3, nonlinearity="relu", batch_first=True).double()
    x = torch.randn(2, 4, 2, dtype=D)
    objective = lambda model, batch: torch.relu(model(batch)[0]).square().mean()  # noqa: E731
    gates = Gates(movable(Problem(model, data=[x], objective=objective)))
    assert "rnn_relu" in gates.why
    assert gates.at(torch.randn(21, dtype=D)).frozen is None


def test_a_loss_that_overflows_is_infinite():
    _, gates = gates_of(lambda w: torch.relu(w).exp())
    assert gates.at(torch.full((COUNT,), 1e4, dtype=D)).loss == float("inf")


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardtanh])
def test_one_layer_under_a_squared_loss_is_its_own_quadratic_model(activation):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 2)).double()
    data = [(torch.randn(16, 4, dtype=D), torch.randn(16, 2, dtype=D))]
    problem = Problem(model, data=data, loss="mse", layers="0.*")
    gates = Gates(movable(problem))

    def loss(flat):
        weight, bias = flat[:24].view(6, 4), flat[24:]
        hidden = model[1](functional.linear(data[0][0], weight, bias))
        return functional.mse_loss(model[2](hidden), data[0][1])

    here = torch.cat([parameter.detach().reshape(-1) for parameter in problem.parameters])
    gradient, hessian = torch.func.grad(loss)(here), torch.func.hessian(loss)(here)
    step = torch.randn(30, dtype=D)
    ahead = gates.at(step)
    model_says = gates.loss + (gradient @ step + step @ hessian @ step / 2).item()
    assert ahead.frozen == pytest.approx(model_says, rel=1e-12)
    assert abs(ahead.loss - model_says) > 1e-2
    assert ahead.flipped > 10


def test_a_step_beside_the_point_by_hand():
    """Of (relu(w) + 2)^2 / 2 at w = 1e-5, with another weight of 1: the step of 1e-3 crosses zero, and the loss stops at 2."""
    model = Weights(lambda w: w)
    model.w = nn.Parameter(torch.tensor([1.0, 1e-5], dtype=D))
    objective = lambda model, batch: (model.w[1].relu() + 2).square() / 2  # noqa: E731
    gradient = torch.tensor([0.0, 2 + 1e-5], dtype=D)
    found = beside(movable(Problem(model, data=[None], objective=objective)), gradient, 1e-16)
    step = 1e-3 * (1 + 1e-10) ** 0.5
    held = (2 + 1e-5 - step) ** 2 / 2
    assert (found.gates, found.step, found.flipped) == (1, 1e-3, 1.0)
    assert found.missing == pytest.approx((2 - held) / (2 - held + step**2 / 2), rel=1e-6)
    coarse = beside(movable(Problem(model, data=[None], objective=objective)), gradient, 1e-6)
    assert (coarse.flipped, coarse.missing) == (1.0, None)  # rounding of the loss covers it
    still = beside(movable(Problem(model, data=[None], objective=objective)), torch.zeros(2, dtype=D), 1e-16)
    assert (still.gates, still.flipped, still.missing) == (1, None, None)
