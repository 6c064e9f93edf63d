import math
from dataclasses import replace

import escape_by_hand as by_hand
import pytest

from hessdiag.questions.escape import tables
from hessdiag.questions.escape.result import Escape, Prediction
from hessdiag.questions.escape.summary import held, median, plateau_of, predicted_later, ratio, typical_run
from hessdiag.questions.escape.view import view
from hessdiag.report import html, markdown, terminal
from hessdiag.report.view import Curves, Heat, Table


def table(result, start):
    """The rows of the first table whose title starts so, by the names of their columns."""
    blocks = (*view(result).blocks, *view(result).extra)
    found = next(block for block in blocks if isinstance(block, Table) and block.title.startswith(start))
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def charts(result):
    return [block for block in view(result).blocks if isinstance(block, Curves)]


def test_the_race_has_a_row_for_each_with_medians_over_networks():
    rows = {row["optimizer"]: row for row in table(by_hand.result(), "Until the loss is below 0.9")}
    assert list(rows) == ["tr-rmsprop", "rmsprop", "tr-uniform", "muon", "sgd"]
    assert rows["tr-rmsprop"]["backprops"] == "21", "7 steps of a gradient and two products, the median of 18, 21, 24"
    assert rows["tr-rmsprop"]["steps"] == "7"
    assert rows["tr-rmsprop"]["epochs"] == "1.75", "a batch of a quarter counts once"
    assert (rows["rmsprop"]["lr"], rows["tr-rmsprop"]["lr"]) == ("0.001", "–")
    assert (rows["tr-uniform"]["escaped"], rows["sgd"]["escaped"]) == ("2 of 3", "0 of 3")
    assert rows["sgd"]["backprops"] == "–"
    assert rows["rmsprop"]["predicted steps"] == "31 [14 to 140]"
    assert rows["sgd"]["predicted steps"] == "4.6e9 [2.5e9 to 2.9e10]"
    assert float(rows["rmsprop"]["best loss"]) == pytest.approx(0.9 ** (400 / 23), rel=1e-2)


def test_network_by_network():
    rows = {row["optimizer"]: row for row in table(by_hand.result(), "Backpropagations until escape, network")}
    assert [rows["tr-uniform"][f"seed {seed}"] for seed in range(3)] == ["27", "30", "stuck"]
    assert not [block for block in view(by_hand.result(seeds=1)).blocks if "network by network" in block.title]


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({}, ("tr-rmsprop", "leaves the plateau first: 21 backprops, on 3 of 3 networks")),
        ({"plateaus": (by_hand.plateau(),)}, ("tr-rmsprop", "leaves the plateau first: 21 backprops, in 3 of 3 runs")),
        (
            {"plateaus": tuple(by_hand.plateau(seed, present=False) for seed in range(3))},
            ("tr-rmsprop", "is first below 0.9 of the loss: 21 backprops, on 3 of 3 networks"),
        ),
        (
            {"plateaus": (by_hand.plateau(dead=True, present=False),)},
            ("dead", "is this network: its weights have no gradient, and no optimizer mends that"),
        ),
        ({"contenders": (), "runs": ()}, ("–", "no run was made")),
    ],
)
def test_the_headline(changes, headline):
    assert view(by_hand.result(**changes)).headline == headline


def test_where_nobody_gets_out_the_headline_says_so():
    runs = tuple(by_hand.run("sgd", seed, None) for seed in range(3))
    alone = by_hand.result(runs=runs, contenders=(by_hand.contender("sgd", runs),))
    assert view(alone).headline == ("none", "leaves the plateau within 400 backpropagations: not one run")


def test_curves_are_ratios_with_marks_and_the_run_in_the_middle_in_full():
    result = by_hand.result()
    backprops, epochs, seconds = charts(result)
    first = backprops.panels[0]
    assert first.levels == (0.9,)
    main = {curve.name: curve for curve in first.curves if curve.main}
    assert set(main) == {contender.optimizer for contender in result.contenders}
    assert len(first.curves) == 15
    assert main["tr-rmsprop"].y[0] == 1.0
    assert main["tr-rmsprop"].mark[0] == 21
    assert main["sgd"].mark is None
    assert next(curve for curve in epochs.panels[0].curves if curve.name == "tr-rmsprop" and curve.main).mark[0] == 1.75
    assert next(curve for curve in seconds.panels[0].curves if curve.main).x[-1] == pytest.approx(132 * 0.002 * 5.6)


def test_predictions_and_regions_stand_beneath():
    _, spans, radius, rho = charts(by_hand.result())[0].panels
    assert [(span.name, span.low, span.typical, span.high) for span in spans.spans] == [
        ("rmsprop", 14, 31, 137),
        ("sgd", 2.5e9, 4.6e9, 2.9e10),
    ]
    assert spans.spans[0].seen == (20, 23, 26)
    assert (
        [curve.name for curve in radius.curves] == [curve.name for curve in rho.curves] == ["tr-rmsprop", "tr-uniform"]
    )
    assert {curve.group for curve in rho.curves} == {0, 2}, "the colours of the first panel"
    assert not rho.log


