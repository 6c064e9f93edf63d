"""Where races start, against closed forms and networks that are known to be flat, dead or at a minimum."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.common.constant import best_constant_loss
from hessdiag.questions.escape.foretold.descent import descended
from hessdiag.questions.escape.foretold.flow import slope
from hessdiag.questions.escape.foretold.plateau import plateau_of
from hessdiag.theory.chain_plateau import flow_time
from hessdiag.theory.escape_laws import chain_end
from tests.questions.escape.flat import chain, deep


def _given(loss, target, outputs):
    model = nn.Linear(2, outputs).double()
    return Problem(model, data=[(torch.ones(len(target), 2).double(), target)], loss=loss)


def test_the_best_constant_of_classes_is_their_entropy():
    problem = _given("ce", torch.tensor([0, 0, 0, 2]), 3)
    assert best_constant_loss(problem) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_the_best_constant_of_squares_is_each_output_s_mean():
    target = torch.tensor([[0.0, 5.0], [2.0, 5.0]]).double()
    assert best_constant_loss(_given("mse", target, 2)) == pytest.approx(0.5)  # variances 1 and 0, mean of both


def test_the_best_constant_of_images_is_their_mean_image():
    target = torch.tensor([[0.25, 1.0], [0.75, 1.0]]).double()
    assert best_constant_loss(_given("bce", target, 2)) == pytest.approx(math.log(2) / 2)


def test_the_best_constant_of_another_loss_is_searched_for():
    def pinball(output, target):  # its best constant is the quantile
        return torch.where(target > output, 0.25 * (target - output), 0.75 * (output - target)).mean()

    def quartic(output, target):
        return (output - target).pow(4).mean()

    target = torch.tensor([[0.0], [0.0], [1.0]]).double()
    ratio = 2 ** (1 / 3)  # 2 c^3 = (1 - c)^3
    best = 1 / (1 + ratio)
    assert best_constant_loss(_given(quartic, target, 1)) == pytest.approx(
        (2 * best**4 + (1 - best) ** 4) / 3, rel=1e-6
    )
    assert best_constant_loss(_given(pinball, target, 1)) == pytest.approx(0.25 / 3, abs=0.01)


def test_weighted_batches_have_one_best_constant():
    model = nn.Linear(1, 1).double()
    data = [
        (torch.ones(1, 1).double(), torch.tensor([[3.0]]).double()),
        (torch.ones(2, 1).double(), torch.zeros(2, 1).double()),
    ]
    for loss in ("mse", lambda output, target: (output - target).square().mean()):
        assert best_constant_loss(Problem(model, data=data, loss=loss)) == pytest.approx(2.0)  # 9 · 1/3 · 2/3


class _WantsTargets(nn.Module):
    """Computes its loss, and fails without targets."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x, labels=None):
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_a_model_that_wants_its_targets_has_no_constant_and_is_looked_at_all_the_same():
    batch = {"x": torch.randn(6, 2), "labels": torch.arange(6) % 3}
    problem = Problem(_WantsTargets(), data=[batch], loss="output")
    assert best_constant_loss(problem) is None
    assert plateau_of(problem, seed=0).state == "slope"


def test_an_objective_has_no_constant():
    problem = Problem(nn.Linear(1, 1), data=[None], objective=lambda model, batch: model.weight.square().sum())
    assert best_constant_loss(problem) is None


def test_the_chain_starts_where_its_formulas_say():
    found = plateau_of(chain(10), seed=3, threshold=0.5)
    product, slope = 0.5**10, 0.5**9 * (1 - 0.5**10)
    assert found.loss == found.reference == pytest.approx((1 - product) ** 2 / 2, rel=1e-14)
    assert found.constant_loss == 0  # of one sample a constant is all there is: no reference
    assert found.gradient_median == found.matrix_median == pytest.approx(slope, rel=1e-12)
    assert found.gradient_norm == pytest.approx(slope * math.sqrt(10), rel=1e-12)
    off, diagonal = 4 * product * (2 * product - 1), 4 * product**2
    assert found.lowest == pytest.approx(diagonal + 9 * off, rel=1e-9)
    assert found.highest == pytest.approx(diagonal - off, rel=1e-9)
    assert (found.present, found.dead, found.gradient_zeros, found.matrices) == (True, False, 0, 10)
    assert found.flow.ended == "out"
    assert found.flow.time[-1] == pytest.approx(flow_time(10, 0.5, chain_end(10, 0.5, 0.5) ** 10), rel=0.05)


