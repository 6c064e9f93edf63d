import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import SpecError
from hessdiag.linalg import pairs
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import estimates
from hessdiag.questions.blocks import measure as module
from hessdiag.questions.blocks.masses import diagonal_masses
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.common.block_squares import Squares, by_layer
from hessdiag.questions.documents import document, loads, read
from tests.curvature.test_hessian import CASES
from tests.interrupts import ends_after
from tests.reference import brute_force_hessian, cosine_problem, net_a, quadratic
from tests.test_reference_values import NETWORKS, holds


def _x(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.head = (
            nn.MultiheadAttention(4, 2, batch_first=True),
            nn.LayerNorm(4),
            nn.Linear(4, 3),
        )

    def forward(self, h):
        return self.head(self.norm(h + self.attention(h, h, h, need_weights=False)[0]).mean(1))


SPLIT = {
    "mlp, tanh, ce": lambda: Problem(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double(), data=[(_x(6, 4), torch.arange(6) % 3)], loss="ce"),
    "conv, relu, mse": lambda: Problem(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double(), data=[(_x(4, 1, 5, 5), _x(4, 2))], loss="mse"),
    "attention, layer norm, ce": lambda: Problem(Attention().double(), data=[(_x(4, 3, 4), torch.arange(4) % 3)], loss="ce"),
    "two batches, gelu, mse": lambda: Problem(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).double(), data=[(_x(5, 3), _x(5, 2)), (_x(2, 3), _x(2, 2))], loss="mse"),
}  # fmt: skip
LINEAR_WITHIN_LAYERS = ("conv, relu, mse",)


def brute_force_gauss_newton(problem):
    """J'BJ from a dense Jacobian and the loss's own Hessian: shares no code with the operator."""
    names = [name for name, _ in problem.named_parameters]
    shapes = [parameter.shape for parameter in problem.parameters]
    theta = torch.cat([parameter.detach().reshape(-1) for parameter in problem.parameters])
    loss = {"ce": nn.functional.cross_entropy, "mse": nn.functional.mse_loss}[problem.loss]
    problem.model.eval()
    G = 0.0
    for weight, (x, y) in zip(problem.batch_weights, problem.data, strict=True):

        def output(flat, x=x):
            parts = flat.split([shape.numel() for shape in shapes])
            values = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return torch.func.functional_call(problem.model, values, (x,))

        z = output(theta).detach()
        J = torch.func.jacrev(lambda flat, output=output: output(flat).reshape(-1))(theta)
        B = torch.autograd.functional.hessian(lambda flat, z=z, y=y: loss(flat.reshape(z.shape), y), z.reshape(-1))
        G = G + weight * J.T @ B @ J
    return G


def block_norms(matrix, problem):
    layers = problem.layer_slices
    return np.array(
        [[float(matrix[a.start : a.stop, b.start : b.stop].detach().norm()) for b in layers] for a in layers]
    )


def per_layer(vector, problem):
    return [float(vector[layer.start : layer.stop].sum()) for layer in problem.layer_slices]


