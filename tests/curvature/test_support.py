"""Rows of the Hessian that are zero for these batches: found, left out, and counted; nothing else changes."""

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.curvature import support as room
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.support import support
from hessdiag.linalg import inclusion
from hessdiag.problem.problem import Problem
from hessdiag.questions.bounds import measure as bounds_room
from hessdiag.questions.diag_share import measure as share_room
from hessdiag.questions.eigs import measure as eigs_room
from hessdiag.questions.spectrum import measure as spectrum_room
from tests.reference import brute_force_hessian


class Tokens(nn.Module):
    """A table of which few rows are looked up, under a small curved network."""

    def __init__(self, rows=60, width=3, **options):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(rows, width, **options)
        self.hidden = nn.Linear(width, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.table(ids).mean(1))))


class Tied(Tokens):
    """The table is the decoder too: all of its rows matter."""

    def forward(self, ids):
        return torch.tanh(self.table(ids).mean(1)) @ self.table.weight.T


class Twins(Tokens):
    """Two embeddings of one weight, each with its own ids."""

    def __init__(self):
        super().__init__()
        self.twin = nn.Embedding(60, 3)
        self.twin.weight = self.table.weight

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.table(ids).mean(1) * self.twin(ids + 30).sum(1))))


class Gathered(Tokens):
    """Rows by indexing, which no structure tells."""

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.table.weight[ids].mean(1))))


class Scaled(nn.Embedding):
    """A user's own embedding, which does more with ids than to look rows up."""

    def forward(self, ids):
        return super().forward(ids) * (ids != 2)[..., None]


class Own(Tokens):
    def __init__(self):
        super().__init__()
        self.table = Scaled(60, 3)


class Bag(Tokens):
    def __init__(self, mode, **options):
        super().__init__()
        self.table = nn.EmbeddingBag(60, 3, mode=mode, **options)

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.table(ids))))


