"""`metric=` of eigs, spectrum, bounds and diag-share: by every way to their numbers, against dense S H S by numpy."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.errors import SpecError
from hessdiag.questions import documents
from hessdiag.questions.bounds import measure as bounds_room
from hessdiag.questions.common.in_metric import Asked
from hessdiag.questions.common.metric import Metric
from hessdiag.questions.common.metric_verdict import limit_findings
from hessdiag.questions.diag_share import measure as share_room
from hessdiag.questions.eigs import measure as eigs_room
from hessdiag.questions.pages import render
from hessdiag.questions.spectrum import measure as spectrum_room
from tests.reference import brute_force_hessian


class Tokens(nn.Module):
    """A table of which few rows are looked up, under a small curved network."""

    def __init__(self):
        super().__init__()
        self.table, self.hidden, self.out = nn.Embedding(30, 3), nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(torch.tanh(self.hidden(self.table(ids).mean(1))))


def _tokens():
    batches = [
        (torch.tensor([[1, 5], [7, 5], [2, 2]]), torch.tensor([0, 1, 2])),
        (torch.tensor([[9, 1]]), torch.tensor([1])),
    ]
    return hessdiag.Problem(Tokens().double(), data=batches, loss="ce")


def _network(dtype=torch.float64):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 3)).to(dtype)
    batches = [(torch.randn(n, 4).to(dtype), torch.arange(n) % 3) for n in (7, 3)]
    return hessdiag.Problem(model, data=batches, loss="ce")


PROBLEMS = {"batches": _network, "zero rows": _tokens}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


@pytest.fixture(params=["whole", "beyond"])
def beyond(request, monkeypatch):
    """Whether problems are beyond the limit up to which the whole matrix is formed."""
    if request.param == "whole":
        return False
    for room, name in ((eigs_room, "DENSE_UP_TO"), (spectrum_room, "EXACT_UP_TO"), (bounds_room, "DENSE_UP_TO"), (share_room, "EXACT_UP_TO")):  # fmt: skip
        monkeypatch.setattr(room, name, 5)
    return True


def _metric(problem):
    generator = torch.Generator().manual_seed(3)
    return 10 ** (2 * torch.rand(problem.n_parameters, generator=generator, dtype=torch.float64) - 1)


def _dense(problem, P):
    """The oracle, by numpy."""
    s = 1 / np.sqrt(P.numpy())
    return s[:, None] * brute_force_hessian(problem).double().numpy() * s[None, :]


def test_eigs(problem, beyond):
    P = _metric(problem)
    A = _dense(problem, P)
    values = np.linalg.eigvalsh(A)
    found = hessdiag.eigs(problem, lowest=2, highest=2, tol=1e-9, metric=P)
    np.testing.assert_allclose(
        [pair.eigenvalue for pair in (*found.lowest, *found.highest)],
        [*values[:2], *values[-2:]],
        rtol=1e-9,
        atol=1e-12,
    )
    g = hessdiag.HessianOperator(problem).gradient().numpy() / np.sqrt(P.numpy())
    np.testing.assert_allclose(
        [found.gradient_norm, found.gradient_curvature], [np.linalg.norm(g), g @ A @ g / (g @ g)], rtol=1e-9
    )
    assert found.method == ("lanczos" if beyond else "exact")
    assert found.largest_step is None  # numbers alone have no threshold
    v, scale = found.vectors[:, -1].numpy(), found.scale.numpy()
    np.testing.assert_allclose(A @ v, values[-1] * v, atol=1e-7 * values[-1])
    H = brute_force_hessian(problem).numpy()  # H d = lambda P d along d = scale v
    np.testing.assert_allclose(H @ (scale * v), values[-1] * P.numpy() * (scale * v), atol=1e-6 * values[-1])
    cosine = abs(v @ g) / np.linalg.norm(g)
    assert found.highest[-1].gradient_overlap == pytest.approx(cosine, rel=1e-6)


def test_signs_are_those_of_the_hessian_itself(problem):
    """Sylvester's law of inertia."""
    plain, taken = hessdiag.eigs(problem).inertia, hessdiag.eigs(problem, metric=_metric(problem)).inertia
    assert (plain.positive, plain.negative, plain.zero) == (taken.positive, taken.negative, taken.zero)
    assert plain.negative > 0