@pytest.mark.parametrize("name", SPLIT)
def test_exact_split_matches_brute_force(name):
    problem = SPLIT[name]()
    H, G = brute_force_hessian(problem), brute_force_gauss_newton(problem)
    found = blocks(problem)
    assert (found.method, found.status, found.frobenius_stderr, found.trace_stderr) == ("exact", "ok", None, None)
    close = {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(found.frobenius, block_norms(H, problem), **close)
    np.testing.assert_allclose(found.gauss_newton, block_norms(G, problem), **close)
    np.testing.assert_allclose(found.residual, block_norms(H - G, problem), **close)
    np.testing.assert_allclose(found.trace, per_layer(H.diagonal(), problem), **close)
    np.testing.assert_allclose(found.diagonal_mass, per_layer(H.diagonal().abs(), problem), **close)
    h, g, r = (float(matrix.norm()) for matrix in (H, G, H - G))
    assert (found.norm, found.gauss_newton_norm, found.residual_norm) == pytest.approx((h, g, r), rel=1e-9)
    inside = np.square(block_norms(H, problem).diagonal()).sum()
    assert found.between_layers == pytest.approx(1 - inside / h**2, rel=1e-9)
    assert found.residual_share == pytest.approx(r**2 / (g**2 + r**2), rel=1e-9)
    assert found.residual_diagonal_vanishes is (name in LINEAR_WITHIN_LAYERS)
    low, high = found.eigenvalue_bounds
    eigenvalues = torch.linalg.eigvalsh(H)
    assert low <= eigenvalues[0]
    assert eigenvalues[-1] <= high


@pytest.mark.parametrize("name", CASES)
def test_exact_hessian_blocks_match_brute_force(name):
    problem = CASES[name]()
    found = blocks(problem)
    np.testing.assert_allclose(
        found.frobenius, block_norms(brute_force_hessian(problem), problem), rtol=1e-8, atol=1e-12
    )


@pytest.mark.parametrize("name", [name for name, (_, known) in NETWORKS.items() if {"blocks", "trace"} <= set(known)])
def test_known_networks(name):
    make, known = NETWORKS[name]
    found = blocks(make())
    upper = [value for index, row in enumerate(found.frobenius) for value in row[index:]]
    holds(upper, known["blocks"])
    holds(sum(found.trace), known["trace"])
    assert found.residual_diagonal_vanishes is ("tanh" not in name)


def test_two_layers_by_hand():
    """x = (1, -1), W1 x = (-1, 4), z = -9, r = -10: |G| from the two slopes, |R_12| = |r| |x| sqrt 2."""
    found = blocks(net_a())
    np.testing.assert_allclose(found.gauss_newton, [[10, math.sqrt(170)], [math.sqrt(170), 17]])
    np.testing.assert_allclose(found.residual, [[0, 20], [20, 0]], atol=1e-12)
    assert found.between_layers == pytest.approx(1860 / 2249)
    assert found.residual_share == pytest.approx(800 / (800 + 27**2))
    assert found.indefinite_pair.layers == ("0", "1")
    assert found.indefinite_pair.ratio == pytest.approx(930 / 170)
    # Nothing is known of this loss, so that H_ll may reach down to -|H_ll|; a convex one cannot make it negative.
    assert found.eigenvalue_bounds[0] == pytest.approx(np.linalg.eigvalsh([[-10, -(930**0.5)], [-(930**0.5), -17]])[0])
    convex = blocks(Problem(net_a().model, data=net_a().data, loss="mse"))  # twice the loss above
    assert convex.eigenvalue_bounds[0] == pytest.approx(-2 * math.sqrt(930))
    assert convex.eigenvalue_bounds[1] == pytest.approx(-2 * found.eigenvalue_bounds[0])


@pytest.mark.parametrize("seed", range(3))
def test_semidefinite_matrices_have_no_indefinite_pair(seed):
    torch.manual_seed(seed)
    A = _x(6, 3 + seed)
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False))

    def objective(model, batch):
        theta = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
        return theta @ A @ A.T @ theta / 2

    assert blocks(Problem(model.double(), data=[None], objective=objective)).indefinite_pair is None


@pytest.mark.parametrize("name", ["mlp, tanh, ce", "conv, relu, mse", "attention, layer norm, ce"])
def test_estimates_agree_with_the_exact_numbers(name):
    problem = SPLIT[name]()
    truth, found = blocks(problem), blocks(problem, probes=100, seed=5)
    assert (found.method, found.probes) == ("probes", 100)
    pairs = 0
    scalars = ("norm", "gauss_newton_norm", "residual_norm", "between_layers", "residual_share")
    for key in ("frobenius", "gauss_newton", "residual", "trace", "diagonal_mass", *scalars):
        value, error, exact = (np.array(getattr(*of)) for of in ((found, key), (found, f"{key}_stderr"), (truth, key)))
        assert np.all(np.abs(value - exact) <= 4 * error + 1e-10), key
        assert np.all(error <= 0.25 * np.abs(exact).max()), key
        pairs += value.size
    assert pairs > 30
    assert found.residual_diagonal_vanishes is truth.residual_diagonal_vanishes
    assert found.indefinite_pair is None


