"""What optimizers see: P, rates, thresholds and next steps, against formulas by hand and torch's own steps."""

import copy
import math

import pytest
import torch
from torch import nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.optimizers.preconditioning import direction, of_optimizer, preconditioning
from hessdiag.optimizers.state.denominators import NEEDED
from hessdiag.problem.problem import Problem
from hessdiag.theory.stability import ADAPTIVE

N = 4


def test_what_divides_by_averages_has_a_state_that_is_read():
    assert set(NEEDED) == set(ADAPTIVE)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[0.3, -0.2]]).double())
        self.b = nn.Parameter(torch.tensor([0.1, 0.4]).double())

    @property
    def w(self):
        return torch.cat([self.a.reshape(-1), self.b])


torch.manual_seed(3)
ROOT = torch.randn(N, N).double()
H = ROOT @ ROOT.T + torch.eye(N).double()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def task():
    model = net()
    torch.manual_seed(1)
    data = [(torch.randn(8, 3).double(), torch.randn(8, 2).double()) for _ in range(3)]
    return Problem(model, data=data, loss="mse")


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def trained(make, steps=12):
    """A problem, the optimizer that its model was trained with, and its last step with the gradient of that."""
    problem = task()
    optimizer = make(problem.model.parameters())
    for step in range(steps):
        optimizer.zero_grad()
        problem.evaluate(problem.data[step % 3]).backward()
        slope, start = flat(one.grad for one in problem.parameters), flat(problem.parameters)
        optimizer.step()
    optimizer.zero_grad()
    return problem, optimizer, slope, flat(problem.parameters) - start


def held(problem, optimizer, key):
    return flat(optimizer.state[parameter][key] for parameter in problem.parameters)


def of_adam(problem, optimizer, _):
    state = optimizer.state[problem.parameters[0]]
    return held(problem, optimizer, "exp_avg") / (1 - optimizer.param_groups[0]["betas"][0] ** float(state["step"]))


