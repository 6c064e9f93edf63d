"""Looks take no more than their share of training's time, the first one included."""

import itertools
import math

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag.monitor import look, monitor, tracking
from hessdiag.monitor.budget import SURE, Budget, share_of
from hessdiag.questions.report.run.record import Reading


@pytest.fixture
def time(monkeypatch):
    """A clock that only training and what is measured move."""

    costs = {"loss": 0.1, "gradient_norms": 0.3}

    class Time:
        now = 100.0

    def clock(device):
        return Time.now

    def measured(here, name):
        products = 0 if name in costs else 5
        Time.now += costs.get(name, 0.5 * products)
        return Reading(value=1.0, products=products)

    monkeypatch.setattr(monitor, "clock", clock)

    def probe(here):
        Time.now += 0.5

    monkeypatch.setattr(monitor, "measured", measured)
    monkeypatch.setattr(monitor, "probe", probe)
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: Time.now)
    return Time


def watched(budget, every=10):
    model = nn.Linear(2, 2)
    problem = hessdiag.Problem(model, data=[(torch.randn(4, 2), torch.randn(4, 2))], loss="mse")
    return hessdiag.Monitor(problem, every, budget)


def run(own, time, steps, seconds=0.1):
    for _ in range(steps):
        time.now += seconds
        own.step()
    return own.records


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_the_share_is_kept(time, share):
    own = watched(share)
    steps = int(200 / share)
    records = run(own, time, steps)
    whole = [record for record in records if "lambda_max" in record.readings]
    spent = sum(record.seconds for record in records)
    training = steps * 0.1
    assert 0.6 * share < spent / training <= share  # neither more, nor much less
    assert records[-1].share == pytest.approx(spent / training, rel=0.05)
    assert len(whole) > 1
    first = whole[0].step * 0.1
    assert first * share >= 0.4 + 5 * 0.5  # also of the first: it waits until it can be paid for


def test_without_a_limit_each_look_is_taken(time):
    records = run(watched(None), time, 100)
    assert [record.step for record in records] == list(range(10, 101, 10))
    assert all("lambda_max" in record.readings for record in records)


def test_what_is_left_out_is_recorded(time):
    records = run(watched("5%"), time, 200)
    assert [record.step for record in records] == [*range(10, 81, 10), *range(81, 201, 10)]
    assert "of the budget are left" in records[0].skipped or records[0].left_out
    for record in records:
        assert record.skipped or record.readings
    probes = [record for record in records if record.left_out]
    assert [record.step for record in probes] == [81]  # one, to know what products take
    assert all(record.readings.keys() == {"loss", "gradient_norms"} for record in probes)
    assert all(record.left_out.keys() == {"lambda_max"} for record in probes)


def test_one_disturbed_look_does_not_end_them():
    budget = Budget(0.05, began=0.0)
    for gradient, products in ((0.1, 1.0), (0.1, 900.0), (0.1, 1.0)):
        budget.learn(gradient)
        budget.learn_products(products, 10)
    assert budget.look(10, 1.0) == pytest.approx(1.1 * SURE)


def test_a_share_in_words_and_numbers():
    assert share_of("2.5 %") == pytest.approx(0.025)
    assert share_of(1) == 1.0


def test_it_plans_what_it_measures():
    model = nn.Linear(2, 2)
    adam, sgd = torch.optim.Adam(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)
    names = ("loss", "lambda_max", "sharpness")
    assert look.planned(names, sgd) == tracking.WARM
    assert look.planned(names, adam) == 2 * tracking.WARM
    assert look.planned(("loss",), adam) == 0
    assert look.planned(("trace", "diag_share", "negative_curvature"), None) == 10 + 72 + 8


def test_a_run_without_a_look_at_the_curvature_says_so(time):
    own = watched(0.01)
    run(own, time, 30)
    with pytest.warns(RuntimeWarning, match=r"none of 3 looks had lambda_max: .*budget=None"):
        own.close()


def test_a_run_with_one_says_nothing(time, recwarn):
    own = watched(None)
    run(own, time, 30)
    own.close()
    assert not recwarn.list


def test_a_look_that_is_owed_is_made_as_soon_as_it_can_be_paid_for(time):
    records = run(watched("5%", every=50), time, 1500)
    whole = [record for record in records if "lambda_max" in record.readings]
    assert len(whole) == 2
    for record in whole:
        left = 0.05 * 0.1 * (record.step - 1) - sum(one.seconds for one in records if one.step < record.step)
        assert 0 <= left - SURE * (0.4 + 5 * 0.5) + 1e-9 <= 2 * 0.05 * 0.1
    steps = [record.step for record in records if not record.skipped]
    assert all(after - before >= 50 for before, after in itertools.pairwise(steps))


def test_a_first_search_has_as_many_products_as_there_is_time_for(monkeypatch):
    caps = []
    monkeypatch.setattr(look, "track", lambda *args: caps.append(args[5]) or tracking.track(*args))
    own = watched(None)
    own.step(10)
    assert caps == [tracking.COLD]
    own._tops.clear()
    own._budget.share = 1e9
    monkeypatch.setattr(Budget, "spare", lambda self, left, products: 2.5)
    own.step(20)
    assert caps == [tracking.COLD, tracking.WARM + 2]


def test_what_is_left_over_pays_for_more_products():
    budget = Budget(0.05)
    assert budget.spare(10.0, 5) == math.inf
    budget.learn_products(4.0, 2)
    assert (budget.spare(14.0, 5), budget.spare(6.0, 5)) == (2.0, 0.0)
