"""Sentences that explain, each with its number."""

import math
from dataclasses import replace

import escape_by_hand as by_hand
import pytest

from hessdiag.questions.escape.foretold.notes import contender_notes, run_notes
from hessdiag.questions.escape.result import Plateau, Prediction, Region, Run, Spent

FLAT = Plateau(
    seed=0,
    loss=0.5,
    constant_loss=0.5,
    reference=0.5,
    gradient_norm=1e-13,
    gradient_median=3e-15,
    gradient_zeros=0.0,
    matrix_median=3e-14,
    matrices=33,
    lowest=-1e-12,
    highest=1e-12,
    present=True,
)


def _run(**changes):
    run = Run(
        optimizer="sgd",
        seed=0,
        settings={"lr": 0.1},
        outcome="stuck",
        escaped=False,
        steps=None,
        backprops=None,
        epochs=None,
        sample_passes=None,
        seconds=None,
        spent=Spent(steps=1000),
        best_loss=0.4999,
    )
    return replace(run, **changes)


def _about(optimizer, plateau=FLAT, dtype="float64", **settings):
    return " ".join(contender_notes(optimizer, settings, [plateau], dtype))


def test_adam_below_its_floor_is_gradient_descent():
    said = _about("adam", lr=1e-3, eps=1e-8)
    assert said.startswith(
        "Adam's eps 1e-08 is above the median |g_i|, 3.00e-15: acts as SGD with step 1.00e8 lr = 100,000."
    )
    assert '--optimizer "adam(eps=1e-30)"' in said
    assert _about("adam(eps=1e-30)", lr=1e-3, eps=1e-30) == ""
    assert _about("adam", replace(FLAT, gradient_median=1e-3), lr=1e-3, eps=1e-8) == ""


def test_muon_below_its_floor_has_a_step_of_its_own():
    said = _about("muon", lr=0.02, weight_decay=0.0)
    assert "Muon's eps 1e-07 is above the median |G|_F of a matrix, 3.00e-14" in said
    assert "acts as SGD with step 4.85e9 lr = 9.70e7" in said
    assert "weight_decay" not in said


def test_in_between_a_part_of_the_step_is_left():
    said = _about("rmsprop", replace(FLAT, gradient_median=3e-8), lr=1e-3, eps=1e-8)
    assert "its steps are 75 % of lr" in said
    assert "is near the median" in said
    below = _about("rmsprop", replace(FLAT, gradient_median=7e-9), lr=1e-3, eps=1e-8)
    assert "is near the median |g_i|, 7.00e-9: its steps are 41 % of lr" in below
    assert "acts as SGD" not in below, "it does not, within a factor of ten"
    assert "acts as SGD" in _about("rmsprop", replace(FLAT, gradient_median=0.9e-9), lr=1e-3, eps=1e-8)


def test_the_flattest_network_is_meant():
    steep = replace(FLAT, gradient_median=1.0)
    assert "3.00e-15" in contender_notes("adam", {"lr": 1e-3}, [steep, FLAT, steep], "float64")[0]


def test_signs_and_gradient_descent_have_no_floor():
    assert _about("lion", lr=1e-3) == _about("sgd", lr=0.1) == _about("tr-rmsprop") == ""


def test_a_floor_that_no_option_lowers():
    said = _about("ScheduleFreeAdamW", lr=1e-2, eps=1e-30, weight_decay=0.0)
    assert "adds 1e-15" in said
    assert "3.2e-8" in said
    assert "step 3.16e7 lr" in said


def test_shampoo_adds_its_epsilon_to_squares():
    said = _about("shampoo", lr=0.1, matrix_eps=1e-6)
    assert "it is added to squares: the floor is 0.00100" in said
    assert '--optimizer "shampoo(matrix_eps=9e-34)" in float64' in said  # of 3e-17, a thousandth of the gradient


def test_decay_ends_a_plateau_the_wrong_way():
    said = _about("muon", replace(FLAT, matrix_median=1.0), lr=0.02, weight_decay=0.1)
    assert "weight_decay 0.1 shrinks 33 matrices at once, and the gradient e-fold in 15 steps" in said
    assert "use weight_decay=0" in said
    assert _about("muon", replace(FLAT, matrix_median=1.0, present=False), lr=0.02, weight_decay=0.1) == ""


