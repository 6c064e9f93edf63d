"""Laws of escapes against counts of steps that were made, and against torch's optimizers."""

import itertools
import math

import pytest
import torch

from hessdiag.optimizers.update import take_step, uncompiled
from hessdiag.theory import escape_laws as laws
from hessdiag.theory.chain_plateau import flow_time

LENGTHS = (5, 10, 20, 40, 80)
HALF = {length: laws.chain_end(length, 0.5, 0.5) for length in LENGTHS}


def _raced(length, make, most=2000):
    """Steps of an optimizer of torch's along the chain of equal weights, from 0.5 to half of the loss."""
    weights = [torch.nn.Parameter(torch.full((1, 1), 0.5, dtype=torch.float64)) for _ in range(length)]
    with uncompiled():
        optimizer = make(weights)
    first = (1 - 0.5**length) ** 2 / 2
    for steps in range(1, most + 1):
        product = torch.stack([weight.reshape(()) for weight in weights]).prod()
        for weight in weights:
            weight.grad = None
        ((1 - product) ** 2 / 2).backward()
        take_step(optimizer, lambda: None)
        if (1 - math.prod(weight.item() for weight in weights)) ** 2 / 2 <= first / 2:
            return steps
    return None


@pytest.mark.parametrize(("length", "steps"), [(5, 294), (10, 385), (20, 441), (40, 470), (80, 485)])
def test_signs_go_the_distance(length, steps):
    assert laws.sign_chain_steps(0.5, HALF[length], 1e-3) == steps


@pytest.mark.parametrize(("length", "steps"), [(5, 22), (10, 28), (20, 33), (40, 35), (80, 36)])
def test_muon_goes_the_distance(length, steps):
    assert laws.sign_chain_steps(0.5, HALF[length], 0.6875 * 0.02) == steps


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_of_torch_takes_as_many_steps():
    found = _raced(10, lambda weights: torch.optim.Muon(weights, lr=0.02, eps=1e-30, weight_decay=0.0))
    assert found == laws.sign_chain_steps(0.5, HALF[10], 0.6875 * 0.02) == 28


def test_decay_lengthens_the_way_or_ends_it():
    rate, shrinking = 0.01, 0.002
    weights = [1.0]  # of a direction that grows as exp(rate t), while the rate falls
    while weights[-1] < math.e:
        weights.append(weights[-1] * math.exp(rate * math.exp(-shrinking * len(weights))))
    assert laws.decayed_steps(1 / rate, shrinking) == pytest.approx(len(weights), rel=0.02)
    assert laws.decayed_steps(500.0, shrinking) == math.inf
    assert laws.decayed_steps(499.0, shrinking) < math.inf


@pytest.mark.parametrize(
    ("make", "step", "decay"),
    [
        (lambda w: torch.optim.AdamW(w, lr=1e-3, weight_decay=0.5), laws.divided(1e-3, 0.9, 0.999, 1e-8), 5e-4),
        (lambda w: torch.optim.Adam(w, lr=3e-3, eps=1e-30), laws.divided(3e-3, 0.9, 0.999, 1e-30), 0.0),
        (
            lambda w: torch.optim.RMSprop(w, lr=1e-3),
            laws.divided(1e-3, 0.0, 0.99, 1e-8, corrected=False),
            0.0,
        ),
        (lambda w: torch.optim.Adagrad(w, lr=1e-2), laws.divided(1e-2, 0.0, 0.0, 1e-10, summed=True), 0.0),
    ],
    ids=["adamw", "adam", "rmsprop", "adagrad"],
)
def test_the_equation_of_the_chain_is_that_of_torch(make, step, decay):
    assert laws.chain_steps(10, 0.5, HALF[10], 0.5, step, decay=decay) == _raced(10, make)


@pytest.mark.parametrize(("length", "steps"), [(5, 129), (10, 122), (20, 89), (40, 63), (80, 53)])
def test_rmsprop_without_epsilon_leaves_chains_of_any_length(length, steps):
    step = laws.divided(1e-3, 0.0, 0.99, 0.0, corrected=False)
    assert laws.chain_steps(length, 0.5, HALF[length], 0.5, step) == steps


@pytest.mark.parametrize(("length", "steps"), [(5, 151), (10, 134), (20, 91), (40, 151)])
def test_adagrad_crosses_its_floor(length, steps):
    step = laws.divided(1e-2, 0.0, 0.0, 1e-10, summed=True)
    assert laws.chain_steps(length, 0.5, HALF[length], 0.5, step) == steps


@pytest.mark.parametrize(("length", "steps"), [(5, 23), (10, 322), (20, 145_643)])
def test_gradient_descent_takes_the_time_of_its_flow(length, steps):
    counted = laws.chain_steps(length, 0.5, HALF[length], 0.5, lambda gradient: 0.1 * gradient)
    assert counted == steps
    assert flow_time(length, 0.5, HALF[length] ** length) / 0.1 == pytest.approx(
        steps, rel=0.035 if steps < 30 else 0.02
    )


def test_below_the_floor_time_is_that_of_a_blow_up():
    found = laws.floored_chain_steps(40, 0.5, HALF[40], learning_rate=1e-3, kappa=1e8, floor=1e-8, step=1e-3)
    assert found == pytest.approx(0.5**-38 / 38 / 1e5, rel=0.02)  # 72,000
    no_floor = laws.floored_chain_steps(5, 0.5, HALF[5], learning_rate=1e-3, kappa=1e8, floor=1e-8, step=1e-3)
    assert no_floor == pytest.approx((HALF[5] - 0.5) / 1e-3)


@pytest.mark.parametrize(
    ("gain", "growth", "steps"),
    [(2**-0.5, 0.7 * 0.01, 42), (3**-0.5 * 2**-0.5, 0.7 * 0.02, 43), (2**-0.5, 0.3 * 16 * 1e-3, 62), (1.0, 0.1, 1)],
)
def test_gains_grow_to_one(gain, growth, steps):
    assert laws.growth_steps(gain, growth).typical == steps


def test_first_steps_of_rmsprop_are_the_longest():
    gone = list(itertools.accumulate(1e-3 / math.sqrt(1 - 0.99**i) for i in range(1, 3001)))
    for distance in (0.005, 0.05, 0.5, 1.4):
        assert laws.accumulated_steps(distance, 1e-3, 0.99) == 1 + sum(value < distance for value in gone)


def test_regions_grow_until_they_have_come_far_enough():
    assert laws.growing_radii(1 + 1.5 + 2.25, 1.0, 1.5) == 3
    assert laws.growing_radii(1 + 1.5 + 2.26, 1.0, 1.5) == 4
