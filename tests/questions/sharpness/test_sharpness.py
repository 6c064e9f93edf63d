"""What optimizers see, against dense oracles, and thresholds against optimizers that run."""

import copy
import math

import pytest
import torch
from torch import nn

import hessdiag
from hessdiag import Problem, sharpness
from hessdiag.errors import SpecError
from hessdiag.questions.sharpness import measure as room
from hessdiag.questions.sharpness import readings
from tests.reference import brute_force_hessian

D = torch.float64
FINE = 1e-10


def network(activation=nn.Tanh, batches=1, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 2)).double()
    x, y = torch.randn(48, 4, dtype=D), torch.randn(48, 2, dtype=D)
    return Problem(model, data=list(zip(x.chunk(batches), y.chunk(batches), strict=True)), loss="mse")


def trained(problem, optimizer, steps):
    for step in range(steps):
        x, y = problem.data[step % len(problem.data)]
        optimizer.zero_grad()
        nn.functional.mse_loss(problem.model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def gradient_of(problem):
    value = sum(
        w * problem.objective_function(problem.model, b)
        for w, b in zip(problem.batch_weights, problem.data, strict=True)
    )
    return flat(torch.autograd.grad(value, problem.parameters))


def top(matrix):
    return float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1])


def values(found):
    return {one.kind: one.value for one in found.readings}


def adam_metric(optimizer, parameters):
    parts = []
    for group in optimizer.param_groups:
        beta, eps = group["betas"][1], group["eps"]
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            parts.append(
                (parameter, (state["exp_avg_sq"] / (1 - beta ** float(state["step"]))).sqrt() + eps, group["lr"])
            )
    of = {id(parameter): (p, lr) for parameter, p, lr in parts}
    largest = max(lr for _, _, lr in parts)
    return flat([of[id(parameter)][0] * largest / of[id(parameter)][1] for parameter in parameters])