def test_errors_are_calibrated():
    """Deviations over their standard errors, across seeds, have a spread near 1 for norms, shares and traces."""
    problem = SPLIT["mlp, tanh, ce"]()
    truth = blocks(problem)
    scores: dict[str, list] = {}
    for seed in range(60):
        found = blocks(problem, probes=48, seed=seed)
        for key in ("norm", "residual_norm", "between_layers", "residual_share", "frobenius", "residual", "trace"):
            deviation = np.array(getattr(found, key)) - np.array(getattr(truth, key))
            error = np.array(getattr(found, f"{key}_stderr"))
            if key == "residual":  # the last layer's own block is zero, and so is its error
                deviation, error = deviation[:, :2], error[:, :2]
            scores.setdefault(key, []).append(deviation / error)
    for key, values in scores.items():
        spread = np.sqrt(np.square(values).mean(0))  # over seeds
        assert np.all((spread > 0.7) & (spread < 1.45)), (key, spread)
        assert np.all(np.abs(np.mean(values, axis=0)) < 0.6), key


def test_sampled_diagonal_mass_is_unbiased_and_exact_when_all_rows_are_drawn():
    problem = SPLIT["mlp, tanh, ce"]()
    operator, truth = HessianOperator(problem), np.array(blocks(problem).diagonal_mass)
    everything, error, products = diagonal_masses(operator, 10**6, 0)
    np.testing.assert_allclose(everything, truth)
    assert not error.any()
    assert products == problem.n_parameters
    draws = [diagonal_masses(operator, 12, seed) for seed in range(60)]
    means, errors = (np.stack([draw[index] for draw in draws]) for index in (0, 1))
    assert np.all(np.abs(means.mean(0) - truth) < 4 * means.std(0) / math.sqrt(60))
    assert np.all((means.std(0) / errors.mean(0) > 0.6) & (means.std(0) / errors.mean(0) < 1.6))


def test_where_the_diagonal_cannot_be_negative_its_mass_is_the_trace():
    found = blocks(SPLIT["conv, relu, mse"](), probes=8)
    assert found.diagonal_mass == found.trace
    assert found.hvps == 8 * 3


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_numbers_do_not_depend_on_the_vectors_per_pass(monkeypatch, chunk):
    problem = SPLIT["mlp, tanh, ce"]()
    whole = blocks(problem, probes=6)
    monkeypatch.setattr(HessianOperator, "chunk", property(lambda self: chunk, lambda self, vectors: None))
    np.testing.assert_allclose(blocks(problem, probes=6).frobenius, whole.frobenius, rtol=1e-12)


def test_same_seed_same_bits():
    problem = SPLIT["two batches, gelu, mse"]()
    first, second = (document(blocks(problem, probes=4, seed=7))["result"] for _ in range(2))
    assert first == second
    assert blocks(problem, probes=4, seed=8).norm != first["norm"]


@pytest.mark.parametrize("probes", [None, 40])
def test_an_objective_has_no_split(probes):
    A = torch.diag(torch.tensor([3.0, -1.0, 2.0])).double()
    found = blocks(quadratic(A), probes=probes)
    split = ("gauss_newton", "residual", "gauss_newton_norm", "residual_norm", "residual_share", "residual_diagonal")
    assert [getattr(found, name) for name in split] == [None] * 6
    assert found.norm == pytest.approx(math.sqrt(14))  # of a diagonal matrix, signs see the norm without error
    assert found.diagonal_mass == pytest.approx([6])
    assert "objective" in " ".join(finding.says for finding in found.findings)
    assert found.eigenvalue_bounds == pytest.approx((-math.sqrt(14), math.sqrt(14)))


def test_a_dead_network_has_no_curvature():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False)).double()
    model[0].weight.data = -torch.ones(3, 2).double()
    found = blocks(Problem(model, data=[(torch.ones(4, 2).double(), torch.zeros(4, 1).double())], loss="mse"))
    assert found.norm == 0
    assert math.isnan(found.between_layers)
    assert [finding.level for finding in found.findings] == ["bad"]


