"""Causes and symptoms: what explains what, and what a falling loss refutes."""

from dataclasses import replace

import pytest
from check_by_hand import SGD, healthy, spoiled, with_input, with_output, with_targets

from hessdiag.questions.check.causes.path import progress
from hessdiag.questions.check.causes.ranking import EXPLAINS, causes
from hessdiag.questions.check.readings import ModeReading, StepReading
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.verdict import findings
from hessdiag.questions.common.result import ModelSubject

FOUR = {"batches": 4, "batch_weights": (0.25,) * 4}


def killed(place: int = 1) -> Check:
    """A layer dead by its biases, and what follows from it."""
    check = spoiled(healthy(step=SGD), place, dead_fraction=1.0, bias_mean=-8.0, output_rms=8.0, output_variation=0.1)
    check = spoiled(check, place, signal_variation=0.0, signal_rms=0.0)
    for later in range(place + 1, 5):
        check = spoiled(check, later, input_variation=0.0, signal_variation=0.0, output_variation=0.0)
        check = spoiled(check, later, dead_fraction=1.0 if later < 4 else 0.0)
    for earlier in range(place + 1):
        check = spoiled(check, earlier, gradient_zero_fraction=1.0, output_gradient_rms=0.0)
    return check


def test_nothing_explains_itself_by_way_of_others():
    def reached(name: str) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            for one in EXPLAINS.get(todo.pop(), ()):
                if one not in found:
                    found.add(one)
                    todo.append(one)
        return found

    by_place = {"signal_lost", "dead_units", "saturated_units"}  # these by which comes first in the network
    assert {name for name in EXPLAINS if name in reached(name)} <= by_place


def test_a_dead_layer_gathers_what_follows_from_it():
    (cause,) = causes(killed())
    assert (cause.id, cause.layer) == ("dead_units", "2")
    assert {(one.id, one.layer, one.more) for one in cause.symptoms} == {
        ("dead_units", "4", 1),  # and 6
        ("signal_lost", "2", 0),
        ("gradient_vanishes", "2", 0),
    }


def test_a_symptom_of_many_layers_is_that_of_the_first():
    check = spoiled(killed(), 3, dead_fraction=0.99)  # the surest one is not the first
    (cause,) = causes(spoiled(check, 2, dead_fraction=0.95))
    (dead,) = [one for one in cause.symptoms if one.id == "dead_units"]
    assert (dead.layer, dead.value, dead.more) == ("4", 0.95, 1)
    (found,) = findings(replace(check, causes=(cause,)))
    assert "it explains " in found.because
    assert "dead_units (layer 4 and 1 more)" in found.because
    assert "signal_lost (layer 2)" in found.because


def test_inputs_come_before_the_units_they_saturate():
    check = with_input(healthy(step=SGD), rms=120.0, mean=80.0, stdev=89.0, variation=0.74)
    check = spoiled(check, 1, activation="tanh", saturated_fraction=0.9995)
    check = with_output(check, loss=80.0, spread=60.0)
    (cause,) = causes(check)
    assert cause.id == "input_scale"
    assert {one.id for one in cause.symptoms} == {"saturated_units", "loss_at_start", "logit_scale"}


def test_a_doubt_is_as_sure_as_what_it_explains():
    check = with_input(healthy(step=SGD), rms=20.0, variation=0.9)
    alone, with_logits = causes(check), causes(with_output(check, loss=18.0, spread=14.0))
    assert alone[0].confidence < with_logits[0].confidence
    assert with_logits[0].id == "input_scale"


def test_a_cause_after_what_it_would_explain_does_not():
    check = spoiled(killed(2), 0, activation="tanh", saturated_fraction=0.9995)
    assert {(one.id, one.layer) for one in causes(check)} == {("dead_units", "4"), ("saturated_units", "0")}


def test_a_mode_comes_before_the_signal():
    check = healthy(
        12,
        SGD,
        modes=(ModeReading(layer="1", kind="BatchNorm1d", training=False, tracked=0, mismatch=9.0, samples=None),),
    )
    check = spoiled(check, -1, input_variation=1e-5)
    (cause,) = causes(check)
    assert cause.id == "normalization_untrained"
    assert [one.id for one in cause.symptoms] == ["signal_lost"]


def falling(end: float) -> StepReading:
    """Steps in which the loss falls to a part of its start."""
    return replace(SGD, losses=tuple(2.29 * (1 - (1 - end) * place / 59) for place in range(60)))


def test_a_low_loss_refutes_scales_but_no_probabilities():
    check = with_input(healthy(step=SGD), rms=120.0, variation=0.74)
    assert causes(check)
    assert causes(replace(check, trained=True)) == ()
    check = with_output(check, probabilities="softmax", last="softmax", high=0.3)
    assert [one.id for one in causes(replace(check, trained=True))] == ["outputs_are_probabilities"]


@pytest.mark.parametrize(("end", "confidence"), [(0.9, 0.73), (0.8, 0.56), (0.4, 0.0)])
def test_the_more_a_loss_falls_the_more_it_refutes(end, confidence):
    check = with_input(healthy(step=falling(end)), rms=120.0, variation=0.74)
    assert causes(replace(check, trains=None))[0].confidence == pytest.approx(0.9)
    found = causes(replace(check, trains=True))
    assert (found[0].confidence if found else 0.0) == pytest.approx(confidence, abs=0.006)


def test_progress_compares_like_batches():
    uneven = tuple(2.29 + (place % 4) for place in range(60))  # four batches of different difficulty, nothing learnt
    check = healthy(step=replace(SGD, losses=uneven), problem=ModelSubject(loss="ce", loss_kind="ce", **FOUR))
    assert progress(check) == pytest.approx((2.29 - (2.29 + 1.5)) / 2.29)
    assert progress(replace(check, output=None)) == pytest.approx(0.0, abs=1e-12)
    assert progress(healthy(step=falling(0.5))) == pytest.approx(0.5, abs=0.03)
    assert progress(healthy(step=replace(SGD, losses=(2.3, 2.0, None)))) == 0.0


def test_a_falling_loss_does_not_refute_dead_units_but_a_low_one_does():
    check = spoiled(healthy(), 1, dead_fraction=0.95)
    assert [one.id for one in causes(replace(check, trains=True))] == ["dead_units"]
    assert causes(replace(check, trained=True)) == ()


def test_a_loss_that_stays_makes_a_doubt_surer():
    check = with_input(healthy(step=SGD), rms=20.0, variation=0.9)
    assert causes(replace(check, trains=False))[0].confidence == pytest.approx(
        causes(check)[0].confidence * 0.75 + 0.25
    )


def test_doubts_below_the_bound_are_not_reported():
    check = spoiled(healthy(), 1, dead_fraction=1.0)  # with a way around it
    assert causes(check) == ()


def test_constant_targets_stand_beside_other_causes():
    check = with_targets(killed(), constant=True, largest_share=1.0)
    assert [one.id for one in causes(check)] == ["targets", "dead_units"]