def test_a_deep_network_is_flat_and_shrinks_with_its_weights():
    narrow = deep(seed=4)
    found = plateau_of(narrow, seed=0)
    assert found.present
    assert not found.dead
    assert found.loss == pytest.approx(found.constant_loss, rel=1e-3)
    assert "On a plateau" in found.says
    hessian = np.linalg.eigvalsh(_dense(narrow))
    assert [found.lowest, found.highest] == pytest.approx([hessian[0], hessian[-1]], rel=0.02)
    factor = 3**-0.5
    with torch.no_grad():
        for parameter in narrow.parameters:
            parameter *= factor
    smaller = plateau_of(narrow, seed=0)
    assert smaller.lowest / found.lowest == pytest.approx(factor**11, rel=0.02)  # a product of 13 matrices
    assert smaller.gradient_norm / found.gradient_norm == pytest.approx(factor**12, rel=0.01)
    ratio = smaller.flow.time[-1] * smaller.lowest / (found.flow.time[-1] * found.lowest)
    assert ratio == pytest.approx(1, abs=0.1)  # the way is the same, but for its speed


def _dense(problem):
    value = problem.evaluate(problem.data[0])
    slope = torch.cat([part.reshape(-1) for part in torch.autograd.grad(value, problem.parameters, create_graph=True)])
    units = torch.eye(len(slope), dtype=torch.float64)
    parts = torch.autograd.grad(slope, problem.parameters, units, is_grads_batched=True)
    return torch.cat([part.reshape(len(slope), -1) for part in parts], 1).numpy()


def test_a_dead_network_is_told_from_a_plateau():
    problem = deep()
    with torch.no_grad():
        problem.parameters[3].zero_()
    found = plateau_of(problem, seed=0)
    assert (found.dead, found.present, found.flow) == (True, False, None)
    assert found.gradient_zeros == 1
    assert found.gradient_median is None
    assert "exactly zero" in found.says


def _classes(layers, bias=0.0, seed=0):
    """A network on random images of four classes that are told by their mean."""
    torch.manual_seed(seed)
    y = torch.arange(64) % 4
    x = torch.randn(64, 8) + torch.nn.functional.one_hot(y, 8) * 2
    with torch.random.fork_rng():
        model = nn.Sequential(*layers())
    with torch.no_grad():
        model[0].bias += bias
    return Problem(model.double(), data=[(x.double(), y)], loss="ce")


def _mlp(depth, act):
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), act())]
    return lambda: (*hidden, nn.Linear(8, 4))


def test_a_dead_layer_is_dead_though_biases_behind_it_learn_the_constant():
    found = plateau_of(_classes(_mlp(2, nn.ReLU), bias=-50.0), seed=0)
    assert (found.state, found.dead, found.present) == ("dead", True, False)
    assert found.silent == ("0.weight", "0.bias", "2.weight")
    assert found.gradient_zeros == pytest.approx((72 + 64) / (72 + 72 + 36), abs=0.1)
    assert "0.weight, 0.bias, 2.weight" in found.says
    assert "learns a constant" in found.says


def test_one_step_that_would_kill_does_not_make_a_living_network_dead():
    found = plateau_of(_classes(_mlp(1, nn.ReLU)), seed=0)
    assert (found.state, found.silent, found.begins) == ("slope", (), 0)
    assert "No plateau" in found.says


def test_a_trained_network_is_told_as_one():
    problem = _classes(_mlp(1, nn.ReLU))
    adam = torch.optim.Adam(problem.model.parameters(), 0.05)
    for _ in range(60):
        adam.zero_grad()
        problem.evaluate(problem.data[0]).backward()
        adam.step()
    adam.zero_grad()
    found = plateau_of(problem, seed=0)
    assert (found.state, found.present, found.flow) == ("trained", False, None)
    assert found.loss < 0.3 * math.log(4)
    assert "has learnt already" in found.says


def test_deep_sigmoids_learn_the_constant_first_and_are_on_a_plateau_then():
    problem = _classes(_mlp(8, nn.Sigmoid))
    found = plateau_of(problem, seed=0)
    assert found.present
    assert 1 <= found.begins <= 10
    assert found.loss > 1.01 * found.constant_loss
    assert abs(found.lowest) < 0.01, "as it is where the constant is learnt, and not before"
    assert found.flow is None or found.flow.time[0] > 0
    assert "learns in" in found.says
    shallow = plateau_of(_classes(_mlp(1, nn.Sigmoid)), seed=0)
    assert shallow.state == "slope"