def test_squares_underflow_in_float32():
    assert "underflow in float32" in _about("adam", replace(FLAT, gradient_median=1e-20), "float32", eps=1e-30)
    assert "underflow" not in _about("adam", replace(FLAT, gradient_median=1e-20), "float64", eps=1e-30)
    wide = _about("adam", replace(FLAT, gradient_median=1e-20), "float32", lr=1e-3, eps=1e-8)
    assert 'Try --dtype float64 --optimizer "adam(eps=1e-30)".' in wide, "an eps alone would not help"
    assert "dtype" not in _about("adam", replace(FLAT, gradient_median=1e-15), "float32", lr=1e-3, eps=1e-8)


def test_a_step_that_curvature_forbids():
    assert "lr 0.3 is above 0.200" in _about("sgd", replace(FLAT, highest=10.0), lr=0.3)
    assert _about("sgd", replace(FLAT, highest=10.0), lr=0.19) == ""
    assert _about("momentum", replace(FLAT, highest=10.0), lr=0.3, momentum=0.9) == ""


@pytest.mark.parametrize(
    ("run", "part"),
    [
        (_run(outcome="dead"), "all gradients became exactly zero by step 1,000"),
        (_run(outcome="dead"), "learning rate 0.1 is too large"),
        (_run(outcome="diverged"), "diverged at step 1,000 with the learning rate 0.1"),
        (_run(), "1,000 steps took 0.020 % of the loss"),
        (_run(region=Region(untrusted=0.8)), "rho was below 0.25 in 80 % of the steps"),
        (
            _run(region=Region(backprops=(1, 2), radius=(1.0, 1e-5), rho=(0.1, 0.1), rejected=7)),
            "its radius collapsed from 1.00 to 1.00e-5, after 7 steps",
        ),
        (
            _run(predicted=Prediction(law="floor", typical=5e5, low=347471, high=1e6, says="")),
            "lets it out after 350,000 at the earliest",
        ),
        (
            _run(predicted=Prediction(law="floor", typical=math.inf, low=math.inf, high=math.inf, says="")),
            "never leaves",
        ),
        (
            _run(
                outcome="escaped",
                escaped=True,
                steps=50,
                predicted=Prediction(law="width", typical=10, low=5, high=20, says=""),
            ),
            "took 50 steps, more than the 20",
        ),
    ],
)
def test_what_explains_a_run(run, part):
    assert part in " ".join(run_notes(run, FLAT))


def test_at_the_minimum_rounding_rules():
    collapsed = Region(backprops=(1, 2), radius=(1.0, 1e-27), rho=(1.0, 0.0), untrusted=0.9)
    assert run_notes(_run(outcome="escaped", escaped=True, steps=4, best_loss=1e-30, region=collapsed), FLAT) == ()


def test_a_dead_start_is_said_first():
    assert "dead where it starts" in run_notes(_run(), replace(FLAT, dead=True, present=False))[0]


def test_a_good_run_needs_no_explanation():
    assert run_notes(_run(outcome="escaped", escaped=True, steps=20), FLAT) == ()


def test_a_run_without_a_plateau_stays_on_none():
    run = by_hand.run("sgd", 0, None, best_loss=0.499)
    assert "still on the plateau" in " ".join(run_notes(run, replace(FLAT, reference=0.499)))
    slope = " ".join(run_notes(run, replace(FLAT, reference=0.499, present=False)))
    assert "took 0 % of the loss" in slope
    assert "plateau" not in slope


def test_a_loss_that_fell_and_is_above_a_constants_is_told_with_its_numbers():
    """It began far above the best constant output: what was taken of that loss is not nothing."""
    start = replace(FLAT, loss=4.0, constant_loss=0.5, reference=0.5, present=False)
    run = by_hand.run("sgd", 0, None, best_loss=0.9)
    run = replace(run, loss=(4.0, *run.loss[1:]))
    (note,) = run_notes(run, start)
    assert (
        note
        == "400 steps brought the loss from 4.00 to 0.900, which is still above the 0.500 of the best constant output."
    )
    (note,) = run_notes(replace(run, best_loss=0.499), start)
    assert "from 4.00 to 0.499, which is hardly below the 0.500 of" in note
    assert run_notes(replace(run, best_loss=0.4), start) == ()


def test_what_was_taken_is_of_the_loss_that_it_began_with():
    start = replace(FLAT, loss=0.5, reference=0.499)
    run = by_hand.run("sgd", 0, None, best_loss=0.4985)
    (note,) = run_notes(replace(run, loss=(0.5, *run.loss[1:])), start)
    assert note == "400 steps took 0.30 % of the loss: it is still on the plateau."
