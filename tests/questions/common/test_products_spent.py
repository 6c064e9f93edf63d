"""The products that a result says it took are those that were taken, whatever computed them."""

import pytest
import torch
from torch import nn

from hessdiag.curvature.gauss_newton import GaussNewtonOperator
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.operator import CurvatureOperator
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as blocks_room
from hessdiag.questions.bounds import measure as bounds_room
from hessdiag.questions.bounds import rows as bounds_rows
from hessdiag.questions.common import operators
from hessdiag.questions.diag_share import measure as share_room
from hessdiag.questions.eigs import measure as eigs_room
from hessdiag.questions.spectrum import measure as spectrum_room
from tests.once import Call, Sine

ROOMS = (blocks_room, bounds_room, share_room, eigs_room, spectrum_room)


def linear(**options):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(12, 6).double(), torch.arange(12) % 3
    return Problem(model, data=[(x[:7], y[:7]), (x[7:], y[7:])], loss="ce", **options)


def convolution():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 4)).double()
    return Problem(model, data=[(torch.randn(6, 1, 6, 6).double(), torch.arange(6) % 4)], loss="ce")


def once_differentiable():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), Call(Sine.apply), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return Problem(model, data=[(torch.randn(12, 6).double(), torch.arange(12) % 3)], loss="ce")


class _Looking(torch.autograd.Function):
    """The identity, whose derivative looks at a number: vectors that share a pass have none."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 + 0 * float(gradient.sum()))


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * _Looking.apply(gradient)


def one_at_a_time():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), Call(_Square.apply), nn.Conv1d(4, 3, 2), nn.AdaptiveAvgPool1d(1))
    model = nn.Sequential(model, nn.Flatten()).double()
    return Problem(model, data=[(torch.randn(5, 2, 6).double(), torch.arange(5) % 3)], loss="ce")


PROBLEMS = (linear, convolution, once_differentiable, one_at_a_time)
WITH_NEURONS = (linear, convolution)


@pytest.fixture
def spent(monkeypatch):
    """Vectors multiplied so far by kind of matrix, those of self-checks and of a measurement of precision left out."""
    counts = {HessianOperator: 0, CurvatureOperator: 0}
    quiet = [0]

    def counted(function, columns):
        def wrapped(self, given, *arguments):
            kind = HessianOperator if isinstance(self, HessianOperator) else CurvatureOperator
            counts[kind] += 0 if quiet[0] else columns(given)
            return uncounted(function)(self, given, *arguments)

        return wrapped

    def uncounted(function):
        def wrapped(*arguments, **options):
            quiet[0] += 1
            try:
                return function(*arguments, **options)
            finally:
                quiet[0] -= 1

        return wrapped

    product, rows = CurvatureOperator.__matmul__, HessianOperator.rows
    monkeypatch.setattr(CurvatureOperator, "__matmul__", counted(product, lambda V: 1 if V.ndim == 1 else V.shape[1]))
    monkeypatch.setattr(HessianOperator, "rows", counted(rows, len))
    for room in ROOMS:
        monkeypatch.setattr(room, "examine", uncounted(room.examine))
    monkeypatch.setattr(operators, "output_checks", uncounted(operators.output_checks))
    return counts


@pytest.mark.parametrize("make", PROBLEMS)
def test_eigenpairs(spent, monkeypatch, make):
    monkeypatch.setattr(eigs_room, "DENSE_UP_TO", 0)
    found = eigs_room.eigs(make(), lowest=2, highest=3)
    assert found.method == "lanczos"
    assert found.hvps == spent[HessianOperator] > 10  # one of them along the gradient
    assert ("one vector at a time" in found.engine) is (make is one_at_a_time)


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("operator", ["hessian", "ggn", "fisher"])
def test_quadrature(spent, monkeypatch, operator, make):
    monkeypatch.setattr(spectrum_room, "EXACT_UP_TO", 0)
    found = spectrum_room.spectrum(make(), operator=operator, probes=4, steps=12)
    assert found.method == "slq"
    kind, other = (
        (HessianOperator, CurvatureOperator) if operator == "hessian" else (CurvatureOperator, HessianOperator)
    )
    assert found.hvps == spent[kind] > 40
    assert spent[other] == 0


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("rows", ["all", 40])
def test_diagonal_share(spent, rows, make):
    found = share_room.diag_share(make(), rows=rows)
    assert found.hvps == spent[HessianOperator] > 0
    if rows == "all" and make in WITH_NEURONS:
        assert found.hvps < found.parameters, "linear layers need no product for each row"


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("largest", [10_000, 1], ids=["streamed", "sketch"])
def test_bounds(spent, monkeypatch, largest, make):
    monkeypatch.setattr(bounds_room, "DENSE_UP_TO", 1)
    monkeypatch.setattr(bounds_room, "EXACT_UP_TO", largest)
    monkeypatch.setattr(bounds_rows, "REFINED", 20)
    found = bounds_room.bounds(make())
    assert found.method == ("sketch" if largest == 1 else "exact")
    assert found.hvps == spent[HessianOperator] > 0


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("probes", [3, None], ids=["probes", "pairs"])
def test_blocks(spent, monkeypatch, probes, make):
    monkeypatch.setattr(blocks_room, "EXACT_UP_TO", 1)
    found = blocks_room.blocks(make(), probes=probes)
    assert found.hvps == spent[HessianOperator] > 0


@pytest.mark.parametrize("make", PROBLEMS)
def test_a_whole_hessian_counts_for_a_product_of_each_row(spent, make):
    """Whatever the route: in neuron space it takes fewer, elsewhere exactly these."""
    problem = make()
    n = problem.n_parameters
    found = (eigs_room.eigs(problem), bounds_room.bounds(problem), blocks_room.blocks(problem))
    density = spectrum_room.spectrum(problem)
    assert [each.hvps for each in (*found, density)] == [n] * 4
    if make in WITH_NEURONS:
        assert spent[HessianOperator] < n
    else:
        assert 4 * n <= spent[HessianOperator] <= 4 * n + 4  # one that shows that it cannot be differentiated twice
    assert spent[CurvatureOperator] == n, "columns of the Gauss-Newton matrix, for the blocks"


def test_the_counter_counts(spent):
    problem = linear()
    H, n = HessianOperator(problem), problem.n_parameters
    H @ torch.ones(n).double()
    H @ torch.ones(n, 3).double()
    H.rows(torch.arange(5))
    GaussNewtonOperator(problem) @ torch.ones(n, 2).double()
    assert (spent[HessianOperator], spent[CurvatureOperator]) == (9, 2)
