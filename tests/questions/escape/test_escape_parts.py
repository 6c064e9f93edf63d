"""Parts of the race: the frozen copy, what each step is given, the plan, and the counts of kernels."""

import pytest
import torch
from torch import nn

from hessdiag.errors import SpecError
from hessdiag.nets.tasks.task import Task, setup
from hessdiag.problem.batches.minibatches import Minibatches
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape import effort, plan
from hessdiag.questions.escape.contenders import entrants
from hessdiag.questions.escape.frozen import frozen, said
from hessdiag.questions.escape.measure import NOTHING
from hessdiag.questions.escape.runs.counting import Calls, Tally
from hessdiag.questions.escape.runs.draws import draws, whole
from hessdiag.questions.escape.runs.stepping import with_output
from hessdiag.questions.escape.runs.watch import Level, Watch
from hessdiag.questions.escape.start import Start
from tests.questions.escape.flat import deep


def numbered(*sizes):
    """Batches whose inputs are 0, 1, 2, ..., and a model that multiplies them by one."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    parts = torch.split(torch.arange(float(sum(sizes))).double()[:, None], sizes)
    return Problem(model, data=[(part, torch.zeros_like(part)) for part in parts], loss="mse")


def inputs(draw):
    return [int(number) for _, (x, _) in draw.parts for number in x]


def start_of(problem, **known):
    return Start(frozen(problem), 0, NOTHING, 0.0, 0.9, **known)


def test_statistics_of_batch_norm_that_were_never_updated_are_those_of_the_data():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    data = [(torch.randn(6, 3) + 2, torch.zeros(6, 1)), (torch.randn(6, 3), torch.zeros(6, 1))]
    problem = Problem(net.train(), data=data, loss="mse")
    outputs = [net[0](x).detach() for x, _ in data]
    start = frozen(problem)
    means, variances = zip(*((out.mean(0), out.var(0, correction=1)) for out in outputs), strict=True)
    assert torch.allclose(start.model[1].running_mean, sum(means) / 2, atol=1e-6)
    assert torch.allclose(start.model[1].running_var, sum(variances) / 2, atol=1e-6)
    assert start.model[1].momentum == net[1].momentum == 0.1
    assert not any(module.training for module in start.model.modules())
    assert not net[1].running_mean.any()
    words = said(net, None)
    assert "1 had never been updated" in words[0]
    assert words[1] == "dropout of 1 layer (off)"
    net[1].running_mean += 1.0  # trained
    assert torch.equal(frozen(problem).model[1].running_mean, net[1].running_mean)
    assert "never" not in said(net, None)[0]
    assert "1 had never" in said(net, "he_normal")[0]


def test_minibatches_are_of_each_sample_once_a_round():
    problem = numbered(10)
    source = draws(problem, 4, "shuffled", seed=0)
    rounds = [inputs(next(source)) + inputs(next(source)) for _ in range(3)]
    assert all(len(set(own)) == 8 for own in rounds)
    assert rounds[0] != rounds[1]
    again = draws(problem, 4, "shuffled", seed=0)
    assert inputs(next(again)) == rounds[0][:4]
    assert inputs(next(draws(problem, 4, "shuffled", seed=1))) != rounds[0][:4]


def test_small_batches_are_joined_with_their_weights():
    problem = numbered(2, 4, 2, 3)
    draw = next(draws(problem, 5, "shuffled", seed=0))
    assert 5 <= draw.samples == len(inputs(draw)) < 11
    expected = sum(number**2 for number in inputs(draw)) / draw.samples
    assert float(draw.loss(problem, problem.model).detach()) == pytest.approx(expected)
    loss, output = with_output(problem, problem.model, draw)
    assert float(loss.detach()) == pytest.approx(expected)
    assert sorted(output.tolist()) == sorted(map(float, inputs(draw)))
    (slope,) = torch.autograd.grad(loss, output)
    assert torch.allclose(slope, 2 * output / draw.samples)


def test_all_samples_where_they_are_few_or_asked_for():
    problem = numbered(2, 4, 2)
    for draw in (next(draws(problem, 8, "shuffled", 0)), next(draws(problem, 1, "whole", 0)), whole(problem)):
        assert inputs(draw) == list(range(8))
        assert float(draw.loss(problem, problem.model).detach()) == pytest.approx(problem.value())
    assert inputs(whole(problem, most=5)) == list(range(5))
    some = whole(problem, most=5).loss(problem, problem.model).detach()
    assert float(some) == pytest.approx((0 + 1 + 4 + 9 + 16) / 5)
    stream = draws(problem, 1, "stream", 0)
    assert [inputs(draw) for draw in stream] == [[0, 1], [2, 3, 4, 5], [6, 7]]


def test_what_cannot_be_cut_is_given_whole():
    odd = (torch.zeros(6, 1), torch.zeros(3))
    pieces = Minibatches([odd], seed=0, samples=2)
    assert next(pieces) is odd


def test_samples_of_each_contender():
    torch.manual_seed(0)
    task = setup(model=nn.Linear(2, 1).double(), data=None, samples=7)
    problem = Problem(task["model"], data=[(torch.zeros(9, 2).double(), torch.zeros(9, 1).double())], loss="mse")
    found = {one.name: one for one in entrants(problem, "sgd,tr-rmsprop,lodo,gn-cg", None, None)}
    assert {name: one.samples for name, one in found.items()} == {
        "sgd": 7, "tr-rmsprop": 512, "lodo": 7, "gn-cg": 512,
    }  # fmt: skip
    assert [name for name, one in found.items() if one.kind == "second"] == ["tr-rmsprop", "gn-cg"]
    assert [name for name, one in found.items() if one.output] == ["gn-cg"]
    assert [name for name, one in found.items() if one.draws] == ["lodo"]
    assert {one.samples for one in entrants(problem, "sgd,tr-rmsprop", None, 3)} == {3}


def test_a_learning_rate_for_what_takes_none():
    with pytest.raises(SpecError, match="tr-rmsprop has no learning rate"):
        entrants(deep(depth=3), "tr-rmsprop", {"tr-rmsprop": 0.1}, None)
    with pytest.raises(SpecError, match="tr-rmsprop has no learning rate"):
        entrants(deep(depth=3), "tr-rmsprop", 0.1, None)
    rates = {one.name: one.rates for one in entrants(deep(depth=3), "tr-rmsprop,sgd", 0.1, None)}
    assert rates == {"tr-rmsprop": (), "sgd": ()}, "it is that of those that take one"


def test_muon_takes_part_where_there_are_matrices():
    names = [one.name for one in entrants(deep(depth=3), None, None, None)]
    assert ("muon" in names) is hasattr(torch.optim, "Muon")
    image = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten())
    problem = Problem(image, data=[(torch.zeros(3, 1, 2, 2), torch.zeros(3, 2))], loss="mse")
    assert "muon" not in [one.name for one in entrants(problem, None, None, None)]


def test_the_tasks_own_contenders():
    task = setup(model=nn.Linear(1, 1), data=None, contenders=("sgd(lr=0.5)", "adam(lr=0.1, betas=(0.5, 0.9))"))
    assert isinstance(task["model"].task, Task)
    problem = Problem(task["model"], data=[(torch.zeros(1, 1), torch.zeros(1, 1))], loss="mse")
    found = entrants(problem, None, None, None)
    assert [(one.name, one.rates) for one in found] == [(name, ()) for name in task["model"].task.contenders]


def test_kernels_are_counted_and_not_timed():
    start = start_of(deep(depth=3, width=8))
    once = [effort.gradient_seconds(start, 64, "shuffled") for _ in range(2)]
    assert once[0] == once[1] > 0
    kernels = effort.counted(torch.device("cpu"), lambda: torch.ones(100, 200) @ torch.ones(200, 50))
    expected = 3 * effort.CALL["cpu"] + 2e6 / effort.FLOPS["cpu"] + (20_000 + 10_000 + 5_000) / effort.NUMBERS["cpu"]
    assert kernels == pytest.approx(expected)


def planned(start, asked, seconds, budget=None):
    wanted = entrants(start.problem, asked, None, None)
    return plan.planned(start, wanted, "shuffled", seeds=3, fresh=True, budget=budget, seconds=seconds)


def test_the_budget_is_what_there_is_time_for():
    start = start_of(deep(depth=3))
    full = planned(start, ["sgd(lr=0.1)", "adam"], 60.0)
    assert full.budget == 1000
    assert full.runs == 3 + 3 + 1  # three learning rates, for a third of a run each
    pace = [effort.effort(start, one, "shuffled") for one in full.entrants]
    seconds = 800 * (3 * pace[0] + 4 * pace[1])
    few = planned(start, ["sgd(lr=0.1)", "adam"], seconds)
    assert 0.9 * 400 < few.budget <= 400  # half of the time
    assert (few.seeds, few.too_slow) == ({"sgd(lr=0.1)": 3, "adam": 3}, ())
    one = planned(start, ["sgd(lr=0.1)", "adam"], seconds / 1.5)
    assert one.seeds == {"sgd(lr=0.1)": 2, "adam": 2}
    assert "run 3 of each" in one.too_slow[0]
    least = planned(start, ["sgd(lr=0.1)", "adam"], 1e-3)
    assert (least.budget, len(least.entrants)) == (plan.LEAST, 2)
    assert planned(start, ["sgd(lr=0.1)", "adam"], 1e-3, budget=77).budget == 77


def test_of_the_usual_ones_the_slow_stay_out_and_those_that_were_named_do_not():
    start = start_of(deep(depth=6))
    tight = planned(start, None, 0.2)
    left = [line.partition(":")[0] for line in tight.too_slow[:-1]]
    assert set(left[:3]) == {"tr-uniform", "tr-rmsprop", "tr-adagrad"}
    assert not set(left) & {one.name for one in tight.entrants}
    assert all("--optimizer" in line for line in tight.too_slow[:-1])
    assert {one.name for one in planned(start, ["tr-rmsprop", "adam"], 0.1).entrants} == {"tr-rmsprop", "adam"}


def test_levels_on_some_of_the_samples_are_shares_of_their_own_loss():
    problem = deep(depth=3)
    start = start_of(problem)
    plateau = NOTHING.__class__(**{**vars(NOTHING), "loss": 2.0, "reference": 1.5})
    whole_set = Start(start.problem, 0, plateau, 0.5, 0.9)
    assert [level.loss for level in whole_set.levels(2.0)] == pytest.approx([1.4, 1.0, 0.6])
    few = Start(start.problem, 0, plateau, 0.0, 0.4)
    vars(few)["watched"] = whole(start.problem, 8)
    assert [(level.share, level.loss) for level in few.levels(4.0)] == [
        (0.4, pytest.approx(1.2)),
        (0.1, pytest.approx(0.3)),
    ]


def test_products_that_are_taken_at_once_are_counted_one_by_one():
    x, calls = torch.ones(3, requires_grad=True), Calls()
    slope = x.square()
    with calls.watched():
        torch.autograd.grad(slope, x, torch.eye(3), is_grads_batched=True, retain_graph=True)
        torch.autograd.grad(slope.sum(), x)
    assert calls.count == 4


@pytest.mark.parametrize(("times", "diverged"), [(0.9e4, False), (1.1e4, True), (float("nan"), True)])
def test_a_loss_ten_thousand_times_as_large_has_diverged(times, diverged):
    watch = Watch([Level(0.9, 1.8)], samples=1, budget=10)
    watch.see(2.0, Tally())
    watch.see(2.0 * times, Tally(steps=1, gradients=1))
    assert watch.diverged is diverged
