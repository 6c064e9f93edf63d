"""Products that are kept between the runs of a unit: which, how many, and never one whose numbers are wanted."""

from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import hessdiag
from hessdiag.shards import kept
from tests.shards.sharded_cases import keeping, relative


class Counting(TorchDispatchMode):
    """How many products of matrices are computed."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name() in ("aten::mm", "aten::addmm")
        return func(*args, **(kwargs or {}))


class Low(nn.Module):
    """A weight and a correction of low rank: one slope is that of the weight, and goes on to the correction."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(*shape)) for shape in ((4, 4), (4, 2), (2, 4)))

    def forward(self, x):
        return torch.tanh(x @ (self.a + self.b @ self.c))


class Written(nn.Module):
    """Products that are written to, one after it was used."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x).tanh_()
        z = self.b(y)
        return z.add_(1).sin() * y


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.a(torch.tanh(self.a(x))))


class Turning(nn.Module):
    """Runs otherwise each time, with the same result: two products of one form in another order."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.runs = nn.Linear(4, 5), nn.Linear(4, 4), [0]

    def forward(self, x):
        self.runs[0] += 1
        if self.runs[0] % 2:
            y = torch.tanh(self.a(x))
            return torch.tanh(self.b(x)).sum(1, keepdim=True) + y
        y = torch.tanh(self.b(x))
        return y.sum(1, keepdim=True) + torch.tanh(self.a(x))


class Chain(nn.Module):
    """So many layers in one unit."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(layers) for layer in (nn.Linear(4, 4), nn.Tanh())))

    def forward(self, x):
        return self.layers(x)


def problem(block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), block, nn.Linear(block_width(block), 3)).double()
    data = [(torch.randn(6, 4).double(), torch.arange(6) % 3)]
    return hessdiag.Problem(model, data=data, loss="ce")


def block_width(block):
    return 5 if isinstance(block, Turning) else 4


@pytest.mark.parametrize("kind", [Low, Written, Twice, Turning])
@pytest.mark.parametrize("room", [2**40, 100, 0])
def test_products_are_as_of_the_whole(kind, room):
    torch.manual_seed(1)
    whole = problem(kind())
    V = torch.randn(whole.n_parameters, 3, dtype=torch.float64)
    expected = hessdiag.HessianOperator(whole, check=False) @ V
    spread = hessdiag.sharded(whole)
    with keeping(spread), mock.patch.object(kept, "ROOM", room):
        H = hessdiag.HessianOperator(spread, check=False)
        for _ in range(2):
            assert relative(H @ V, expected) < 1e-13
            assert relative(H @ V[:, 0].contiguous(), expected[:, 0]) < 1e-13


def counts(layers):
    """Products of matrices in one sharded product: with none kept, with no room, and with all kept."""
    torch.manual_seed(1)
    whole = hessdiag.Problem(
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), Chain(layers), nn.Linear(4, 3)).double(),
        data=[(torch.randn(6, 4).double(), torch.arange(6) % 3)],
        loss="ce",
    )
    spread, v = hessdiag.sharded(whole), torch.randn(whole.n_parameters, dtype=torch.float64)

    def products():
        H = hessdiag.HessianOperator(spread, check=False)
        H @ v
        with Counting() as counting:
            H @ v
        return counting.count

    many = products()
    with keeping(spread):
        some = products()
        with mock.patch.object(kept, "ROOM", 0):
            none = products()
    return many, none, some


def test_of_twelve_products_for_each_weight_eight_are_left():
    more, fewer = counts(4), counts(3)
    assert [a - b for a, b in zip(more, fewer, strict=True)] == [12, 11, 8]


def test_what_is_kept_has_an_end_and_goes_with_the_graph():
    spread = hessdiag.sharded(problem(Twice()))
    v = torch.randn(spread.n_parameters, dtype=torch.float64)
    with keeping(spread), mock.patch.object(kept, "ROOM", 1):
        H = hessdiag.HessianOperator(spread, check=False)
        H @ v
        assert 0 < sum(unit.kept() for unit in spread.units.every) <= sum(unit.bytes for unit in spread.units.every)
        del H
        assert sum(unit.kept() for unit in spread.units.every) == 0


def test_small_units_keep_nothing():
    spread = hessdiag.sharded(problem(Twice()))
    H = hessdiag.HessianOperator(spread, check=False)
    H @ torch.randn(spread.n_parameters, dtype=torch.float64)
    assert all(unit.is_cheap and not unit.kept() for unit in spread.units.every)
