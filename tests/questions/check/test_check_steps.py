"""An optimizer's steps on a copy: against closed forms on quadratic functions, and without a trace."""

import copy
import math

import pytest
import torch
from torch import nn

from hessdiag.optimizers.recipe import recipe
from hessdiag.problem.copies import copied
from hessdiag.problem.problem import Problem
from hessdiag.questions.check import steps
from hessdiag.questions.check.readings import LayerReading, OutputReading, StepReading
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.stepping.judged import fell, gain, trains
from hessdiag.questions.check.stepping.others import suspects
from hessdiag.questions.check.stepping.reading import lambda_threshold
from hessdiag.questions.check.steps import stepped

CURVATURES = torch.tensor([[0.5, 1.0, 3.0, 8.0]], dtype=torch.float64)
START = torch.tensor([[1.0, -2.0, 0.5, 0.25]], dtype=torch.float64)


class Point(nn.Module):
    """A point, and the quadratic function 1/2 sum lambda_i w_i^2 of it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(START.clone())


def quadratic(model, batch):
    return (CURVATURES * model.weight.square()).sum() / 2


def on_quadratic(spec, lr, found=None):
    return stepped(found or Check(), Problem(Point(), data=[None], objective=quadratic), recipe(spec, lr), seed=0)


def test_a_step_of_gradient_descent_on_a_quadratic_function():
    lr, gradient = 0.1, CURVATURES * START
    step = on_quadratic("sgd", lr).step
    change = -lr * gradient
    assert step.optimizer == "SGD"
    assert (step.lr, step.settings, step.floor) == (lr, {}, None)
    assert step.before == pytest.approx(float((CURVATURES * START**2).sum() / 2), rel=1e-14)
    assert step.after == pytest.approx(float((CURVATURES * (START + change) ** 2).sum() / 2), rel=1e-14)
    assert step.predicted == pytest.approx(lr * float(gradient.square().sum()), rel=1e-14)
    assert step.curvature == pytest.approx(float((CURVATURES * change**2).sum() / change.square().sum()), rel=1e-10)
    assert step.update_ratio == pytest.approx(float(change.norm() / START.norm()), rel=1e-14)
    assert step.lambda_max == pytest.approx(8.0, rel=1e-10)
    assert step.lambda_threshold == pytest.approx(20.0, rel=1e-14)


def test_losses_are_those_of_gradient_descent():
    lr, losses = 0.1, on_quadratic("sgd", 0.1).step.losses
    assert len(losses) == 61
    for taken, loss in enumerate(losses):
        weights = (1 - lr * CURVATURES) ** taken * START
        assert loss == pytest.approx(float((CURVATURES * weights**2).sum() / 2), rel=1e-10)


def test_the_first_step_of_adam_entry_by_entry():
    lr, eps, gradient = 0.01, 2.0, CURVATURES * START
    found = on_quadratic(
        f"adam(eps={eps})", lr, Check(layers=(LayerReading(layer="Point", kind="Point", parameters=4),))
    )
    change = lr * gradient / (gradient.abs() + eps)
    assert found.step.floor == eps
    assert found.step.predicted == pytest.approx(float((gradient * change).sum()), rel=1e-6)
    assert found.step.update_ratio == pytest.approx(float(change.norm() / START.norm()), rel=1e-6)
    assert found.layers[0].update_ratio == pytest.approx(found.step.update_ratio, rel=1e-14)
    assert found.layers[0].epsilon_share == 0.5  # 0.5 and 1.5 are below 2; 2 is not below, where it stands
    assert found.step.floor_leaves == pytest.approx(float((change / lr).square().mean().sqrt()), rel=1e-6)
    assert found.step.lambda_threshold is None


def test_of_zero_gradients_nothing_is_counted():
    model = Point()
    model.weight.data[0, 2:] = 0.0
    found = Check(layers=(LayerReading(layer="Point", kind="Point", parameters=4),))
    problem = Problem(model, data=[None], objective=quadratic)
    found = stepped(found, problem, recipe("adam(eps=1.0)", 0.1), seed=0)  # gradients 0.5, -2, 0, 0
    assert found.layers[0].epsilon_share == 0.5


@pytest.mark.parametrize(
    ("spec", "threshold"),
    [
        ("sgd", 4.0),
        ("sgd(momentum=0.5)", 6.0),
        ("sgd(momentum=0.5, dampening=0.5)", 12.0),
        ("sgd(momentum=0.5, nesterov=True)", 3.0),
        ("sgd(weight_decay=0.5)", 3.5),
    ],
)
def test_gradient_descent_is_stable_up_to_the_threshold(spec, threshold):
    """On a quadratic function of one variable: 1 % below it falls, 1 % above it grows."""

    def after(curvature):
        weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        model = nn.Module()
        model.weight = weight
        optimizer = recipe(spec, 0.5).build(model)
        assert lambda_threshold(optimizer) == pytest.approx(threshold, rel=1e-12)
        for _ in range(2000):
            weight.grad = curvature * weight.detach()
            optimizer.step()
        return abs(weight.item())

    assert after(0.99 * threshold) < 1e-2
    assert after(1.01 * threshold) > 1e2


@pytest.mark.parametrize(
    ("spec", "ratio", "steps"),
    [
        ("sgd(weight_decay=0.5)", "coupled", 1 / (0.01 * 0.5)),
        ("sgd(weight_decay=0.5, momentum=0.9)", "coupled", 1 / (0.01 * 0.5)),
        ("adam(weight_decay=0.5)", "coupled", "own"),
        ("adamw(weight_decay=0.5)", "decoupled", 1 / (0.01 * 0.5)),
        ("adam", None, None),
    ],
)
def test_what_weight_decay_takes(spec, ratio, steps):
    step = on_quadratic(spec, 0.01).step
    weights, gradient = float(START.norm()), float((CURVATURES * START).norm())
    expected = {"coupled": 0.5 * weights / gradient, "decoupled": 0.01 * 0.5 * weights / (0.01 * 2), None: None}
    assert step.decay_ratio == (pytest.approx(expected[ratio], rel=1e-6) if ratio else None)
    if steps == "own":  # all of four entries move by lr
        steps = weights / (0.01 * 2)
    assert step.decay_steps == (pytest.approx(steps, rel=1e-6) if steps else None)


def test_curvature_that_rounding_hides_is_not_given():
    assert on_quadratic("sgd", 1e-3).step.curvature is not None
    assert on_quadratic("sgd", 1e-9).step.curvature is None


def test_an_optimizer_that_looks_for_its_step_itself():
    step = on_quadratic("lbfgs", 1.0).step
    assert step.after < 1e-6 * step.before


def test_loss_that_diverges_ends_without_a_number():
    found = on_quadratic("sgd", 1e30)
    assert found.step.losses[-1] is None
    assert len(found.step.losses) < 20
    assert found.trains is False


def test_updates_that_are_rounded_away():
    def share(lr, dtype):
        model = nn.Linear(32, 32, bias=False).to(dtype)
        nn.init.constant_(model.weight, 1.0)
        problem = Problem(model, data=[(torch.ones(1, 32).to(dtype), torch.zeros(1, 32).to(dtype))], loss="mse")
        return stepped(Check(), problem, recipe("adam", lr), seed=0).step.rounded_share

    assert share(1e-3, torch.bfloat16) == 1.0  # half a unit of the last digit of 1 is 2^-9 downwards
    assert share(1e-2, torch.bfloat16) == 0.0
    assert share(1e-3, torch.float32) == 0.0


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def batches(count=2):
    torch.manual_seed(4)
    return [(torch.randn(16, 6), torch.randint(3, (16,))) for _ in range(count)]


def test_no_trace_is_left():
    model, data = network(), batches()
    model[3].eval()
    own = torch.optim.Adam(model.parameters(), lr=0.1)
    model(data[0][0]).square().sum().backward()
    kept = copy.deepcopy((model.state_dict(), [p.grad for p in model.parameters()], data, own.state_dict()))
    modes, drawn = [m.training for m in model.modules()], torch.get_rng_state()
    found = stepped(Check(), Problem(model, data=data, loss="ce"), recipe(own, None, model=model), seed=0)
    assert len(found.step.losses) > 10
    for before, now in zip(kept[0].values(), model.state_dict().values(), strict=True):
        assert torch.equal(before, now)
    assert all(torch.equal(a, p.grad) for a, p in zip(kept[1], model.parameters(), strict=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(kept[2], data, strict=True))
    assert str(own.state_dict()) == str(kept[3])
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), drawn)


def test_before_and_after_are_of_the_same_random_numbers():
    step = stepped(Check(), Problem(network(), data=batches(), loss="ce"), recipe("sgd", 1e-12), seed=0).step
    assert step.after == pytest.approx(step.before, rel=1e-6)
    assert step.losses[2] != pytest.approx(step.before, rel=1e-3)  # the same batch again, and other numbers


def test_batches_come_in_turn():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    data = [(torch.full((4, 1), float(value)), torch.zeros(4, 1)) for value in (1, 2, 3)]
    losses = stepped(Check(), Problem(model, data=data, loss="mse"), recipe("sgd", 1e-12), seed=0).step.losses
    assert losses[:6] == pytest.approx([1, 4, 9, 1, 4, 9])


def test_a_slow_model_takes_one_step(monkeypatch):
    monkeypatch.setattr(steps, "SLOW", 0.0)
    found = on_quadratic("sgd", 0.1)
    assert found.step.after is not None
    assert (found.step.losses, found.step.others, found.trains) == ((), (), None)
    assert "too long" in found.not_looked_at[-1]


def test_a_model_that_cannot_be_copied():
    class Alone(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("not me")

    found = stepped(
        Check(),
        Problem(Alone(2, 1), data=[(torch.ones(2, 2), torch.ones(2, 1))], loss="mse"),
        recipe("adam", None),
        seed=0,
    )
    assert found.step is None
    assert found.not_looked_at == ("the optimizer's steps: the model cannot be copied",)


def test_what_a_forward_pass_left_behind_is_copied_without_its_graph():
    model = nn.Linear(2, 1)
    model.last = model(torch.ones(1, 2))
    twin = copied(model)
    assert torch.equal(twin.last, model.last)
    assert not twin.last.requires_grad
    assert model.last.requires_grad


def test_frozen_parameters_and_those_beside_the_glob_stay():
    model = network()
    model[0].requires_grad_(False)
    found = Check(layers=tuple(LayerReading(layer=name, kind="Linear", parameters=1) for name in ("0", "4")))
    found = stepped(found, Problem(model, data=batches(), loss="ce"), recipe("adam", None), seed=0)
    assert found.layers[0].update_ratio is None
    assert found.layers[1].update_ratio > 0


def test_a_loss_without_a_graph_has_no_step():
    problem = Problem(nn.Linear(1, 1), data=[None], objective=lambda model, batch: torch.zeros(()))
    assert stepped(Check(), problem, recipe("adam", None), seed=0).step is None


def taken(*losses, ratio=1e-2, predicted=0.0):
    return StepReading(
        optimizer="SGD",
        given=True,
        lr=0.1,
        settings={},
        before=losses[0],
        predicted=predicted,
        update_ratio=ratio,
        losses=losses,
    )


LEVEL = [2.3] * 30


@pytest.mark.parametrize(
    ("step", "chance", "expected"),
    [
        (taken(2.4, *[2.0] * 30), 2.3, True),
        (taken(2.4, *[2.1] * 30), 2.3, None),  # below chance, not clearly
        (taken(*LEVEL), 2.3, False),
        (taken(*LEVEL, ratio=1e-5), 2.3, None),  # too small to tell
        (taken(*LEVEL, ratio=1e-5, predicted=0.01), 2.3, False),  # 0.3 in all should have come
        (taken(*LEVEL[:15]), 2.3, None),
        (taken(*[2.6 - 0.01 * index for index in range(30)]), 2.3, None),  # still falling
        (taken(0.3, *[0.3] * 30), 2.3, None),  # trained
        (taken(2.3, 9.0, *[2.0] * 30), 2.3, None),  # after a leap, that is luck
        (taken(2.3, 9.0, *[1.0] * 30), 2.3, True),
        (taken(2.3, None), 2.3, False),
        (taken(2.0, *[1.5] * 30), None, None),
        (taken(2.0, *[1.3] * 30), None, True),
        (taken(2.0, *[2.0] * 30), None, None),  # may be trained
        (taken(2.3), 2.3, None),
    ],
)
def test_whether_it_trains(step, chance, expected):
    assert trains(step, chance) is expected
    assert fell(step.losses, chance) is (expected is True)


def test_batches_are_compared_with_themselves():
    """Ten that differ, of which the last ones are easy: nothing falls. A tenth of chance less, and all fall."""
    turn = [3.0, 3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    level, falling = taken(*turn * 3), taken(*turn, *turn, *[0.8 * loss for loss in turn])
    assert trains(level, 2.0, 10) is False
    assert trains(level, 2.0) is True  # as one batch
    assert trains(falling, 2.0, 10) is True
    assert gain(falling.losses, 2.0, 10) == pytest.approx(0.2)


def test_what_a_run_gains():
    assert gain((2.5, *[1.15] * 5), 2.3) == pytest.approx(0.5)
    assert gain((2.0, *[1.5] * 5), 2.3) == pytest.approx(0.25)
    assert gain((2.0, None), 2.3) == -math.inf


@pytest.mark.parametrize(
    ("changes", "trains", "expected"),
    [
        ({}, None, []),
        ({"losses": (1.0, 1.2)}, None, [("lr", 0.01), ("lr", 0.001), ("lr", 1e-5)]),
        ({"losses": (1.0, 1.2)}, True, []),
        ({"losses": (1.0, 3.0)}, True, [("lr", 0.01), ("lr", 0.001), ("lr", 1e-5)]),
        ({"losses": (1.0, None)}, False, [("lr", 0.01), ("lr", 0.001), ("lr", 1e-5)]),
        ({"optimizer": "Adam", "settings": {"eps": 1e-3}}, None, [("eps", 1e-8)]),
        ({"optimizer": "Adam", "settings": {"eps": 1e-3}}, True, []),
        ({"optimizer": "Adam", "settings": {"eps": 1e-3}, "floor_leaves": 0.04}, True, [("eps", 1e-8)]),
        ({"optimizer": "Adam", "settings": {"eps": 1e-7}}, None, []),
        ({"decay_ratio": 0.5}, None, [("weight_decay", 0.0)]),
        ({"decay_ratio": 0.5}, True, []),
        ({"decay_ratio": 2.0}, True, [("weight_decay", 0.0)]),
        ({"update_ratio": 3e-6}, None, [("lr", 100.0), ("lr", 1000.0)]),
        ({"update_ratio": 3e-6}, True, []),
        ({"losses": ()}, None, []),
    ],
)
def test_settings_that_may_be_to_blame(changes, trains, expected):
    step = StepReading(
        **{
            "optimizer": "SGD",
            "given": True,
            "lr": 0.1,
            "settings": {},
            "losses": (1.0, 1.0),
            "update_ratio": 1e-2,
            **changes,
        }
    )
    assert [name for name, _ in suspects(step, trains)] == [name for name, _ in expected]
    assert [value for _, value in suspects(step, trains)] == pytest.approx([value for _, value in expected])


def test_runs_with_other_settings_start_anew():
    """Of gradient descent on a quadratic function beyond its threshold: a tenth of its learning rate falls."""
    found = on_quadratic(
        "sgd", 0.5, Check(output=OutputReading(loss=1.0, chance=float((CURVATURES * START**2).sum() / 2)))
    )
    assert found.trains is False or found.trains is None
    first = found.step.others[0]
    assert (first.setting, first.fell) == ("lr", True)
    assert first.value == pytest.approx(0.05)
    weights = (1 - 0.05 * CURVATURES) ** 3 * START
    assert first.losses[3] == pytest.approx(float((CURVATURES * weights**2).sum() / 2), rel=1e-10)