def of_nadam(problem, optimizer, slope):
    state, group = optimizer.state[problem.parameters[0]], optimizer.param_groups[0]
    now, ahead = (0.9 * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"])) for step in (12, 13))
    product = float(state["mu_product"])
    return (1 - now) / (1 - product) * slope + ahead / (1 - product * ahead) * held(problem, optimizer, "exp_avg")


LAST_STEPS = {  # what a step of torch's is of, but for the learning rate and P
    "adam": (torch.optim.Adam, {"eps": 1e-4}, of_adam),
    "adam, coupled": (torch.optim.Adam, {"weight_decay": 0.1}, of_adam),
    "amsgrad": (torch.optim.Adam, {"amsgrad": True, "betas": (0.9, 0.5)}, of_adam),
    "adamw": (torch.optim.AdamW, {"betas": (0.8, 0.95), "weight_decay": 0.0}, of_adam),
    "nadam": (torch.optim.NAdam, {}, of_nadam),
    "radam, early": (torch.optim.RAdam, {"betas": (0.9, 0.9999), "eps": 1e-4}, of_adam),
    "radam": (torch.optim.RAdam, {"betas": (0.9, 0.95), "eps": 1e-4}, of_adam),
    "adamax": (torch.optim.Adamax, {"eps": 1e-4}, of_adam),
    "rmsprop": (torch.optim.RMSprop, {"eps": 1e-3}, lambda problem, optimizer, slope: slope),
    "centered": (torch.optim.RMSprop, {"centered": True}, lambda problem, optimizer, slope: slope),
    "adagrad": (
        torch.optim.Adagrad, {"eps": 1e-3, "lr_decay": 0.1}, lambda problem, optimizer, slope: slope / (1 + 11 * 0.1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LAST_STEPS)
def test_the_last_step_of_torch_was_divided_by_p(case):
    kind, settings, numerator = LAST_STEPS[case]
    problem, optimizer, slope, step = trained(lambda parameters: kind(parameters, lr=1e-2, **settings))
    found = of_optimizer(problem, optimizer)
    expected = -1e-2 * numerator(problem, optimizer, slope) / found.diagonal
    torch.testing.assert_close(step, expected, rtol=1e-9, atol=1e-15)
    assert found.kind == kind.__name__.lower()
    assert found.state == "optimizer"
    assert found.coupled == (case == "adam, coupled" or not settings.get("decoupled_weight_decay", case == "adamw"))


def test_adadelta_divides_by_what_its_steps_were():
    problem, optimizer, _, _ = trained(lambda parameters: torch.optim.Adadelta(parameters, lr=0.5))
    ahead = direction(problem, of_optimizer(problem, optimizer), torch.full((27 + 5,), 1e-7).double())
    square, steps = (held(problem, optimizer, key) for key in ("square_avg", "acc_delta"))
    torch.testing.assert_close(ahead, -0.5e-7 * ((steps + 1e-6) / (0.9 * square + 1e-6)).sqrt(), rtol=1e-6, atol=0)
    found = of_optimizer(problem, optimizer)
    torch.testing.assert_close(found.diagonal, ((square + 1e-6) / (steps + 1e-6)).sqrt())


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        ("sgd(lr=0.1)", 2.0),
        ("sgd(lr=0.1, momentum=0.9)", 3.8),
        ("sgd(lr=0.1, momentum=0.9, nesterov=True)", 3.8 / 2.8),
        ("adam(lr=0.1)", 38.0),
        ("adamw(lr=0.1, betas=(0.5, 0.9), weight_decay=0.2)", 1.98 * 3),
        ("rmsprop(momentum=0.5)", 3.0),
    ],
)
def test_thresholds_follow_the_settings(spec, limit):
    found = preconditioning(task(), spec)
    assert found.threshold == pytest.approx(limit, rel=1e-12)
    assert found.plain == spec.startswith("sgd")
    assert (found.diagonal is None) == found.plain


def seen(problem, found, matrix):
    """Largest eigenvalue in the optimizer's metric, densely."""
    root = found.metric(problem).rsqrt()
    return torch.linalg.eigvalsh(root[:, None] * matrix * root).max().item()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "groups"])
def test_steps_of_torch_grow_just_above_the_threshold_in_the_metric(kind):
    """A quadratic of four dimensions whose axes are not P's, with groups of their own learning rates."""
    far = 1 - 2.0**-50
    model = Bowl()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-12)
    groups = [{"params": [model.a]}, {"params": [model.b], "lr": 0.2}]
    optimizer = {
        "sgd": lambda: torch.optim.SGD(groups, lr=0.05, momentum=0.7, weight_decay=0.3),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=0.05, betas=(0.8, far), eps=0.0),
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.05, betas=(0.8, far), eps=0.0, weight_decay=2.0),
        "groups": lambda: torch.optim.Adam(groups, lr=0.05, betas=(0.8, far), eps=0.1),
    }[kind]()
    if kind != "sgd":
        for parameter, values in ((model.a, [[0.3, 2.0]]), (model.b, [0.9, 0.05])):
            square = torch.tensor(values).double()
            optimizer.state[parameter] = {
                "step": torch.tensor(1e17), "exp_avg": torch.zeros_like(square), "exp_avg_sq": square
            }  # fmt: skip
    problem = Problem(model, data=[None], objective=lambda model, _: model.w @ H @ model.w / 2)
    found = of_optimizer(problem, optimizer)
    decay = found.weight_decay if found.coupled else 0.0
    scale = found.threshold / (found.lr * seen(problem, found, H))
    for _ in range(3):  # the decay is part of the matrix, which the scale does not scale
        scale *= found.threshold / (found.lr * seen(problem, found, scale * H + decay * torch.eye(N).double()))
    growth = [_growth(optimizer, model, factor * scale) for factor in (0.995, 1.005)]
    if kind == "adamw":  # groups of different decays: the smallest threshold, which is on the safe side
        assert growth[0] < 0
        assert any("thresholds from" in note for note in found.notes)
    else:
        assert growth[0] < -0.05 < 0.05 < growth[1]


