"""muP: roles, initial sizes and learning rates, against the paper's table written out by hand."""

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.nets.gpt import GPT
from hessdiag.nets.mlp import MLP
from hessdiag.nets.mup import FAMILIES, multiplier, role

WIDE, NARROW, ENDS = 192, 48, 10
TABLE = {  # Table 3 of arXiv 2203.03466: by shapes (narrow, wide), learning rates of SGD and Adam where width is 4-fold
    "input": ((NARROW, ENDS), (WIDE, ENDS), 4, 1),
    "hidden": ((NARROW, NARROW), (WIDE, WIDE), 1, 1 / 4),
    "output": ((ENDS, NARROW), (ENDS, WIDE), 1 / 4, 1 / 4),
    "vector": ((NARROW,), (WIDE,), 4, 1),
    "fixed": ((ENDS,), (ENDS,), 1, 1),
}


@pytest.mark.parametrize("name", TABLE)
def test_roles_and_learning_rates_are_the_papers(name):
    narrow, wide, sgd, adam = TABLE[name]
    assert role(narrow, wide) == name
    assert (multiplier("sgd", narrow, wide), multiplier("adam", narrow, wide)) == (sgd, adam)


def test_a_table_of_vectors_and_a_convolution():
    assert role((50, 8), (50, 16), embedding=True) == "input"
    assert multiplier("sgd", (50, 8), (50, 16), embedding=True) == 2
    assert role((8, 3, 3, 3), (16, 3, 3, 3)) == "input"
    assert role((8, 8, 3, 3), (16, 16, 3, 3)) == "hidden"
    assert role((8, 8, 3, 3), (8, 8, 3, 3)) == "fixed"


def test_what_divides_by_the_gradients_size_has_adams_rates():
    assert FAMILIES["sgd"] == "sgd"
    assert {FAMILIES[name] for name in ("adamw", "rmsprop", "adagrad", "lion")} == {"adam"}
    assert "muon" not in FAMILIES


@pytest.mark.parametrize(("base", "factor"), [(1, 1 / 8), (16, 1 / 2), (64, 1)])
def test_the_output_starts_smaller_and_nothing_else_differs(base, factor):
    sizes = {"depth": 3, "width": 64, "in_features": 5, "out_features": 2, "seed": 1}
    plain, mup = MLP(**sizes), MLP(**sizes, parametrization="mup", base_width=base)
    (*inner, last), (*same, small) = plain.parameters(), mup.parameters()
    assert all(torch.equal(one, other) for one, other in zip(inner, same, strict=True))
    assert torch.allclose(small, factor * last, rtol=1e-14)
    assert (plain.parametrization, mup.parametrization) == ("standard", "mup")


def test_scores_of_a_mup_gpt_are_scaled_by_the_heads_size_and_its_head_starts_small():
    sizes = {"layers": 1, "heads": 2, "vocabulary": 7, "context": 4, "seed": 0}
    for width in (32, 128):
        plain, mup = GPT(**sizes, width=width), GPT(**sizes, width=width, parametrization="mup")
        assert plain.blocks[0].attention.scale == pytest.approx((width / 2) ** -0.5)
        assert mup.blocks[0].attention.scale == pytest.approx(4 / (width / 2))
        assert torch.allclose(mup.head.weight, plain.head.weight / width**0.5, rtol=1e-14)


def test_another_parametrization_is_refused():
    with pytest.raises(SpecError, match="unknown parametrization 'mu'") as caught:
        MLP(parametrization="mu")
    assert caught.value.hint == "parametrization='mup'"
    with pytest.raises(SpecError, match="base_width must be at least 1"):
        GPT(base_width=0)
