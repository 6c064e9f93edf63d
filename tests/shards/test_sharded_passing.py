"""Graphs that could pass by a unit, and derivatives inside a model: as brute force has them, or refused, and never wrong."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, jvp, vmap
from torch.utils.checkpoint import checkpoint

import hessdiag
from hessdiag.errors import HessdiagError
from hessdiag.linalg.spread import piece_of
from tests.shards.forks import on_ranks

KEPT = {}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.b(torch.sin(self.a(x))))


class Attribute(Block):
    """Leaves a loss of its own behind, as mixtures of experts and variational layers do."""

    def forward(self, x):
        y = super().forward(x)
        self.aux = y.pow(4).mean() + self.a.weight.pow(2).mean()
        return y


class Elsewhere(Block):
    def forward(self, x):
        y = super().forward(x)
        KEPT.setdefault("aux", []).append(y.pow(4).mean())
        return y


class Reads(Block):
    """Computes with what another block has left."""

    def __init__(self, other):
        super().__init__()
        self.other = [other]

    def forward(self, x):
        return super().forward(x) * self.other[0].aux


class Remembers(Block):
    """Keeps what it computed from one call to the next."""

    earlier = None

    def forward(self, x):
        y = super().forward(x if self.earlier is None else x + self.earlier)
        self.earlier = y
        return y


class Complex(Block):
    def __init__(self):
        super().__init__()
        self.odd, self.pairs = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return super().forward(torch.fft.ifft(torch.fft.fft(x) * torch.view_as_complex(self.pairs)).real) + self.odd


class Keeps(Block):
    """Keeps its input, a weight, a view of its result, and what takes the place in memory of what it kept before."""

    twice = None

    def forward(self, x):
        self.twice = None
        self.twice = 2 * x
        y = super().forward(x)
        self.x, self.weight, self.view = x, self.a.weight, y[:, 1:3]
        return y


class Caches(Block):
    """Makes a weight of its own once."""

    def __init__(self):
        super().__init__()
        self.weight = 2 * self.a.weight

    def forward(self, x):
        return super().forward(x @ self.weight.to(x))


class Closure(Block):
    def forward(self, x):
        y = super().forward(x)
        return lambda other: y * other


class Checkpoints(Block):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False) + checkpoint(super().forward, x, use_reentrant=True)


class Asks(Block):
    def forward(self, x):
        y = self.a(x)
        y.register_hook(lambda slope: 1.0 * slope)
        return torch.sin(y) if torch.is_grad_enabled() else y


class Model(nn.Module):
    """Blocks one after the other, or run in a way of its own."""

    def __init__(self, *blocks, way=None):
        super().__init__()
        self.blocks, self.way, self.head = nn.ModuleList(blocks or [Block(), Block()]), way, nn.Linear(4, 3)

    def forward(self, x):
        KEPT.clear()
        if self.way is not None:
            return self.head(self.way(self, x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def adds(model, x):
    return model.blocks[1](model.blocks[0](x)) + sum(block.aux for block in model.blocks)


def adds_what_is_elsewhere(model, x):
    return model.blocks[1](model.blocks[0](x)) + sum(KEPT["aux"])


def adds_what_is_kept(model, x):
    for block in model.blocks:
        x = block(x)
    return (
        x @ model.blocks[1].weight
        + sum(block.x + block.twice for block in model.blocks)
        + model.blocks[1].view.repeat(1, 2)
    )


def calls_thrice(model, x):
    model.blocks[0].earlier = None
    return [model.blocks[0](x) for _ in range(3)][-1]


def calls_closures(model, x):
    return model.blocks[1](x)(model.blocks[0](x)(x))


def generates(model, x):
    weights = {
        "a.weight": torch.outer(model.head.weight[0], model.head.bias.repeat(2)[:4]),
        "b.bias": model.head.weight[1],
    }
    return functional_call(model.blocks[0], weights, (model.blocks[1](x),))


def generates_by_a_block(model, x):
    return functional_call(model.blocks[0], {"a.weight": model.blocks[1](x)}, (x,))


def slopes(model, x, times=1):
    x = x.detach().requires_grad_()
    found = model.blocks[1](model.blocks[0](x))
    for _ in range(times):
        (found,) = torch.autograd.grad(found.pow(2).sum(), x, create_graph=True)
    return found


def step(model, x):
    own = dict(model.blocks[0].named_parameters())
    ahead = torch.autograd.grad(model.blocks[0](x).pow(2).mean(), list(own.values()), create_graph=True)
    return functional_call(
        model.blocks[0], {name: own[name] - slope for name, slope in zip(own, ahead, strict=True)}, x
    )


def along(model, x):
    y, slope = jvp(model.blocks[0], (x,), (x.cos(),))
    return model.blocks[1](y + slope)


def dual(model, x):
    with forward_ad.dual_level():
        return sum(forward_ad.unpack_dual(model.blocks[0](forward_ad.make_dual(x, x.cos()))))


def of_aux(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1]) + sum(block.aux for block in model.blocks)


def of_what_is_elsewhere(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1]) + sum(KEPT["aux"])


def squared(model, batch):
    return model(batch[0]).pow(2).mean()


def of_slopes(model, batch):
    x = batch[0].detach().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return slope.pow(2).mean()


def reads():
    block = Attribute()
    return Model(block, Reads(block))


def hooked():
    model = Model()
    model.blocks[0].a.register_forward_hook(lambda module, given, result: KEPT.update(aux=[result.pow(2).mean()]))
    return model


def another():
    model = Model()
    weight = model.blocks[0].a.weight
    model.blocks[1] = nn.Sequential(model.blocks[1])
    model.blocks[1][0].b.forward = lambda x: x @ weight
    return model


CASES = {
    "a loss in an attribute": lambda: (Model(Attribute(), Attribute()), of_aux),
    "an attribute that the model adds": lambda: (Model(Attribute(), Attribute(), way=adds), "ce"),
    "inputs, weights and views in attributes": lambda: (Model(Keeps(), Keeps(), way=adds_what_is_kept), "ce"),
    "pairs as complex numbers": lambda: (Model(Complex(), Complex()), "ce"),
    "a list that the model adds": lambda: (Model(Elsewhere(), Elsewhere(), way=adds_what_is_elsewhere), "ce"),
    "an attribute that a block reads": lambda: (reads(), "ce"),
    "a state from call to call": lambda: (Model(Remembers(), way=calls_thrice), "ce"),
    "closures": lambda: (Model(Closure(), Closure(), way=calls_closures), "ce"),
    "generated weights": lambda: (Model(way=generates), "ce"),
    "weights by a block": lambda: (Model(way=generates_by_a_block), "ce"),
    "slopes": lambda: (Model(way=slopes), "ce"),
    "slopes of slopes": lambda: (Model(way=partial(slopes, times=2)), "ce"),
    "a loss of slopes in the model": lambda: (Model(way=slopes), squared),
    "a step": lambda: (Model(way=step), "ce"),
    "each sample": lambda: (Model(way=lambda model, x: vmap(model.blocks[0])(x)), "ce"),
    "forward derivatives": lambda: (Model(way=along), "ce"),
    "duals": lambda: (Model(way=dual), "ce"),
    "checkpoints": lambda: (Model(Checkpoints(), Block()), "ce"),
    "asks for gradients": lambda: (Model(Block(), Asks()), "ce"),
}


def problem(make):
    torch.manual_seed(0)
    model, loss = make()
    data = [(torch.randn(4, 4).double(), torch.arange(4) % 3)]
    return hessdiag.Problem(model.double(), data=data, **{"loss" if loss == "ce" else "objective": loss})


def brute(found, V):
    (x, y), parameters = found.data[0], list(found.model.parameters())
    value = F.cross_entropy(found.model(x), y) if found.objective is None else found.objective(found.model, (x, y))

    def flat(of, along=None):
        slopes = torch.autograd.grad(of, parameters, along, create_graph=True, materialize_grads=True)
        return torch.cat([slope.reshape(-1) for slope in slopes])

    gradient = flat(value)
    return value.detach(), torch.stack([flat(gradient, v).detach() for v in V.T], 1)


def compared(case):
    """How far value and products of a sharded problem are from brute force."""
    whole = problem(CASES[case])
    V = torch.randn(whole.n_parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = problem(CASES[case])
    if case == "checkpoints":  # whose reentrant kind refuses brute force
        plain.model.blocks[0].forward = lambda x: 2 * Block.forward(plain.model.blocks[0], x)
    value, expected = brute(plain, V)
    spread = hessdiag.sharded(whole)
    H = hessdiag.HessianOperator(spread, check=False)
    local = piece_of(V, H.spread)
    error = float((spread.layout.whole(H @ local) - expected).norm() / expected.norm())
    return max(error, abs(spread.value() / float(value) - 1))


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_brute_force(case):
    assert compared(case) < 1e-12


def test_what_is_kept_in_attributes_makes_no_unit_larger():
    spread = hessdiag.sharded(problem(CASES["inputs, weights and views in attributes"]))
    for _ in range(9):
        spread.evaluate(spread.data[0]).backward()
    assert [unit.path for unit in spread.units.every] == ["blocks.0", "blocks.1", "head"]


def test_so_are_they_on_two_ranks():
    cases = (
        "a loss in an attribute",
        "a list that the model adds",
        "weights by a block",
        "a loss of slopes in the model",
    )
    for found in on_ranks(2, lambda: [compared(case) for case in cases]):
        assert max(found) < 1e-12


REFUSED = {
    "a list that the loss reads": (lambda: (Model(Elsewhere(), Block()), of_what_is_elsewhere), "leaves a tensor"),
    "a hook in a block": (lambda: (hooked(), of_what_is_elsewhere), "leaves a tensor"),
    "a state from run to run": (lambda: (Model(Remembers()), "ce"), r"blocks\.0 computes with a tensor that it finds"),
    "a weight made before": (lambda: (Model(Caches(), Block()), "ce"), "kept in an earlier forward pass"),
    "a parameter of the model before": (lambda: (another(), "ce"), "that the model was built with"),
    "a loss of slopes": (lambda: (Model(), of_slopes), "no third derivatives"),
    "torch.jit": (lambda: (Model(torch.jit.trace(Block(), torch.ones(1, 4))), "ce"), "compiled by torch.jit"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused_at_once(make, words):
    with pytest.raises(HessdiagError, match=words) as raised:
        hessdiag.sharded(problem(make))
    assert "--shard" in raised.value.hint
