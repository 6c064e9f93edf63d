"""The head of every report about a model says in which mode it was measured, and in which it came."""

import json
import re

import pytest
import torch
from torch import nn

import hessdiag


def _problem(come, train_mode):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).train(come != "eval")
    if come == "mixed":
        model[1].eval()
    x = torch.randn(8, 3)
    return hessdiag.Problem(model, [(x, x[:, :2])], "mse", train_mode=train_mode)


@pytest.mark.parametrize(
    ("come", "train_mode", "says"),
    [
        ("train", False, "eval (it came in train mode)"),
        ("eval", False, "eval"),
        ("mixed", False, "eval (it came with 3 of 4 modules in train mode)"),
        ("train", True, "train"),
        ("eval", True, "train (it came in eval mode)"),
        ("mixed", True, "train (it came with 3 of 4 modules in train mode)"),
    ],
)
def test_all_forms_say_the_mode(come, train_mode, says, tmp_path):
    measured = hessdiag.eigs(_problem(come, train_mode))
    assert f"- mode: {says}\n" in measured.to_markdown()
    measured.to_html(tmp_path / "page.html")
    page = re.sub(r"<[^>]*>|\s+", " ", (tmp_path / "page.html").read_text("utf-8"))
    assert re.search(rf" mode +{re.escape(says)} +batch ", page)
    problem = json.loads(measured.to_json())["problem"]
    training = {"train": 4, "eval": 0, "mixed": 3}[come]
    assert (problem["train_mode"], problem["modules"], problem["modules_in_training"]) == (train_mode, 4, training)
    assert [module.training for module in _problem(come, train_mode).model].count(True) == training
