"""The numbers of one network: curvature against dense matrices, steps against torch by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.nets.mlp import MLP
from hessdiag.optimizers.recipe import recipe
from hessdiag.questions.transfer import layers, network
from hessdiag.questions.transfer.layers import Part

F64 = torch.float64
STEPS = 3


def problem(seed=0, width=6):
    generator = torch.Generator().manual_seed(9)
    x, y = (torch.randn(12, size, generator=generator, dtype=F64) for size in (5, 2))
    model = MLP(depth=3, width=width, in_features=5, out_features=2, activation="tanh", bias=True, seed=seed)
    return hessdiag.Problem(model, data=[(x, y)], loss="mse")


def arrays(optimizer, lr=None):
    made, wide = problem(), problem(width=12)
    parts = {6: layers.parts(made), 12: layers.parts(wide)}
    lines = layers.lines(parts[6], layers.roles(parts, "width")[6])
    setting = network.Setting(STEPS, None, parts[6], lines, 0)
    return network.measured(made, recipe(optimizer, lr), setting), list(lines)


def by_hand(make):
    """Parameters before and after each step, the outputs of the three layers, losses, and the optimizer."""
    made = problem()
    model, (x, y) = made.model, made.data[0]
    optimizer = make(model)
    weights, outs, losses = [], [], []
    for step in range(STEPS + 1):
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
        h, seen = x, []
        for layer in model:
            h = layer(h)
            if isinstance(layer, nn.Linear):
                seen.append(h.detach())
        outs.append(seen)
        loss = (h - y).square().mean()
        losses.append(loss.item())
        if step < STEPS:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    slope = 2 * (outs[0][2] - y) / y.numel()
    return weights, outs, losses, optimizer, float(slope.norm()), made


def dense(made):
    return hessdiag.hessian(made).numpy()


def two_rates(model):
    first, *others = model.children()
    groups = [{"params": list(first.parameters()), "lr": 0.2}]
    return torch.optim.SGD([*groups, {"params": [p for one in others for p in one.parameters()]}], lr=0.05)


@pytest.fixture
def converged(monkeypatch):
    monkeypatch.setattr(network, "TOLERANCE", 1e-9)
    monkeypatch.setattr(network, "MOST_PRODUCTS", 1000)


def test_an_eigenvalue_is_off_by_no_more_than_its_residual_which_is_small():
    value, residual = arrays("sgd")[0]["lambda_max"]
    assert abs(value - np.linalg.eigvalsh(dense(problem()))[-1]) <= residual <= 0.02 * value


@pytest.mark.usefixtures("converged")
def test_curvature_is_that_of_dense_matrices_with_the_groups_learning_rates():
    found, _ = arrays(two_rates)
    H = dense(problem())
    rates = np.concatenate([np.full(36, 0.2), np.full(len(H) - 36, 0.05)])
    root = np.sqrt(rates)
    top, weighted = np.linalg.eigvalsh(H)[-1], np.linalg.eigvalsh(root[:, None] * H * root)[-1]
    assert found["lambda_max"][0] == pytest.approx(top, rel=1e-9)
    assert found["weighted"][0] == pytest.approx(weighted, rel=1e-9)
    assert found["weighted"][2] == 2  # gradient descent's threshold
    assert abs(weighted / (0.05 * top) - 1) > 0.2  # the groups matter


@pytest.mark.usefixtures("converged")
def test_adams_curvature_is_that_of_its_own_state_after_the_steps():
    found, _ = arrays("adam(lr=1e-2)")
    *_, optimizer, _, made = by_hand(lambda model: torch.optim.Adam(model.parameters(), lr=1e-2))
    state = [optimizer.state[parameter]["exp_avg_sq"].reshape(-1) for parameter in made.model.parameters()]
    P = (torch.cat(state) / (1 - 0.999**STEPS)).sqrt().numpy() + 1e-8
    root = np.sqrt(1e-2 / P)
    assert found["weighted"][0] == pytest.approx(np.linalg.eigvalsh(root[:, None] * dense(made) * root)[-1], rel=1e-8)
    assert found["weighted"][2] == pytest.approx(38)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_steps_change_outputs_and_weights_as_by_hand(kind):
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind]
    found, lines = arrays(kind, 0.03)
    weights, outs, losses, _, pull, _ = by_hand(lambda model: make(model.parameters(), lr=0.03))
    unit = pull if kind == "sgd" else 1.0
    assert [line.role for line in lines] == ["input", "hidden", "output", "vector", "fixed"]
    assert found["loss"] == pytest.approx(losses, rel=1e-12)
    for step in range(STEPS):
        changes = [
            float((now - first).square().mean().sqrt()) for now, first in zip(outs[step + 1], outs[0], strict=True)
        ]
        assert found["changes"][step, :3] == pytest.approx([change / unit for change in changes], rel=1e-9)
    assert np.isnan(found["changes"][:, 3:]).all()
    for row, last in ((0, 1), (1, STEPS)):
        for column, place in enumerate((0, 2, 4)):
            move = (weights[last][place] - weights[0][place]).numpy()
            size = np.linalg.norm(move, 2) * math.sqrt(move.shape[1] / move.shape[0])
            assert found["updates"][row, column] == pytest.approx(size / unit, rel=1e-9)
        biases = [float((weights[last][place] - weights[0][place]).square().mean().sqrt()) for place in (1, 3)]
        assert found["updates"][row, 3] == pytest.approx(np.sqrt(np.mean(np.square(biases))) / unit, rel=1e-9)
    assert found["initial"][:3] == pytest.approx([float(out.square().mean().sqrt()) for out in outs[0]], rel=1e-12)
    assert found["weights"][:3] == pytest.approx([float(weights[0][i].square().mean().sqrt()) for i in (0, 2, 4)])
    assert found["rates"] == pytest.approx([0.03] * 5)


def test_sizes_of_changes():
    change = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    flat = np.linalg.norm(change.reshape(7, 12).numpy(), 2)
    assert network.size_of(change, Part("w", (7, 3, 2, 2), False, 0)) == pytest.approx(flat * math.sqrt(12 / 7))
    table = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=F64)
    assert network.size_of(table, Part("w", (2, 2), True, 0)) == pytest.approx(5 / math.sqrt(2))
    assert network.size_of(torch.zeros(3, 2, dtype=F64), Part("w", (3, 2), False, 0)) == 0
    assert math.isnan(network.size_of(torch.full((3, 2), math.inf), Part("w", (3, 2), False, 0)))


def test_a_run_that_explodes_ends_and_says_no_number():
    found, _ = arrays("sgd", 1e4)
    assert np.isnan(found["loss"][-1])
    assert np.isnan(found["changes"][-1]).all()