def _growth(optimizer, model, scale):
    model, optimizer = copy.deepcopy((model, optimizer))
    sizes = []
    for _ in range(600):
        with torch.no_grad():
            slope = scale * H @ model.w
        model.a.grad, model.b.grad = slope[:2].view(1, 2), slope[2:]
        optimizer.step()
        sizes.append(model.w.detach().norm().item())
    return math.log(max(sizes[-50:]) / max(sizes[300:350]))


def test_without_a_state_v_is_of_the_batches_gradients():
    problem = task()
    gradients = [flat(torch.autograd.grad(problem.evaluate(batch), problem.parameters)) for batch in problem.data]
    square = torch.stack(gradients).square().mean(0)
    found = preconditioning(problem, "adam(eps=1e-3)")
    torch.testing.assert_close(found.diagonal, square.sqrt() + 1e-3, rtol=1e-12, atol=0)
    assert (found.state, found.gradients, found.lr) == ("gradients", 3, 1e-3)
    spread = torch.stack(gradients).var(0, correction=0)
    centered = preconditioning(problem, "rmsprop(centered=True, eps=1e-3)")
    torch.testing.assert_close(centered.diagonal, spread.sqrt() + 1e-3, rtol=1e-9, atol=0)
    summed = preconditioning(problem, "adagrad(eps=1e-3, initial_accumulator_value=0.5)")
    torch.testing.assert_close(summed.diagonal, (3 * square + 0.5).sqrt() + 1e-3, rtol=1e-12, atol=0)
    largest = preconditioning(problem, "adamax(eps=1e-3)")
    torch.testing.assert_close(largest.diagonal, torch.stack(gradients).abs().amax(0) + 1e-3, rtol=1e-12, atol=0)
    with pytest.raises(SpecError, match="gradients alone do not tell"):
        preconditioning(problem, "adadelta")


def test_p_of_a_long_standstill_is_that_of_the_gradients():
    """Adam with a learning rate of zero, batch after batch."""
    problem = task()
    optimizer = torch.optim.Adam(problem.model.parameters(), lr=0.0, betas=(0.9, 0.99))
    for step in range(600):
        optimizer.zero_grad()
        problem.evaluate(problem.data[step % 3]).backward()
        optimizer.step()
    there, fresh = of_optimizer(problem, optimizer), preconditioning(problem, "adam(lr=0.1)")
    assert float((there.diagonal / fresh.diagonal - 1).abs().max()) < 0.01


def test_groups_keep_their_rates_and_what_no_group_holds_is_held_fixed():
    problem = task()
    first, second, third, _ = problem.parameters
    optimizer = torch.optim.SGD([{"params": [second], "lr": 0.5}, {"params": [first, third]}], lr=0.1)
    found = of_optimizer(problem, optimizer)
    assert found.rates.tolist() == [0.1] * 15 + [0.5] * 5 + [0.1] * 10 + [0.0] * 2
    assert found.lr == 0.5
    assert found.metric(problem).tolist() == [5.0] * 15 + [1.0] * 5 + [5.0] * 10 + [math.inf] * 2
    assert found.notes == ("2.bias: not among the optimizer's parameters, held fixed",)
    again = of_optimizer(problem, optimizer, lr=0.05)
    assert again.rates.tolist() == pytest.approx([0.01] * 15 + [0.05] * 5 + [0.01] * 10 + [0.0] * 2)


