"""Networks that a first version missed: steps that replace the weights, gains too large everywhere, a tiny loss."""

import math
from dataclasses import replace

import pytest
import torch
from check_by_hand import SGD, healthy, layer
from sklearn.datasets import load_digits
from torch import nn

from hessdiag import check
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.causes.optimizer import optimizer
from hessdiag.questions.check.causes.signal import culprit
from hessdiag.questions.check.causes.weights import weights
from hessdiag.questions.check.cures.cure import Setup
from hessdiag.questions.check.cures.settings import smaller_steps
from hessdiag.questions.check.readings import OtherSetting
from hessdiag.questions.check.result import Cause
from hessdiag.questions.check.stepping.others import suspects

LEVEL, LEAPT = (2.31,) * 30, (2.3, 9.0, *(2.35,) * 28)


def _stepped(ratio, losses=LEAPT, smaller=LEVEL, **changes):
    """Readings of a run whose first step changes the weights by a part of their size."""
    usual = {"lr": 0.2, "before": 2.3, "after": 3.5, "update_ratio": ratio, "losses": losses}
    tried = (OtherSetting(setting="lr", value=0.02, losses=smaller, fell=False),)
    return healthy(step=replace(SGD, optimizer="Adam", others=tried, **{**usual, **changes}))


def test_steps_that_replace_the_weights_are_too_large_though_no_smaller_ones_are_seen_to_train():
    (one,) = optimizer(_stepped(2.0))
    assert (one.id, one.value) == ("learning_rate_too_high", 0.2)
    assert one.threshold == pytest.approx(0.2 * 0.02 / 2.0)
    assert one.confidence == pytest.approx(0.4 + 0.5 * math.log(4) / math.log(5))
    assert "changes the weights by 2.00 of their size, and the loss goes from 2.30 up to 9.00" in one.says


@pytest.mark.parametrize(
    "found",
    [
        _stepped(0.4),
        _stepped(2.0, losses=(2.3, 2.9, *(2.35,) * 28)),  # hardly rises
        _stepped(2.0, losses=(2.3, 9.0, *(2.2,) * 28)),  # falls below chance
        _stepped(2.0, smaller=(2.3, 9.0, *(2.31,) * 28)),  # rises with smaller steps, too
    ],
)
def test_large_steps_that_do_no_harm_are_none_of_the_cause(found):
    assert optimizer(found) == []


def test_one_step_that_replaces_the_weights_and_raises_the_loss_where_there_was_time_for_no_more():
    (one,) = optimizer(_stepped(2.5, losses=()))
    assert (one.id, one.confidence) == ("learning_rate_too_high", pytest.approx(0.8 * 0.9))
    assert optimizer(_stepped(2.5, losses=(), after=2.9)) == []


def test_the_learning_rate_of_usual_steps_is_tried_first():
    model = nn.Linear(2, 1)
    setup = Setup(model, (), lambda m, b: torch.zeros(()), lambda m: torch.optim.Adam(m.parameters(), lr=0.2))
    cause = Cause(
        id="learning_rate_too_high",
        layer=None,
        value=0.2,
        threshold=0.002,
        quantity="",
        confidence=0.8,
        says="",
        remedy="",
    )
    assert smaller_steps(_stepped(2.0), cause, setup)[0].name == "learning rate 0.0020"
    assert smaller_steps(_stepped(0.4), cause, setup)[0].name == "learning rate 0.020"


def test_gains_that_are_too_large_everywhere_explain_gradients_that_grow():
    found = healthy(depth=6)
    grown = [
        layer(str(place), place + 1, activation="tanh", weight_gain=16 * 5 / 3, output_gradient_rms=10.0 ** (4 - place))
        for place in range(6)
    ]
    (one,) = weights(replace(found, layers=tuple(grown)))
    assert (one.id, one.layer, one.confidence) == ("weight_scale", None, 0.9)
    even = [replace(own, output_gradient_rms=1.0) for own in grown]
    assert [own.confidence for own in weights(replace(found, layers=tuple(even)))] == [0.3]


