"""`hessdiag sharpness` of weights and an optimizer's state that lie in one checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from hessdiag import sharpness
from hessdiag.problem.problem import Problem

SCRIPT = """
import torch
from torch import nn
def setup():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh()))).double()
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(40, 4, generator=generator).double(), torch.randn(40, 2, generator=generator).double())]
    return model, data, "mse"
def make(model):
    weights = [one for name, one in model.named_parameters() if one.ndim > 1 and name != "2.weight"]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": [one for one in model.parameters() if one.ndim < 2]}], lr=1e-2
    )
"""


@pytest.fixture
def live(hessdiag):
    """A run, in the folder of the command, whose optimizer leaves out one of two weights of a shape, kept in one file; and what it is when live."""
    Path("train.py").write_text(SCRIPT)
    scope = {}
    exec(SCRIPT, scope)
    model, data, loss = scope["setup"]()
    optimizer = scope["make"](model)
    problem = Problem(model, data=data, loss=loss)
    for _ in range(60):
        optimizer.zero_grad()
        problem.evaluate(data[0]).backward()
        optimizer.step()
    optimizer.zero_grad()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "ckpt.pt")
    return sharpness(problem, optimizer=optimizer)


def of_file(hessdiag, *more):
    outcome = hessdiag("sharpness", "train.py:setup", "--weights", "ckpt.pt", *more, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["result"]


def test_the_function_tells_the_order_and_the_numbers_are_the_live_ones(live, hessdiag):
    found = of_file(hessdiag, "--optimizer", "train.py:make", "--state", "ckpt.pt#optimizer")
    assert found["optimizer"]["state"] == "checkpoint"
    assert found["ratio"] == pytest.approx(live.ratio, rel=1e-9)
    ours = {row["kind"]: row["value"] for row in found["readings"]}
    theirs = {row.kind: row.value for row in live.readings}
    assert ours == {kind: pytest.approx(value, rel=1e-9) for kind, value in theirs.items()}


def test_without_it_the_command_that_works_is_named(live, hessdiag):
    outcome = hessdiag("sharpness", "train.py:setup", "--weights", "ckpt.pt", "--optimizer", "ckpt.pt#optimizer")
    assert outcome.code == 2
    assert "2.weight, 4.weight could be swapped" in outcome.err
    assert "--optimizer train.py:make_optimizer --state ckpt.pt#optimizer" in outcome.err
    assert "Traceback" not in outcome.err