def test_spectrum_whole(problem):
    P = _metric(problem)
    values = np.linalg.eigvalsh(_dense(problem, P))
    found = hessdiag.spectrum(problem, metric=P)
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-9, atol=1e-12 * values[-1])
    assert found.trace == pytest.approx(values.sum(), rel=1e-9)
    assert found.frobenius == pytest.approx(np.sqrt((values**2).sum()), rel=1e-9)


@pytest.mark.parametrize("beyond", ["beyond"], indirect=True)
def test_spectrum_by_quadrature(problem, beyond):
    """With as many Lanczos steps as there are rows, each probe is exact for what it sees."""
    P = _metric(problem)
    values = np.linalg.eigvalsh(_dense(problem, P))
    found = hessdiag.spectrum(problem, probes=4, steps=60, metric=P)
    assert found.method == "slq"
    assert found.highest == pytest.approx(values[-1], rel=1e-9)
    assert found.lowest == pytest.approx(values[0], rel=1e-6)
    low, high = found.trace_interval
    assert low - 1e-9 <= values.sum() <= high + 1e-9
    low, high = found.frobenius_interval
    assert low * (1 - 1e-9) <= np.sqrt((values**2).sum()) <= high * (1 + 1e-9)
    assert not low <= float(brute_force_hessian(problem).norm()) <= high


@pytest.mark.parametrize("operator", ["ggn", "fisher"])
def test_matrices_of_the_output(beyond, operator):
    problem = _network()
    P = _metric(problem)
    n = problem.n_parameters
    kind = {"ggn": hessdiag.GaussNewtonOperator, "fisher": hessdiag.FisherOperator}[operator]
    plain = (kind(problem) @ torch.eye(n, dtype=torch.float64)).numpy()
    s = 1 / np.sqrt(P.numpy())
    values = np.linalg.eigvalsh(s[:, None] * plain * s[None, :])
    found = hessdiag.spectrum(problem, operator=operator, probes=3, steps=60, metric=P)
    assert found.highest == pytest.approx(values[-1], rel=1e-9)
    assert found.checks["ggn_quadratic_form"] < 1e-6
    if not beyond:
        assert found.trace == pytest.approx(values.sum(), rel=1e-9)


def test_bounds_of_the_whole_matrix(problem):
    P = _metric(problem)
    A = _dense(problem, P)
    values = np.linalg.eigvalsh(A)
    found = hessdiag.bounds(problem, metric=P)
    radii = np.abs(A).sum(1) - np.abs(A.diagonal())
    np.testing.assert_allclose(
        found.gershgorin, [(A.diagonal() - radii).min(), (A.diagonal() + radii).max()], rtol=1e-9, atol=1e-12
    )
    assert found.measured == pytest.approx((values[0], values[-1]), rel=1e-3)
    for low, high in found.intervals().values():
        assert low <= values[0] + 1e-9
        assert high >= values[-1] - 1e-9
    m, spread = values.mean(), values.std()
    assert found.frobenius == pytest.approx(
        (m - spread * np.sqrt(len(values) - 1), m + spread * np.sqrt(len(values) - 1)), rel=1e-9
    )


@pytest.mark.parametrize("beyond", ["beyond"], indirect=True)
@pytest.mark.parametrize("way", ["streamed", "sketched"])
def test_bounds_of_rows(problem, beyond, way, monkeypatch):
    if way == "sketched":
        monkeypatch.setattr(bounds_room, "EXACT_UP_TO", 5)
        monkeypatch.setattr("hessdiag.questions.bounds.rows.REFINED", 10_000)
    P = _metric(problem)
    A = _dense(problem, P)
    values, radii = np.linalg.eigvalsh(A), np.abs(A).sum(1) - np.abs(A.diagonal())
    found = hessdiag.bounds(problem, metric=P)
    np.testing.assert_allclose(
        found.gershgorin, [(A.diagonal() - radii).min(), (A.diagonal() + radii).max()], rtol=1e-9, atol=1e-12
    )
    assert found.perron is None
    assert found.measured == pytest.approx((values[0], values[-1]), rel=1e-2)


