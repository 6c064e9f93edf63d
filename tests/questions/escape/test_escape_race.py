"""The race: exact counts where they are known, what each run costs, how runs end, and that the user's things stay."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.autograd import graph

from hessdiag.curvature.local import LocalHessian
from hessdiag.errors import SpecError
from hessdiag.nets.tasks.task import setup
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.step import Step
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape import measure
from hessdiag.questions.escape.measure import escape, escape_of
from hessdiag.questions.escape.runs import run as runs
from tests.questions.escape.flat import chain, deep


@pytest.fixture(autouse=True)
def _unforeseen(monkeypatch):
    """Without looking at where runs start, which other tests do: it takes longer than these runs."""
    monkeypatch.setattr(measure, "FORESIGHT", 0.0)


class Lion(torch.optim.Optimizer):
    """Steps by the sign of an average of gradients (Chen et al. 2023)."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
            parameter -= self.param_groups[0]["lr"] * (0.9 * mean + 0.1 * parameter.grad).sign()
            mean.lerp_(parameter.grad, 0.01)


class Hutchinson(torch.optim.Optimizer):
    """A foreign optimizer that takes a product with the Hessian by itself in each step."""

    def __init__(self, params, lr=1e-4):
        super().__init__(params, {"lr": lr})

    def step(self):
        parameters = self.param_groups[0]["params"]
        signs = [torch.randint_like(p, 2) * 2 - 1 for p in parameters]
        torch.autograd.grad([p.grad for p in parameters], parameters, signs)
        with torch.no_grad():
            for parameter in parameters:
                parameter -= self.param_groups[0]["lr"] * parameter.grad


class Twice(ClosureOptimizer):
    """One of this package: a gradient and two products a step."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    def step(self, closure):
        value, _ = self.evaluate(closure)
        matrix = LocalHessian(value, self.parameters)
        for _ in range(2):
            matrix @ matrix.gradient
        length = float(matrix.gradient.norm()) * self.param_groups[0]["lr"]
        self.place(self.point() - self.param_groups[0]["lr"] * matrix.gradient)
        self.last = Step(
            loss=float(value.detach()),
            accepted=True,
            gradients=1,
            products=matrix.products,
            evaluations=self.counted(),
            length=length,
            rho=0.125,
            radius=2.0,
            exit="boundary",
        )
        return self.last.loss


def only(found):
    assert len(found.runs) == 1
    return found.runs[0]


@pytest.mark.parametrize(("length", "steps"), [(5, 294), (10, 385)])
def test_sign_steps_on_the_chain_are_counted_to_the_step(length, steps):
    """Each weight goes from 1/2 to where (1 - w^L)^2 is half of (1 - 2^-L)^2, in steps of lr."""
    end = (1 - math.sqrt(0.5) * (1 - 0.5**length)) ** (1 / length)
    assert math.ceil((end - 0.5) / 1e-3) == steps
    run = only(escape(chain(length), optimizers=lambda params: Lion(params, lr=1e-3), budget=steps + 5, seeds=1))
    assert (run.outcome, run.steps, run.backprops, run.epochs) == ("escaped", steps, steps, steps)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize(("length", "steps"), [(5, 22), (80, 36)])
def test_muon_without_floor_takes_steps_of_0_6875_lr_on_the_chain(length, steps):
    end = (1 - math.sqrt(0.5) * (1 - 0.5**length)) ** (1 / length)
    assert math.ceil((end - 0.5) / (0.6875 * 0.02)) == steps
    spec = "muon(lr=0.02, eps=1e-30, weight_decay=0)"
    assert only(escape(chain(length), optimizers=spec, budget=40)).steps == steps


def test_gradient_descent_on_the_chain_against_a_loop():
    weight, steps = 0.5, 0
    while (1 - weight**10) ** 2 > 0.5 * (1 - 0.5**10) ** 2:
        weight += 0.1 * weight**9 * (1 - weight**10)
        steps += 1
    assert only(escape(chain(10), optimizers="sgd", lr=0.1, budget=330)).steps == steps == 322


def counted_calls(monkeypatch):
    """All calls of autograd's engine from here on, whoever calls it."""
    calls, engine = [], graph._engine_run_backward

    def watched(*args, **keywords):
        calls.append(1)
        return engine(*args, **keywords)

    for home in (torch.autograd, graph):
        monkeypatch.setattr(home, "_engine_run_backward", watched)
    return calls


