"""Softmax regression by class: what closed forms say of it is measured, and is said of nothing else."""

import math

import pytest
import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.blocks.by.view import view
from hessdiag.questions.blocks.measure import blocks
from hessdiag.questions.documents import document, read


def _problem(classes, model=None, **options):
    generator = torch.Generator().manual_seed(classes)
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (9,), generator=generator)
    if model is None:
        model = nn.Linear(3, classes).double()
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
    return Problem(model, data=[(x[:4], y[:4]), (x[4:], y[4:])], **{"loss": "ce", **options})


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_closed_forms_are_measured(classes):
    found = blocks(_problem(classes), by="class")
    law = found.theory
    assert law.frobenius_share == pytest.approx(1 - 1 / classes, abs=1e-15)
    assert law.absolute_share == 0.5
    assert law.relative_error == pytest.approx(math.sqrt(1 / classes), abs=1e-15)
    assert found.frobenius_share == pytest.approx(law.frobenius_share, abs=1e-12)
    assert found.absolute_share == pytest.approx(law.absolute_share, abs=1e-12)
    assert found.relative_error == pytest.approx(law.relative_error, abs=1e-12)
    assert found.coupling[0][1] / found.coupling[0][0] == pytest.approx(law.coupling, abs=1e-12)
    assert found.lambda_max.blocks / found.lambda_max.hessian == pytest.approx(law.lambda_max_ratio, abs=1e-9)


def test_the_page_has_them_and_so_has_the_document():
    found = blocks(_problem(10), by="class")
    facts = {fact.name: fact.value for fact in view(found).facts}
    assert facts["theory of all three"] == "90.0 %, 50.0 %, 0.316"
    assert document(found)["theory"]["absolute_share"] == 0.5
    assert read(document(found)) == found


def _network(zero):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()
    if zero:
        nn.init.zeros_(model[2].weight)
        nn.init.zeros_(model[2].bias)
    return model


def _favouring():
    model = _network(zero=True)
    model[2].bias.data[0] = 1.0
    model[2].bias.requires_grad_(False)
    return model


ELSE = {
    "weights that are not zero": (lambda: nn.Linear(3, 5).double(), {}, "class"),
    "layers before": (lambda: _network(zero=True), {}, "class"),
    "a bias that favours a class": (_favouring, {"layers": "2"}, "class"),
    "a sum": (lambda: _network(zero=True), {"layers": "2", "loss": nn.CrossEntropyLoss(reduction="sum")}, "class"),
    "other blocks": (lambda: _network(zero=True), {"layers": "2"}, "tensor"),
}


@pytest.mark.parametrize("name", ELSE)
def test_of_anything_else_nothing_is_said(name):
    make, options, by = ELSE[name]
    found = blocks(_problem(5, make(), **options), by=by)
    assert found.theory is None
    assert "theory" not in " ".join(fact.name for fact in view(found).facts)


def test_a_last_layer_by_itself_is_softmax_regression_of_what_comes_before():
    found = blocks(_problem(5, _network(zero=True), layers="2"), by="class")
    assert found.theory.frobenius_share == pytest.approx(found.frobenius_share, abs=1e-12)