def test_every_row(problem):
    P = _metric(problem)
    A = np.abs(_dense(problem, P))
    found = hessdiag.diag_share(problem, rows="all", metric=P)
    assert found.diag_share == pytest.approx(A.diagonal().sum() / A.sum(), rel=1e-9)
    assert found.trace == pytest.approx(_dense(problem, P).diagonal().sum(), rel=1e-9)
    inside = sum(A[one.start : one.stop, one.start : one.stop].sum() for one in problem.layer_slices)
    assert found.layer_block_share == pytest.approx(inside / A.sum(), rel=1e-9)
    for share, layer in zip(found.layers, problem.layer_slices, strict=True):
        block = A[layer.start : layer.stop, layer.start : layer.stop]
        assert share.diag_share == pytest.approx(block.diagonal().sum() / block.sum(), rel=1e-9)


@pytest.mark.parametrize("beyond", ["beyond"], indirect=True)
def test_sampled_rows(problem, beyond):
    P = _metric(problem) ** 3
    A = np.abs(_dense(problem, P))
    share = A.diagonal().sum() / A.sum()
    found = hessdiag.diag_share(problem, rows=25, metric=P)
    assert found.method == "rows"
    low, high = found.diag_share_interval
    assert low <= share <= high
    assert abs(found.diag_share - share) < 0.1 * share
    B = np.abs(brute_force_hessian(problem).numpy())
    assert high < B.diagonal().sum() / B.sum() or low > B.diagonal().sum() / B.sum()


