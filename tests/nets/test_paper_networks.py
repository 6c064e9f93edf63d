"""The convolutional networks of the paper, normalization and skips: by formula, by count, and through the loader."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hessdiag import HessianOperator, ProblemRequest, load_problem
from hessdiag.curvature.checks import examine
from hessdiag.errors import SpecError
from hessdiag.nets.fcn import FCN
from hessdiag.nets.mlp import MLP
from hessdiag.nets.resnet import BLOCKS, ResNet, blocks


def weighted(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_fcn_is_its_formula(padding):
    net = FCN(depth=3, channels=4, kernel=5, padding=padding, resolution=6, seed=0)
    h = x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    for index, weight in enumerate(net.parameters()):
        h = F.conv2d(F.pad(h, (2, 2, 2, 2), "circular" if padding == "circular" else "constant"), weight)
        h = h.relu() if index < 2 else h
    assert torch.allclose(net(x), h, rtol=1e-12)
    assert [type(module).__name__ for module in net] == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]


def test_skips_go_over_three_layers():
    net = MLP(depth=9, width=5, residual=True, seed=0)
    W = list(net.parameters())
    h = x = torch.randn(4, 5, dtype=torch.float64)
    h = (h @ W[0].T).relu()
    for first in (1, 4):
        kept = h
        for layer in range(first, first + 3):
            h = h @ W[layer].T
            h = h.relu() if layer < first + 2 else (kept + h).relu()
    h = (h @ W[7].T).relu()
    assert torch.allclose(net(x), h @ W[8].T, rtol=1e-12)
    plain = MLP(depth=9, width=5, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), W, strict=True))


def test_batchnorm_stands_before_the_activation():
    net = MLP(depth=3, width=5, batchnorm=True, activation="tanh", seed=0).train()
    x = torch.randn(7, 5, dtype=torch.float64)
    h = x
    for layer in (net[0], net[3]):
        a = h @ layer.weight.T
        h = torch.tanh((a - a.mean(0)) / (a.var(0, unbiased=False) + 1e-5).sqrt())
    assert torch.allclose(net(x), h @ net[6].weight.T, rtol=1e-10)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float64}
    kinds = [type(module).__name__ for module in FCN(depth=5, channels=2, batchnorm=True, residual=True)]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Residual", "ReLU", "Conv2d"]


@pytest.mark.parametrize("depth", [14, 26, 50, 101, 152, 500])
def test_resnets_have_as_many_layers_as_they_say(depth):
    assert 3 * sum(blocks(depth)) + 2 == depth
    assert len(weighted(ResNet(depth, channels=1))) == depth


def test_the_block_lists():
    assert BLOCKS == {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 500: (3, 29, 131, 3)}
    for count in range(4, 60):
        split = blocks(3 * count + 2)
        assert sum(split) == count
        assert min(split) >= 1


def test_resolutions_channels_and_filters():
    net = ResNet(50)
    seen = []
    for stage in list(net)[1:5]:
        stage.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 10)
    assert seen == [(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)]
    small, wide, big = (ResNet(14, channels=2, **how) for how in ({}, {"wide": True}, {"big": True}))
    shapes = [[tuple(layer.weight.shape) for layer in weighted(net)[1:4]] for net in (small, wide, big)]
    assert shapes[0] == [(2, 2, 1, 1), (2, 2, 3, 3), (8, 2, 1, 1)]
    assert shapes[1] == [(4, 4, 1, 1), (4, 4, 3, 3), (16, 4, 1, 1)]
    assert shapes[2] == [(2, 2, 3, 3), (2, 2, 5, 5), (8, 2, 3, 3)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())


def test_skips_of_a_resnet_add_the_input_of_each_block():
    net = ResNet(14, channels=2, residual=True)
    with torch.no_grad():
        for stage in list(net)[1:5]:
            for part in stage:
                if hasattr(part, "body"):
                    for parameter in part.body.parameters():
                        parameter.zero_()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    h = net[0](x)
    for stage in list(net)[1:5]:
        h = stage[0].shortcut(h).relu()
    assert torch.allclose(net(x), nn.Sequential(*list(net)[5:])(h), rtol=1e-12)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("builtin:fcn(depth=4, channels=3, resolution=7)", (3, 7, 7)),
        ("builtin:fcn(depth=4, channels=3, resolution=7, padding='circular')", (3, 7, 7)),
        ("builtin:fcn(depth=5, channels=3, resolution=4, in_channels=1, batchnorm=True, residual=True)", (1, 4, 4)),
        ("builtin:resnet(depth=14, channels=1, resolution=8, batchnorm=True, residual=True)", (3, 8, 8)),
        ("builtin:mlp(depth=6, width=4, batchnorm=True, residual=True)", (4,)),
    ],
)
def test_the_loader_gives_a_batch_and_products_are_right(spec, shape):
    problem = load_problem(ProblemRequest(spec, device="cpu", train_mode=True, batch_size=6))
    x, y = problem.data[0]
    assert x.shape == (6, *shape)
    assert torch.equal(x, y) == ("fcn" in spec)
    operator = HessianOperator(problem)
    assert not examine(operator, 0).failed
    assert operator.engine.startswith("batched")


def test_the_same_seed_gives_the_same_network():
    for make in (FCN, ResNet):
        size = {"channels": 2, "depth": 14}
        one, two, other = (list(make(**size, seed=seed).parameters()) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    "wrong", [{"kernel": 4}, {"kernel": 9, "resolution": 3}, {"padding": "same"}, {"depth": 0}, {"activation": "x"}]
)
def test_fcn_refusals(wrong):
    with pytest.raises(SpecError):
        FCN(**wrong)


@pytest.mark.parametrize("wrong", [{"depth": 51}, {"depth": 8}, {"channels": 0}, {"resolution": 4}])
def test_resnet_refusals(wrong):
    with pytest.raises(SpecError):
        ResNet(**wrong)
