"""Every report of a network whose units have kinks says that its Hessian is that of one piece; of others, none does."""

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.machine.cost import ledger
from hessdiag.problem.problem import Problem
from hessdiag.questions.documents import document, read

QUESTIONS = ("blocks", "eigs", "spectrum", "bounds", "diag_share")


def network(activation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), activation(), nn.Linear(10, 8), activation(), nn.Linear(8, 3)).double()
    return Problem(model, data=[(torch.randn(50, 6).double(), torch.randint(0, 3, (50,)))], loss="ce")


def notes(found):
    return [finding for finding in found.findings if "one piece" in finding.says]


@pytest.mark.parametrize("question", QUESTIONS)
def test_of_relus_there_is_one_note_with_what_a_step_beside_says(question):
    problem = network(nn.ReLU)
    found = getattr(hessdiag, question)(problem)
    (note,) = notes(found)
    assert note.level == "note"
    assert "900 units have kinks" in note.says
    assert note.remedy.startswith("hessdiag trust-radius MODEL")
    pieces = found.point.pieces
    assert pieces.gates == 50 * 18
    assert pieces.flipped == pytest.approx(_flipped(problem), abs=1e-12)
    assert read(document(found)).point == found.point


def _flipped(problem):
    """Share of ReLUs that change side after a step of 0.1 % of the weights down the gradient."""
    model, (x, y) = problem.model, problem.data[0]
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)
    size, length = (torch.cat([part.reshape(-1) for part in parts]).norm() for parts in (parameters, gradient))
    before = _sides(x, parameters)
    moved = [w - 1e-3 * size / length * g for w, g in zip(parameters, gradient, strict=True)]
    return float((before != _sides(x, moved)).double().mean())


def _sides(x, parameters):
    first = x @ parameters[0].T + parameters[1]
    second = first.relu() @ parameters[2].T + parameters[3]
    return torch.cat([first > 0, second > 0], 1)


@pytest.mark.parametrize("question", QUESTIONS)
def test_of_smooth_units_there_is_none(question):
    found = getattr(hessdiag, question)(network(nn.GELU))
    assert notes(found) == []
    assert found.point.pieces is None
    assert "pieces" not in document(found)["result"]["point"]


def test_the_gauss_newton_matrix_is_no_second_derivative():
    assert notes(hessdiag.spectrum(network(nn.ReLU), operator="ggn")) == []


def test_it_costs_no_gradient():
    """Three forward passes: what is counted of the check of the point stays the same."""
    spent = {}
    for activation in (nn.ReLU, nn.GELU):
        with ledger() as spending:
            hessdiag.eigs(network(activation))
        spent[activation] = spending.gradients
    assert spent[nn.ReLU] == spent[nn.GELU]
