import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.errors import SpecError
from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as module
from hessdiag.questions.blocks.masses import diagonal_masses
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.blocks.verdict import findings
from hessdiag.questions.documents import document, loads, read
from tests.curvature.test_hessian import CASES
from tests.interrupts import ends_after
from tests.reference import brute_force_hessian, net_a, quadratic
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


def test_the_result_is_plain():
    for options in ({}, {"probes": 3}):
        found = blocks(SPLIT["conv, relu, mse"](), **options)
        result = json.loads(found.to_json())["result"]
        again = read(loads(found.to_json()))
        assert again == found
        assert tuple(findings(again)) == found.findings, "the verdict needs nothing but the result"
        assert result["names"] == ["0", "2", "5"]
        assert {"frobenius", "gauss_newton", "residual", "trace", "method"} <= set(result)


def _deep_problem():
    torch.manual_seed(4)
    parts = [part for a, b in itertools.pairwise([8, 8, 8, 8, 4]) for part in (nn.Linear(a, b), nn.Tanh())]
    return Problem(nn.Sequential(*parts[:-1]).double(), data=[(_x(24, 8), torch.arange(24) % 4)], loss="ce")


@pytest.mark.parametrize("probes", [None, 24])
def test_resumed_blocks_are_those_of_a_run_without_interrupts(probes, tmp_path, monkeypatch):
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_EVERY", -1.0)
    monkeypatch.setattr("hessdiag.questions.common.runs.pieces.SAVE_SHARE", 1e9)
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