def test_an_interruption_keeps_whole_rounds():
    problem = SPLIT["mlp, tanh, ce"]()

    def stop_at(least):
        def report(done, total, what):
            if done >= least:
                raise KeyboardInterrupt

        return report

    found = blocks(problem, probes=200, progress=stop_at(100))
    assert (found.status, found.diagonal_mass) == ("interrupted", None)
    assert found.probes == 128 // 3
    same = blocks(problem, probes=found.probes)
    assert found.frobenius == same.frobenius
    np.testing.assert_allclose(found.trace_interval, same.trace_interval, rtol=1e-12)
    with pytest.raises(KeyboardInterrupt):
        blocks(problem, probes=200, progress=stop_at(0))


def test_too_few_probes_are_refused():
    with pytest.raises(SpecError, match="at least 2"):
        blocks(net_a(), probes=1)


def test_float32_tells_rounding_from_curvature():
    for name, vanishes in (("mlp, tanh, ce", False), ("conv, relu, mse", True)):
        problem = SPLIT[name]()
        problem.model.float()
        data = [(x.float(), y.float() if y.is_floating_point() else y) for x, y in problem.data]
        found = blocks(Problem(problem.model, data=data, loss=problem.loss))
        assert found.status == "ok"
        assert found.residual_diagonal_vanishes is vanishes


def test_what_is_tiny_beside_the_whole_is_not_taken_for_rounding():
    """With inputs of size s, blocks between layers are of order s, and tanh's own part of those within them s^3."""
    problem = Problem(
        nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)).double(),
        data=[(1e-7 * _x(6, 4), _x(6, 2))],
        loss="mse",
    )
    found = blocks(problem)
    assert 0 < found.residual_diagonal < 1e-13
    assert found.residual_diagonal_vanishes is False


def _said(problem, **options):
    return " | ".join(finding.says for finding in blocks(problem, **options).findings)


def test_the_verdict_says_what_it_should():
    relu = _said(cosine_problem([3, 4, 3, 2], 5, "relu"))
    assert "pure Gauss-Newton" in relu
    assert "pure Gauss-Newton" not in _said(cosine_problem([3, 4, 3, 2], 5, "tanh"))
    assert "Negative curvature is certain" in _said(net_a())
    assert "one layer only" in _said(Problem(nn.Linear(2, 1).double(), data=[(_x(3, 2), _x(3, 1))], loss="mse"))
    assert "nearly the Hessian" in _said(Problem(nn.Linear(2, 1).double(), data=[(_x(3, 2), _x(3, 1))], loss="mse"))
    tied = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)}).double()
    tied.forward = lambda x: tied["used"](x)
    assert "1 of 2 layers have no curvature at all: idle" in _said(
        Problem(tied, data=[(_x(3, 2), _x(3, 1))], loss="mse")
    )


def test_one_layer_has_no_other_to_couple_with():
    found = blocks(Problem(nn.Linear(3, 2).double(), data=[(_x(5, 3), _x(5, 2))], loss="mse"))
    said = " ".join(finding.says for finding in found.findings)
    assert "there is no negative curvature" in said
    assert "between layers" not in said
    assert "settle" not in said


def test_a_coupling_counts_with_both_of_its_blocks():
    """H = [[4, 3], [3, 4]]: each layer's own block holds 16 of 50, their coupling 18."""
    model = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)}).double()

    def objective(model, batch):
        a, b = model["a"].weight, model["b"].weight
        return (2 * a * a + 3 * a * b + 2 * b * b).sum()

    found = blocks(Problem(model, data=[(_x(1, 1), _x(1, 1))], objective=objective))
    because = next(finding.because for finding in found.findings if "takes part in most" in finding.says)
    assert "the coupling of layers a and b, with 36.0 %" in because


