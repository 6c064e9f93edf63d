"""Models that could make sharded products silently wrong: units that write, keep and hand on what no graph passes by."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import hessdiag
from hessdiag.errors import LoadError


@dataclass(frozen=True)
class Out:
    value: Tensor
    earlier: tuple[Tensor, ...]


class Carrier:
    """What no tree can be made of."""

    def __init__(self, value):
        self.value = value


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("count", torch.ones(()))
        self.register_buffer("level", torch.zeros(4))

    def step(self, x):
        return torch.tanh(self.inner(x))


class HandsOnADataclass(Block):
    def forward(self, out):
        return Out(out.value + self.step(out.value), (*out.earlier, out.value))


class HandsOnAnObject(Block):
    def forward(self, x):
        return Carrier(self.step(x.value if isinstance(x, Carrier) else x))


class Appends(Block):
    def forward(self, x, store):
        store.append(self.inner(x).square().mean())
        return self.step(x)


class WritesToADict(Block):
    def forward(self, x, store):
        store["sum"] = store.get("sum", 0) + self.inner(x).square().mean()
        return self.step(x)


class Counts(Block):
    def forward(self, x):
        self.count += 1
        self.level = 0.9 * self.level + 0.1 * x.detach().mean(0)  # another tensor takes its place
        return self.step(x - self.level) * self.count


class Turns(Block):
    def forward(self, x):
        return torch.polar(self.step(x.abs()), self.inner(x.abs()))


class Drops(Block):
    def forward(self, x):
        return F.dropout(self.step(x), 0.5, training=True)


class LeavesBehind(Block):
    def forward(self, x):
        self.last = self.step(x)
        return self.last


class Model(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.blocks, self.head = nn.ModuleList([kind(), kind()]), nn.Linear(4, 3)

    def forward(self, x):
        store = {WritesToADict: {}, Appends: []}.get(type(self.blocks[0]))
        x = Out(x, ()) if isinstance(self.blocks[0], HandsOnADataclass) else x
        for block in self.blocks:
            x = block(x) if store is None else block(x, store)
        if isinstance(x, (Out, Carrier)):
            x = x.value + sum(getattr(x, "earlier", ()))
        found = self.head(x.real + x.imag if x.is_complex() else x)
        return found if store is None else found + sum(store.values() if isinstance(store, dict) else store)


KINDS = (HandsOnADataclass, HandsOnAnObject, Appends, WritesToADict, Counts, Turns, LeavesBehind)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_the_whole(kind):
    torch.manual_seed(0)
    model = Model(kind).double()
    data = [(torch.randn(n, 4).double(), torch.arange(n) % 3) for n in (5, 3)]
    problem = hessdiag.Problem(model, data=data, loss="ce")
    whole = hessdiag.HessianOperator(problem, check=False)
    spread = hessdiag.HessianOperator(hessdiag.sharded(problem), check=False)
    V = torch.randn(problem.n_parameters, 2, dtype=torch.float64)
    product, scale = whole @ V, (whole @ V).norm()
    assert spread.problem.value() == pytest.approx(problem.value(), rel=1e-12)
    torch.testing.assert_close(spread.gradient(), whole.gradient(), rtol=1e-9, atol=1e-12)
    for _ in range(2):
        assert float((spread @ V - product).norm() / scale) < 1e-9


def test_random_numbers_in_the_forward_pass_are_refused():
    data = [(torch.randn(5, 4).double(), torch.arange(5) % 3)]
    with pytest.raises(LoadError, match="draws random numbers"):
        hessdiag.sharded(hessdiag.Problem(Model(Drops).double(), data=data, loss="ce", one_draw=True))
