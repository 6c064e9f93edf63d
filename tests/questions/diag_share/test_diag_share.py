import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.errors import SpecError
from hessdiag.machine import capacity
from hessdiag.problem.problem import Problem
from hessdiag.questions.diag_share import measure as module
from hessdiag.questions.diag_share.measure import diag_share
from hessdiag.questions.diag_share.view import view
from hessdiag.theory.wigner_ols import wigner_share_mean
from tests.curvature.test_hessian import CASES
from tests.questions.diag_share.share_problems import by_products, few_heavy_neurons, narrow, pixels
from tests.reference import brute_force_hessian, cosine_problem, net_a, numbers, quadratic, share


def _mat_1():
    return quadratic(
        torch.tensor([[4, 1, 0, -0.5], [1, -2, 0.3, 0], [0, 0.3, 1, 0.2], [-0.5, 0, 0.2, 7]], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("make", "value", "abs_sum", "trace"),
    [
        (net_a, 27 / 201, 201, 27),
        (_mat_1, 0.777778, 18, 10),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "relu"), 0.0938497, 98.7368, 9.26641),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "linear"), 0.0576442, None, 23.6765),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "tanh"), 0.0595032, None, 5.94258),
        (lambda: cosine_problem([3, 4, 3, 2], 5, "relu", classes=True), 0.0903752, None, 2.62509),
        (lambda: cosine_problem([2, 3, 3, 3, 1], 4, "relu"), 0.0838814, None, 2.40309),
    ],
    ids=["NET-A", "MAT-1", "NET-B relu", "NET-B linear", "NET-B tanh", "NET-B ce", "NET-C"],
)
def test_known_networks(make, value, abs_sum, trace):
    found = diag_share(make())
    assert found.diag_share == pytest.approx(value, rel=6e-6)
    assert found.trace == pytest.approx(trace, rel=6e-6)
    if abs_sum is not None:
        assert found.abs_sum == pytest.approx(abs_sum, rel=6e-6)


def test_known_network_by_hand():
    H = torch.tensor([[1, -1, -2, 2, -11, 4], [-1, 1, 2, -2, 11, -4], [-2, 2, 4, -4, 2, -18], [2, -2, -4, 4, -2, 18], [-11, 11, 2, -2, 1, -4], [4, -4, -18, 18, -4, 16]])  # fmt: skip
    torch.testing.assert_close(hessian(net_a()), H.double())
    found = diag_share(net_a())
    assert found.layer_block_share == pytest.approx((36 + 25) / 201)
    assert [layer.diag_share for layer in found.layers] == pytest.approx([10 / 36, 17 / 25])
    assert found.layer_block_matrix[0][1] == pytest.approx(70 / 201)


@pytest.mark.parametrize("name", CASES)
def test_exact_share_matches_brute_force(name):
    problem = CASES[name]()
    H = brute_force_hessian(problem)
    found = diag_share(problem)
    assert found.method == "exact"
    assert found.status == "ok"
    assert found.diag_share == pytest.approx(share(H), rel=1e-9)
    layers = problem.layer_slices
    blocks = [[float(H[a.start : a.stop, b.start : b.stop].abs().sum()) for b in layers] for a in layers]
    np.testing.assert_allclose(found.layer_block_matrix, np.array(blocks) / np.sum(blocks), rtol=1e-9, atol=1e-12)
    for layer, entry in zip(layers, found.layers, strict=True):
        block = H[layer.start : layer.stop, layer.start : layer.stop]
        if float(block.abs().sum()):
            assert entry.diag_share == pytest.approx(share(block), rel=1e-9)
        else:
            assert math.isnan(entry.diag_share)
    assert found.zero_rows == pytest.approx(float((H.abs().sum(1) == 0).double().mean()))
    assert found.negative_diagonal_fraction == pytest.approx(float((H.diagonal() < 0).double().mean()))


