"""The streamed statistics and the dense matrix of neuron space against products, and when it must give way."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from hessdiag.curvature import exact
from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError, batched_or_refuse, neuron_layers
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from tests.reference import brute_force_hessian


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def _classes(n, k=3):
    return torch.arange(n) % k


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.c(h + torch.nn.functional.softplus(self.b(h)) * x)


def _frozen_bias():
    model = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 3)).double()
    model[0].bias.requires_grad_(False)
    return model


CASES = {
    "tanh": lambda: Problem(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double(), data=[(_x(7, 4), _classes(7))], loss="ce"),
    "relu, no bias": lambda: Problem(nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)).double(), data=[(_x(7, 4), _x(7, 2))], loss="mse"),
    "several batches": lambda: Problem(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double(), data=[(_x(7, 4), _classes(7)), (_x(2, 4), _classes(2))], loss="ce"),
    "residual and product": lambda: Problem(Residual().double(), data=[(_x(7, 4), _classes(7))], loss="ce"),
    "convolution and norm": lambda: Problem(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 4)).double(), data=[(_x(5, 1, 4, 4), _classes(5, 4))], loss="ce"),
    "frozen bias": lambda: Problem(_frozen_bias(), data=[(_x(7, 3), _classes(7))], loss="ce"),
    "dropout, one mask": lambda: Problem(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 2)).double(), data=[(_x(7, 4), _x(7, 2))], loss="mse", train_mode=True),
    "batch norm, eval": lambda: Problem(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double(), data=[(_x(7, 4), _x(7, 2))], loss="mse"),
    "one layer": lambda: Problem(nn.Linear(4, 3).double(), data=[(_x(7, 4), _classes(7))], loss="ce"),
    "a layer frozen": lambda: Problem(nn.Sequential(nn.Linear(4, 6).requires_grad_(False), nn.Tanh(), nn.Linear(6, 3)).double(), data=[(_x(7, 4), _classes(7))], loss="ce"),
}  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("room", [2**19, 40], ids=["whole", "in small panels"])
@pytest.mark.parametrize("name", CASES)
def test_dense_and_statistics(name, room, device, monkeypatch):
    """On the CPU, by the ways of both devices."""
    ways = capacity.of(torch.device(device))
    monkeypatch.setattr(capacity, "CPU", replace(ways, panel_numbers=room))
    problem = CASES[name]()
    operator = HessianOperator(problem)
    space = exact.neuron_space(operator)
    H = (operator @ torch.eye(problem.n_parameters, dtype=torch.float64)).T
    if not problem.train_mode:
        torch.testing.assert_close(H, brute_force_hessian(problem), rtol=1e-9, atol=1e-12)
    scale = float(H.abs().max())
    assert float((exact.dense(operator) - H).abs().max()) < 1e-12 * scale
    found = exact.row_statistics(operator, space)
    sums = torch.stack([H[:, layer.start : layer.stop].abs().sum(1) for layer in problem.layer_slices], dim=1)
    torch.testing.assert_close(found.diagonal, H.diagonal(), rtol=1e-10, atol=1e-12 * scale)
    torch.testing.assert_close(found.sums, sums, rtol=1e-10, atol=1e-11 * scale)
    assert found.certificate < 1e-10


def test_few_tangents_stand_for_many_parameters():
    problem = CASES["convolution and norm"]()
    operator = HessianOperator(problem)
    found = exact.row_statistics(operator, exact.neuron_space(operator))
    convolution_and_norm = 3 * 9 + 3 + 6 + 6
    assert found.products == convolution_and_norm + 2 * 2 < problem.n_parameters


class Mixing(nn.Module):
    """Subtracts the mean over the batch: samples are no longer independent."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.a(x)
        return self.b(torch.tanh(h - h.mean(0)))


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.a(torch.tanh(self.a(x)))


class Peeking(nn.Module):
    """Uses a linear layer's weight outside of the layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.a(x) * self.a.weight.square().sum()


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.float32, 1e-30), (torch.float32, 1e25), (torch.float64, 1e-170), (torch.float64, 1e160)]
)
def test_gives_way_at_any_size(dtype, size):
    x = _x(6, 3).to(dtype)
    problem = Problem(Mixing().to(dtype), data=[x], objective=lambda m, x: m(x).square().mean() * size)
    for through in (exact.neuron_space, exact.dense):
        with pytest.raises(NotInNeuronSpaceError, match="mixes samples"):
            through(HessianOperator(problem))


@pytest.mark.parametrize(
    ("model", "shape", "train", "match"),
    [
        (Mixing(), (6, 3), False, "mixes samples"),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (6, 3), True, "mixes samples"),
        (Reused(), (6, 3), False, "more than once"),
        (Peeking(), (6, 3), False, "mixes samples"),
        (nn.Sequential(nn.Linear(3, 2)), (6, 5, 3), False, "one vector per sample"),
        (nn.Conv1d(3, 2, 1), (6, 3, 4), False, "no linear layer"),
    ],
    ids=["batch mean", "batch norm", "reused", "peeking", "sequence", "none"],
)
def test_gives_way(model, shape, train, match):
    model = model.double()
    problem = Problem(
        model, data=[(_x(*shape), None)], objective=lambda m, b: m(b[0]).square().mean(), train_mode=train
    )
    for through in (exact.neuron_space, exact.dense):
        with pytest.raises(NotInNeuronSpaceError, match=match):
            through(HessianOperator(problem))
    if not train:
        torch.testing.assert_close(hessian(problem), brute_force_hessian(problem), rtol=1e-9, atol=1e-12)


def test_the_check_by_a_random_product_is_the_same_every_time():
    """And leaves the global random state alone, which dropout and the shuffling of batches use."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    problem = CASES["tanh"]()
    torch.manual_seed(7)
    hessian(problem)
    assert torch.equal(torch.rand(3), expected)