class Unused(Tokens):
    """Parameters that the loss does not reach."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(20, 6)


IDS = torch.tensor([[5, 7, 2], [7, 11, 2], [2, 5, 5], [17, 11, 5]])
LATER = torch.tensor([[5, 23, 23], [24, 2, 23]])


def problem(model, *batches, classes=3):
    data = [(ids, torch.arange(len(ids)) % classes) for ids in batches or (IDS,)]
    return Problem(model.double(), data=data, loss="ce")


def words():
    """A bag of words as numbers: most inputs are zero in every sample, and columns of weights with them."""
    torch.manual_seed(0)
    x = torch.zeros(5, 80, dtype=torch.float64)
    x[:, [3, 9, 40, 77]] = torch.randn(5, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(80, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return Problem(model, data=[(x, torch.arange(5) % 2)], loss="ce")


CASES = {
    # problem, entries kept, of those left out how many are untouched
    "looked up": (lambda: problem(Tokens()), 5 * 3 + 31, 55 * 3),
    "two batches": (lambda: problem(Tokens(), IDS, LATER), 7 * 3 + 31, 53 * 3),
    "padding looked up": (lambda: problem(Tokens(padding_idx=2)), 5 * 3 + 31, 55 * 3),
    "padding not looked up": (lambda: problem(Tokens(padding_idx=1)), 5 * 3 + 31, 55 * 3),
    "twins": (lambda: problem(Twins()), 10 * 3 + 31, 50 * 3),
    "unreached": (lambda: problem(Unused()), 5 * 3 + 31, 55 * 3 + 126),
    "gathered": (lambda: problem(Gathered()), 5 * 3 + 31, 0),
    "own embedding": (lambda: problem(Own()), 4 * 3 + 31, 0),
    "words": (words, 4 * 3 + 3 + 8, 0),
}
FROZEN = ("padding looked up",)  # a row that the function uses, and autograd takes for a constant


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_is_zero_and_the_rest_is_the_hessian(name):
    make, size, untouched = CASES[name]
    whole = make()
    part = support(whole, 20)
    assert (part.size, part.untouched) == (size, untouched)
    assert part.zeros == whole.n_parameters - size
    H = hessdiag.hessian(whole) if name in FROZEN else brute_force_hessian(make())
    kept = part.kept
    left = torch.ones(len(H), dtype=torch.bool)
    left[kept] = False
    assert not H[left].any()
    assert torch.equal(kept, kept.unique())
    torch.testing.assert_close(part.dense(HessianOperator(part.problem)), H[kept][:, kept], rtol=1e-9, atol=1e-12)
    products = part.restrict(hessdiag.HessianOperator(part.problem), together=2)
    V = torch.randn(size, 5, dtype=torch.float64)
    torch.testing.assert_close(products @ V, H[kept][:, kept] @ V, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(products @ V[:, 0], H[kept][:, kept] @ V[:, 0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode):
    """Their products are differences where torch has no second derivative: the part's as much as the whole's."""
    whole = problem(Bag(mode))
    part = support(whole, 20)
    assert (part.size, part.untouched) == (5 * 3 + 31, 55 * 3)
    plain = Tokens()
    plain.load_state_dict(whole.model.state_dict())
    joined = {"sum": lambda e: e.sum(1), "mean": lambda e: e.mean(1), "max": lambda e: e.amax(1)}[mode]
    plain.forward = lambda ids: plain.out(torch.tanh(plain.hidden(joined(plain.table(ids)))))
    H = hessdiag.hessian(problem(plain))
    torch.testing.assert_close(
        part.dense(HessianOperator(part.problem)), H[part.kept][:, part.kept], rtol=1e-6, atol=1e-8
    )


def test_tables_that_are_needed_as_a_whole_stay_whole():
    assert set(range(180)) <= set(support(problem(Tied()), 20).kept.tolist())
    assert support(problem(Tokens(max_norm=0.5)), 20).untouched == 0, "a lookup changes its rows"


def test_the_model_is_as_it_was():
    model = Unused()
    whole = problem(model)
    before = {name: (id(value), value.clone()) for name, value in model.named_parameters()}
    part = support(whole, 20)
    assert part.problem.model is not model
    assert type(model.table) is nn.Embedding
    assert model.table.num_embeddings == 60
    for name, value in model.named_parameters():
        assert (id(value), value.requires_grad) == (before[name][0], True)
        assert torch.equal(value, before[name][1])


def test_ids_that_no_batch_held_are_an_error_and_no_other_row():
    part = support(problem(Tokens()), 20)
    with pytest.raises(IndexError, match="no batch looked up"):
        part.problem.model(torch.tensor([[1, 5, 5]]))


def test_structure_that_misleads_is_found_out():
    """Were a row left out that matters, gradient and product would tell."""
    whole = problem(Tokens())
    honest = room.touched(whole, 0.1)
    lying = problem(Tokens(), IDS[:3])  # which lacks id 17
    part = room.touched(lying, 0.1)
    assert not room._agrees(whole, part.problem, part.kept, 0)
    assert room._agrees(whole, honest.problem, honest.kept, 0)


def test_rows_that_vanish_by_chance_are_kept():
    """Zero gradient at a saddle of rows that do curve: no row is left out that is not zero."""
    model = nn.Linear(40, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    square = Problem(model, data=[None], objective=lambda model, batch: (model.weight[0, :30] ** 2).sum())
    part = support(square, 10)
    assert part.kept.tolist() == list(range(30))


def test_a_vector_of_their_own_proves_that_rows_vanish(monkeypatch):
    """The vectors that look for rows are blind to some of them here, as they are to what cancels by luck."""
    model = nn.Linear(40, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    square = Problem(model, data=[None], objective=lambda model, batch: (model.weight**2).sum())
    drawn = room._random

    def blind(count, operator, seed):
        vectors = drawn(count, operator, seed)
        vectors[30:] *= seed >= room.PROBES
        return vectors

    monkeypatch.setattr(room, "_random", blind)
    assert (support(square, 10).size, support(square, 10).zeros) == (40, 0)


def test_where_all_rows_vanish_none_is_left_out():
    model = nn.Linear(40, 1, bias=False).double()
    flat = Problem(model, data=[None], objective=lambda model, batch: (0 * model.weight).sum())
    assert (support(flat, 10).size, support(flat, 10).zeros) == (40, 0)


def test_ordinary_problems_stay_as_they_are():
    torch.manual_seed(0)
    dense = Problem(nn.Linear(30, 2), data=[(torch.randn(4, 30), torch.randn(4, 2))], loss="mse")
    part = support(dense, 10)
    assert part.problem is dense
    assert (part.zeros, part.size) == (0, 62)
    small = problem(Tokens())
    assert support(small, 10_000).problem is small


@pytest.mark.parametrize("name", ["looked up", "gathered", "two batches", "unreached"])
@pytest.mark.parametrize("beyond", [0, 100], ids=["lanczos", "exact"])
def test_eigenpairs_are_those_of_the_whole(monkeypatch, name, beyond):
    make = CASES[name][0]
    monkeypatch.setattr(eigs_room, "DENSE_UP_TO", beyond)
    H = brute_force_hessian(make())
    values = torch.linalg.eigvalsh(H)
    negative = int((values < -1e-9).sum())
    low, high = negative + 3, 4
    found = hessdiag.eigs(make(), lowest=low, highest=high, tol=1e-9)
    assert found.status == "ok"
    assert found.method == ("exact" if beyond else "lanczos")
    assert found.zero_rows == len(H) - CASES[name][1]
    assert [pair.eigenvalue for pair in found.lowest] == pytest.approx(values[:low].tolist(), abs=1e-9)
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx(values[-high:].tolist(), abs=1e-9)
    V, thetas = found.vectors, torch.tensor([pair.eigenvalue for pair in (*found.lowest, *found.highest)])
    torch.testing.assert_close(V.T @ V, torch.eye(low + high).double(), rtol=0, atol=1e-7)
    assert float((H @ V - V * thetas).norm(dim=0).max()) < 1e-7
    for pair, v in zip((*found.lowest, *found.highest), V.T, strict=True):
        weights = [float(v[s.start : s.stop].square().sum()) for s in make().layer_slices]
        assert pair.layer_weights == pytest.approx(weights, abs=1e-9)
    if beyond:
        assert (found.inertia.positive, found.inertia.negative) == (int((values > 1e-9).sum()), negative)
        assert sum((found.inertia.positive, found.inertia.negative, found.inertia.zero)) == len(H)
    said = " ".join(finding.says for finding in found.findings)
    assert ("are not touched by these batches" in said) is (name != "gathered")
    assert ("rows are exactly zero" in said) is (name == "gathered")


def test_a_definite_part_has_zeros_below(monkeypatch):
    """All eigenvalues of the part are positive: the lowest ones of the whole are its zeros."""
    monkeypatch.setattr(eigs_room, "DENSE_UP_TO", 20)
    model = nn.Embedding(60, 1).double()
    square = Problem(model, data=[IDS], objective=lambda model, ids: (model(ids) ** 2).sum())
    found = hessdiag.eigs(square, lowest=2, highest=2)
    assert [pair.eigenvalue for pair in found.lowest] == [0, 0]
    assert [pair.eigenvalue for pair in found.highest] == pytest.approx([6, 8])
    assert (found.inertia.positive, found.inertia.negative, found.inertia.zero) == (5, 0, 55)
    assert not found.negative_certificate.certain


@pytest.mark.parametrize("name", ["looked up", "gathered", "unreached"])
def test_an_exact_spectrum_is_that_of_the_whole(monkeypatch, name):
    make = CASES[name][0]
    whole = hessdiag.spectrum(make())
    assert whole.zero_rows == 0
    monkeypatch.setattr(spectrum_room, "EXACT_UP_TO", 100)
    found = hessdiag.spectrum(make())
    assert (found.method, found.parameters) == ("exact", whole.parameters)
    assert found.zero_rows == whole.parameters - CASES[name][1]
    for key in ("trace", "frobenius", "lowest", "highest", "negative_fraction", "negative_mass", "near_zero_fraction"):
        assert getattr(found, key) == pytest.approx(getattr(whole, key), rel=1e-9, abs=1e-12), key
    assert found.inertia.zero == whole.inertia.zero
    assert found.condition == pytest.approx(whole.condition, rel=1e-6)
    assert [m.value for m in found.moments] == pytest.approx([m.value for m in whole.moments], rel=1e-9)
    grid = np.array(found.density.grid)
    assert np.trapezoid(found.density.values, grid) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_sampled_spectrum_is_that_of_the_whole_within_its_errors(monkeypatch, seed):
    make = CASES["looked up"][0]
    values = torch.linalg.eigvalsh(brute_force_hessian(make())).numpy()
    monkeypatch.setattr(spectrum_room, "EXACT_UP_TO", 0)
    found = hessdiag.spectrum(make(), probes=6, steps=30, seed=seed)
    assert (found.method, found.parameters, found.zero_rows) == ("slq", 211, 165)
    assert abs(found.trace - values.sum()) <= 5 * found.trace_stderr + 1e-9
    for moment in found.moments:
        assert abs(moment.value - np.mean(values**moment.order)) <= 5 * moment.stderr + 1e-9
    low, high = found.negative_fraction_bounds
    assert low - 0.02 <= (values < -1e-9).mean() <= high + 0.02
    assert high <= 46 / 211 + 1e-12, "no zero row can be negative"
    assert found.near_zero_fraction > 165 / 211


@pytest.mark.parametrize("name", ["looked up", "unreached"])
def test_bounds_hold_the_zeros_too(monkeypatch, name):
    make = CASES[name][0]
    H = brute_force_hessian(make())
    diagonal, radii = inclusion.radii(H)
    monkeypatch.setattr(bounds_room, "DENSE_UP_TO", 100)
    found = hessdiag.bounds(make())
    assert found.zero_rows == len(H) - CASES[name][1]
    assert found.gershgorin == pytest.approx(inclusion.discs(diagonal, radii), rel=1e-9)
    assert found.brauer == pytest.approx(inclusion.brauer(diagonal, radii), rel=1e-9)
    assert sum(part.count for part in found.components) == len(H)
    expected = inclusion.components(diagonal, radii)
    assert [part.count for part in found.components] == [part.count for part in expected]
    values = torch.linalg.eigvalsh(H)
    assert found.measured == pytest.approx((float(values[0]), float(values[-1])), rel=1e-6)
    for ends in (found.perron, found.block_norm, found.feingold_varga, found.frobenius):
        assert ends[0] <= float(values[0]) + 1e-12
        assert ends[1] >= float(values[-1]) - 1e-12


@pytest.mark.parametrize("name", ["looked up", "unreached"])
def test_an_exact_share_is_that_of_the_whole(monkeypatch, name):
    make = CASES[name][0]
    H = brute_force_hessian(make())
    monkeypatch.setattr(share_room, "EXACT_UP_TO", 100)
    found = hessdiag.diag_share(make())
    assert (found.method, found.parameters, found.untouched) == ("exact", len(H), len(H) - CASES[name][1])
    assert found.diag_share == pytest.approx(float(H.diagonal().abs().sum() / H.abs().sum()), rel=1e-9)
    assert found.trace == pytest.approx(float(H.trace()), rel=1e-9)
    assert found.zero_rows == pytest.approx(float((H.abs().sum(1) == 0).double().mean()))
    assert found.negative_diagonal_fraction == pytest.approx(float((H.diagonal() < 0).double().mean()))
    assert found.baselines.d == len(H)
    layers = {layer.name: layer for layer in make().layer_slices}
    assert [layer.name for layer in found.layers] == [layer.name for layer in make().executed_layers]
    for layer in found.layers:
        where = slice(layers[layer.name].start, layers[layer.name].stop)
        block = H[where, where].abs()
        assert layer.parameters == len(block)
        assert layer.abs_sum == pytest.approx(float(block.sum()), rel=1e-9)
        if block.any():
            assert layer.diag_share == pytest.approx(float(block.diagonal().sum() / block.sum()), rel=1e-9)
    low = float(torch.linalg.eigvalsh(H)[0])
    assert found.negative_certificate.bound >= low - 1e-12
    said = " ".join(finding.says for finding in found.findings)
    assert f"of {len(H)} parameters are not touched by these batches" in said


@pytest.mark.parametrize("seed", range(3))
def test_a_sampled_share_is_that_of_the_whole_within_its_error(monkeypatch, seed):
    make = CASES["looked up"][0]
    H = brute_force_hessian(make())
    monkeypatch.setattr(share_room, "EXACT_UP_TO", 10)
    found = hessdiag.diag_share(make(), rows=30, seed=seed)
    assert (found.method, found.parameters) == ("rows", 211)
    assert 30 <= found.rows < 46
    assert abs(found.diag_share - float(H.diagonal().abs().sum() / H.abs().sum())) < 5 * found.diag_share_stderr
    assert found.zero_rows == pytest.approx(165 / 211)
    assert found.abs_sum == pytest.approx(float(H.abs().sum()), rel=0.5)