@pytest.mark.parametrize("certain", [True, False])
def test_negative_entries_of_rounding_prove_nothing(certain):
    """A piecewise-linear network with cross-entropy has no negative H_ii, whatever float32 makes of it."""
    middle = nn.Tanh() if certain else nn.ReLU()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 40), middle, nn.Linear(40, 40), middle, nn.Linear(40, 2))
    x, y = torch.randn(64, 10), torch.arange(64) % 2
    with torch.no_grad():
        model[4].weight += 30  # the same for both classes: it cancels, and leaves rounding
    found = diag_share(Problem(model, data=[(x, y)], loss="ce"))
    assert found.negative_diagonal_fraction > 0
    assert ("certain" in " ".join(finding.says for finding in found.findings)) == certain
    if certain:
        H = brute_force_hessian(Problem(model.double(), data=[(x.double(), y)], loss="ce"))
        worst = H.diagonal().argmin()
        assert found.negative_entry == pytest.approx(float(H[worst, worst] / H[worst].abs().sum()), rel=1e-6)
    else:
        assert found.negative_entry > -1e-12


def test_rows_that_vanish_but_for_rounding_hide_no_negative_entry():
    """The loss does not depend on the bias of an attention's keys: beside such a row, any rounding is large."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(4, 1, batch_first=True)

        def forward(self, x):
            return self.attend(x, x, x)[0].sum(1)

    torch.manual_seed(0)
    model, x, y = Attention(), torch.randn(4, 3, 4), torch.arange(4)
    with torch.no_grad():
        model.attend.in_proj_weight *= 3
    found = diag_share(Problem(model, data=[(x, y)], loss="ce"))
    H = brute_force_hessian(Problem(model.double(), data=[(x.double(), y)], loss="ce"))
    worst = H.diagonal().argmin()
    assert H[worst, worst] < -1e-4
    assert found.negative_entry == pytest.approx(float(H[worst, worst] / H[worst].abs().sum()), rel=1e-5)


def test_interval_covers_the_exact_value():
    problem = pixels()
    truth = diag_share(problem, rows="all")
    inside = layers_inside = 0
    for seed in range(100):
        found = diag_share(problem, rows=70, seed=seed)
        low, high = found.diag_share_interval
        inside += low <= truth.diag_share <= high
        layers_inside += abs(found.layer_block_share - truth.layer_block_share) < 3 * found.layer_block_share_stderr
    assert found.method == "rows"
    assert found.rows == 70 < truth.rows == 520
    assert inside >= 90
    assert layers_inside >= 95
    assert found.zero_rows == pytest.approx(truth.zero_rows)


def test_few_rows_are_shared_by_merged_strata():
    """24 tensors and 40 rows: exactly 40, and it is said which tensors were taken together, here and on the page."""
    problem = narrow()
    found = diag_share(problem, rows=40)
    names = [name for name, _ in problem.named_parameters]
    merged = [name for part in found.merged_strata for name in part]
    assert found.rows == 40
    assert len(set(merged)) == len(merged) > 10
    assert set(merged) <= set(names)
    assert {"22.weight", "22.bias"} in [set(part) for part in found.merged_strata]  # of one layer
    facts = {fact.name: fact for fact in view(found).facts}
    assert facts["strata merged"].value == f"{len(merged)} tensors in {len(found.merged_strata)}"
    assert "22.weight + 22.bias" in facts["strata merged"].meaning
    plenty = diag_share(problem, rows=400)
    assert (plenty.rows, plenty.merged_strata) == (400, ())
    assert diag_share(problem, rows=5000).rows == problem.n_parameters
    for rows in (1, 2, 7):
        few = diag_share(problem, rows=rows)
        assert few.rows == rows
        assert [layer.diag_share is None for layer in few.layers].count(True) >= 12 - rows


def test_rows_that_vanish_fill_a_sample_only_where_no_others_are_left():
    problem = pixels()
    alive = diag_share(problem, rows="all")
    zero = round(alive.zero_rows * 520)
    found = diag_share(problem, rows=520 - zero + 5)
    assert found.rows == 520 - zero + 5
    assert found.diag_share == pytest.approx(alive.diag_share, rel=1e-10)
    assert found.zero_rows == pytest.approx(alive.zero_rows)


def test_more_rows_narrow_the_interval():
    problem = pixels()
    widths = [np.diff(diag_share(problem, rows=rows, seed=1).diag_share_interval)[0] for rows in (60, 240)]
    assert widths[1] < widths[0] / 1.5


def test_same_seed_same_bits():
    problem = pixels()
    first, second = (diag_share(problem, rows=60, seed=7) for _ in range(2))
    assert numbers(first) == numbers(second)
    assert diag_share(problem, rows=60, seed=8).diag_share != first.diag_share


def test_products_and_neuron_space_agree(monkeypatch):
    problem = pixels()
    fast = numbers(diag_share(problem))
    by_products(monkeypatch)
    slow = numbers(diag_share(problem))
    assert "told so by a test" in slow["engine"]
    assert fast["hvps"] < slow["hvps"] == problem.n_parameters
    for key in ("diag_share", "abs_diag_sum", "abs_sum", "trace", "negative_diagonal_fraction", "zero_rows"):
        assert fast[key] == pytest.approx(slow[key], rel=1e-10), key


def test_an_error_that_nothing_is_known_of_is_not_given():
    """Two rows."""
    found = diag_share(few_heavy_neurons(), rows=2)
    assert (found.diag_share_interval, found.diag_share_stderr) == ((0.0, 1.0), None)
    assert "how far off is unknown" in view(found).headline[1]
    assert "unknown" not in view(diag_share(few_heavy_neurons(), rows=60)).headline[1]


def test_many_parameters_are_sampled_by_default(monkeypatch):
    monkeypatch.setattr(module, "EXACT_WORK", 100.0)
    monkeypatch.setattr(module, "SAMPLED_ROWS", 80)
    assert diag_share(pixels()).method == "rows"
    monkeypatch.setattr(capacity, "CPU", replace(capacity.CPU, times_work=10**6))  # as of a faster device
    assert diag_share(pixels()).method == "exact"


def test_baselines():
    problem = pixels()
    base = diag_share(problem, rows=60).baselines
    n, d = 40, 520
    x = problem.data[0][0].numpy()
    assert base.wigner == 1 / d
    assert base.ols_clt == pytest.approx(1 / (1 + (d - 1) * math.sqrt(2 / (math.pi * n))))
    assert base.ols_clt_outputs == pytest.approx(1 / (1 + (d - 1) * math.sqrt(2 / (math.pi * n * 4))))
    assert base.ols_data == pytest.approx(np.trace(x.T @ x) / np.abs(x.T @ x).sum())
    assert base.ols_data < base.ols_columns * 1.2
    assert base.ols_columns < 0.8 * base.ols_data_gaussian


def test_verdict_says_what_matters():
    says = " ".join(finding.says + finding.because for finding in diag_share(pixels()).findings)
    assert "not centred" in says
    assert "rows are entirely zero" in says
    assert "Blocks within layers" in says


def test_hollow_hessian_is_called_indefinite():
    n = 12
    hollow = torch.ones(n, n).double() - 0.98 * torch.eye(n).double()
    first = diag_share(quadratic(hollow)).findings[0]
    assert first.level == "note"
    assert "hollow" in first.says
    assert "negative eigenvalues" in first.because


def test_dead_network_is_not_a_number():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).double()
    model[0].weight.data = -model[0].weight.data.abs()
    found = diag_share(Problem(model, data=[(torch.rand(5, 3).double(), torch.randn(5, 2).double())], loss="mse"))
    assert math.isnan(found.diag_share)
    assert found.zero_rows == 1.0
    assert found.findings[0].level == "bad"
    sampled = diag_share(
        Problem(model, data=[(torch.rand(5, 3).double(), torch.randn(5, 2).double())], loss="mse"), rows=5
    )
    assert math.isnan(sampled.diag_share)
    assert sampled.zero_rows == 1.0


@pytest.mark.parametrize("rows", [None, 20])
def test_a_dead_layer_comes_first_in_the_verdict(rows):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    model[2].bias.data.fill_(-100.0)
    data = [(torch.randn(16, 6).double(), torch.randn(16, 3).double())]
    found = diag_share(Problem(model, data=data, loss="mse"), rows=rows)
    assert found.findings[0].level == "bad"
    assert found.findings[0].says.startswith("2 of 3 layers have no curvature")
    assert "zero in 0, 2;" in found.findings[0].because


def test_wrong_products_make_the_result_inexact():
    class Lying(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * 3 * x.detach() * x + skew * torch.cumsum(x, -1)

    problem = Problem(
        nn.Linear(3, 1).double(),
        data=[torch.zeros(1)],
        objective=lambda m, batch: Lying.apply(m.weight).sum(),
    )
    skew = 0.0  # a gradient that is right, and its derivative is not: differences know better
    found = diag_share(problem)
    assert found.status == "ok"
    assert found.diag_share == pytest.approx(1.0, abs=1e-8)
    assert found.findings[0].level == "warn"
    assert "central differences" in found.engine
    skew = 1.0  # a gradient that is that of nothing
    found = diag_share(Problem(problem.model, data=problem.data, objective=problem.objective))
    assert found.status == "inexact"
    assert found.findings[0].level == "bad"


@pytest.mark.parametrize("rows", [0, -3])
def test_rows_must_be_positive(rows):
    with pytest.raises(SpecError, match="--rows"):
        diag_share(pixels(), rows=rows)


def test_result_is_json():
    assert json.loads(diag_share(pixels(), rows=60).to_json())["result"]["method"] == "rows"


@pytest.mark.parametrize("rows", ["all", 12])
def test_layers_are_shown_as_they_are_executed(rows):
    """The same network, registered forwards and backwards: the same rows, in the same order, with the same numbers."""

    class Chain(nn.Module):
        def __init__(self, order):
            super().__init__()
            torch.manual_seed(0)
            made = {"first": nn.Linear(2, 3), "second": nn.Linear(3, 3), "third": nn.Linear(3, 1)}
            for name in order:
                self.add_module(name, made[name])

        def forward(self, x):
            return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))

    names = ["first", "second", "third"]
    torch.manual_seed(1)
    data = [(torch.randn(5, 2).double(), torch.randn(5, 1).double())]
    forwards, backwards = (
        diag_share(Problem(Chain(order).double(), data=data, loss="mse"), rows=rows) for order in (names, names[::-1])
    )
    assert [layer.name for layer in backwards.layers] == [layer.name for layer in forwards.layers] == names
    assert [layer.parameters for layer in backwards.layers] == [9, 12, 4]
    if rows == "all":
        assert backwards.diag_share == pytest.approx(forwards.diag_share, rel=1e-12)
        assert np.allclose(backwards.layer_block_matrix, forwards.layer_block_matrix, rtol=1e-10)
        for mine, other in zip(backwards.layers, forwards.layers, strict=True):
            assert mine.diag_share == pytest.approx(other.diag_share, rel=1e-10)


def test_negative_curvature_is_certain_only_where_it_is_proven(monkeypatch):
    """A negative entry proves it; so does a share below 1/N of all rows; a failed self-check proves nothing."""
    for A, certain in (
        (torch.diag(torch.tensor([1.0, -0.5, 2.0])), True),
        (torch.ones(4, 4) - torch.eye(4), True),
        (torch.ones(4, 4), False),
        (torch.tensor([[1.0, 2.0], [2.0, 3.0]]), False),  # indefinite, which neither entry nor share tells
    ):
        found = diag_share(quadratic(A.double())).negative_certificate
        assert found.certain is certain
        if certain:
            lowest = float(torch.linalg.eigvalsh(A.double())[0])
            assert lowest - 1e-9 <= found.bound < 0
    examine = module.examine
    failing = lambda *args, **kwargs: examine(*args, **kwargs).also({"hvp_symmetry": 0.3})  # noqa: E731
    monkeypatch.setattr(module, "examine", failing)
    found = diag_share(quadratic(torch.diag(torch.tensor([1.0, -0.5])).double()))
    assert not found.negative_certificate.certain
    assert not any("certain" in finding.says for finding in found.findings)


def test_theory_knows_the_spread_of_wigner_and_the_floor_of_the_diagonal():
    H = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.01, 1.0], [0.0, 1.0, 0.01]]).double()  # its lowest eigenvalue is -0.99
    found = diag_share(quadratic(H))
    assert found.baselines.wigner < found.diag_share < found.theory.psd_floor_diagonal
    assert found.theory.psd_floor_diagonal == pytest.approx(4.02 / 2.2**2)
    assert "PSD floor" in [fact.name for fact in view(found).facts]
    assert found.baselines.wigner_mean == pytest.approx(1 / 3 + (math.pi / 2 - 1) * 2 / 81)
    assert found.baselines.wigner_stdev == pytest.approx(wigner_share_mean(3)[1])  # which is held against simulation
    assert diag_share(quadratic(H), rows=2).theory.psd_floor_diagonal is None
    assert diag_share(quadratic(-H)).theory.psd_floor_diagonal is None