def test_predicted_steps_of_a_method_with_products_are_shown_in_its_backpropagations():
    runs = (by_hand.run("tr-rmsprop", 0, 6, products=2, predicted=by_hand.GROWTH),)
    result = by_hand.result(seeds=1, runs=runs, contenders=(by_hand.contender("tr-rmsprop", runs),))
    (span,) = charts(result)[0].panels[1].spans
    assert (span.low, span.typical, span.high) == (3 * 14, 3 * 31, 3 * 137)


def test_a_floor_counts():
    start = by_hand.plateau(floor=0.3, reference=0.5)
    assert ratio(0.4, start) == pytest.approx(0.5)
    assert ratio(0.5, by_hand.plateau(reference=0.0)) is None


def test_scores_are_shown_in_the_place_of_escapes():
    runs = tuple(by_hand.run(name, 0, None, score=score) for name, score in (("adam", 15.1), ("lodo", 8.93)))
    result = by_hand.result(
        seeds=1,
        runs=runs,
        contenders=tuple(by_hand.contender(run.optimizer, runs) for run in runs),
        score_window=(0.9, 1.0),
    )
    found = view(result)
    assert found.headline[0] == "lodo"
    assert "8.930" in found.headline[1]
    assert "from 90 % to 100 %" in found.headline[1]
    assert [row["optimizer"] for row in table(result, "Mean loss from 90 %")] == ["lodo", "adam"]
    (loss, *_) = charts(result)[0].panels
    assert loss.curves[0].y == runs[0].loss
    assert loss.levels == ()


def test_the_landscape_has_its_start_in_the_middle_and_up_is_up():
    grid = by_hand.grid()
    heat = next(block for block in view(by_hand.result(landscape=grid)).blocks if isinstance(block, Heat))
    assert heat.matrix[heat.marked[0]][heat.marked[1]] == grid.loss[10][10] == 0.499
    assert heat.matrix[0] == grid.loss[-1]
    assert (heat.labels[0], heat.labels[-1], heat.columns[0], heat.columns[10]) == ("+1", "-1", "-1", "0")


def test_medians_count_what_did_not_happen_as_never():
    assert median([10, 20, None]) == 20
    assert median([None, 20, None]) is None
    result = by_hand.result()
    middle = {one.optimizer: typical_run(result, one).backprops for one in result.contenders}
    assert (middle["tr-rmsprop"], middle["tr-uniform"], middle["sgd"]) == (21, 30, None)


@pytest.mark.parametrize(
    ("escape", "band", "expected"),
    [
        (20, (14, 31, 137), True),
        (13, (14, 31, 137), False),
        (138, (14, 31, 137), False),
        (None, (14, 31, 137), False),
        (None, (500, 1000, 9000), True),
        (None, (300, 1000, 9000), None),
        (None, (math.inf, math.inf, math.inf), True),
        (30, (math.inf, math.inf, math.inf), False),
    ],
)
def test_whether_a_prediction_held(escape, band, expected):
    low, typical, high = band
    said = Prediction(law="width", typical=typical, low=low, high=high, says="")
    run = by_hand.run("sgd", 0, escape, predicted=said)
    assert held(run) is expected
    assert held(replace(run, predicted=None)) is None
    assert held(replace(run, outcome="diverged", escaped=False)) is None
    assert predicted_later(run) is (escape is None and math.isfinite(typical) and typical > 400)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_no_line_is_wider_than_the_terminal(width):
    text = terminal.render(view(by_hand.result(landscape=by_hand.grid())), width=width)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
@pytest.mark.parametrize(
    "result",
    [
        Escape(),
        by_hand.result(seeds=1, plateaus=()),
        by_hand.result(seeds=1, runs=()),
        by_hand.result(status="interrupted", runs=by_hand.result().runs[:1]),
        by_hand.result(seeds=1, runs=(by_hand.run("sgd", 0, None, loss=(None, math.nan), at=(by_hand.spent(0),) * 2),)),
        by_hand.result(seeds=1, plateaus=(by_hand.plateau(reference=0.0, constant_loss=None, lowest=None),)),
        by_hand.result(too_slow=("tr-adagrad: 12 s a step",)),
    ],
)
def test_what_is_not_there_breaks_nothing(result, form):
    found = view(result)
    shown = {
        "text": lambda: terminal.render(found, width=80),
        "markdown": lambda: markdown.render(found),
        "html": lambda: html.render({}, found),
    }[form]()
    assert found.headline[1] in shown or form != "text"


def test_numbers_of_laws_have_two_digits():
    assert (
        tables.band(Prediction(law="", typical=145637.0, low=78000.0, high=1.2e6, says="")) == "1.5e5 [78,000 to 1.2e6]"
    )
    assert tables.band(Prediction(law="", typical=22.4, low=8.2, high=97.0, says="")) == "22 [8 to 97]"
    assert tables.band(Prediction(law="", typical=math.inf, low=math.inf, high=math.inf, says="")) == "never"


def test_each_run_belongs_to_its_network():
    result = by_hand.result()
    assert plateau_of(result, result.runs[2]).seed == 2
    assert plateau_of(by_hand.result(plateaus=(by_hand.plateau(5),)), result.runs[2]).seed == 5