@pytest.mark.parametrize(
    ("gain", "noticed"),
    [
        (0.3, "grow with depth, by a factor of 11.1 per"),
        (1.0, None),
        (3.0, "shrink with depth, by a factor of 9.00 per"),
    ],
)
def test_blocks_that_change_with_depth_are_noticed(gain, noticed):
    """With W_l = gain^l I, |H_ll| is the squared product of all gains but the layer's own."""
    layers = [nn.Linear(4, 4, bias=False) for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.weight.data = gain**index * torch.eye(4)
    problem = Problem(nn.Sequential(*layers).double(), data=[(_x(8, 4), _x(8, 4))], loss="mse")
    said = [finding.says for finding in blocks(problem).findings if "with depth" in finding.says]
    assert len(said) == (noticed is not None)
    assert noticed is None or noticed in said[0]


class Backwards(nn.Module):
    """The network above, registered from its last layer to its first behind scalars of the loss, with a shortcut."""

    def __init__(self, gain):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(6))
        for index, layer in enumerate(self.layers):
            layer.weight.data = gain ** (5 - index) * torch.eye(4)
        self.short = nn.Linear(4, 4, bias=False)
        nn.init.zeros_(self.short.weight)

    def forward(self, x):
        first = self.short(x)
        for layer in reversed(self.layers):
            x = layer(x)
        return self.temperature * x + first


@pytest.mark.parametrize(("gain", "noticed"), [(0.3, "grow with depth, by a factor of 11.1 per"), (1.0, None)])
def test_depth_is_the_order_of_execution(gain, noticed):
    data = [(_x(8, 4), _x(8, 4))]
    problem = Problem(Backwards(gain).double(), data=data, loss="mse")
    for found in (blocks(problem), blocks(problem, probes=4)):
        inner = [f"layers.{index}" for index in range(5, -1, -1)]
        assert found.names == ("short", *inner, "temperature")
        assert found.depths == (None, 1, 2, 3, 4, 5, 6, None)
    layers = [nn.Linear(4, 4, bias=False) for _ in range(6)]
    for index, layer in enumerate(layers):
        layer.weight.data = gain**index * torch.eye(4)
    plain_network = blocks(Problem(nn.Sequential(*layers).double(), data=data, loss="mse"))
    found = blocks(problem)
    assert np.allclose(np.array(found.frobenius)[1:7, 1:7], plain_network.frobenius, rtol=1e-12)
    assert np.allclose(found.trace[1:7], plain_network.trace, rtol=1e-12)
    H = brute_force_hessian(problem)
    slices = [problem.executed_layers[index] for index in range(8)]
    for i, row in enumerate(slices):
        for j, column in enumerate(slices):
            expected = float(H[row.start : row.stop, column.start : column.stop].norm())
            assert found.frobenius[i][j] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    said = [finding.says for finding in found.findings if "with depth" in finding.says]
    assert len(said) == (noticed is not None)
    assert noticed is None or noticed in said[0]


def test_the_result_is_plain():
    for options in ({}, {"probes": 3}):
        found = blocks(SPLIT["conv, relu, mse"](), **options)
        result = json.loads(found.to_json())["result"]
        assert read(loads(found.to_json())) == found
        assert result["names"] == ["0", "2", "5"]
        assert {"frobenius", "gauss_newton", "residual", "trace", "method"} <= set(result)


def _two_layers(A, probes=None, widths=(2, 3)):
    """theta' A theta / 2 over the parameters of two layers."""
    model = nn.Sequential(*(nn.Linear(width, 1, bias=False) for width in widths)).double()

    def objective(model, batch):
        theta = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
        return theta @ A @ theta / 2

    return blocks(Problem(model, data=[None], objective=objective), probes=probes)


