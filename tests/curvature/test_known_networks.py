"""Deterministic networks whose loss, gradients, block norms and spectra are known to six digits."""

import pytest
import torch
from torch import nn

from hessdiag.curvature.dense import hessian
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.problem.problem import Problem
from tests.reference import cosine_problem, net_a, share

SIX_DIGITS = {"rel": 5e-6, "abs": 5e-7}

NET_B = [3, 4, 3, 2]
NETWORKS = {
    "NET-A": (net_a, {
        "loss": 50, "gradients": [31.6228, 41.2311], "blocks": [10, 30.4959, 17], "trace": 27, "share": 0.134328,
        "extremes": [-14.1421, 40.7443], "inertia": (2, 2, 2),
    }),
    "NET-B relu": (lambda: cosine_problem(NET_B, 5, "relu"), {
        "loss": 0.596536, "gradients": [0.782990, 0.445372, 0.240851],
        "blocks": [3.88469, 2.69962, 1.11854, 2.24450, 0.826486, 0.331460], "frobenius": 6.21955, "trace": 9.26641,
        "abs_sum": 98.7368, "share": 0.0938497, "extremes": [-0.560445, 5.29841], "inertia": (11, 13, 6),
    }),
    "NET-B linear": (lambda: cosine_problem(NET_B, 5, "linear"), {
        "loss": 0.908841, "gradients": [2.05978, 2.05196, 1.26151],
        "blocks": [8.27554, 6.48385, 4.83868, 7.74340, 5.12997, 3.11623], "frobenius": 17.9359, "trace": 23.6765,
        "share": 0.0576442, "extremes": [-2.10925, 15.5421], "inertia": (12, 12, 6),
    }),
    "NET-B tanh": (lambda: cosine_problem(NET_B, 5, "tanh"), {
        "loss": 0.626644, "gradients": [0.498210, 0.376797, 0.365969],
        "blocks": [3.09202, 1.51658, 0.910897, 1.79163, 1.20656, 1.06439], "frobenius": 4.80360, "trace": 5.94258,
        "abs_diagonal": 6.19215, "share": 0.0595032, "extremes": [-0.862935, 3.81253],
    }),
    "NET-B cross-entropy relu": (lambda: cosine_problem(NET_B, 5, "relu", classes=True), {
        "loss": 0.625501, "gradients": [0.144706, 0.183134, 0.106645],
        "blocks": [1.10680, 0.780123, 0.296890, 0.651332, 0.285776, 0.109590], "frobenius": 1.79389, "trace": 2.62509,
        "share": 0.0903752, "extremes": [-0.254711, 1.51206],
    }),
    "NET-B cross-entropy tanh": (lambda: cosine_problem(NET_B, 5, "tanh", classes=True), {
        "loss": 0.681471, "frobenius": 2.21959, "trace": 2.04332, "abs_diagonal": 2.29396,
        "extremes": [-0.610327, 1.69034],
    }),
    "NET-C": (lambda: cosine_problem([2, 3, 3, 3, 1], 4, "relu"), {
        "loss": 0.433405, "frobenius": 3.36025, "trace": 2.40309, "share": 0.0838814, "extremes": [-0.660769, 3.15345],
        "blocks": [0.560522, 0.748315, 1.19500, 0.961898, 0.263030, 0.787758, 0.657596, 0.810382, 1.01085, 0.524484],
    }),
}  # fmt: skip


def _measure(problem, H, quantity):
    layers = problem.layer_slices
    if quantity == "loss":
        return float(problem.evaluate(problem.data[0]).detach())
    if quantity == "gradients":
        g = HessianOperator(problem).gradient()
        return [float(g[layer.start : layer.stop].norm()) for layer in layers]
    if quantity == "blocks":
        pairs = [(a, b) for i, a in enumerate(layers) for b in layers[i:]]
        return [float(H[a.start : a.stop, b.start : b.stop].norm()) for a, b in pairs]
    if quantity == "extremes":
        return torch.linalg.eigvalsh(H)[[0, -1]].tolist()
    return float(
        {
            "frobenius": H.norm(),
            "trace": H.trace(),
            "share": torch.tensor(share(H)),
            "abs_sum": H.abs().sum(),
            "abs_diagonal": H.diagonal().abs().sum(),
        }[quantity]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_known_network(name):
    make, expected = NETWORKS[name]
    problem = make()
    H = hessian(problem)
    for quantity, value in expected.items():
        if quantity == "inertia":
            eigenvalues = torch.linalg.eigvalsh((H + H.T) / 2)
            signs = (eigenvalues > 1e-9, eigenvalues < -1e-9, eigenvalues.abs() <= 1e-9)  # positive, negative, zero
            assert tuple(int(sign.sum()) for sign in signs) == value
        else:
            assert _measure(problem, H, quantity) == pytest.approx(value, **SIX_DIGITS), quantity


class _Chain(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in weights])

    def forward(self, x):
        for weight in self.weights:
            x = x * weight
        return x


def _chain(weights, x, y):
    batch = (torch.tensor([[x]], dtype=torch.float64), torch.tensor([[y]], dtype=torch.float64))
    return Problem(_Chain(weights), data=[batch], loss=lambda z, y: (z - y).square().sum() / 2, reduction="mean")


def test_short_chain():
    problem = _chain([1.1, 0.9, 1.2], 1.0, 0.5)
    H, g = hessian(problem), HessianOperator(problem).gradient()
    assert float(problem.evaluate(problem.data[0]).detach()) == pytest.approx(0.236672, rel=1e-9)
    assert g.tolist() == pytest.approx([0.743040, 0.908160, 0.681120], rel=1e-9)
    assert H.diagonal().tolist() == pytest.approx([1.1664, 1.7424, 0.9801], rel=1e-9)
    assert [float(H[0, 1]), float(H[0, 2]), float(H[1, 2])] == pytest.approx([2.2512, 1.6884, 2.0636], abs=5e-5)
    assert torch.linalg.eigvalsh(H)[[0, -1]].tolist() == pytest.approx([-0.848607, 5.34944], **SIX_DIGITS)
    assert share(H) == pytest.approx(0.244657, **SIX_DIGITS)


def test_positive_definite_chain():
    problem = _chain([0.5, -0.8, 1.2, 0.9, -1.1], 1.0, 1.0)
    H = hessian(problem)
    assert float(problem.evaluate(problem.data[0]).detach()) == pytest.approx(0.137708, **SIX_DIGITS)
    assert torch.linalg.eigvalsh(H)[[0, -1]].tolist() == pytest.approx([0.126174, 0.916758], **SIX_DIGITS)
    assert share(H) == pytest.approx(0.733627, **SIX_DIGITS)
    assert float(H.norm()) == pytest.approx(1.05081, **SIX_DIGITS)