@pytest.mark.parametrize(("gain", "confidence"), [(0.0, 0.9), (1.0, 0.9)])
def test_a_normalization_that_turns_all_units_off_is_named_and_not_the_layer_before(gain, confidence):
    torch.manual_seed(0)
    width = 8
    blocks = [
        nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        for inputs in (1, width, width)
    ]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(width * 64, 10))
    nn.init.constant_(blocks[1][1].weight, gain)
    nn.init.constant_(blocks[1][1].bias, -12.0 * gain)
    data = [(torch.randn(64, 1, 8, 8), torch.arange(64) % 10)]
    found = check(Problem(model.train(), data=data, loss="ce"), optimizer="sgd", lr=0.01)
    first = found.causes[0]
    assert (first.id, first.layer) == ("dead_units", "1.1")
    assert first.confidence >= confidence
    assert ("signal_lost", "1.1") in [(symptom.id, symptom.layer) for symptom in first.symptoms]


def test_what_a_branch_loses_is_not_lost_where_another_way_leads_around_it():
    found = healthy(depth=5, step=SGD)
    layers = [replace(own, signal_variation=0.0) if own.layer == "2" else own for own in found.layers]
    layers[-1] = replace(layers[-1], input_variation=1e-6)
    layers[-2] = replace(layers[-2], signal_variation=1e-6)
    assert culprit(replace(found, layers=tuple(layers))).layer == "6"


def test_a_signal_that_is_lost_where_nothing_is_read_is_no_layers():
    found = healthy(depth=5, step=SGD)
    layers = [*found.layers[:-1], replace(found.layers[-1], input_variation=1e-6)]
    layers[0] = replace(layers[0], signal_variation=0.6)
    assert culprit(replace(found, layers=tuple(layers))) is None


def test_what_a_recurrent_layer_loses_on_its_way_is_its_own():
    found = healthy(depth=2, step=SGD)
    cell, last = (replace(found.layers[0], kind="LSTM"), replace(found.layers[1], input_variation=1e-6))
    assert culprit(replace(found, layers=(cell, last))).layer == cell.layer


def test_weights_that_are_far_too_large_are_suspected_where_a_network_trains_slowly():
    step = replace(SGD, losses=LEVEL)
    spoiled = healthy(step=step)
    layers = list(spoiled.layers)
    layers[1] = replace(layers[1], weight_gain=1.414 * 32)
    found = replace(spoiled, layers=tuple(layers), trains=None)
    (one,) = weights(found)
    assert (one.layer, one.confidence) == (layers[1].layer, pytest.approx(0.55))
    assert weights(replace(found, trains=True))[0].confidence == 0.3
    assert weights(replace(found, trained=True))[0].confidence == 0.3
    assert weights(replace(found, step=SGD))[0].confidence == 0.3  # no steps were taken
    frozen = tuple(replace(own, trainable=False) for own in layers)
    assert weights(replace(found, layers=frozen))[0].confidence == 0.3


def test_a_smaller_epsilon_is_tried_where_gradients_are_far_below_a_usual_one():
    step = replace(SGD, optimizer="Adam", lr=1e-3, settings={"eps": 1e-8}, losses=LEVEL, floor_leaves=1e-5)
    assert suspects(step, None) == [("eps", pytest.approx(1e-14))]
    assert suspects(replace(step, floor_leaves=2e-3), None) == []
    assert suspects(step, trains=True) == []


def test_a_loss_that_was_divided_until_adam_takes_no_steps():
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32)[:256] / 8 - 1, torch.tensor(digits.target)[:256]
    data = [(x[at : at + 64], y[at : at + 64]) for at in range(0, 256, 64)]
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def tiny(output, target):
        return nn.functional.cross_entropy(output, target) * 1e-12

    found = check(Problem(model, data=data, loss=tiny), optimizer="adam", lr=1e-2)
    assert [cause.id for cause in found.causes] == ["epsilon_floor"]
    usual = check(Problem(model, data=data, loss=nn.functional.cross_entropy), optimizer="adam", lr=1e-2)
    assert usual.causes == ()
