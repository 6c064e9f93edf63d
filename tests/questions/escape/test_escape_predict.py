"""Predicted escapes against steps that were made."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from hessdiag.optimizers.recipe import recipe
from hessdiag.optimizers.update import take_step
from hessdiag.questions.escape.foretold.plateau import plateau_of
from hessdiag.questions.escape.foretold.predict import predicted
from tests.questions.escape.flat import chain, deep, left


def _said(problem, optimizer, threshold=0.9, plateau=None, **settings):
    found = plateau or plateau_of(problem, seed=0, threshold=threshold)
    return predicted(found, optimizer, settings, model=problem.model, threshold=threshold)


@cache
def _of_chain(length):
    return plateau_of(chain(length), seed=0, threshold=0.5, spectrum=False)


@pytest.mark.parametrize(("length", "steps"), [(5, 23), (10, 322), (20, 145_643)])
def test_gradient_descent_on_the_chain(length, steps):
    found = _said(chain(length), "sgd", threshold=0.5, plateau=_of_chain(length), lr=0.1)
    assert found.law == "chain"
    assert found.low <= steps <= found.high
    assert found.typical == pytest.approx(steps, rel=0.035 if length == 5 else 0.02)
    assert found.high / found.low < (1.5 if length == 5 else 1.06)


@pytest.mark.parametrize(
    ("optimizer", "settings", "counts"),
    [
        ("lion", {"lr": 1e-3}, (294, 385, 441, 470, 485)),
        ("muon", {"lr": 0.02, "eps": 1e-30, "weight_decay": 0.0}, (22, 28, 33, 35, 36)),
        ("sophiah", {"lr": 0.06, "eps": 1e-40}, (490, 642, 735, 783, 808)),
        ("adamw(eps=1e-30)", {"lr": 1e-3, "eps": 1e-30, "weight_decay": 0.01}, (225, 218, 210, 214, 231)),
        ("rmsprop", {"lr": 1e-3, "eps": 0.0}, (129, 122, 89, 63, 53)),
        ("adagrad", {"lr": 1e-2, "eps": 1e-30}, (151, 134, 91, 64, 53)),
    ],
)
def test_counts_on_chains_are_exact(optimizer, settings, counts):
    for length, steps in zip((5, 10, 20, 40, 80), counts, strict=True):
        found = _said(chain(length), optimizer, threshold=0.5, plateau=_of_chain(length), **settings)
        assert (found.law, found.typical) == ("chain", steps)
        assert found.low <= steps <= found.high <= steps + 1


@pytest.mark.parametrize(("length", "steps"), [(5, 24), (10, 32), (20, 36)])
def test_decay_takes_a_part_of_steps_of_one_size(length, steps):
    assert _said(chain(length), "muon", 0.5, _of_chain(length), lr=0.02, eps=1e-30).typical == steps


def test_floors_on_the_chain():
    assert _said(chain(40), "adagrad", threshold=0.5, plateau=_of_chain(40), lr=1e-2, eps=1e-10).typical == 151
    adamw = {"threshold": 0.5, "plateau": _of_chain(40), "lr": 1e-3, "eps": 1e-8}
    assert _said(chain(40), "adamw", **adamw).typical == math.inf  # its decay of 0.01 is faster
    slow = _said(chain(40), "adamw", weight_decay=0.0, **adamw)
    assert slow.typical == pytest.approx(72_000, rel=0.02)
    shampoo = _said(chain(20), "shampoo", threshold=0.5, plateau=_of_chain(20), lr=0.1, matrix_eps=1e-6)
    assert shampoo.typical == pytest.approx(146, rel=0.1)
    assert shampoo.low <= 152 <= shampoo.high
    floored = {"threshold": 0.5, "lr": 0.02, "eps": 1e-7}
    assert _said(chain(80), "muon", plateau=_of_chain(80), weight_decay=0.0, **floored).typical > 1e12
    crossed = _said(chain(40), "muon", plateau=_of_chain(40), weight_decay=0.0, **floored)
    assert crossed.typical == pytest.approx(74 + 30 + 19, rel=0.02)  # below the floor, above it, and behind
    assert crossed.low <= 150 <= crossed.high
    assert _said(chain(40), "muon", plateau=_of_chain(40), **floored).typical == math.inf  # its decay of 0.1 is faster


@pytest.mark.parametrize("init", ["lecun_variance", "lecun"])
def test_gradient_descent_leaves_a_deep_plateau_within_its_band(init):
    problem = deep(depth=16, width=8, init=init, samples=512, seed=1)
    plateau = plateau_of(problem, seed=0)
    rate = 0.05 / max(-plateau.lowest, plateau.highest)
    found = _said(problem, "sgd", plateau=plateau, lr=rate)
    steps, _ = left(problem, rate, 0.9 * plateau.reference)
    assert found.law == "gradient descent"
    assert found.low <= steps <= found.high
    assert found.high / found.low < 2.2
    half = _said(problem, "sgd", plateau=plateau, lr=rate / 2)
    assert half.typical == pytest.approx(2 * found.typical, rel=1e-9)
    heavy = _said(problem, "momentum", plateau=plateau, lr=rate / 10, momentum=0.9)
    assert heavy.typical == pytest.approx(found.typical + 9, rel=1e-9)
    assert heavy.high == pytest.approx(found.high + 18, rel=1e-9)


def test_without_flow_curvature_tells():
    problem = deep()
    plateau = replace(plateau_of(problem, seed=0, gradients=0), lowest=-1e-3, highest=2e-3)
    found = _said(problem, "sgd", plateau=plateau, lr=0.1)
    assert [found.low, found.typical, found.high] == pytest.approx([14_000, 26_000, 160_000])
    floored = replace(plateau, gradient_median=1e-14, lowest=-1e-10, highest=2e-10)
    adam = _said(problem, "adam", plateau=floored, lr=1e-3, eps=1e-8)
    assert adam.law == "floor"
    assert adam.typical == pytest.approx(2.6 / (1e-3 * 1e8 * 1e-10), rel=0.01)
    assert _said(problem, "sgd", plateau=replace(plateau, lowest=None), lr=0.1) is None


def test_above_their_floors_methods_take_steps_of_their_own():
    problem = deep(depth=32, width=16, init="lecun_variance")
    plateau = replace(plateau_of(problem, seed=0, spectrum=False), present=True, gradient_median=1e-6)
    muon = _said(problem, "muon", plateau=replace(plateau, matrix_median=1e-4), lr=0.01, eps=1e-7)
    assert muon.law == "growth"
    assert muon.typical == pytest.approx(42, abs=2)
    lion = _said(problem, "lion", plateau=plateau, lr=1e-3)
    assert lion.typical == pytest.approx(61, abs=3)
    rmsprop = _said(problem, "rmsprop", plateau=plateau, lr=1e-3, eps=1e-30)
    assert rmsprop.law == "width"
    for product, steps in ((0.2, rmsprop.low), (0.5, rmsprop.typical), (2.2, rmsprop.high)):
        gone = [16 * 1e-3 * sum((1 - 0.99**i) ** -0.5 for i in range(1, int(t) + 1)) for t in (steps - 1, steps)]
        assert gone[0] < product <= gone[1]


def test_a_floor_counts_from_ten_times_the_gradient_on():
    problem = deep(depth=32, width=16, init="lecun_variance")
    plateau = replace(plateau_of(problem, seed=0, spectrum=False), present=True)
    flat = replace(plateau, gradient_median=9e-10, lowest=-1e-10)
    assert _said(problem, "adam", plateau=flat, lr=1e-3, eps=1e-8).law == "floor"
    assert _said(problem, "adam", plateau=replace(flat, gradient_median=1.1e-9), lr=1e-3, eps=1e-8).law == "growth"


@pytest.mark.parametrize("steps", [190.0, 210.0])
def test_steps_above_a_floor_that_have_no_law_count_beside_few_below(steps):
    problem = deep()
    plateau = plateau_of(problem, seed=0)
    epsilon = max(plateau.flow.gradient)
    time = plateau.flow.time[plateau.flow.gradient.index(epsilon)]
    flat = replace(plateau, gradient_median=epsilon / 20)
    found = _said(problem, "adagrad", plateau=flat, lr=time * epsilon / steps, eps=epsilon)
    assert found is None if steps < 200 else found.typical == pytest.approx(steps)


def test_steps_that_leap_have_no_law():
    problem = deep(depth=32, width=16, init="lecun_variance")
    plateau = replace(plateau_of(problem, seed=0, spectrum=False), present=True, gradient_median=1e-6)
    assert _said(problem, "rmsprop", plateau=plateau, lr=2.6e-3, eps=1e-30) is None
    assert _said(problem, "rmsprop", plateau=plateau, lr=2.4e-3, eps=1e-30) is not None
    assert _said(problem, "lion", plateau=plateau, lr=8e-3) is None
    assert _said(problem, "lion", plateau=plateau, lr=7e-3) is not None


def test_below_its_floor_adam_takes_the_time_of_the_flow():
    problem = deep()
    plateau = plateau_of(problem, seed=0)
    rate = 0.05 / max(-plateau.lowest, plateau.highest)
    found = _said(problem, "adam", plateau=plateau, lr=rate, eps=1.0)
    descent = _said(problem, "sgd", plateau=plateau, lr=rate)
    optimizer = recipe(f"adam(lr={rate}, eps=1.0)", None).build(problem.model)
    steps, loss = 0, problem.evaluate(problem.data[0])
    while 0.9 * plateau.loss < float(loss.detach()) < 1.1 * plateau.loss:
        problem.model.zero_grad()
        loss.backward()
        take_step(optimizer, lambda: None)
        steps, loss = steps + 1, problem.evaluate(problem.data[0])
    assert found.law == "floor"
    assert found.low == descent.low
    assert found.low <= steps <= descent.high


def test_decay_may_win():
    problem = deep()
    plateau = plateau_of(problem, seed=0)
    rate = 0.05 / max(-plateau.lowest, plateau.highest)
    plain = _said(problem, "sgd", plateau=plateau, lr=rate)
    decay = 0.5 / (plateau.matrices - 2) / (plain.typical * rate)  # shrinks curvature by e^{-1/2} in as many steps
    slower = _said(problem, "sgd", plateau=plateau, lr=rate, weight_decay=decay)
    assert slower.typical == pytest.approx(plain.typical * math.log(2) * 2)
    assert _said(problem, "sgd", plateau=plateau, lr=rate, weight_decay=4 * decay).typical == math.inf
    flat = replace(plateau, gradient_median=1e-15, matrix_median=1e-14)
    assert _said(problem, "muon", plateau=flat, lr=1e-12, eps=1e-7, weight_decay=0.0).typical < math.inf
    weights = [parameter.detach().clone() for parameter in problem.parameters]
    assert left(problem, rate, 0.9 * plateau.reference, decay=decay)[0] == pytest.approx(slower.typical, rel=0.3)
    assert all(map(torch.equal, weights, problem.parameters))


def test_no_law_no_number():
    problem = deep()
    plateau = plateau_of(problem, seed=0)
    for name in ("gn-cg", "lodo", "train.py:make"):
        assert _said(problem, name, plateau=plateau, lr=0.1) is None
    assert _said(problem, "sgd", plateau=replace(plateau, present=False), lr=0.1) is None
    assert _said(problem, "sgd", plateau=replace(plateau, dead=True), lr=0.1) is None
    assert _said(problem, "sgd", plateau=plateau) is None
    assert _said(problem, "sgd", plateau=plateau, lr=2.1 / plateau.highest) is None


def test_trust_regions_do_not_care_how_flat_it_is():
    flat, flatter = (_said(deep(init=init), "tr-rmsprop") for init in ("lecun_variance", "lecun"))
    assert flat.law == flatter.law == "growth"
    assert flat.typical == pytest.approx(flatter.typical, abs=2)
    plateau = plateau_of(deep(), seed=0, spectrum=False)
    doublings = math.log2(0.015 * plateau.weight_norm / 1e-20)
    for tries in (1, 10):  # radii that a step tries, each twice the last
        usual = _said(deep(), "tr-rmsprop", plateau=plateau, tries=tries)
        small = _said(deep(), "tr-rmsprop", plateau=plateau, tries=tries, radius=1e-20)
        assert small.typical - usual.typical == pytest.approx(doublings / tries, abs=1 + 1 / tries)
    assert (
        _said(deep(), "tr-rmsprop", plateau=plateau, preset="paper") is None
    )  # its radius is in a metric that changes
    assert _said(deep(), "tr-uniform", plateau=plateau, preset="paper").typical > flat.typical


def test_flow_that_dies_never_leaves():
    problem = deep()
    plateau = plateau_of(problem, seed=0)
    dying = replace(plateau, flow=replace(plateau.flow, ended="dead", loss=(plateau.loss,) * len(plateau.flow.time)))
    assert _said(problem, "sgd", plateau=dying, lr=0.1).low == math.inf


def test_other_thresholds_are_read_off_the_same_way():
    problem = deep(dtype=torch.float64)
    plateau = plateau_of(problem, seed=0, threshold=0.8)
    steps = [_said(problem, "sgd", plateau=plateau, threshold=share, lr=1.0).typical for share in (0.99, 0.9, 0.8)]
    assert steps == sorted(steps)
    assert steps[2] == pytest.approx(plateau.flow.time[-1], rel=0.1)


def test_no_step_below_a_floor_is_gradient_descent_s_where_biases_curve():
    problem = deep()
    flat = replace(plateau_of(problem, seed=0, gradients=0), gradient_median=1e-12, lowest=-1e-4, highest=1e-3)
    assert _said(problem, "adam", plateau=flat, lr=1e-3, eps=1e-8).law == "floor"
    for curved, law in ((1.01e-3, None), (1.9e-5, "floor")):  # 1e5 times the largest curvature is above 2, and below
        found = _said(problem, "adam", plateau=replace(flat, highest=curved, lowest=-curved / 10.1), lr=1e-3, eps=1e-8)
        assert (found and found.law) == law