@pytest.mark.parametrize(
    ("optimizer", "gradients", "products"),
    [(torch.optim.SGD, 7, 0), (Hutchinson, 4, 4), (Twice, 3, 6)],
)
def test_what_a_run_costs_are_calls_of_autograd(optimizer, gradients, products, monkeypatch):
    started = []

    class Counted(optimizer):
        def step(self, closure=None):
            if not started:
                started.append(counted_calls(monkeypatch))
                started[0].append(1)  # the gradient that is there already
                if isinstance(self, ClosureOptimizer):
                    started[0].clear()
            return super().step(closure) if closure is not None else super().step()

    def make(params):
        del started[:]
        return Counted(params, lr=1e-9)

    run = only(escape(deep(depth=3), optimizers=make, budget=7, seeds=1, batch_size=16))
    assert (run.spent.gradients, run.spent.products) == (gradients, products)
    assert run.spent.backprops == gradients + products == len(started[0])
    assert run.spent.evaluations == gradients
    assert run.spent.epochs == gradients * 16 / 64
    assert run.spent.sample_passes == run.spent.backprops * 16 / 64


def test_lbfgs_evaluates_as_often_as_it_likes():
    run = only(escape(chain(5), optimizers="lbfgs(lr=0.1, max_iter=3)", budget=30, threshold=0.01))
    assert run.spent.steps < run.spent.gradients == run.spent.evaluations


def test_how_a_region_went():
    run = only(escape(chain(5), optimizers=Twice, budget=9, seeds=1))
    assert run.region.backprops == (3, 6, 9)
    assert run.region.radius == (2.0, 2.0, 2.0)
    assert run.region.exits == {"boundary": 3}
    assert (run.region.untrusted, run.region.rejected) == (1.0, 0)


