"""Rules on the optimizer: on readings made up by hand, and on small networks on digits with settings good and bad."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from check_by_hand import healthy
from sklearn.datasets import load_digits
from torch import nn

from hessdiag.optimizers.recipe import recipe
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.causes.optimizer import optimizer
from hessdiag.questions.check.readings import OtherSetting, RangeReading, StepReading
from hessdiag.questions.check.steps import stepped
from hessdiag.questions.check.watch import passed

LEVEL, FALLS = (2.3,) * 30, (2.3, *[1.0] * 29)


def step(**changes):
    usual = {
        "optimizer": "SGD",
        "given": True,
        "lr": 0.1,
        "settings": {},
        "before": 2.3,
        "after": 2.2,
        "predicted": 0.1,
        "update_ratio": 1e-3,
        "losses": LEVEL,
    }
    return StepReading(**{**usual, **changes})


def other(setting, value, losses=FALLS):
    return OtherSetting(setting=setting, value=value, losses=losses, fell=losses is FALLS)


def found(reading, trains=None, **changes):
    candidates = optimizer(replace(healthy(step=reading), trains=trains, **changes))
    assert len(candidates) <= 1, candidates
    return candidates[0] if candidates else None


def test_nothing_is_said_of_an_optimizer_that_stands_in():
    reading = step(losses=(2.3, 40.0, *LEVEL), others=(other("lr", 0.01),))
    assert found(reading).id == "learning_rate_too_high"
    assert found(replace(reading, given=False)) is None


def test_a_learning_rate_is_too_high_where_a_smaller_one_trains():
    one = found(step(losses=(2.3, 40.0, *LEVEL), others=(other("lr", 0.01),)))
    assert (one.id, one.value, one.threshold, one.confidence) == ("learning_rate_too_high", 0.1, 0.01, 0.9)
    assert one.says == (
        "The learning rate 0.1 is too high: the loss goes from 2.30 up to 40.0, and ends at 2.30; "
        "with 0.01 it falls to 1.00."
    )
    assert one.remedy.startswith("Set lr to 0.01 or less")


@pytest.mark.parametrize(
    ("reading", "trains"),
    [
        (step(losses=(2.3, 40.0, *LEVEL)), None),  # nothing helps
        (step(losses=(2.3, 40.0, *LEVEL), others=(other("lr", 0.01, LEVEL),)), None),
        (
            step(losses=(2.3, 2.5, *FALLS), others=(other("lr", 0.01),)),
            True,
        ),  # once up, and down: the edge of stability
        (step(losses=(2.3, 2.5, *FALLS), others=(other("lr", 0.01),)), None),  # as far as with the smaller one
        (step(losses=(2.3, 40.0, *LEVEL), others=(other("lr", 1.0),)), None),  # a larger one
    ],
)
def test_a_learning_rate_that_is_not_shown_to_be_too_high(reading, trains):
    assert found(reading, trains) is None


def test_divergence_that_a_smaller_learning_rate_ends():
    one = found(step(losses=(2.3, 40.0, None), others=(other("lr", 0.01, LEVEL),)))
    assert (one.id, one.threshold, one.confidence) == ("learning_rate_too_high", 0.01, 0.6)
    assert found(step(losses=(2.3, None), others=(other("lr", 0.01, (2.3, None)),))) is None


@pytest.mark.parametrize(("after", "confidence"), [(4.0, 0.0), (2.3 * 2.6, 0.32), (2.3 * 25, 0.72), (None, 0.72)])
def test_of_a_large_model_one_step_tells(after, confidence):
    one = found(step(after=after, losses=()))
    assert (one.confidence if one else 0.0) == pytest.approx(confidence, abs=0.02)


def test_of_a_large_model_the_step_that_would_have_been_best_is_named():
    """The loss bends up by 20 times what was to be gained: a step of 1/40 of the size is the best one."""
    one = found(step(before=1.0, after=1.0 + 19 * 0.9 * 2, predicted=0.9 * 2, losses=()))
    assert one.threshold == pytest.approx(0.1 / 40)


def adam(**changes):
    return step(**{"optimizer": "Adam", "lr": 1e-3, "settings": {"eps": 1e-2}, "floor_leaves": 0.02, **changes})


def test_an_epsilon_above_the_gradients():
    one = found(adam(others=(other("eps", 1e-8),)))
    assert (one.id, one.value, one.confidence) == ("epsilon_floor", 0.01, pytest.approx(0.9))
    assert one.threshold == pytest.approx(1e-4)  # a tenth of the gradient of 1e-3
    assert one.remedy == "Set eps to 1e-4 or less."
    assert "leaves 2.00 % of a step" in one.says
    assert found(adam(floor_leaves=0.19, others=(other("eps", 1e-8),))).confidence == pytest.approx(0.41, abs=0.01)


@pytest.mark.parametrize(
    ("reading", "trains"),
    [
        (adam(floor_leaves=0.3, others=(other("eps", 1e-8),)), None),
        (adam(others=(other("eps", 1e-8, LEVEL),)), None),  # the gradient is to blame
        (adam(), None),
        (adam(losses=FALLS, others=(other("eps", 1e-8),)), True),  # a large learning rate makes up for it
        (adam(losses=()), None),  # so it may here: steps are not small
        (adam(losses=(), update_ratio=1e-6, settings={"eps": 1e-8}), None),  # the gradient is to blame
    ],
)
def test_an_epsilon_that_is_not_to_blame(reading, trains):
    assert found(reading, trains) is None


def test_of_a_large_model_small_steps_under_a_large_epsilon_tell():
    one = found(adam(losses=(), update_ratio=1e-5))
    assert (one.id, one.confidence) == ("epsilon_floor", pytest.approx(0.72))


def decays(**changes):
    return step(**{"settings": {"weight_decay": 0.5}, "decay_ratio": 4.0, "decay_steps": 100.0, **changes})


def test_weight_decay_that_wins():
    one = found(decays(others=(other("weight_decay", 0.0),)))
    assert (one.id, one.value, one.confidence) == ("weight_decay", 4.0, pytest.approx(0.9))
    assert one.says == (
        "Weight decay 0.5 takes 4.00 times as much in a step as the gradient adds: by itself it halves the weights in 69 steps."
    )
    assert one.threshold == 1.2
    assert one.remedy == "Set weight_decay to 0.01 or less."  # 0.1 of the gradient's part
    later = decays(losses=(2.3, *[2.1] * 29), others=(other("weight_decay", 0.0),))
    assert found(later, True).id == "weight_decay"


@pytest.mark.parametrize(
    ("reading", "changes"),
    [
        (decays(decay_ratio=1.1, others=(other("weight_decay", 0.0),)), {}),
        (decays(decay_steps=2100.0, others=(other("weight_decay", 0.0),)), {}),
        (decays(others=(other("weight_decay", 0.0, LEVEL),)), {}),  # without it, nothing is gained
        (decays(losses=FALLS, others=(other("weight_decay", 0.0),)), {"trains": True}),
        (decays(others=(other("weight_decay", 0.0),)), {"trained": True}),  # where both are in balance
    ],
)
def test_weight_decay_that_does_not(reading, changes):
    assert found(reading, **changes) is None


def test_steps_that_are_too_small():
    reading = step(optimizer="Adam", lr=1e-7, update_ratio=2e-6, others=(other("lr", 1e-4),))
    one = found(reading)
    assert (one.id, one.value, one.confidence) == ("updates_too_small", 2e-6, pytest.approx(0.9))
    assert one.remedy.startswith("Set lr to 1e-4, with which the loss falls to 1.00")
    assert found(replace(reading, update_ratio=2.1e-5)) is None
    assert found(replace(reading, others=())) is None
    assert found(replace(reading, lr=1e-4)) is None  # small steps of a usual learning rate: the gradient
    assert found(reading, trained=True) is None


def test_momentum_adds_up_small_steps():
    reading = step(lr=5e-5, settings={"momentum": 0.9}, update_ratio=1.9e-6, others=(other("lr", 0.01),))
    assert found(reading).confidence == pytest.approx(0.41, abs=0.01)  # ten times 1.9e-6
    assert found(replace(reading, lr=2e-4)) is None  # ten times that is a learning rate as others have it
    assert found(replace(reading, lr=2e-4, settings={})).confidence == pytest.approx(0.9, abs=0.01)


def test_a_learning_rate_of_zero():
    assert found(step(lr=0.0, update_ratio=0.0)).confidence == 1.0


@pytest.mark.parametrize(("share", "confidence"), [(0.5, 0.0), (0.61, 0.42), (0.96, 0.9)])
def test_updates_that_a_dtype_rounds_away(share, confidence):
    one = found(step(rounded_share=share, given=False), numbers=RangeReading(dtype="bfloat16"))
    assert (one.confidence if one else 0.0) == pytest.approx(confidence, abs=0.01)
    assert found(step(rounded_share=share), numbers=RangeReading(dtype="float32")) is None


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    images = torch.tensor(found.data, dtype=torch.float32) / 16
    return (images - images.mean())[:128], torch.tensor(found.target)[:128]


def mlp(widths, *, he=True, normalized=False):
    torch.manual_seed(0)
    layers = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(inputs, outputs))
        if he:
            nn.init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-1].bias)
        if index < len(widths) - 2:
            layers += [nn.BatchNorm1d(outputs), nn.ReLU()] if normalized else [nn.ReLU()]
    return nn.Sequential(*layers)


NETWORKS = {
    "small": lambda: mlp([64, 32, 32, 10], he=False),
    "deep": lambda: mlp([64] + [32] * 9 + [10]),
    "normalized": lambda: mlp([64] + [32] * 5 + [10], normalized=True),
}
GOOD = [
    ("adam", 1e-3),
    ("adam", 3e-4),
    ("adam", 1e-2),
    ("adam", 1e-5),
    ("adam(eps=1e-4)", 1e-3),
    ("adam(eps=1.0)", 1.0),
    ("adamw(weight_decay=0.1)", 1e-3),
    ("adamw(weight_decay=1.0)", 1e-3),
    ("sgd", 0.1),
    ("sgd(momentum=0.9)", 1e-2),
    ("sgd(momentum=0.9)", 1e-3),
    ("sgd(weight_decay=1e-2)", 0.1),
    ("rmsprop", 1e-3),
    ("adagrad", 1e-2),
]
BAD = [
    ("adam", 1.0, "learning_rate_too_high", ("small", "deep")),
    ("sgd", 10.0, "learning_rate_too_high", ("small", "deep", "normalized")),
    ("sgd(momentum=0.9)", 2.0, "learning_rate_too_high", ("small", "deep")),
    ("adam", 1e-7, "updates_too_small", ("small", "deep", "normalized")),
    ("sgd", 1e-6, "updates_too_small", ("small", "deep", "normalized")),
    ("adam(eps=1.0)", 1e-3, "epsilon_floor", ("small", "deep", "normalized")),
    ("adamw(weight_decay=100.0)", 1e-3, "weight_decay", ("small", "deep", "normalized")),
    ("sgd(weight_decay=1.0)", 0.1, "weight_decay", ("small", "deep", "normalized")),
    ("adam(weight_decay=1.0)", 1e-3, "weight_decay", ("small", "deep", "normalized")),
]


def of(name, spec, lr, data):
    problem = Problem(NETWORKS[name](), data=[data], loss="ce")
    return optimizer(stepped(passed(problem, seed=0)[0], problem, recipe(spec, lr), seed=0))


DIVERGES = ("deep", "adam(eps=1.0)", 1.0)


@pytest.mark.parametrize(
    ("name", "spec", "lr"),
    [(name, *setting) for name in NETWORKS for setting in GOOD if (name, *setting) != DIVERGES],
)
def test_settings_that_train(name, spec, lr, digits):
    """As people use them: none keeps these networks from training, some take their time. Those in `BAD` end at chance."""
    assert of(name, spec, lr, digits) == []


@pytest.mark.parametrize(("spec", "lr", "cause", "names"), BAD)
def test_settings_that_do_not(spec, lr, cause, names, digits):
    for name in names:
        (one,) = of(name, spec, lr, digits)
        assert one.id == cause
        assert one.confidence >= 0.7
