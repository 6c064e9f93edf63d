"""What a report asks in a given time: prices are made up, nothing is measured."""

import math

import pytest

from hessdiag.errors import SpecError
from hessdiag.questions.report.asked import budget_of, seconds_of
from hessdiag.questions.report.plan import Chosen, better, planned

PRICES = {"eigs": (1.0, 4.0, 10.0), "sharpness": (2.0,), "blocks": (3.0, 30.0), "bounds": (0.5,)}


def rungs(plan):
    return {one.command: one.rung for one in plan.chosen}


@pytest.mark.parametrize("budget", [0.1, 0.5, 1.0, 2.5, 3.0, 6.5, 9.5, 15.5, 42.0, 43.0, 1e9])
def test_what_is_planned_fits(budget):
    plan = planned(PRICES, budget)
    assert plan.seconds <= budget
    assert rungs(plan).keys() | plan.dear.keys() == set(PRICES)
    assert not rungs(plan).keys() & plan.dear.keys()


def test_without_a_limit_all_is_asked_as_commands_do():
    plan = planned(PRICES, math.inf)
    assert rungs(plan) == {"eigs": 2, "sharpness": 0, "blocks": 1, "bounds": 0}
    assert not plan.dear


def test_more_questions_come_before_better_answers():
    assert rungs(planned(PRICES, 6.5)) == {"eigs": 0, "sharpness": 0, "blocks": 0, "bounds": 0}
    assert rungs(planned(PRICES, 9.5)) == {"eigs": 0, "sharpness": 0, "blocks": 0, "bounds": 0}
    assert rungs(planned(PRICES, 10.5)) == {"eigs": 1, "sharpness": 0, "blocks": 0, "bounds": 0}


def test_what_is_dear_makes_room_for_what_is_not():
    plan = planned({"eigs": (5.0,), "sharpness": (100.0,), "blocks": (2.0,)}, 10.0)
    assert rungs(plan) == {"eigs": 0, "blocks": 0}
    assert plan.dear == {"sharpness": 100.0}


def test_of_two_that_do_not_fit_together_the_first_is_asked():
    assert [one.command for one in planned({"eigs": (6.0,), "sharpness": (6.0,)}, 10.0).chosen] == ["eigs"]


def test_where_all_options_take_the_same_the_best_is_taken():
    assert rungs(planned({"spectrum": (3.0, 3.0, 3.0)}, 3.0)) == {"spectrum": 2}


def test_too_little_leaves_all_out_with_its_least_price():
    plan = planned(PRICES, 0.4)
    assert plan.chosen == ()
    assert plan.dear == {command: each[0] for command, each in PRICES.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("2min", 120), ("1.5 min", 90), ("90", 90), (30, 30), (2.5, 2.5), ("1h", 3600), ("none", math.inf)],
)
def test_budgets_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "soon", "nan", "0s", "1 week", "1e3s", -2, None, "s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SpecError, match="a budget is a time"):
        seconds_of(text)


def test_presets_have_budgets_of_their_own():
    assert [budget_of(preset, None) for preset in ("quick", "normal", "full")] == [20, 60, math.inf]
    assert budget_of("full", "5s") == 5
    with pytest.raises(SpecError, match="there is no preset"):
        budget_of("brief", None)


def test_time_that_is_left_over_betters_the_first_that_it_betters():
    asked = {"eigs": 0, "sharpness": 0, "blocks": 0, "bounds": 0}
    assert better(PRICES, asked, 12.0) == Chosen("eigs", 2, 10.0)
    assert better(PRICES, asked, 5.0) == Chosen("eigs", 1, 4.0)
    assert better(PRICES, asked | {"eigs": 2}, 40.0) == Chosen("blocks", 1, 30.0)
    assert better(PRICES, asked | {"eigs": 1}, 9.0) is None
    assert better(PRICES, asked, 3.9) is None
    assert better({}, {}, math.inf) is None
