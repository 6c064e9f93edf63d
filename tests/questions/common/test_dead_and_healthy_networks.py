"""What is said of networks that are dead, and of healthy ones: no good news of the one, hardly a warning of the other."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.problem.problem import Problem

QUESTIONS = ("blocks", "eigs", "spectrum", "bounds", "diag_share")


def _data(classes=4):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(24, 6, generator=generator)
    return [(x, (x[:, :classes] + 0.3 * torch.randn(24, classes, generator=generator)).argmax(1))]


def _mlp(*widths, activation=nn.ReLU, gain=2.0**0.5):
    torch.manual_seed(0)
    layers = []
    for fan_in, fan_out in pairwise(widths):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.normal_(layer.weight, std=gain / fan_in**0.5)
        nn.init.zeros_(layer.bias)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def dead():
    model = _mlp(6, 8, 8, 4)
    nn.init.constant_(model[2].bias, -9.0)
    return model


def dead_without_biases():
    model = dead()
    model[4].bias = None
    return model


def lost():
    return _mlp(6, *[6] * 24, 4, activation=nn.Sigmoid)


def alike():
    model = _mlp(6, 8, 8, 4)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.05)
    return model


def faint():
    return nn.Sequential(_mlp(6, 8, 4, gain=1e-4), Times(1e-14))


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("broken", [dead, dead_without_biases, lost, alike, faint])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_good_news_of_a_dead_network(broken, question, dtype):
    data = [(x.to(dtype), y) for x, y in _data()]
    found = getattr(hessdiag, question)(Problem(broken().to(dtype), data=data, loss="ce"))
    assert [finding.says for finding in found.findings if finding.level == "ok"] == []
    if broken is faint:
        said = " ".join(finding.says for finding in found.findings)
        assert "as good as zero" in said or not found.trusted
        assert "learning rates below" not in said
    if broken is dead_without_biases:
        assert found.findings[0].level == "bad"
        assert "hessdiag check MODEL" in found.findings[0].remedy


def test_a_dead_layer_is_a_warning_where_layers_are_measured():
    for question in ("blocks", "diag_share"):
        found = getattr(hessdiag, question)(Problem(dead(), data=_data(), loss="ce"))
        first = found.findings[0]
        assert first.level in ("warn", "bad")
        assert first.says.startswith("2 of 3 layers have no curvature at all")
        assert "hessdiag check MODEL" in first.remedy


def test_good_news_is_what_holds_in_every_direction():
    """(w x - y)^2 in as many samples as it needs: strictly convex."""
    data = [(torch.eye(2).double(), torch.ones(2, 1).double())]
    problem = Problem(nn.Linear(2, 1, bias=False).double(), data=data, loss="mse")
    for question in ("eigs", "spectrum", "bounds"):
        levels = [finding.level for finding in getattr(hessdiag, question)(problem).findings]
        assert levels.count("ok") == 1, question


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))

    def forward(self, x):
        return x + self.branch(self.norm(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.cell(x.view(-1, 3, 2))[0][:, -1])


def _trained(model):
    (x, y), *_ = _data()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def _plain(make):
    torch.manual_seed(0)
    return make()


def _convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 4)
    )  # fmt: skip


HEALTHY = {
    "he": lambda: _mlp(6, 8, 8, 4),
    "he, deep": lambda: _mlp(6, *[10] * 8, 4),
    "he, trained": lambda: _trained(_mlp(6, 8, 8, 4)),
    "tanh": lambda: _mlp(6, 8, 8, 4, activation=nn.Tanh, gain=1.0),
    "torch's own": lambda: _plain(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))),
    "residual": lambda: _plain(lambda: nn.Sequential(nn.Linear(6, 8), Residual(), Residual(), nn.Linear(8, 4))),
    "recurrent": lambda: _plain(Recurrent),
    "recurrent, trained": lambda: _trained(_plain(Recurrent)),
    "convolutional": lambda: _plain(_convolutional),
    "convolutional, trained": lambda: _trained(_plain(_convolutional)),
}


def test_at_most_one_warning_in_twenty_commands_about_healthy_networks():
    said = [
        (name, question, finding.says)
        for name, make in HEALTHY.items()
        for question in QUESTIONS
        for finding in getattr(hessdiag, question)(Problem(make(), data=_data(), loss="ce")).findings
        if finding.level in ("warn", "bad")
    ]
    assert len(said) <= len(HEALTHY) * len(QUESTIONS) / 20, said
