"""What the verdict says of block norms."""

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks
from tests.reference import brute_force_hessian, cosine_problem, net_a


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _said(problem, **options):
    return " | ".join(finding.says for finding in blocks(problem, **options).findings)


def test_the_verdict_says_what_it_should():
    relu = _said(cosine_problem([3, 4, 3, 2], 5, "relu"))
    assert "pure Gauss-Newton" in relu
    assert "pure Gauss-Newton" not in _said(cosine_problem([3, 4, 3, 2], 5, "tanh"))
    assert "Negative curvature is certain" in _said(net_a())
    assert "one layer only" in _said(Problem(nn.Linear(2, 1).double(), data=[(_x(3, 2), _x(3, 1))], loss="mse"))
    assert "nearly the Hessian" in _said(Problem(nn.Linear(2, 1).double(), data=[(_x(3, 2), _x(3, 1))], loss="mse"))
    tied = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)}).double()
    tied.forward = lambda x: tied["used"](x)
    assert "1 of 2 layers has no curvature at all: idle" in _said(
        Problem(tied, data=[(_x(3, 2), _x(3, 1))], loss="mse")
    )


def test_one_layer_has_no_other_to_couple_with():
    found = blocks(Problem(nn.Linear(3, 2).double(), data=[(_x(5, 3), _x(5, 2))], loss="mse"))
    said = " ".join(finding.says for finding in found.findings)
    assert "there is no negative curvature" in said
    assert "between layers" not in said
    assert "settle" not in said


def test_a_coupling_counts_with_both_of_its_blocks():
    """H = [[4, 3], [3, 4]]: each layer's own block holds 16 of 50, their coupling 18."""
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}).double()

    def objective(model, batch):
        a, b = model["a"].weight, model["b"].weight
        return (2 * a * a + 3 * a * b + 2 * b * b).sum()

    found = blocks(Problem(model, data=[(_x(1, 1), _x(1, 1))], objective=objective))
    because = next(finding.because for finding in found.findings if "takes part in most" in finding.says)
    assert "the coupling of layers a and b, with 36.0 %" in because


@pytest.mark.parametrize(
    ("gain", "noticed"),
    [
        (0.3, "grow with depth, by a factor of 11.1 per"),
        (1.0, None),
        (3.0, "shrink with depth, by a factor of 9.00 per"),
    ],
)
def test_blocks_that_change_with_depth_are_noticed(gain, noticed):
    """With W_l = gain^l I, |H_ll| is the squared product of all gains but the layer's own."""
    layers = [nn.Linear(4, 4, bias=False) for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.weight.data = gain**index * torch.eye(4)
    problem = Problem(nn.Sequential(*layers).double(), data=[(_x(8, 4), _x(8, 4))], loss="mse")
    said = [finding.says for finding in blocks(problem).findings if "with depth" in finding.says]
    assert len(said) == (noticed is not None)
    assert noticed is None or noticed in said[0]


class Backwards(nn.Module):
    """The network above, registered from its last layer to its first behind scalars of the loss, with a shortcut."""

    def __init__(self, gain):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(6))
        for index, layer in enumerate(self.layers):
            layer.weight.data = gain ** (5 - index) * torch.eye(4)
        self.short = nn.Linear(4, 4, bias=False)
        nn.init.zeros_(self.short.weight)

    def forward(self, x):
        first = self.short(x)
        for layer in reversed(self.layers):
            x = layer(x)
        return self.temperature * x + first


