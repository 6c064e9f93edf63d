"""What sharded models cannot do ends in an error on all ranks, in words, and in no wait."""

import os

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import ComputeError
from tests.shards.forks import on_ranks
from tests.shards.sharded_cases import Joined


class Block(nn.Module):
    def __init__(self, does):
        super().__init__()
        self.a, self.does, self.runs = nn.Linear(4, 4), does, 0

    def forward(self, x, kept):
        self.runs += 1
        y = torch.tanh(self.a(x))
        if self.does == "counts":
            return y * self.runs
        if self.does == "keeps":
            kept.tensors.append(y)
        if self.does == "writes":
            kept.tensors[0].add_(1.0)
        return y


class Kept:
    def __init__(self):
        self.tensors = [torch.zeros(1)]


class Blocks(nn.Module):
    def __init__(self, does):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([Block(does), Block("nothing")]), nn.Linear(4, 3)

    def forward(self, x):
        kept = Kept()
        for block in self.blocks:
            x = block(x, kept)
        return self.head(x)


class InOrder(nn.Module):
    """Units of which each rank, or each call, begins with another."""

    def __init__(self, widths, order):
        super().__init__()
        self.parts, self.order, self.runs = nn.ModuleList([_around(width) for width in widths]), order, 0

    def forward(self, x):
        self.runs += 1
        first = int(os.environ.get("RANK", 0)) if self.order == "ranks" else self.runs % 2
        for index in (first, 1 - first):
            x = self.parts[index](x)
        return x


def _around(width):
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3))


def product(model):
    torch.manual_seed(0)
    data = [(torch.randn(4, next(model.parameters()).shape[1]).double(), torch.arange(4) % 3)]
    problem = hessdiag.sharded(hessdiag.Problem(model.double(), data=data, loss="ce"))
    H = hessdiag.HessianOperator(problem, check=False)
    return H @ torch.ones(H.spread.own, dtype=torch.float64)


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("counts", r"blocks\.0 gives other numbers when it runs again"),
        ("keeps", r"blocks\.0 keeps tensors in an object"),
        ("writes", r"blocks\.0 keeps tensors in an object"),
    ],
)
def test_what_runs_otherwise_the_second_time_is_refused(does, words):
    assert product(Blocks("nothing")).norm() > 0
    with pytest.raises(ComputeError, match=words):
        product(Blocks(does))


@pytest.mark.parametrize("widths", [(5, 5), (5, 300)])
def test_ranks_at_different_modules_end_in_an_error_on_both(widths):
    def work():
        try:
            product(InOrder(widths, "ranks"))
        except ComputeError as error:
            return {"error": str(error)}
        return {"error": "none"}

    for found in on_ranks(2, work):
        assert "the ranks are at different modules: this one is at parts." in found["error"]


def test_calls_may_run_modules_in_different_orders():
    found = on_ranks(2, lambda: product(InOrder((5, 5), "calls")))
    assert all(bool(one.isfinite().all()) for one in found)


def test_modules_that_hooks_watch_are_not_joined():
    kept = {}

    def objective(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) + kept["seen"].square().sum()

    model = Joined().double()
    model.pair.norm.register_forward_hook(lambda module, given, result: kept.update(seen=result))
    problem = hessdiag.Problem(model, data=[(torch.randn(3, 4).double(), torch.arange(3))], objective=objective)
    v = torch.randn(problem.n_parameters, dtype=torch.float64)
    spread = hessdiag.sharded(problem)
    found, whole = (hessdiag.HessianOperator(one, check=False) @ v for one in (spread, problem))
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-14)
    assert [unit.path for unit in spread.units.every if unit.is_joined] == []