@pytest.mark.parametrize("probes", [None, 4])
@pytest.mark.parametrize("seed", range(8))
def test_what_traces_and_norms_prove_is_true(seed, probes):
    """Random matrices, definite and not: the bound is never below the smallest eigenvalue, nor certain where it is not."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    for A in (X @ X.T, X + X.T, X @ X.T - 4 * torch.eye(5), (X + X.T).fill_diagonal_(0)):
        found = _two_layers(A, probes).negative_certificate
        lowest = float(torch.linalg.eigvalsh(A)[0])
        assert found.bound >= lowest - 1e-9
        assert lowest < 0 or not found.certain


def test_a_layer_that_curves_down_on_average_is_proof(monkeypatch):
    A = torch.diag(torch.tensor([1.0, 1.0, -3.0, 1.0, 1.0], dtype=torch.float64))
    for probes in (None, 3):
        found = _two_layers(A, probes)
        assert found.indefinite_pair is None
        assert found.negative_certificate.certain
        assert found.negative_certificate.bound == pytest.approx(-1 / 3)
        assert any("Negative curvature is certain" in finding.says for finding in found.findings)
    examine = module.examine
    failing = lambda *args, **kwargs: examine(*args, **kwargs).also({"hvp_symmetry": 0.3})  # noqa: E731
    monkeypatch.setattr(module, "examine", failing)
    failed = _two_layers(A)
    assert not failed.negative_certificate.certain
    assert not any("certain" in finding.says for finding in failed.findings)


def test_the_bound_of_a_pair_is_sharp_for_single_parameters():
    A = torch.tensor([[1.0, 3.0], [3.0, 2.0]], dtype=torch.float64)
    found = _two_layers(A, widths=(1, 1)).negative_certificate
    assert found.bound == pytest.approx(float(torch.linalg.eigvalsh(A)[0]), rel=1e-9)


def test_errors_of_norms_by_hand():
    """Three samples of each square; a pair of layers is the mean of what both see of it, its variance a quarter of two."""
    own, ahead, back = np.array([4.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    samples = np.stack([np.stack([own, ahead], 1), np.stack([back, own], 1)], 1)
    found = estimates.norms(samples, np.array([0.0, 9.0]))
    value, error = found.value, found.stderr
    widening = 4.302652729696142 / 1.959963984540054  # a table's t(0.975, 2) over that of a normal variable
    assert value[0] == pytest.approx([5**0.5, 3**0.5])
    assert error[0, 0] == pytest.approx(widening * (1 / 3) ** 0.5 / (2 * 5**0.5))
    assert error[1, 1] == pytest.approx(3**0.5 / (2 * 5**0.5))  # what pairs of samples say is more
    assert found.high[1, 1] == pytest.approx((50 / 3 * 5 / stats.chi2.ppf(0.025, 50 / 3)) ** 0.5)  # 2 5^2 / 3
    assert error[0, 1] == error[1, 0] == pytest.approx(widening * ((1 / 3 + 4 / 3) / 4) ** 0.5 / (2 * 3**0.5))


def _variances(A, fold_at, monkeypatch, probes=1500):
    monkeypatch.setattr(pairs, "LENGTH", fold_at)
    fold = pairs.Fold.of(len(A), torch.device("cpu"))
    signs = torch.randint(0, 2, (probes, len(A))) * 2.0 - 1
    products = signs.double() @ torch.as_tensor(A)
    seen = [pairs.folded(fold, v.double(), y[None]) for v, y in zip(signs, products, strict=True)]
    squares, traces = pairs.variances(fold, np.stack(seen))
    return float(squares[0]), float(traces[0])


@pytest.mark.parametrize("fold_at", [512, 128])
def test_pairs_of_products_tell_the_variance_of_quadratic_forms(fold_at, monkeypatch):
    """2 (|M|^2 - sum M_ii^2), for v'Av and for |Av|^2 = v'A^2 v; of long vectors after folding."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    root = rng.normal(size=(300, 300)) * np.linspace(0.1, 1, 300)
    A = root @ root.T / 300 - 0.3 * np.eye(300)
    exact = [2 * ((M**2).sum() - (M.diagonal() ** 2).sum()) for M in (A @ A, A)]
    assert _variances(A, fold_at, monkeypatch) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("probes", [8, 32])
