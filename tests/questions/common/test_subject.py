"""Questions asked of an operator are answered as if they were asked of its problem."""

from dataclasses import fields

import pytest
import torch

import hessdiag
from hessdiag.errors import SpecError


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    return hessdiag.Problem(model, data=[(torch.randn(9, 4).double(), torch.randint(3, (9,)))], loss="ce")


def numbers(result):
    """All but how they came to be: products are told from those before, and runs by their times."""
    kept = {one.name: getattr(result, one.name) for one in fields(result)}
    return {name: value for name, value in kept.items() if name not in ("engine", "vectors", "provenance")}


@pytest.mark.parametrize("ask", ["eigs", "spectrum", "bounds", "diag_share", "blocks"])
def test_the_hessian_stands_for_its_problem(problem, ask):
    question = getattr(hessdiag, ask)
    H = hessdiag.HessianOperator(problem)
    before = H @ torch.ones(problem.n_parameters)
    assert numbers(question(H)) == numbers(question(problem))
    torch.testing.assert_close(H @ torch.ones(problem.n_parameters), before, rtol=0, atol=0)


def test_vectors_are_those_of_the_problem(problem):
    found, expected = hessdiag.eigs(hessdiag.HessianOperator(problem)), hessdiag.eigs(problem)
    assert torch.equal(found.vectors, expected.vectors)


@pytest.mark.parametrize(
    ("operator", "name"), [(hessdiag.GaussNewtonOperator, "ggn"), (hessdiag.FisherOperator, "fisher")]
)
def test_the_spectrum_of_an_operator_is_that_of_its_matrix(problem, operator, name):
    found = hessdiag.spectrum(operator(problem))
    assert found.operator == name
    assert numbers(found) == numbers(hessdiag.spectrum(problem, operator=name))
    assert numbers(hessdiag.spectrum(operator(problem), operator=name)) == numbers(found)


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (lambda p: hessdiag.eigs(hessdiag.GaussNewtonOperator(p)), r"hessdiag\.linalg\.eigsh\(operator"),
        (lambda p: hessdiag.eigs(torch.eye(3)), r"not Tensor.\n  try: hessdiag\.linalg\.eigsh\(operator"),
        (lambda p: hessdiag.bounds(2 * hessdiag.HessianOperator(p)), r"hessdiag\.linalg\.gershgorin\(operator"),
        (lambda p: hessdiag.spectrum(hessdiag.FisherOperator(p, empirical=True)), r"hessdiag\.linalg\.slq\(operator"),
        (lambda p: hessdiag.spectrum(hessdiag.HessianOperator(p), operator="ggn"), "is not operator='ggn'"),
        (lambda p: hessdiag.diag_share(torch.eye(3)), r"hessdiag\.linalg\.diagonal\(operator"),
        (lambda p: hessdiag.blocks(hessdiag.GaussNewtonOperator(p)), "not GaussNewtonOperator"),
        (lambda p: hessdiag.eigs(p.model), r"a model alone.\n  try: hessdiag\.Problem\(model"),
        (lambda p: hessdiag.eigs("builtin:mlp"), r"not str.\n  try: hessdiag\.Problem\(model"),
    ],
)
def test_what_is_no_problem_is_answered_with_the_call_that_works(problem, ask, instead):
    with pytest.raises(SpecError, match=instead):
        ask(problem)