def test_tied_and_unreached_layers_are_left_to_products():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))

    problem = Problem(Tied().double(), data=[(_x(6, 3), _x(6, 3))], loss="mse")
    assert [neuron.layer.name for neuron in neuron_layers(problem)] == ["c"]
    operator = HessianOperator(problem)
    torch.testing.assert_close(exact.dense(operator), brute_force_hessian(problem), rtol=1e-9, atol=1e-12)


def test_batches_of_one_sample_agree_with_one_batch():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = _x(5, 3), _x(5, 2)
    whole, parts = (
        Problem(model, data=data, loss="mse") for data in ([(x, y)], [(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    )
    panels = [
        {(p.rows.start, p.columns.start): p.block.clone() for p in NeuronSpace(problem).panels()}
        for problem in (whole, parts)
    ]
    assert panels[0].keys() == panels[1].keys()
    for key, block in panels[0].items():
        torch.testing.assert_close(block, panels[1][key], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["convolution and norm", "tanh"])
def test_rows_that_an_interrupt_left_whole_are_whole(name, monkeypatch):
    """After every step: what is not called missing is the row of the true Hessian, and its end leaves nothing out."""
    monkeypatch.setattr("hessdiag.curvature.neuron_space.TANGENT_NUMBERS", 600)
    problem = CASES[name]()
    operator = HessianOperator(problem)
    operator.chunk = 8
    space = exact.neuron_space(operator)
    H = (operator @ torch.eye(problem.n_parameters, dtype=torch.float64)).T
    sums = torch.stack([H[:, layer.start : layer.stop].abs().sum(1) for layer in problem.layer_slices], dim=1)
    seen = []
    for most in range(1, 200):
        left = [most]

        def advance(rows, left=left):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        try:
            found = exact.row_statistics(operator, space, advance)
        except KeyboardInterrupt:
            continue
        whole = torch.ones(problem.n_parameters, dtype=torch.bool)
        whole[found.missing] = False
        torch.testing.assert_close(found.diagonal[whole], H.diagonal()[whole], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.sums[whole], sums[whole], rtol=1e-9, atol=1e-10)
        seen.append(int(whole.sum()))
        if not math.isnan(found.certificate):
            break
    assert seen == sorted(seen)
    assert seen[-1] == problem.n_parameters
    assert len(set(seen)) > 2


def test_an_error_without_a_message_is_a_reason_too(monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("hessdiag.curvature.neuron_layers.batched_grad", fail)
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(NotInNeuronSpaceError, match="cannot be batched: RuntimeError"):
        batched_or_refuse([x * x], [x], [torch.ones(1, 2)])


@pytest.mark.parametrize("name", ["convolution and norm", "batch norm in training mode"])
def test_the_matrix_comes_where_it_is_asked_for(name):
    """By neuron space and by products alike: what was there before does not matter, and is not kept in part."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)).double()
    batch_norm = Problem(model, data=[(_x(7, 4), _x(7, 2))], loss="mse", train_mode=True)
    problem = batch_norm if name not in CASES else CASES[name]()
    n = problem.n_parameters
    wider = torch.full((n, n + 3), torch.nan, dtype=torch.float64)
    out = wider[:, 1 : n + 1]
    assert hessian(problem, out=out) is out
    torch.testing.assert_close(out, brute_force_hessian(problem), rtol=1e-9, atol=1e-12)
    assert bool(wider[:, [0, n + 1, n + 2]].isnan().all())


@pytest.mark.parametrize(
    "out", [torch.empty(15, 14).double(), torch.empty(15, 15), torch.empty(15, 15, requires_grad=True).double()]
)
def test_memory_that_does_not_fit_is_refused(out):
    with pytest.raises(ValueError, match=r"out has to be \(15, 15\), torch.float64, on cpu"):
        hessian(CASES["one layer"](), out=out)