def test_the_users_things_stay_as_they_were():
    problem = deep(depth=4, init="he_uniform")
    problem.model.train()
    problem.parameters[0].grad = torch.ones_like(problem.parameters[0])
    before, state = copy.deepcopy(problem.model.state_dict()), torch.random.get_rng_state()
    escape(problem, optimizers="adam(lr=0.01),sgd(lr=0.1)", init="he_normal", seeds=2, budget=20)
    assert all(torch.equal(problem.model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert problem.model.training
    assert problem.parameters[0].grad.sum() == problem.parameters[0].numel()
    assert all(parameter.grad is None for parameter in problem.parameters[1:])


def timeless(found):
    return [(run.optimizer, run.seed, run.settings, run.loss, run.steps, run.spent.backprops) for run in found.runs]


def test_the_same_seed_gives_the_same_numbers():
    settings = {"optimizers": ["adam", "sgd(lr=0.1)"], "init": "lecun_variance", "seeds": 2, "budget": 40}
    first, second = (escape(deep(depth=6), batch_size=16, **settings) for _ in range(2))
    assert timeless(first) == timeless(second)
    other = escape(deep(depth=6), batch_size=16, **settings, seed=1)
    assert timeless(first)[0][3] != timeless(other)[0][3]


def test_networks_are_drawn_anew_and_orders_of_samples_are_not_shared():
    drawn = escape(deep(depth=4), optimizers="sgd(lr=1e-6)", init="he_normal", seeds=3, budget=3)
    assert len({plateau.gradient_norm for plateau in drawn.plateaus}) == 3
    assert [run.seed for run in drawn.runs] == [0, 1, 2]
    kept = escape(deep(depth=4, init="he_uniform"), optimizers="sgd(lr=0.1)", seeds=3, budget=10, batch_size=16)
    assert len(kept.plateaus) == 1
    assert len({run.final_loss for run in kept.runs}) == 3
    whole = escape(deep(depth=4), optimizers="sgd(lr=0.1)", seeds=3, budget=10)
    assert len(whole.runs) == 1  # all would be the same


def test_networks_that_a_function_makes():
    found = escape_of(lambda seed: deep(depth=3, seed=seed), optimizers="sgd(lr=0.1)", seeds=2, budget=5, seed=7)
    assert [plateau.seed for plateau in found.plateaus] == [run.seed for run in found.runs] == [7, 8]
    assert found.plateaus[1].loss == deep(depth=3, seed=8).value()


def test_the_learning_rate_that_is_out_first_wins_and_the_others_are_the_search():
    found = escape(chain(5), optimizers="rmsprop", budget=150)
    contender, run = found.contenders[0], only(found)
    alone = [only(escape(chain(5), optimizers=f"rmsprop(lr={rate})", budget=150)) for rate in (3e-3, 1e-3)]
    assert contender.searched == (3e-3, 1e-3, 3e-4)
    assert contender.settings["lr"] == 3e-3
    assert run.steps == alone[0].steps < alone[1].steps
    # A third of the budget for the first; then neither may take longer than the best so far.
    assert contender.search.gradients == 50 + 2 * run.steps
    assert run.spent.gradients == alone[0].spent.gradients == 150


def test_of_learning_rates_that_do_not_get_out_the_lowest_loss_wins():
    found = escape(chain(10), optimizers="sgd", budget=60)
    assert found.contenders[0].settings["lr"] == 0.3
    assert found.contenders[0].searched == (0.3, 0.1, 0.03, 0.01)
    assert found.contenders[0].search.gradients == 4 * 20
    assert (found.contenders[0].escaped, found.contenders[0].runs, found.contenders[0].backprops) == (0, 1, None)
    assert only(found).outcome == "stuck"


def test_smaller_learning_rates_are_not_tried_where_the_law_of_the_largest_is_far_away():
    found = escape(chain(10), optimizers="sgd", budget=30)  # 107 steps at 0.3
    assert found.contenders[0].searched == (0.3,)
    assert found.contenders[0].search.gradients == 10
    assert only(found).spent.gradients == 30


def test_learning_rates_that_are_given_are_not_searched():
    for settings in ({"lr": 0.25}, {"lr": {"sgd": 0.25}}):
        found = escape(chain(5), optimizers="sgd", budget=5, **settings)
        assert found.contenders[0].searched == ()
        assert only(found).settings["lr"] == 0.25


def test_a_run_that_is_out_goes_on_for_four_times_as_long_and_shows_it():
    run = only(escape(chain(5), optimizers="sgd(lr=0.04)", budget=2000))
    assert run.spent.gradients == 4 * run.backprops
    level = 0.5 * run.loss[0]
    outside = [spent.steps for loss, spent in zip(run.loss, run.at, strict=True) if loss <= level]
    assert abs(outside[0] - run.steps) <= run.steps / 20 + 1
    assert run.milestones[0].level == 0.1
    assert run.milestones[0].spent.steps > run.steps


def test_one_look_below_is_no_escape():
    """A loss that falls below the level for two steps and comes back is not out."""
    turns = [1.0, 1.0, 0.1, 0.1] + [1.0] * 30

    class Jumps(torch.optim.SGD):
        def step(self):
            weight = self.param_groups[0]["params"][0]
            done = self.state[weight]["done"] = self.state[weight].get("done", -1) + 1
            weight.data.fill_(turns[done])

    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    problem = Problem(model, data=[(torch.ones(8, 1).double(), torch.zeros(8, 1).double())], loss="mse")
    settings = {"optimizers": lambda params: Jumps(params, lr=1), "budget": 20, "seeds": 1}
    assert only(escape(problem, **settings, batch_size=4)).steps is None
    assert only(escape(problem, **settings)).steps == 3  # of all samples, where nothing is left to chance


def test_a_dead_network_is_told_from_a_plateau():
    problem = deep(depth=4)
    nn.init.constant_(problem.model[2].weight, -1.0)  # of what ReLU put out, nothing is positive after it
    run = only(escape(problem, optimizers="adam(lr=0.1)", budget=400))
    assert (run.outcome, run.escaped) == ("dead", False)
    assert run.spent.steps < 10
    assert any("exactly 0" in note for note in run.notes)


def test_what_diverges_and_what_fails_end_their_own_runs():
    def failing(params):
        class Fails(torch.optim.SGD):
            def step(self):
                raise ValueError("svd: the matrix is not finite")

        return Fails(params, lr=1)

    found = escape(
        deep(depth=3, init="he_uniform"), optimizers=[failing, "sgd(lr=1e3)", "sgd(lr=1e-3)"], budget=30, seeds=1
    )
    first, second, third = found.runs
    assert (first.outcome, second.outcome, third.outcome) == ("diverged", "diverged", "stuck")
    assert any("svd: the matrix is not finite" in note for note in first.notes)
    assert second.spent.gradients < 30 == third.spent.gradients


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizers": "sgd,rmprop"}, "Did you mean rmsprop?"),
        ({"optimizers": ["sgd", "adam(learning_rate=1)"]}, "takes no 'learning_rate'"),
        ({"optimizers": ""}, "no optimizer is named"),
        ({"optimizers": "sgd", "lr": {"adam": 0.1}}, "adam, which does not take part"),
        ({"optimizers": "sgd", "seeds": 0}, "--seeds must be at least 1"),
        ({"optimizers": "sgd", "budget": 0}, "--budget must be at least 1"),
        ({"optimizers": "sgd", "threshold": 1.0}, "between 0 and 1"),
        ({"optimizers": "sgd", "time_budget": 0.0}, "must be positive"),
        ({"optimizers": "sgd", "init": "he_norml"}, "Did you mean he_normal?"),
    ],
)
def test_mistakes_are_said_before_anything_runs(settings, said, monkeypatch):
    monkeypatch.setattr(runs, "_run", lambda *_, **__: pytest.fail("a run was made"))
    with pytest.raises(SpecError) as error:
        escape(deep(depth=3), **settings)
    assert said in str(error.value)


