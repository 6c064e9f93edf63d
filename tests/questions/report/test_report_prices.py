"""What questions are announced to take, beside what they spend: counted in products and in passes, so by no clock."""

import math

import pytest
from torch import nn

from hessdiag import ProblemRequest, load_problem
from hessdiag.machine.once import sharing
from hessdiag.questions.common.runs.progress import silent
from hessdiag.questions.report import prices
from hessdiag.questions.report.ask import Asking, asked_one
from hessdiag.questions.report.pace import Pace, first_pace, pace, sizes
from hessdiag.questions.report.steps import CURVED, STEPS, step

APART = 2.5  # times as much, or as little, as announced
FEW = 30  # products: what checks take beside, and what no plan hangs on
BY_PRODUCTS = Pace(loss=0.0, gradient=0.0, product=1.0, few=1.0, together=1.0)
BY_PASSES = Pace(loss=1.0, gradient=1.0, product=0.0, few=0.0, together=0.0)
WORTH = {"precondition": prices.TO_PRODUCT, "diag-share": prices.ROWS}  # of each of their products, in time

MODELS = {  # with the most products of a question that is asked
    "whole": ("builtin:mlp(depth=3, width=6)", 500),
    "large": ("builtin:mlp(depth=4, width=24)", 1_500),
    "curved": ("builtin:mlp(depth=8, width=8, activation='tanh')", 500),
    "transformer": ("builtin:gpt(layers=1, width=24, vocabulary=12, context=4, sequences=2)", 500),
}


def asked(problem, one, options):
    asking = Asking(problem, ("MODEL",), None, None, 0, silent)
    return asked_one(asking, one, options, math.inf)


@pytest.mark.parametrize(("model", "dear"), MODELS.values(), ids=MODELS)
def test_products_are_as_many_as_announced(model, dear):
    problem = load_problem(ProblemRequest(model, device="cpu"))
    off = []
    with sharing():
        pace(problem, first_pace(problem), 0)  # with the check of the point, which all share
        size = sizes(problem, looked_at=True)
        for one in (step(command) for command in CURVED):
            for options in (one.rungs[0], one.rungs[-1]):
                each = WORTH.get(one.command, 1)
                announced = (prices.price(one, options, BY_PRODUCTS, size) - prices.OVERHEAD) / each
                if announced > dear:
                    continue
                answer = asked(problem, one, options)
                assert answer.error is None, answer.error
                apart = max(answer.products, FEW) / max(announced, FEW)
                if not 1 / APART < apart < APART:
                    off.append((one.command, options, announced, answer.products))
    assert off == []


@pytest.mark.parametrize("command", ["forward", "escape"])
def test_passes_are_as_many_as_announced(command, monkeypatch):
    problem = load_problem(ProblemRequest("builtin:mlp(depth=8, width=8)", device="cpu"))
    layers, calls, linear = len(problem.layer_slices), [], nn.functional.linear
    one = step(command)
    monkeypatch.setattr(nn.functional, "linear", lambda *given: calls.append(None) or linear(*given))
    answer = asked(problem, one, one.rungs[0])
    assert answer.error is None, answer.error
    announced = prices.price(one, one.rungs[0], BY_PASSES, sizes(problem, looked_at=True)) - prices.OVERHEAD
    assert 1 / APART < len(calls) / layers / announced < APART


def test_every_question_has_a_price():
    assert prices.PRICES.keys() | {"check"} == {one.command for one in STEPS}
