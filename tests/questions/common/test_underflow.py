import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.common.verdict import UNDERFLOW, underflow_findings
from hessdiag.questions.diag_share.measure import diag_share


@pytest.mark.parametrize("dtype", UNDERFLOW)
def test_floors_are_those_of_the_dtypes(dtype):
    kind = torch.finfo(getattr(torch, dtype))
    floor = kind.tiny / kind.eps
    assert not underflow_findings(floor, "it", dtype)
    assert not underflow_findings(0.0, "it", dtype)
    (found,) = underflow_findings(floor * 0.99, "it", dtype)
    assert f"near the underflow floor of {dtype}." in found.says


def test_dtypes_that_are_not_known_have_no_floor():
    assert not underflow_findings(1e-300, "it", "float8_e4m3fn")


@pytest.mark.parametrize("measure", [blocks, diag_share])
@pytest.mark.parametrize(("size", "noticed"), [(1.0, False), (3e-17, True)])
def test_tiny_curvature_is_noticed(measure, size, noticed):
    """One linear layer with inputs of that size: entries of H are of its square."""
    x = size * torch.randn(8, 3)
    problem = Problem(nn.Linear(3, 1, bias=False), data=[(x, torch.zeros(8, 1))], loss="mse")
    said = " ".join(finding.says for finding in measure(problem).findings)
    assert ("underflow floor of float32" in said) is noticed
