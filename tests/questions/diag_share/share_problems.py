"""Small problems whose diagonal shares are known by other means, or hard to sample."""

import torch
from torch import nn

from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError
from hessdiag.problem.problem import Problem
from hessdiag.questions.diag_share import rows


def pixels():
    """A ReLU network on images with dark borders: many rows vanish, the others span decades."""
    torch.manual_seed(0)
    x = torch.rand(40, 25).double() * (torch.rand(25) > 0.4)
    model = nn.Sequential(nn.Linear(25, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)).double()
    return Problem(model, data=[(x, torch.arange(40) % 4)], loss="ce")


def narrow():
    torch.manual_seed(1)
    parts = [part for _ in range(11) for part in (nn.Linear(10, 10), nn.Tanh())]
    data = [(torch.randn(32, 10).double(), torch.randn(32, 3).double())]
    return Problem(nn.Sequential(*parts, nn.Linear(10, 3)).double(), data=data, loss="mse")


def wide():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 10)).double()
    return Problem(model, data=[(torch.randn(24, 12).double(), torch.arange(24) % 10)], loss="ce")


def few_heavy_neurons():
    """Two layers of 30 neurons, most of them dead."""
    torch.manual_seed(4)
    linear = [nn.Linear(20, 30), nn.Linear(30, 30), nn.Linear(30, 3)]
    model = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2]).double()
    with torch.no_grad():
        linear[0].bias -= 0.7
        linear[1].bias[::2] -= 1.0
        linear[0].weight *= torch.exp(torch.randn(30, 1).double())
    return Problem(model, data=[(torch.rand(40, 20).double(), torch.arange(40) % 3)], loss="ce")


def by_products(monkeypatch):
    """Make every problem one that neuron space cannot serve."""

    def refuse(operator):
        raise NotInNeuronSpaceError("told so by a test")

    monkeypatch.setattr(rows.exact, "neuron_space", refuse)
