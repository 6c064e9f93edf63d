"""What norms and traces of blocks prove of negative curvature is true."""

import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks import measure as module
from hessdiag.questions.blocks.measure import blocks


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
