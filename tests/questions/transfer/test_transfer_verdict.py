"""What is said of slopes: results by hand, and the sentences they must give."""

from dataclasses import replace

import pytest

from hessdiag.questions.pages import render
from hessdiag.questions.transfer.mend import mended
from hessdiag.questions.transfer.result import LayerPowers, SizeMeans, Slope, Slopes, Transfer
from hessdiag.questions.transfer.verdict import findings, power, transfers
from tests.documents import document

HOLDS = Slope(slope=0.01, stderr=0.01, low=-0.02, high=0.04, last=0.0, held="holds")
UP = Slope(slope=0.95, stderr=0.02, low=0.9, high=1.0, last=1.0, held="drifts")
DOWN = Slope(slope=-0.5, stderr=0.02, low=-0.55, high=-0.45, last=-0.5, held="drifts")
OPEN = Slope(slope=0.3, stderr=0.2, low=-0.3, high=0.9, last=0.3, held="open")


def layer(role="hidden", activation=HOLDS, **more):
    return LayerPowers(name=f"the {role} layer", role=role, rate=0.0, activation=activation, **more)


def size(number, diverged=0, largest_lr=0.5):
    means = {"lambda_max": 1.0, "lambda_max_weighted": 1.0, "update": 1.0, "activation": 1.0}
    return SizeMeans(size=number, parameters=10, networks=5, diverged=diverged, largest_lr=largest_lr, **means)


def result(seen=HOLDS, layers=None, **more):
    shape = {
        "widths": (8, 32), "asked": (8, 32), "seeds": 5, "steps": 4, "optimizer": "SGD(lr=0.1)", "lr": 0.1,
        "sizes": (size(8, largest_lr=0.02), size(32, largest_lr=0.001)),
    }  # fmt: skip
    made = Transfer(**shape | {"layers": layers or (layer(),), "slopes": Slopes(lambda_max_weighted=seen)} | more)
    return replace(made, transfers=transfers(made))


def said(made):
    return " ".join(f"{one.says} {one.because} {one.remedy}" for one in findings(made))


@pytest.mark.parametrize(
    ("seen", "activation", "at", "expected"),
    [
        (HOLDS, HOLDS, "start", True),
        (UP, HOLDS, "start", False),
        (HOLDS, DOWN, "start", False),
        (OPEN, HOLDS, "start", None),
        (HOLDS, OPEN, "start", None),
        (OPEN, HOLDS, "after the steps", True),
        (UP, HOLDS, "after the steps", False),
        (Slope(), HOLDS, "after the steps", True),
        (Slope(), Slope(), "start", None),
    ],
)
def test_it_holds_where_all_hold_and_not_where_one_drifts(seen, activation, at, expected):
    assert result(seen, (layer(activation=activation),), weighted_at=at).transfers is expected


def test_the_output_layers_own_change_is_not_judged():
    assert result(layers=(layer(), layer("output", UP))).transfers is True


def test_a_run_that_diverges_does_not_hold():
    made = result(sizes=(size(8), size(32, diverged=2)))
    assert made.transfers is False
    assert "diverges at width 32" in findings(made)[0].says
    assert "in 2 of 5 networks" in findings(made)[0].because


def test_what_drifts_is_said_with_its_power_its_limits_and_what_mends_it():
    lines = (
        layer("input", DOWN, mended_rate=1.0),
        layer("hidden", HOLDS, mended_rate=0.0),
        layer("output", UP, mended_rate=-1.0, mended_weight=-1.0, initial_weight=-0.5),
    )
    text = said(result(UP, lines))
    assert "A learning rate tuned at width 8 does not hold at 32" in text
    assert "width^0.95 (95 %: 0.90 to 1.00)" in text
    assert "from 0.0200 to 0.00100" in text
    assert "the less the outputs of the input layer change in 4 steps" in text
    assert (
        "learning rate × (width/8)^1.0 of the input layer; learning rate × (width/8)^-1.0 of the output layer" in text
    )
    assert "initial weights × (width/8)^-0.5 of the output layer" in text
    assert "of the hidden layer" not in text.partition("would make")[2]


def test_a_raw_eigenvalue_that_drifts_is_no_harm_where_the_optimizer_does_not_see_it():
    made = result(HOLDS)
    made = replace(made, slopes=replace(made.slopes, lambda_max=UP))
    assert "no harm here" in said(made)
    assert [one.level for one in findings(made)] == ["note", "ok"]


def test_what_cannot_be_told_says_how_to_tell_it():
    found = findings(result(OPEN))[0]
    assert found.level == "note"
    assert "cannot be told" in found.says
    assert "--seeds 20" in found.remedy


def test_layers_that_start_unlike_are_named():
    assert "Before any step, the outputs of the hidden layer already grow" in said(
        result(layers=(layer(initial_activation=0.5),))
    )


def test_an_eigenvalue_that_did_not_converge_is_said():
    assert "has not converged" in said(result(residual=0.3))
    assert "has not converged" not in said(result(residual=0.02))


def test_depths_are_called_so_and_nothing_is_mended_over_them():
    text = said(result(UP, (layer(mended_rate=1.0),), varied="depth"))
    assert "tuned at depth 8" in text
    assert "would make every layer learn alike" not in text
    assert power(UP, "depth").startswith("depth^0.95")


def test_nothing_but_the_interrupt_is_said_where_no_two_sizes_were_finished():
    made = Transfer(status="interrupted", asked=(8, 32), seeds=5)
    assert [one.says for one in findings(made)] == ["Interrupted before anything was measured: nothing can be said."]


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_documents_cut_short_and_without_numbers_are_shown(form):
    made = document("transfer")
    made["status"] = "interrupted"
    for key in ("widths", "sizes", "layers"):
        made["result"][key] = []
    made["result"]["slopes"] = {}
    made["result"]["transfers"] = None
    assert "fewer than two widths were finished" in render(made, form)


@pytest.mark.parametrize(("family", "hidden"), [("sgd", 0.0), ("adam", -0.5), (None, -0.5)])
def test_a_smaller_start_of_the_output_shrinks_the_gradients_of_gradient_descent_alone(family, hidden):
    inner = layer("hidden", first_update=Slope(slope=0.5, low=0.45, high=0.55), initial_weight=-0.5)
    head = layer("output", first_update=Slope(slope=1.0, low=0.9, high=1.1), initial_weight=-0.5)
    found = mended((inner, head), family, 0.2)
    assert found[0].mended_rate == (-1.0 if family == "adam" else hidden)  # near the table's, whose power it takes
    assert (found[1].mended_rate, found[1].mended_weight) == (-1.0, -1.0)
