"""`hessdiag transfer`: the template, options, and what is printed."""

import json

import pytest

from hessdiag.errors import SpecError
from hessdiag.questions.transfer.template import at_size, varied

MLP = "builtin:mlp(width={width}, depth=2, in_features=4, out_features=2)"
FAST = ("--widths", "4,8", "--seeds", "2", "--steps", "1")
TRAIN = """
import torch
from torch import nn
def build(width):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 2))
def make(model, lr=0.1):
    inner, outer = model[0], model[2]
    return torch.optim.SGD([{"params": inner.parameters(), "lr": lr * inner.out_features},
                            {"params": outer.parameters(), "lr": lr / outer.in_features}], lr=lr)
"""


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("builtin:mlp(depth=3)", "is one network", "hessdiag transfer 'builtin:mlp(width={width}, depth=3)'"),
        ("train.py:build(width=8, act='tanh')", "is one network", "train.py:build(width={width}, act="),
        (
            "builtin:mlp(width={width}, depth={depth})",
            "leaves width and depth open",
            "a number in the place of {depth}",
        ),
        ("builtin:mlp(width={size})", "{size} in .* is no size", "{width} or {depth}"),
        ("mlp(width={width})", "bare word", None),
        ("builtin:mlp({width})", "positional", None),
    ],
)
def test_a_spec_without_one_place_is_refused_in_one_line(text, says, hint):
    with pytest.raises(SpecError, match=says) as caught:
        varied(text)
    assert "\n" not in caught.value.what
    assert hint is None or hint in caught.value.hint


def test_a_place_may_stand_several_times_and_in_any_spec():
    assert at_size("pkg.nets:build(d={width}, ff={width})", 12) == "pkg.nets:build(d=12, ff=12)"
    assert (varied("train.py:f(n={depth})"), varied(MLP)) == ("depth", "width")


def test_json_holds_what_scripts_rely_on(hessdiag):
    found = json.loads(hessdiag("transfer", MLP, *FAST, "--json").out)["result"]
    assert found["widths"] == [4, 8]
    assert found["transfers"] in (True, False, None)
    for name in ("lambda_max", "lambda_max_weighted", "update", "activation"):
        assert isinstance(found["slopes"][name]["slope"], float)
        assert isinstance(found["slopes"][name]["stderr"], float)


def test_the_cost_is_said_before(hessdiag):
    said = hessdiag("transfer", MLP, *FAST).err
    assert "4 networks: 2 of each width 4, 8, up to 48 parameters" in said
    assert "at most 120 products" in said


def test_multipliers_are_those_of_the_users_groups(hessdiag, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    outcome = hessdiag("transfer", "train.py:build(width={width})", *FAST, "--optimizer", "train.py:make", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["result"]
    assert [(line["role"], round(line["rate"], 9)) for line in found["layers"][:2]] == [("input", 1), ("output", -1)]
    assert found["lr"] == 0.1
    assert found["lr_chosen"] is False


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((MLP, "--depths", "2,4"), 2, "--depths are values of {depth}"),
        ((MLP, "--widths", "8"), 2, "between two widths or more"),
        ((MLP.replace("width={width}", "width={width}, nope=1"), *FAST), 2, "nope"),
        (("builtin:gpt(width={width})", "--widths", "6,8"), 2, "cannot share a width of 6"),
        ((MLP, *FAST, "--optimizer", "adm"), 2, "there is no optimizer 'adm'"),
        (("nothing.py:f(width={width})", *FAST), 3, "nothing.py"),
    ],
)
def test_errors_are_one_or_two_lines(hessdiag, args, code, says):
    outcome = hessdiag("transfer", *args)
    assert outcome.code == code
    assert says in outcome.err
    assert len([line for line in outcome.err.splitlines() if line.startswith(("error", "  try"))]) <= 2


def test_a_gate_reads_a_slope(hessdiag):
    gate = ("--fail-if", "slopes.lambda_max.slope > -100")
    assert hessdiag("transfer", MLP, *FAST, *gate).code == 1