@pytest.mark.parametrize("batches", [1, 3])
def test_every_reading_of_live_adam_is_that_of_dense_matrices(batches):
    """With two groups, which differ in their learning rates, and weight decay that is part of the gradient."""
    problem = network(batches=batches)
    parameters = list(problem.model.parameters())
    groups = [{"params": parameters[:2], "lr": 2e-3}, {"params": parameters[2:], "lr": 5e-3, "weight_decay": 0.01}]
    adam = trained(problem, torch.optim.Adam(groups, betas=(0.8, 0.95), eps=1e-6), 40)
    found = sharpness(problem, optimizer=adam, tol=FINE)

    H, g, theta = brute_force_hessian(problem), gradient_of(problem), flat(parameters)
    decay = flat([torch.full_like(p, 0.0 if index < 2 else 0.01) for index, p in enumerate(parameters)])
    metric = adam_metric(adam, parameters)
    inner = metric.rsqrt()
    before, other = flat(parameters), copy.deepcopy(problem.model)
    moved = list(other.parameters())
    twin = torch.optim.Adam(
        [{**group, "params": moved[:2] if index == 0 else moved[2:]} for index, group in enumerate(groups)],
        betas=(0.8, 0.95),
        eps=1e-6,
    )
    twin.load_state_dict(copy.deepcopy(adam.state_dict()))
    for parameter, part in zip(moved, g.split([p.numel() for p in moved]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
    twin.step()
    d, lr = (before - flat(moved)) / 5e-3, 5e-3
    seen, slope = H + torch.diag(decay), float((g + decay * theta) @ d)

    got = values(found)
    assert got["lambda_max"] == pytest.approx(top(H), rel=1e-9)
    assert got["preconditioned"] == pytest.approx(top(inner[:, None] * seen * inner), rel=1e-9)
    assert got["directional"] == pytest.approx(float(d @ seen @ d / (d @ d)), rel=1e-9)
    assert got["adaptive"] == pytest.approx(top(theta.abs()[:, None] * H * theta.abs()), rel=1e-9)
    assert found.slope == pytest.approx(slope, rel=1e-9)
    constant = 2 * 1.8 / 0.2
    assert found.optimizer.constant == pytest.approx(constant)
    assert found.decided_by == "preconditioned"
    assert found.threshold == pytest.approx(constant / lr)
    assert found.ratio == pytest.approx(got["preconditioned"] * lr / constant)
    assert found.largest_lr == pytest.approx(constant / got["preconditioned"])
    step = found.reading("directional")
    assert step.ratio == pytest.approx(lr * float(d @ seen @ d) / (2 * slope), rel=1e-9)
    vector = torch.linalg.eigh(inner[:, None] * seen * inner).eigenvectors[:, -1]
    inside = metric.sqrt() * d
    assert found.overlap == pytest.approx(abs(float(vector @ inside)) / float(inside.norm()), rel=1e-5)
    assert found.reading("lambda_max").ratio is None


def test_critical_sharpness_is_where_the_loss_is_back():
    """Bisected here by evaluating the network on its own."""
    problem = network()
    found = sharpness(problem, optimizer="sgd", lr=0.1)
    reading, g = found.reading("critical"), gradient_of(problem)
    model, theta = copy.deepcopy(problem.model), flat(problem.parameters)
    ((x, y),) = problem.data

    def rises(step):
        nn.utils.vector_to_parameters(theta - step * g, model.parameters())
        with torch.no_grad():
            return nn.functional.mse_loss(model(x), y) > nn.functional.mse_loss(problem.model(x), y)

    low, high = 0.01, 100.0
    assert rises(high)
    assert not rises(low)
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    assert abs(reading.value - 2 / low) <= reading.stderr <= 0.05 * reading.value
    assert reading.threshold == pytest.approx(20.0)
    assert reading.ratio == pytest.approx(reading.value / 20)
    assert reading.passes == found.losses <= 10
    assert found.loss == pytest.approx(float(nn.functional.mse_loss(problem.model(x), y).detach()))


def test_forward_passes_are_all_that_critical_sharpness_takes(monkeypatch):
    """Attention by fused kernels has no second derivative, and neither has a function that is differentiable once."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, slope):
            return slope * (1 - ctx.saved_tensors[0].tanh() ** 2)

    class OnceTanh(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    plain, once = network(), network(OnceTanh)
    calls = []
    real = Problem.evaluation
    of_plain, of_once = (sharpness(problem, optimizer="sgd", lr=0.1) for problem in (plain, once))
    assert of_once.reading("critical").value == pytest.approx(of_plain.reading("critical").value, rel=1e-9)
    assert of_once.engine.startswith("central differences")

    operator = hessdiag.HessianOperator(plain, check=False)
    made = room.preconditioning(plain, "sgd", 0.1)
    here = room._here(plain, operator, made, None, 1e-2, 0)
    _ = here.slope

    def counted(self):
        calls.append(torch.is_grad_enabled())
        return real(self)

    monkeypatch.setattr(Problem, "evaluation", counted)
    assert readings.critical(here).passes == len(calls)
    assert not any(calls)


def test_a_compiled_model_is_measured_as_it_is():
    plain = network()
    compiled = Problem(torch.compile(plain.model, backend="eager"), data=plain.data, loss="mse")
    one, other = (sharpness(problem, optimizer="adam", lr=0.01) for problem in (plain, compiled))
    assert values(other) == values(one)


def least_squares(seed=0):
    """A quadratic loss, x'(w) of condition number 50, with the seed's targets."""
    torch.manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(40, 5, dtype=D))
    x = q * torch.tensor([7.0, 5.0, 3.0, 2.0, 1.0], dtype=D)
    model = nn.Linear(5, 1, bias=False).double()
    return Problem(
        model, data=[(x, torch.randn(40, 1, dtype=D))], loss=lambda o, t: (o - t).square().sum() / 2, reduction="sum"
    )


@pytest.mark.parametrize(
    ("make", "lr"),
    [
        (lambda p, lr: torch.optim.SGD(p, lr=lr), 0.01),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8), 0.01),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8, nesterov=True), 0.01),
        (lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.5, weight_decay=9.0), 0.01),
        (lambda p, lr: torch.optim.SGD([{"params": [p[0]], "weight_decay": 9.0}], lr=lr), 0.01),
    ],
    ids=["gradient descent", "momentum", "Nesterov", "decay and momentum", "decay"],
)
def test_the_largest_learning_rate_is_where_a_run_begins_to_diverge(make, lr):
    """Quadratic loss: 2 % below steps shrink, 2 % above they grow."""
    problem = least_squares()
    found = sharpness(problem, optimizer=make(list(problem.model.parameters()), lr), tol=1e-6)
    assert found.regime == "stable"
    ((x, y),) = problem.data
    for factor, grows in ((0.98, False), (1.02, True)):
        model = copy.deepcopy(problem.model)
        optimizer = make(list(model.parameters()), factor * found.largest_lr)
        sizes = []
        for _ in range(400):
            optimizer.zero_grad()
            ((model(x) - y).square().sum() / 2).backward()
            before = flat(model.parameters())
            optimizer.step()
            sizes.append(float((flat(model.parameters()) - before).norm()))
        assert (sizes[-1] > sizes[100]) is grows
    again = sharpness(problem, optimizer=make(list(problem.model.parameters()), found.largest_lr))
    assert again.ratio == pytest.approx(1.0, abs=1e-3)
    assert again.regime == "edge"
    assert again.stable is None


def test_decoupled_decay_takes_its_share_of_what_is_stable():
    """AdamW at standstill: c = (2 - lr decay) (1 + b) / (1 - b), of curvature without the decay."""
    problem = network()
    found = sharpness(problem, optimizer="adamw(lr=0.01, weight_decay=20.0)", tol=FINE)
    assert found.optimizer.coupled is False
    assert found.threshold == pytest.approx((2 - 0.2) * 19 / 0.01)
    inner = (gradient_of(problem).abs() + 1e-8).rsqrt()
    assert found.reading("preconditioned").value == pytest.approx(
        top(inner[:, None] * brute_force_hessian(problem) * inner), rel=1e-9
    )
    lr = found.largest_lr
    assert lr * found.reading("preconditioned").value == pytest.approx((2 - lr * 20.0) * 19)


def relu_network(a=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    x, y = torch.randn(48, 4, dtype=D), torch.randn(48, 2, dtype=D)
    with torch.no_grad():
        model[0].weight.mul_(a)
        model[0].bias.mul_(a)
        model[2].weight.div_(a)
    return Problem(model, data=[(x, y)], loss="mse")


@pytest.mark.parametrize("a", [0.1, 5.0, 10.0])
def test_rescaling_layers_of_a_relu_network_moves_lambda_max_and_leaves_adaptive_sharpness(a):
    one, other = (sharpness(relu_network(factor), optimizer="sgd", lr=0.1) for factor in (1.0, a))
    assert other.reading("adaptive").value == pytest.approx(one.reading("adaptive").value, rel=1e-6)
    assert abs(other.reading("lambda_max").value / one.reading("lambda_max").value - 1) > 0.3


def test_weights_of_zero_are_counted_for_adaptive_sharpness_does_not_see_them():
    problem = network()
    with torch.no_grad():
        problem.model[0].bias.zero_()
    found = sharpness(problem, optimizer="sgd", lr=0.1, tol=FINE)
    assert found.zeros == 6
    theta = flat(problem.parameters).abs()
    assert found.reading("adaptive").value == pytest.approx(
        top(theta[:, None] * brute_force_hessian(problem) * theta), rel=1e-9
    )


def test_muon_has_the_ratio_of_its_next_step_and_that_of_its_norm():
    problem = network()
    matrices = [p for p in problem.model.parameters() if p.ndim == 2]
    muon = torch.optim.Muon(matrices, lr=0.02, momentum=0.0, nesterov=False, weight_decay=0.0)
    found = sharpness(problem, optimizer=muon, tol=FINE)
    assert found.decided_by == "directional"
    assert found.optimizer.constant is None
    assert found.reading("preconditioned") is None
    assert found.reading("lambda_max").ratio is None
    dual, g = found.reading("dual"), gradient_of(problem)
    norm, start = 0.0, 0
    for parameter in problem.parameters:
        part = g[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
        if part.ndim == 2:
            norm += max(1.0, part.shape[0] / part.shape[1]) ** 0.5 * float(torch.linalg.svdvals(part).sum())
    assert dual.threshold == pytest.approx(2 * norm / 0.02)
    assert dual.bound == "lower"
    assert dual.ratio == pytest.approx(dual.value / dual.threshold)
    assert any("one step" in finding.says for finding in found.findings)


def test_momentum_that_carries_uphill_leaves_no_edge_of_the_next_step():
    problem = network()
    sgd = torch.optim.SGD(problem.model.parameters(), lr=0.1, momentum=0.9)
    for parameter, part in zip(
        problem.parameters, gradient_of(problem).split([p.numel() for p in problem.parameters]), strict=True
    ):
        sgd.state[parameter]["momentum_buffer"] = -5 * part.view_as(parameter)
    found = sharpness(problem, optimizer=sgd)
    assert found.slope < 0
    assert found.reading("critical").why == found.reading("directional").why == readings.UPHILL
    assert found.losses == 0
    assert found.ratio is not None
    assert any("goes uphill" in finding.says for finding in found.findings)


def test_a_model_that_is_not_trained_in_full_is_held_where_it_is():
    """The optimizer steps the last layer alone: its metric is that of this layer."""
    problem = network()
    last = list(problem.model[4].parameters())
    adam = trained(problem, torch.optim.Adam(last, lr=1e-3), 5)
    found = sharpness(problem, optimizer=adam, tol=FINE)
    H = brute_force_hessian(problem)[-12:, -12:]
    inner = adam_metric(adam, last).rsqrt()
    assert found.reading("preconditioned").value == pytest.approx(top(inner[:, None] * H * inner), rel=1e-9)


def test_what_does_not_converge_is_a_bound_and_leaves_it_open(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2)).double()
    problem = Problem(model, data=[(torch.randn(30, 6, dtype=D), torch.randn(30, 2, dtype=D))], loss="mse")
    whole = sharpness(problem, optimizer="sgd", lr=0.1)
    monkeypatch.setattr("hessdiag.questions.sharpness.largest.MOST", 3)
    found = sharpness(problem, optimizer="sgd", lr=0.1)
    reading = found.reading("lambda_max")
    assert reading.bound == "lower"
    assert reading.value < whole.reading("lambda_max").value
    assert (found.regime, found.stable, found.status) == (None, None, "inexact")
    assert any(finding.level == "bad" and "known from below" in finding.says for finding in found.findings)
    beyond = sharpness(
        problem, optimizer="sgd", lr=1.2 * whole.largest_lr / (reading.value / whole.reading("lambda_max").value)
    )
    assert beyond.regime == "unstable"


def test_nothing_of_the_user_is_touched():
    problem = network()
    problem.model.train()
    adam = trained(problem, torch.optim.Adam(problem.model.parameters()), 3)
    problem.parameters[0].grad = torch.ones_like(problem.parameters[0])
    state = copy.deepcopy((problem.model.state_dict(), adam.state_dict()))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    sharpness(problem, optimizer=adam)
    assert torch.equal(before, torch.get_rng_state())
    assert problem.model.training
    assert bool((problem.parameters[0].grad == 1).all())
    assert problem.parameters[1].grad is None
    for was, now in zip(state[0].values(), problem.model.state_dict().values(), strict=True):
        assert torch.equal(was, now)
    for index, kept in state[1]["state"].items():
        assert all(torch.equal(kept[key], adam.state_dict()["state"][index][key]) for key in kept)


def test_an_interrupt_keeps_what_was_measured(monkeypatch):
    def stopped(here):
        raise KeyboardInterrupt

    monkeypatch.setattr(readings, "critical", stopped)
    found = sharpness(network(), optimizer="adam")
    assert found.status == "interrupted"
    assert [one.kind for one in found.readings] == ["lambda_max", "preconditioned", "directional"]
    assert found.regime == "stable"
    assert found.noise is None
    says = "Interrupted: there is only this: lambda_max, lambda_max in its metric, along its next step."
    assert says in [one.says for one in found.findings]
    monkeypatch.setattr(readings, "lambda_max", stopped)
    with pytest.raises(KeyboardInterrupt):
        sharpness(network(), optimizer="adam")


def test_an_optimizer_that_chooses_its_steps_itself_is_refused():
    with pytest.raises(SpecError, match="differentiates the loss itself"):
        sharpness(network(), optimizer="tr-rmsprop")
    with pytest.raises(SpecError, match="residual"):
        sharpness(network(), optimizer="sgd", lr=0.1, tol=2.0)


def test_one_that_looks_for_its_step_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(readings, "lambda_max", lambda here: pytest.fail("an eigenvalue was looked for"))
    with pytest.raises(SpecError, match="looks for its step by itself"):
        sharpness(network(), optimizer="lbfgs(lr=1.0)")
