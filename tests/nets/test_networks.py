"""The built-in networks: sizes, names, laws of the weights, and formulas by hand."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets import BUILTINS
from hessdiag.nets.chain import Chain
from hessdiag.nets.convnet import ConvNet, LeNet
from hessdiag.nets.mlp import MLP
from hessdiag.nets.network import MODULES


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_catalogue_imports_no_torch():
    code = "import hessdiag.nets, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", BUILTINS)
def test_each_builtin_is_a_float64_module(name):
    home, _, attribute = BUILTINS[name][0].partition(":")
    model = getattr(__import__(home, fromlist=[attribute]), attribute)()
    assert isinstance(model, nn.Module)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("name", BUILTINS)
def test_slices_hold_the_same_layers(name):
    home, _, attribute = BUILTINS[name][0].partition(":")
    model = getattr(__import__(home, fromlist=[attribute]), attribute)()
    part = model[1:5]
    assert type(part) is nn.Sequential
    assert list(part) == [model[index] for index in range(1, 5)]
    assert list(part._modules) == list(model._modules)[1:5]
    assert list(model[::-1]) == list(model)[::-1]


@pytest.mark.parametrize("activation", MODULES)
def test_mlp_is_its_formula(activation):
    net = MLP(depth=3, width=5, in_features=4, out_features=2, activation=activation, bias=True, seed=1)
    assert [name for name, _ in net.named_parameters()] == [
        f"{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")
    ]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    phi = {
        "linear": lambda a: a,
        "relu": lambda a: a.clamp(min=0),
        "leaky_relu": lambda a: torch.where(a > 0, a, 0.01 * a),
        "tanh": torch.tanh,
        "gelu": lambda a: a * torch.special.ndtr(a),
        "sigmoid": torch.sigmoid,
    }[activation]
    w1, b1, w2, b2, w3, b3 = net.parameters()
    x = torch.randn(7, 4, dtype=torch.float64)
    expected = phi(phi(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    assert torch.allclose(net(x), expected)


def test_mlp_sizes():
    assert count(MLP(depth=6, width=10)) == 600
    assert count(MLP(depth=1, width=10, in_features=3, out_features=2)) == 6
    assert (
        count(MLP(depth=3, width=128, in_features=3072, out_features=10, bias=True)) == 411_146
    )  # the paper's second size


@pytest.mark.parametrize(
    ("activation", "init", "variance"),
    [
        ("relu", None, 2 / 100),
        ("tanh", None, 1 / 100),
        ("linear", "lecun", 1 / 300),
        ("relu", "xavier_normal", 1 / 100),
    ],
)
def test_mlp_weights_have_the_variance_of_their_init(activation, init, variance):
    net = MLP(depth=4, width=100, activation=activation, init=init, seed=0)
    weights = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    assert float(weights.var()) == pytest.approx(variance, rel=0.03)
    assert abs(float(weights.mean())) < 4 * (variance / len(weights)) ** 0.5


def test_seeds():
    def weights(seed):
        return torch.cat([parameter.flatten() for parameter in MLP(2, 3, seed=seed).parameters()])

    state = torch.get_rng_state()
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    one, two = weights(None), weights(None)
    torch.manual_seed(5)
    assert torch.equal(one, weights(None))
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    "options", [{"activation": "rleu"}, {"init": "kaiming"}, {"depth": 0}, {"width": 0}, {"out_features": -1}]
)
def test_mlp_refusals(options):
    with pytest.raises(SpecError):
        MLP(**options)


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 28, 10), (1, 16, 4), (2, 37, 3)])
def test_lenet(channels, size, classes):
    net = LeNet(channels, size, classes)
    assert net(torch.zeros(2, channels, size, size, dtype=torch.float64)).shape == (2, classes)
    assert count(LeNet()) == 62_006
    with pytest.raises(SpecError):
        LeNet(size=15)


@pytest.mark.parametrize("size", [4, 7, 8, 28])
def test_convnet(size):
    assert ConvNet(size=size)(torch.zeros(2, 1, size, size, dtype=torch.float64)).shape == (2, 10)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_chain(distribution):
    chain = Chain(length=4000, scale=0.5, distribution=distribution, seed=3)
    weights = torch.cat([parameter.detach().flatten() for parameter in chain.parameters()])
    assert weights.shape == (4000,)
    assert float(weights.std()) == pytest.approx(0.5 / 3**0.5 if distribution == "uniform" else 0.5, rel=0.05)
    assert (weights.abs().max() <= 0.5) == (distribution == "uniform")
    short = Chain(length=3, seed=0)
    assert torch.allclose(
        short(torch.tensor([[2.0]], dtype=torch.float64)).squeeze(),
        2 * torch.stack(list(short.parameters())).prod(),
    )
    for options in ({"length": 0}, {"distribution": "cauchy"}):
        with pytest.raises(SpecError):
            Chain(**options)