def test_gauss_newton_needs_a_loss_of_the_output():
    model = nn.Linear(1, 1).double()
    problem = Problem(model, data=[torch.ones(2, 1).double()], objective=lambda net, x: net(x).square().mean())
    with pytest.raises(SpecError, match="gn-cg needs a loss of the model's output"):
        escape(problem, optimizers="gn-cg")


def test_an_interrupt_keeps_what_was_run():
    class Interrupted(torch.optim.SGD):
        def step(self):
            if not self.state.setdefault("steps", 0) < 5:
                raise KeyboardInterrupt
            self.state["steps"] += 1

    found = escape(
        chain(5), optimizers=["sgd(lr=0.01)", lambda params: Interrupted(params, lr=1), "adam(lr=0.1)"], budget=50
    )
    assert found.status == "interrupted"
    assert [run.outcome for run in found.runs] == ["stuck", "stopped"]
    assert found.runs[1].spent.gradients == 6
    assert found.findings


def test_the_clock_stops_what_counting_did_not(monkeypatch):
    now = iter(range(10_000))
    monkeypatch.setattr(runs.time, "monotonic", lambda: 10 * next(now))
    found = escape(chain(5), optimizers="sgd(lr=1e-9),adam(lr=1e-9)", budget=100, time_budget=100.0)
    assert found.runs[0].outcome == "stopped"
    assert found.runs[0].spent.steps < 12
    assert "time that was granted" in found.runs[0].notes[-1]
    assert any(line.startswith("adam(lr=1e-9)") for line in found.too_slow)


def test_a_stream_takes_each_batch_once_and_is_compared_by_its_score():
    """w goes from 0 by half of the way to each target: the losses are known."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    targets = [1.0, 3.0, -2.0, 4.0, 0.0]
    data = [(torch.ones(1, 1).double(), torch.full((1, 1), target).double()) for target in targets]
    task = setup(model=model, data=data, loss="mse", order="stream", score=(0.4, 1.0), contenders=("sgd(lr=0.25)",))
    found = escape(Problem(model, data=data, loss="mse"))
    weight, losses = 0.0, []
    for target in targets:
        losses.append((weight - target) ** 2)
        weight += 0.5 * (target - weight)
    assert task["model"].task.order == "stream"
    assert only(found).spent.steps == 5
    assert only(found).score == pytest.approx(sum(losses[2:]) / 3)
    assert found.score_window == (0.4, 1.0)


def test_the_network_off_its_plateau():
    """One seed of the deep narrow network with torch's own initialization: eps decides."""
    found = escape_of(
        lambda seed: deep(depth=32, width=16, init="lecun", samples=512, seed=seed),
        optimizers=["rmsprop(lr=1e-3)", "rmsprop(lr=1e-3, eps=1e-30)", "tr-rmsprop"],
        seeds=1,
        budget=60,
        time_budget=1e9,
    )
    outcomes = {run.optimizer: run.outcome for run in found.runs}
    assert outcomes.pop("rmsprop(lr=1e-3)") == "stuck"
    assert set(outcomes.values()) == {"escaped"}


def test_a_run_that_was_interrupted_does_not_count_against_the_others():
    """The first run of two is out; the second was stopped, and would be infinite among the backpropagations."""
    taken, most = [], [10**6]

    class Interrupted(torch.optim.SGD):
        def step(self, closure=None):
            taken.append(1)
            if len(taken) > most[0]:
                raise KeyboardInterrupt
            super().step(closure)

    def race(seeds):
        taken.clear()
        return escape(
            chain(3),
            optimizers=lambda params: Interrupted(params, lr=0.3),
            init="xavier_normal",
            seeds=seeds,
            budget=400,
        )

    assert race(1).runs[0].escaped
    most[0] = len(taken) + 1
    found = race(2)
    assert [run.outcome for run in found.runs] == ["escaped", "stopped"]
    assert found.contenders[0].backprops == found.runs[0].backprops