def test_a_saddle_without_gradient_is_not_dead():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    data = [(torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[1.0], [-1.0]]).double())]
    found = plateau_of(Problem(model, data=data, loss="mse"), seed=0)
    assert (found.gradient_norm, found.dead) == (0, False)
    assert found.lowest == pytest.approx(-2.0)  # the mixed second derivative of (1 - w v)^2


def test_a_minimum_is_no_plateau():
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double()
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]).double()  # nothing to learn: zero is the best constant, and best
    found = plateau_of(Problem(model, data=[(x, y)], loss="mse"), seed=0)
    assert found.loss == found.constant_loss == 1
    assert not found.present
    assert "minimum" in found.says


def test_a_large_gradient_is_no_plateau():
    found = plateau_of(deep(depth=2, width=16, init="he_uniform"), seed=0)
    assert not found.present
    assert "No plateau" in found.says


def test_biases_that_have_not_learnt_the_constant_are_no_way_out():
    problem = deep()
    x, y = problem.data[0]
    biased = nn.Sequential(problem.model, nn.Linear(1, 1).double())
    with torch.no_grad():
        biased[1].weight.fill_(1.0)
        biased[1].bias.fill_(0.4)
    found = plateau_of(Problem(biased, data=[(x, y)], loss="mse"), seed=0)
    assert found.loss - found.constant_loss == pytest.approx(0.16, rel=0.05)  # a sixth of all, and gone in one step
    assert found.present


def test_what_it_costs_can_be_left_out():
    found = plateau_of(deep(seed=4), seed=0, spectrum=False)
    assert (found.lowest, found.highest, found.flow) == (None, None, None)
    assert found.present
    assert plateau_of(deep(seed=4), seed=0, gradients=0).flow is None
    stopped = plateau_of(deep(seed=4), seed=0, gradients=7).flow
    assert stopped.ended == "late"  # who has less time follows it less far
    assert stopped.gradients in (7, 8)
    late = plateau_of(deep(seed=4), seed=0, deadline=0.0).flow
    assert (late.ended, late.gradients) == ("late", 1)


def test_the_model_is_left_alone():
    problem = deep()
    before = [parameter.detach().clone() for parameter in problem.parameters]
    state = torch.random.get_rng_state()
    first, second = plateau_of(problem, seed=0), plateau_of(problem, seed=0)
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(map(torch.equal, before, problem.parameters))
    assert all(parameter.grad is None for parameter in problem.parameters)


def _line(weight, steepness):
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, weight)

    def line(model, batch):
        return 1 + steepness * (model.weight.sum() - weight)

    return Problem(model, data=[torch.ones(1, 1).double()], objective=line)


@pytest.mark.parametrize(
    ("weight", "steepness", "flat"),
    [(1.0, 0.035, True), (1.0, 0.065, False), (0.1, 0.06, True), (0.1, 0.09, False)],  # small ones count as 3^(-1/2)
)
def test_a_line_is_flat_where_weights_that_vanish_take_a_twenty_fifth_of_the_loss(weight, steepness, flat):
    problem = _line(weight, steepness)
    found = descended(problem, *slope(problem), floor=0.0, reference=1.0)
    assert found.flat is flat
    assert found.time * steepness == pytest.approx(weight - found.problem.model.weight.item(), abs=1e-12)


def test_a_plateau_says_what_a_hundredth_of_the_weights_takes():
    assert "by 1 % take 0.035 % of the loss" in plateau_of(_line(1.0, 0.035), seed=0, spectrum=False).says


@pytest.mark.parametrize(("loss", "trained"), [(0.75, True), (0.85, False)])
def test_a_network_below_four_fifths_of_the_best_constant_is_trained(loss, trained):
    model, x = nn.Linear(1, 1, bias=False).double(), torch.tensor([[1.0], [-1.0]]).double()
    nn.init.constant_(model.weight, 1 - math.sqrt(loss))
    found = plateau_of(Problem(model, data=[(x, x)], loss="mse"), seed=0, spectrum=False)
    assert (found.loss, found.constant_loss) == (pytest.approx(loss), pytest.approx(1.0))
    assert (found.state == "trained") is trained