def test_rows_by_products_where_samples_mix():
    """Batch statistics have no neuron space: every row is a product."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    problem = hessdiag.Problem(
        model, data=[(torch.randn(6, 3).double(), torch.randn(6, 2).double())], loss="mse", train_mode=True
    )
    P = _metric(problem)
    A = np.abs(_dense(problem, P))
    assert hessdiag.diag_share(problem, metric=P).diag_share == pytest.approx(A.diagonal().sum() / A.sum(), rel=1e-9)
    assert hessdiag.eigs(problem, metric=P).largest == pytest.approx(
        np.linalg.eigvalsh(_dense(problem, P))[-1], rel=1e-9
    )


def test_a_negative_entry_is_computed_anew_in_the_metric():
    problem = _network(torch.float32)
    P = _metric(problem)
    wide = _dense(_network(), P)
    found = hessdiag.diag_share(problem, metric=P)
    row = wide.diagonal().argmin()
    assert found.negative_entry == pytest.approx(wide[row, row] / np.abs(wide[row]).sum(), rel=1e-4)


def test_single_precision(beyond):
    problem = _network(torch.float32)
    P = _metric(problem)
    wide = _dense(_network(), P)
    values = np.linalg.eigvalsh(wide)
    assert hessdiag.eigs(problem, metric=P).largest == pytest.approx(values[-1], rel=1e-5)
    assert hessdiag.spectrum(problem, probes=2, steps=40, metric=P.float()).highest == pytest.approx(
        values[-1], rel=1e-4
    )


def test_of_an_optimizer():
    """Adam's P = |g| + eps where it stands still, of the mean of the batches' squares; the limit is 38 / lambda_max."""
    problem = _network()
    squares = torch.zeros(problem.n_parameters, dtype=torch.float64)
    for x, y in problem.data:
        loss = nn.functional.cross_entropy(problem.model(x), y)
        g = torch.cat([part.flatten() for part in torch.autograd.grad(loss, problem.parameters)])
        squares += g**2 / 2
    P = squares.sqrt() + 1e-3
    values = np.linalg.eigvalsh(_dense(problem, P))
    found = hessdiag.eigs(problem, metric="adam(lr=0.02, eps=1e-3)")
    assert found.largest == pytest.approx(values[-1], rel=1e-9)
    assert found.largest_step == pytest.approx(38 / values[-1], rel=1e-9)
    assert (found.metric.kind, found.metric.state, found.metric.lr) == ("adam", "gradients", 0.02)
    assert found.metric.threshold == pytest.approx(38)
    live = torch.optim.Adam(problem.model.parameters(), lr=0.02, eps=1e-3)
    nn.functional.cross_entropy(problem.model(problem.data[0][0]), problem.data[0][1]).backward()
    before = [p.detach().clone() for p in problem.parameters]
    live.step()
    with torch.no_grad():
        for parameter, old in zip(problem.parameters, before, strict=True):
            parameter.copy_(old)
    first = torch.cat([parameter.grad.flatten() for parameter in problem.parameters])
    problem.model.zero_grad()
    stepped = hessdiag.eigs(problem, metric=live)
    assert stepped.metric.state == "optimizer"
    assert stepped.largest == pytest.approx(np.linalg.eigvalsh(_dense(problem, first.abs() + 1e-3))[-1], rel=1e-9)


def test_groups_of_different_learning_rates():
    """What decides is D^(1/2) H D^(1/2), D = lr / P: in the metric, lambda_max times the largest rate is below c."""
    problem = _network()
    first, *others = problem.parameters
    made = torch.optim.SGD([{"params": [first], "lr": 0.4}, {"params": others}], lr=0.1, momentum=0.9)
    found = hessdiag.eigs(problem, metric=made)
    rates = torch.full((problem.n_parameters,), 0.1, dtype=torch.float64)
    rates[: first.numel()] = 0.4
    D = rates.sqrt().numpy()
    decisive = np.linalg.eigvalsh(D[:, None] * brute_force_hessian(problem).numpy() * D[None, :])[-1]
    assert found.metric.rates_differ
    assert found.metric.lr == 0.4
    assert found.largest * found.metric.lr == pytest.approx(decisive, rel=1e-9)
    assert found.largest_step == pytest.approx(3.8 * 0.4 / decisive, rel=1e-9)
    assert "the others in proportion" in " ".join(finding.says for finding in found.findings)


def test_weight_decay_in_the_gradient():
    problem = _network()
    top = np.linalg.eigvalsh(brute_force_hessian(problem).numpy())[-1]
    coupled = hessdiag.eigs(problem, metric="sgd(lr=0.1, weight_decay=0.5)")
    assert coupled.largest == pytest.approx(top, rel=1e-9)
    assert coupled.largest_step == pytest.approx(2 / (top + 0.5), rel=1e-9)
    adam = hessdiag.eigs(problem, metric="adam(weight_decay=0.5)")  # what it adds differs from entry to entry
    assert adam.largest_step is None
    decoupled = hessdiag.eigs(problem, metric="adamw(lr=0.01, weight_decay=0.5)")
    assert decoupled.largest_step == pytest.approx((2 - 0.005) * 19 / decoupled.largest, rel=1e-9)


def test_parameters_that_the_optimizer_does_not_move():
    problem = _network()
    first = problem.parameters[0]
    found = hessdiag.eigs(problem, metric=torch.optim.SGD(problem.parameters[1:], lr=0.1))
    H = brute_force_hessian(problem).numpy()[first.numel() :, first.numel() :]
    assert found.largest == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-9)
    assert found.metric.held == first.numel()
    assert found.inertia.zero >= first.numel()


def test_what_has_no_diagonal_metric_is_refused_in_one_line():
    data = [(torch.ones(2, 3).double(), torch.ones(2, 2).double())]
    problem = hessdiag.Problem(nn.Linear(3, 2, bias=False).double(), data=data, loss="mse")
    for ask in (hessdiag.eigs, hessdiag.spectrum, hessdiag.bounds, hessdiag.diag_share):
        with pytest.raises(SpecError, match=r"^Muon\(.*no diagonal metric"):
            ask(problem, metric="muon(lr=0.1)")


@pytest.mark.parametrize("numbers", [torch.ones(3), torch.zeros(63), torch.full((63,), torch.inf)])
def test_numbers_that_are_no_metric(numbers):
    with pytest.raises(SpecError, match="63 positive numbers"):
        hessdiag.eigs(_network(), metric=numbers)


@pytest.mark.parametrize("ask", [hessdiag.eigs, hessdiag.spectrum, hessdiag.bounds, hessdiag.diag_share])
def test_pages_name_the_metric(ask):
    problem = _network()
    found = ask(problem, metric="adam(lr=0.01)")
    doc = documents.document(found)
    assert doc["result"]["metric"]["optimizer"] == found.metric.optimizer == "Adam(lr=0.01, eps=1e-08)"
    assert documents.read(doc).metric == found.metric
    text = " ".join(render(doc, "text").split())
    headline, _, rest = text.partition("metric Adam(")
    assert "in the metric of Adam(lr=0.01, eps=1e-08)" in headline
    assert "P is from the gradients here" in rest
    assert "in the metric of Adam" in rest.partition("Verdict")[2]
    assert "OLS" not in text
    assert "lain gradient descent" not in text
    del doc["result"]["metric"]  # as documents of before
    assert documents.read(doc).metric is None
    plain = documents.document(ask(problem))
    assert plain["result"]["metric"] is None
    assert "metric of" not in render(plain, "text")


def test_a_run_that_goes_on_was_asked_for_the_same_metric(tmp_path, monkeypatch):
    monkeypatch.setattr(eigs_room, "DENSE_UP_TO", 5)
    problem, P = _network(), _metric(_network())
    for number, ask in enumerate((hessdiag.eigs, hessdiag.spectrum, hessdiag.diag_share)):
        if ask is hessdiag.spectrum:
            monkeypatch.setattr(spectrum_room, "EXACT_UP_TO", 5)
        folder = tmp_path / str(number)
        first = ask(problem, metric=P, resume=folder)
        again = ask(problem, metric=P, resume=folder)
        assert dataclasses.replace(again, provenance=first.provenance, findings=(), engine="") == dataclasses.replace(
            first, findings=(), engine=""
        )
        for other in (None, 2 * P, "adam"):
            with pytest.raises(SpecError, match="holds pieces of another run: metric was"):
                ask(problem, metric=other, resume=folder)


def test_a_trajectory_is_in_one_metric():
    problem = _network()
    shares = [("a", hessdiag.diag_share(problem, metric="adam")), ("b", hessdiag.diag_share(problem, metric="adam"))]
    found = hessdiag.diag_share_along(shares)
    page = render(documents.document(found), "text")
    assert "preconditioned Hessian" in page
    assert "OLS" not in page
    with pytest.raises(SpecError, match="several metrics"):
        hessdiag.diag_share_along([*shares, ("c", hessdiag.diag_share(problem))])


def _attention(dtype):
    """The bias of an attention's keys has no gradient but for rounding; where P is tiny there, that is magnified."""
    torch.manual_seed(1)
    parts = {"attention": nn.MultiheadAttention(4, 1, batch_first=True), "out": nn.Linear(4, 3)}
    x = torch.randn(3, 5, 4).to(dtype)

    def loss(model, batch):
        seen = model["attention"](batch, batch, batch)[0].mean(1)
        return nn.functional.cross_entropy(model["out"](seen), torch.arange(3))

    problem = hessdiag.Problem(nn.ModuleDict(parts).to(dtype), data=[x], objective=loss)
    P = torch.ones(problem.n_parameters, dtype=dtype)
    return problem, P, slice(48 + 4, 48 + 8)


