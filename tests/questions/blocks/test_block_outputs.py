"""Where outputs bend and how weights scale, apart from the loss."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import assemble, outputs
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.blocks.outputs import outputs_bend, weight_gains


def _net(*layers, activation=nn.ReLU):
    found = []
    for layer in layers:
        found += [layer, activation()]
    return nn.Sequential(*found[:-1])


def _mlp(*widths, activation=nn.ReLU):
    return _net(*(nn.Linear(a, b) for a, b in pairwise(widths)), activation=activation)


def _problem(model, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 6, generator=generator, dtype=torch.float64).to(dtype)
    return Problem(model.to(dtype), data=[(x, torch.arange(12) % 3)], loss="ce", **options)


def _alike(value=0.05):
    """Every weight the same: logits are all alike, and cross-entropy's curvature along that cancels but for rounding."""
    model = _mlp(6, 8, 8, 3)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.05, 0.07, 0.3, 3.0, 100.0])
def test_rounding_of_a_pure_relu_network_is_not_taken_for_curvature(dtype, scale):
    found = blocks(_problem(_alike(scale), dtype))
    assert found.residual_diagonal_vanishes in ([True] if found.norm else [True, None])
    assert "curve by themselves" not in " ".join(finding.says for finding in found.findings)


def test_what_was_taken_for_curvature_is_as_large_as_the_block_itself():
    """Without the outputs' word, the numbers alone would say so: the test above looks at the case it is about."""
    found = blocks(_problem(_alike(), torch.float32))
    parts = [found.residual[index][index] / max(found.frobenius[index][index], 1e-300) for index in range(3)]
    assert max(parts) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", [0, 2, 4])
@pytest.mark.parametrize("factor", [1e-4, 100.0, 1e6])
def test_one_layer_out_of_scale_neither_hides_curvature_nor_feigns_it(dtype, layer, factor):
    for activation, vanish in ((nn.ReLU, True), (nn.Softplus, False)):
        torch.manual_seed(0)
        model = _mlp(6, 8, 8, 3, activation=activation)
        with torch.no_grad():
            model[layer].weight.mul_(factor)
        problem = _problem(model, dtype)
        if vanish or factor < 1e6:  # so far out, softplus has no bend left that numbers hold
            assert outputs_bend(problem) is not vanish
        found = blocks(problem)
        if vanish and found.trusted:
            assert found.residual_diagonal_vanishes is True


def test_forty_layers_deep():
    for activation, bends in ((nn.ReLU, False), (nn.Tanh, True)):
        torch.manual_seed(0)
        problem = _problem(_mlp(6, *[8] * 39, 3, activation=activation), torch.float32)
        assert outputs_bend(problem) is bends
        assert blocks(problem).residual_diagonal_vanishes is not bends


class Tied(nn.Module):
    """The same layer twice: the output is quadratic in it."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)))


def test_what_bends_and_what_does_not():
    pooled = nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8, 3)
    )  # fmt: skip
    assert outputs_bend(_problem(pooled.eval(), torch.float32)) is False
    assert outputs_bend(_problem(pooled, torch.float32, train_mode=True)) is True, "batch statistics divide by weights"
    assert outputs_bend(_problem(nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3)))) is True
    assert outputs_bend(_problem(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)))) is False
    assert outputs_bend(_problem(Tied())) is True


def test_a_bend_that_only_the_second_batch_sees():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x):
            return self.layer(x).square() if float(x.max()) > 1 else self.layer(x)

    low, high, target = torch.zeros(3, 2), 2 * torch.ones(3, 2), torch.ones(3, 1)
    assert outputs_bend(Problem(Gate(), data=[(low, target)], loss="mse")) is False
    assert outputs_bend(Problem(Gate(), data=[(low, target), (high, target)], loss="mse")) is True


class Once(torch.autograd.Function):
    """ReLU that cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return slope * (ctx.saved_tensors[0] > 0)


class OnceReLU(nn.Module):
    def forward(self, x):
        return Once.apply(x)


def test_where_autograd_cannot_say_only_what_is_beyond_all_rounding_counts(monkeypatch):
    assert outputs_bend(_problem(_mlp(6, 8, 3, activation=OnceReLU))) is None
    monkeypatch.setattr(assemble, "outputs_bend", lambda problem: None)
    assert blocks(_problem(_alike(), torch.float32)).residual_diagonal_vanishes is None
    torch.manual_seed(0)
    assert blocks(_problem(_mlp(6, 8, 3, activation=nn.Tanh))).residual_diagonal_vanishes is False


def test_outputs_are_asked_only_where_numbers_do_not_tell(monkeypatch):
    monkeypatch.setattr(assemble, "outputs_bend", lambda problem: pytest.fail("there was no need"))
    torch.manual_seed(0)
    assert blocks(_problem(_mlp(6, 8, 8, 3))).residual_diagonal_vanishes is True


def test_gains_are_those_of_matrices_in_order_of_execution():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3)
    )
    problem = _problem(model)
    conv, norm, linear = weight_gains(problem)
    assert conv == pytest.approx(math.sqrt(float(model[1].weight.detach().square().mean()) * 3))
    assert norm is None
    assert linear == pytest.approx(math.sqrt(float(model[4].weight.detach().square().mean()) * 16))
    assert blocks(problem).weight_gains == (conv, norm, linear)
    assert outputs.weight_gains(_problem(_mlp(6, 4096, 3)))[0] == pytest.approx(1 / math.sqrt(3), rel=0.02)