def test_what_was_never_stepped_is_held_fixed():
    problem = task()
    problem.parameters[1].requires_grad_(False)
    optimizer = torch.optim.Adam(problem.model.parameters(), lr=1e-2)
    problem.evaluate(problem.data[0]).backward()
    optimizer.step()
    problem.parameters[1].requires_grad_(True)
    found = of_optimizer(Problem(problem.model, data=problem.data, loss="mse"), optimizer)
    assert found.diagonal[15:20].tolist() == [math.inf] * 5
    assert torch.isfinite(found.diagonal).sum() == 27
    assert "0.bias: no state, so frozen or never stepped; held fixed" in found.notes
    assert any("step 1: the momentum's bias correction still makes steps 10 times" in note for note in found.notes)


STEPS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-2),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_next_step_is_the_optimizers_own_and_nothing_moves(name):
    problem, optimizer, _, _ = trained(STEPS[name])
    before, state = flat(problem.parameters), copy.deepcopy(optimizer.state_dict())
    ahead = direction(problem, of_optimizer(problem, optimizer))
    torch.testing.assert_close(flat(problem.parameters), before, rtol=0, atol=0)
    for index, kept in state["state"].items():
        for key, value in kept.items():
            assert torch.equal(torch.as_tensor(optimizer.state_dict()["state"][index][key]), torch.as_tensor(value))
    assert all(parameter.grad is None for parameter in problem.parameters)
    sum(problem.evaluate(batch) / 3 for batch in problem.data).backward()
    optimizer.step()
    torch.testing.assert_close(ahead, flat(problem.parameters) - before, rtol=1e-12, atol=1e-16)


def test_the_first_step_of_a_recipe():
    problem = task()
    slope = sum(flat(torch.autograd.grad(problem.evaluate(batch), problem.parameters)) for batch in problem.data) / 3
    ahead = direction(problem, preconditioning(problem, "adam", lr=0.5))
    torch.testing.assert_close(ahead, -0.5 * slope / (slope.abs() + 1e-8), rtol=1e-9, atol=0)


def test_muon_has_no_threshold_and_no_diagonal_but_a_step():
    problem = task()
    found = preconditioning(problem, "muon(lr=0.1)")
    assert found.threshold is None
    assert found.diagonal is None
    assert not found.plain
    assert found.metric(problem) is None
    assert any("no threshold for muon" in note for note in found.notes)
    ahead = direction(problem, found)
    assert (ahead[15:20].abs() > 0).all()  # AdamW's, beside it
    singular = torch.linalg.svdvals(ahead[:15].view(5, 3))
    assert singular.min() > 0.05


@pytest.mark.parametrize(
    ("spec", "says"),
    [("tr-rmsprop", "hessdiag escape"), ("lbfgs", "looks for its step by itself"), ("adamm", "Did you mean adam")],
)
def test_what_has_no_step_along_a_gradient_is_refused(spec, says):
    problem = task()
    with pytest.raises(SpecError, match=says):
        direction(problem, preconditioning(problem, spec))


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(SpecError, match="holds none of the model's parameters"):
        of_optimizer(task(), torch.optim.Adam(net().parameters()))


def test_climbing_has_no_threshold():
    found = preconditioning(task(), "sgd(lr=0.1, maximize=True)")
    assert found.threshold is None
    assert any("it climbs" in note for note in found.notes)


def test_a_state_of_another_kind_is_refused_by_name():
    problem, optimizer, _, _ = trained(lambda parameters: torch.optim.Adam(parameters, lr=1e-2))
    del optimizer.state[problem.parameters[2]]["exp_avg_sq"]
    with pytest.raises(LoadError, match=r"state of 2\.weight holds no exp_avg_sq; it holds exp_avg, step"):
        of_optimizer(problem, optimizer)


def test_a_state_of_another_shape_is_refused_with_both():
    problem, optimizer, _, _ = trained(lambda parameters: torch.optim.Adam(parameters, lr=1e-2))
    state = optimizer.state[problem.parameters[3]]
    state["exp_avg_sq"] = torch.ones(5).double()
    with pytest.raises(LoadError, match=r"2\.bias is of shape \(5,\), and 2\.bias of \(2,\)"):
        of_optimizer(problem, optimizer)