def test_intervals_of_norms_and_traces_cover(probes):
    """400 groups of probes, on the Hessian of a deep network; neither much less nor much more than 95 %."""
    torch.manual_seed(3)
    widths = [8, 8, 8, 8, 8, 4]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.Tanh())]
    problem = Problem(nn.Sequential(*layers[:-1]).double(), data=[(_x(24, 8), torch.arange(24) % 4)], loss="ce")
    H, count = brute_force_hessian(problem).detach(), len(problem.executed_layers)
    true = blocks(problem)

    hits, inside = np.zeros((count, count)), np.zeros(count)
    rng, folds = np.random.default_rng(0), [pairs.Fold.of(layer.size, H.device) for layer in problem.executed_layers]
    for _ in range(400):
        parts, traces = np.zeros((probes, 1, count, count)), np.zeros((probes, count))
        known = []
        for m, layer in enumerate(problem.executed_layers):
            own = slice(layer.start, layer.stop)
            signs = torch.from_numpy(rng.choice([-1.0, 1.0], (probes, layer.size)))
            products = signs @ H[own]
            parts[:, 0, m] = by_layer(products.T, problem.executed_layers).T
            traces[:, m] = (signs * products[:, own]).sum(1)
            seen = [pairs.folded(folds[m], v, y[None, own]) for v, y in zip(signs, products, strict=True)]
            known.append(pairs.variances(folds[m], np.stack(seen)))
        own_variances, trace_variances = np.array([k[0] for k in known]).T, np.array([k[1][0] for k in known])
        norms = estimates.norms(parts[:, 0], own_variances[0])
        squares = Squares(parts, traces, 0, False, own_variances, trace_variances)
        sums = estimates.traces(squares)
        hits += (norms.low <= true.frobenius) & (true.frobenius <= norms.high)
        inside += (sums.low <= true.trace) & (true.trace <= sums.high)
    for rate in (hits / 400, inside / 400):
        assert rate.min() >= 0.91  # 92 % less what 400 groups may be off
        assert rate.mean() <= 0.98


def _deep_problem():
    torch.manual_seed(4)
    parts = [part for a, b in itertools.pairwise([8, 8, 8, 8, 4]) for part in (nn.Linear(a, b), nn.Tanh())]
    return Problem(nn.Sequential(*parts[:-1]).double(), data=[(_x(24, 8), torch.arange(24) % 4)], loss="ce")


@pytest.mark.parametrize("probes", [None, 24])
def test_resumed_blocks_are_those_of_a_run_without_interrupts(probes, tmp_path, monkeypatch):
    monkeypatch.setattr("hessdiag.questions.common.pieces.SAVE_EVERY", -1.0)
    monkeypatch.setattr("hessdiag.questions.common.pieces.SAVE_SHARE", 1e9)
    monkeypatch.setattr("hessdiag.machine.memory.LARGEST_CHUNK", 8)
    whole, taken = blocks(_deep_problem(), probes=probes), 0
    for _ in range(3):
        ended = blocks(_deep_problem(), probes=probes, resume=tmp_path, progress=ends_after(4))
        assert ended.status == "interrupted"
        assert ended.resumed_pieces >= taken
        taken = ended.resumed_pieces + (2 * 8 if probes else 0)
    resumed = blocks(_deep_problem(), probes=probes, resume=tmp_path)
    assert resumed.resumed_pieces >= taken
    assert document(resumed)["result"] == document(whole)["result"]
    assert (resumed.findings, resumed.status, resumed.checks) == (whole.findings, whole.status, whole.checks)
    again = blocks(_deep_problem(), probes=probes, resume=tmp_path)
    assert again.resumed_pieces == (4 * probes if probes else 4), "probes, or layers"
    assert document(again)["result"] == document(whole)["result"]
    with pytest.raises(SpecError, match="another run: seed was 0 and is 1"):
        blocks(_deep_problem(), probes=probes, seed=1, resume=tmp_path)


def test_an_interrupt_of_the_diagonal_keeps_the_norms(monkeypatch):
    def ended(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "diagonal_masses", ended)
    found = blocks(_deep_problem(), probes=4)
    assert (found.status, found.diagonal_mass, found.probes) == ("interrupted", None, 4)