@pytest.mark.parametrize(("gain", "noticed"), [(0.3, "grow with depth, by a factor of 11.1 per"), (1.0, None)])
def test_depth_is_the_order_of_execution(gain, noticed):
    data = [(_x(8, 4), _x(8, 4))]
    problem = Problem(Backwards(gain).double(), data=data, loss="mse")
    for found in (blocks(problem), blocks(problem, probes=4)):
        inner = [f"layers.{index}" for index in range(5, -1, -1)]
        assert found.names == ("short", *inner, "temperature")
        assert found.depths == (None, 1, 2, 3, 4, 5, 6, None)
    layers = [nn.Linear(4, 4, bias=False) for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.weight.data = gain**index * torch.eye(4)
    plain_network = blocks(Problem(nn.Sequential(*layers).double(), data=data, loss="mse"))
    found = blocks(problem)
    assert np.allclose(np.array(found.frobenius)[1:7, 1:7], plain_network.frobenius, rtol=1e-12)
    assert np.allclose(found.trace[1:7], plain_network.trace, rtol=1e-12)
    H = brute_force_hessian(problem)
    slices = [problem.executed_layers[index] for index in range(8)]
    for i, row in enumerate(slices):
        for j, column in enumerate(slices):
            expected = float(H[row.start : row.stop, column.start : column.stop].norm())
            assert found.frobenius[i][j] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    said = [finding.says for finding in found.findings if "with depth" in finding.says]
    assert len(said) == (noticed is not None)
    assert noticed is None or noticed in said[0]


def _relu_network(scaled=None, factor=1.0, norm=False):
    generator = torch.Generator().manual_seed(0)
    layers = []
    for index, (fan_in, fan_out) in enumerate([(8, 12), (12, 12), (12, 12), (12, 4)]):
        layer = nn.Linear(fan_in, fan_out)
        gain = (2 / fan_in) ** 0.5 * (factor if index == scaled else 1.0)
        layer.weight.data = gain * torch.randn(fan_out, fan_in, generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.BatchNorm1d(fan_out), nn.ReLU()] if norm else [layer, nn.ReLU()]
    x = torch.randn(32, 8, generator=generator).double()
    return Problem(nn.Sequential(*layers[:-1]).double(), data=[(x, torch.arange(32) % 4)], loss="ce", train_mode=norm)


def _levels(found, words):
    return [finding.level for finding in found.findings if words in finding.says]


@pytest.mark.parametrize("scaled", range(4))
def test_the_layer_out_of_scale_is_named_and_not_those_whose_blocks_it_makes_large(scaled):
    problem = _relu_network(scaled, 100.0)
    name = problem.executed_layers[scaled].name
    found = blocks(problem)
    own = np.diagonal(found.frobenius)
    assert own.argmin() == scaled, "it is the one whose own block stays as it was"
    said = next(finding for finding in found.findings if "as large as any other layer's" in finding.says)
    assert said.level == "warn"
    assert f"The weights of layer {name} are " in said.says
    gains = [gain for gain in found.weight_gains if gain is not None]
    ratio = gains[scaled] / max(gains[:scaled] + gains[scaled + 1 :])
    assert 60 < ratio < 160  # two random matrices of a dozen rows
    assert f"divide its weights by {ratio:.0f}" in said.remedy
    assert not any("start there" in finding.remedy for finding in found.findings)


def test_after_the_cure_that_is_named_nothing_is_left_of_it():
    problem = _relu_network(1, 100.0)
    with torch.no_grad():
        problem.model[2].weight.div_(100.0)
    assert not _levels(blocks(Problem(problem.model, data=problem.data, loss="ce")), "as large as any other")
    assert not _levels(blocks(_relu_network(1, 5.0)), "as large as any other"), "a factor of 5 is nothing unusual"
    assert not _levels(blocks(_relu_network(1, 0.01)), "as large as any other")


def test_facts_about_a_healthy_network_are_no_warnings():
    found = blocks(_relu_network())
    assert _levels(found, "Gauss-Newton is not the Hessian here") == ["note"]
    assert not {"warn", "bad"} & {finding.level for finding in found.findings}


@pytest.mark.parametrize(("gain", "level"), [(0.5, "note"), (0.3, "warn")])
def test_only_blocks_that_no_step_size_serves_are_a_warning(gain, level):
    """|H_ll| changes by gain^-2 a layer: by 1,024 in all, or by 169,000."""
    layers = [nn.Linear(4, 4, bias=False) for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.weight.data = gain**index * torch.eye(4)
    found = blocks(Problem(nn.Sequential(*layers).double(), data=[(_x(8, 4), _x(8, 4))], loss="mse"))
    assert _levels(found, "with depth") == [level]
    remedy = next(finding.remedy for finding in found.findings if "with depth" in finding.says)
    assert ("Adam" in remedy) is (level == "note")