def test_rounding_that_the_metric_magnifies_counts_as_zero():
    problem, P, keys = _attention(torch.float32)
    P[keys] = 1e-8
    found, plain = hessdiag.eigs(problem, metric=P), hessdiag.eigs(problem)
    assert found.status == "ok"
    assert found.largest == pytest.approx(plain.largest, rel=1e-4)
    assert found.rounding > 0.05 > 1e3 * plain.rounding
    assert found.inertia.positive <= plain.inertia.positive
    assert found.inertia.negative <= plain.inertia.negative


def test_rounding_that_rules_is_said():
    problem, P, keys = _attention(torch.float32)
    P[keys] = 1e-12
    found = hessdiag.eigs(problem, metric=P)
    assert found.status == "inexact"
    assert not found.negative_certificate.certain
    assert found.findings[0].says.startswith("The Hessian products are not symmetric in the metric")
    wide, P64, _ = _attention(torch.float64)
    P64[keys] = 1e-12
    assert hessdiag.eigs(wide, metric=P64).status == "ok"


def test_an_interrupt_before_anything_was_measured_leaves_the_metrics_name():
    problem, asked = _network(), Asked("adam(lr=0.1)")
    found = (
        eigs_room.unmeasured(problem, 1e-3, asked),
        spectrum_room.unmeasured(problem, "hessian", asked),
        bounds_room.unmeasured(problem, asked),
    )
    for one in found:
        assert one.metric == Metric(optimizer="adam(lr=0.1)")
        assert "adam(lr=0.1)" in render(documents.document(one), "text")


