"""What one watched pass reads off a network, against a direct computation of each number."""

import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.check.watch import passed
from hessdiag.questions.common.described import described

F64 = torch.float64
CLOSE = {"rel": 1e-9, "abs": 1e-12}


def _spread(value):
    """Variation between samples, computed in two passes."""
    flat = value.detach().double().flatten(1)
    return float(flat.var(0).mean().sqrt() / flat.square().mean().sqrt())


def _cosine(value):
    rows = nn.functional.normalize(value.detach().double().flatten(1), dim=1)
    n = len(rows)
    return float(((rows @ rows.T).sum() - n) / (n * (n - 1)))


def test_numbers_of_a_network_are_those_of_a_direct_computation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)).to(F64)
    with torch.no_grad():
        model[0].bias[:2] = -50.0
        model[2].weight.mul_(10)
    x, y = torch.randn(12, 6, dtype=F64), torch.randint(3, (12,))
    problem = Problem(model, data=[(x, y)], loss="ce")
    found = passed(problem, seed=0)[0]
    assert found.problem == described(Problem(model, data=[(x, y)], loss="ce"))
    assert found.problem.outputs == 3
    first, second, third = found.layers

    a = model[0](x)
    b = a.relu()
    c = model[2](b)
    d = c.tanh()
    e = model[4](d)
    loss = nn.functional.cross_entropy(e, y)
    by_c, by_b, by_w = torch.autograd.grad(loss, [c, b, model[2].weight], retain_graph=True)
    by_bias = torch.autograd.grad(loss, model[2].bias)[0]
    assert second.input_rms == pytest.approx(float(b.square().mean().sqrt()), **CLOSE)
    assert second.input_variation == pytest.approx(_spread(b), **CLOSE)
    assert second.output_rms == pytest.approx(float(c.square().mean().sqrt()), **CLOSE)
    assert second.output_mean == pytest.approx(float(c.mean()), **CLOSE)
    assert second.output_variation == pytest.approx(_spread(c), **CLOSE)
    assert second.signal_rms == pytest.approx(float(d.square().mean().sqrt()), **CLOSE)
    assert second.signal_variation == pytest.approx(_spread(d), **CLOSE)
    assert second.cosine == pytest.approx(_cosine(d), **CLOSE)
    assert second.saturated_fraction == pytest.approx(float((1 - d**2 < 0.01).double().mean()), **CLOSE)
    assert second.saturated_fraction > 0.1
    assert first.dead_fraction == float((b == 0).all(0).double().mean())
    assert first.dead_fraction >= 0.25
    assert second.weight_rms == pytest.approx(float(model[2].weight.square().mean().sqrt()), **CLOSE)
    assert second.weight_gain == pytest.approx(second.weight_rms * 8**0.5, **CLOSE)
    assert second.bias_mean == pytest.approx(float(model[2].bias.mean()), **CLOSE)
    assert second.bias_rms == pytest.approx(float(model[2].bias.square().mean().sqrt()), **CLOSE)
    gradient = torch.cat([by_w.flatten(), by_bias])
    assert second.gradient_rms == pytest.approx(float(gradient.square().mean().sqrt()), **CLOSE)
    assert second.gradient_zero_fraction == pytest.approx(float((gradient == 0).double().mean()), **CLOSE)
    assert second.output_gradient_rms == pytest.approx(12 * float(by_c.square().mean().sqrt()), **CLOSE)
    assert second.input_gradient_rms == pytest.approx(12 * float(by_b.square().mean().sqrt()), **CLOSE)
    assert [layer.activation for layer in (first, second, third)] == ["relu", "tanh", None]
    assert [layer.depth for layer in (first, second, third)] == [1, 2, 3]
    assert [layer.fan_in for layer in (first, second, third)] == [6, 8, 5]
    assert [layer.units for layer in (first, second, third)] == [8, 5, 3]
    assert [layer.parameters for layer in (first, second, third)] == [56, 45, 18]
