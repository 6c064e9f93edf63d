"""What the verdict tells to try is what trains: each cure, and each optimizer that is advised against, on small networks."""

from functools import cache

import pytest
import torch
from torch import nn

from hessdiag.questions.common.adaptive_verdict import remedy, smaller_epsilon, stuck

WIDTH, CLASSES = 32, 4


@cache
def clusters():
    """Points around one center for each class."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(256) % CLASSES
    x = torch.randn(CLASSES, WIDTH, generator=generator)[y] + 0.5 * torch.randn(256, WIDTH, generator=generator)
    return x, y


class Block(nn.Module):
    """A layer with its activation, perhaps after a normalization, perhaps beside a shortcut."""

    def __init__(self, norm, shortcut):
        super().__init__()
        self.norm, self.linear, self.shortcut = norm(WIDTH), nn.Linear(WIDTH, WIDTH), shortcut

    def forward(self, x):
        out = self.linear(self.norm(x)).relu()
        return x + out if self.shortcut else out


def network(depth, *, he=False, norm=nn.Identity, shortcut=False):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(norm, shortcut) for _ in range(depth - 1)), nn.Linear(WIDTH, CLASSES))
    if he:
        for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def loss(model):
    x, y = clusters()
    return nn.functional.cross_entropy(model(x), y)


def first_gradient(model):
    """A typical entry of the first layer's gradient."""
    (gradient,) = torch.autograd.grad(loss(model), [model[0].linear.weight])
    return float(gradient.double().square().mean().sqrt())


def trained(model, steps, optimizer=torch.optim.Adam, lr=1e-3, **options):
    """The loss over that of chance, after some steps on all points."""
    found = optimizer(model.parameters(), lr=lr, **options)
    for _ in range(steps):
        found.zero_grad()
        loss(model).backward()
        found.step()
    return float(loss(model).detach()) / float(torch.tensor(CLASSES).log())


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
def test_below_their_epsilon_adaptive_optimizers_train_nothing(optimizer):
    model = network(40)
    gradient, before = first_gradient(model), model[0].linear.weight.detach().clone()
    assert gradient < 1e-14
    assert trained(model, 150, optimizer) > 0.95
    assert float((model[0].linear.weight.detach() - before).abs().max()) < 1e-6, "150 steps of lr would be 0.15"
    assert stuck(gradient)
    assert remedy(gradient).startswith("not Adam or RMSprop as they are")


def test_above_it_they_train_what_gradient_descent_does_not():
    gradient = first_gradient(network(10))
    assert 1e-7 < gradient < 1e-4
    assert trained(network(10), 150) < 0.5
    assert trained(network(10), 150, torch.optim.SGD, lr=0.1) > 0.95
    assert remedy(gradient).startswith("Adam or RMSprop, whose steps")


@pytest.mark.parametrize(
    "how", [{"he": True}, {"norm": nn.LayerNorm, "shortcut": True}, {"norm": nn.BatchNorm1d, "shortcut": True}]
)
def test_what_is_advised_instead_trains_forty_layers(how):
    assert trained(network(40, **how), 150) < 0.5


def test_an_epsilon_below_the_gradient_lets_adam_leave():
    model = network(40)
    said = smaller_epsilon(first_gradient(model))
    assert said.startswith("eps=")
    assert trained(model, 200, eps=float(said.removeprefix("eps=").split()[0])) < 0.9