@pytest.mark.parametrize("ask", [hessdiag.eigs, hessdiag.bounds, hessdiag.diag_share])
def test_what_an_interrupt_leaves_is_in_the_metric(ask, monkeypatch):
    """Some passes in; what is known by then is of P^(-1/2) H P^(-1/2)."""
    for room, name in ((eigs_room, "DENSE_UP_TO"), (bounds_room, "DENSE_UP_TO")):
        monkeypatch.setattr(room, name, 5)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 20), nn.BatchNorm1d(20), nn.Tanh(), nn.Linear(20, 2)).double()
    x, y = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    problem = hessdiag.Problem(model, data=[(x, y)], loss="mse", train_mode=True)
    P = _metric(problem)
    A = _dense(problem, P)
    values = np.linalg.eigvalsh(A)
    monkeypatch.setattr("hessdiag.questions.bounds.rows.ROWS_TOGETHER", 3)
    monkeypatch.setattr("hessdiag.questions.common.operators.together", lambda operator, most: 3)
    calls = 0

    def report(done, total, what):
        nonlocal calls
        calls += 1
        if calls == (3 if ask is hessdiag.eigs else 7):
            raise KeyboardInterrupt

    options = {"max_basis": 32, "tol": 1e-12} if ask is hessdiag.eigs else {}
    found = ask(problem, metric=P, progress=report, **options)
    assert found.status == "interrupted"
    assert found.metric.kind == "given"
    if ask is hessdiag.eigs:
        assert values[0] - 1e-9 <= found.ritz_range[0] < found.ritz_range[1] <= values[-1] + 1e-9
        assert found.ritz_range[1] > 0.9 * values[-1]
    elif ask is hessdiag.bounds:
        assert 0 < found.rows < len(A)
        entries = A.diagonal()[: found.rows]
        assert found.inner == pytest.approx((entries.min(), entries.max()), rel=1e-9)
    else:
        assert 0 < found.rows < len(A)


def _limits(**found):
    settings = {
        "optimizer": "Adam",
        "kind": "adam",
        "state": "optimizer",
        "lr": 0.01,
        "threshold": 38.0,
        "smallest": 1e-3,
        "largest": 1.0,
    }
    return limit_findings(Metric(**settings | found), 1000.0)


@pytest.mark.parametrize(
    ("found", "level", "says"),
    [
        ({}, "note", "Adam is stable here for a learning rate below 0.03800: its own, 0.0100, is at 26.3 % of that."),
        ({"lr": 0.1}, "warn", "Adam is beyond its threshold here: at 263 % of it."),
        ({"lr": 0.1, "state": "gradients"}, "note", "Adam is beyond its threshold here: at 263 % of it."),
        ({"lr": 0.0}, "note", "Adam is stable here only for learning rates below 0.03800."),
        ({"threshold": None}, "note", "No limit of the learning rate follows: no threshold is known for it."),
        ({"weight_decay": 0.1, "coupled": True}, "note", "No limit of the learning rate follows: its weight decay is part"),
        ({"weight_decay": 0.1}, "note", "Adam is stable here for a learning rate below 0.03800"),
        ({"state": "given", "threshold": None}, "note", "No limit of the learning rate follows: the numbers name no optimizer."),
    ],
)  # fmt: skip
def test_where_the_optimizer_stands(found, level, says):
    (finding,) = _limits(**found)
    assert finding.says.startswith(says)
    assert finding.level == level


def test_a_largest_eigenvalue_that_is_a_bound_makes_the_limit_one():
    metric = Metric(optimizer="Adam", state="optimizer", lr=0.01, threshold=38.0, smallest=1.0, largest=2.0)
    (finding,) = limit_findings(metric, 1000.0, bound=True, more="more products")
    assert "unstable here for a learning rate above 0.03800; the limit may be lower" in finding.says
    assert "at least 1,000" in finding.because
