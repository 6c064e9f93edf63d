"""Adaptive cubic regularization: its steps by closed form, its weight by what went wrong, plateaus and scales."""

import copy
import math

import pytest
import torch

from hessdiag.errors import SpecError
from hessdiag.nets.tasks.deep_mlp import deep_mlp
from hessdiag.optimizers import AdaptiveCubic
from tests.optimizers.test_trust_region import ALL, loaded, net, point, quadratic, rosenbrock, saved, spent_until


def test_one_step_by_hand():
    w = point([0.0])
    optimizer = AdaptiveCubic([w], sigma=2.0)
    optimizer.step(lambda: (-3 * w + w**2 / 2).sum())  # 2 s^2 + s = 3 at s = 1
    assert w.item() == pytest.approx(1.0, rel=1e-12)
    predicted = 3 - 1 / 2 - 2 / 3
    assert optimizer.last.rho == pytest.approx(2.5 / predicted, rel=1e-9)
    assert (optimizer.last.damping, optimizer.last.products, optimizer.last.radius) == (1.0, 1, None)


def test_the_first_step_is_a_tenth_of_the_parameters_at_most():
    for curvature, gradient in ((0.0, 1.0), (-50.0, 1e-9), (30.0, 1.0)):
        w = point([3.0, 4.0])
        optimizer = AdaptiveCubic([w])
        start, slopes = w.detach().clone(), torch.full((2,), gradient).double()
        loss = slopes @ w + curvature * (w - start) @ (w - start) / 2
        losses = iter([loss, loss.detach() - 1])
        optimizer.step(lambda losses=losses: next(losses))
        size, steep = optimizer.last.length, math.sqrt(2) * gradient
        sigma = (steep / 0.5 + abs(curvature)) / 0.5
        assert (curvature + sigma * size) * size == pytest.approx(steep, rel=1e-9)
        assert size <= 0.5
        assert optimizer.last.products == 2  # one of them for the curvature along the gradient


def test_after_a_step_that_is_not_taken_the_cubic_term_is_what_was_missing():
    w = point([0.0])
    optimizer = AdaptiveCubic([w], sigma=1e-3)
    optimizer.step(lambda: (-w + w**3).sum())  # a cubic model of weight 3 would be exact
    assert not optimizer.last.accepted
    assert w.item() == 0
    length = 1e3**0.5  # where sigma s^2 = 1; the model foresees s without the cubic term, which is s^3 here
    assert optimizer.last.length == pytest.approx(length, rel=1e-9)
    assert optimizer.last.damping == pytest.approx(10 * 2 * length / length**3, rel=1e-9)  # not at once to 3
    while not optimizer.last.accepted:
        optimizer.step(lambda: (-w + w**3).sum())
    assert w.item() == pytest.approx(1 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("metric", ALL)
def test_counts_are_the_calls_of_autograd(metric, monkeypatch):
    from hessdiag.curvature import pullback

    model, closure = net()
    calls = []
    pull = pullback.pullback
    monkeypatch.setattr(pullback, "pullback", lambda *args, **options: calls.append(1) or pull(*args, **options))
    optimizer = AdaptiveCubic(model.parameters(), metric)
    for _ in range(4):
        calls.clear()
        optimizer.step(closure)
        exact = 32 - 1 if optimizer.last.products >= 32 else 0  # all columns of the identity are one call
        assert optimizer.last.products == len(calls) + exact
        assert (optimizer.last.gradients, optimizer.last.evaluations) == (1, 2)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**40])
def test_the_scale_of_the_loss_changes_nothing(scale):
    w, scaled = point([-0.5, 2.0]), point([-0.5, 2.0])
    f, g = rosenbrock(w), rosenbrock(scaled)
    one, other = AdaptiveCubic([w]), AdaptiveCubic([scaled])
    for _ in range(25):
        one.step(f)
        other.step(lambda: scale * g())
        assert torch.allclose(w, scaled, rtol=1e-9, atol=1e-12)


def test_plateaus_and_valleys_are_left():
    for layers in (20, 40, 80):
        noise = torch.randn(layers, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        w = torch.nn.Parameter(0.5 * (1 + 0.01 * noise))
        assert spent_until(AdaptiveCubic([w]), lambda w=w: (1 - w.prod()) ** 2 / 2, 0.25, 100) <= 25
    w = point([-0.5, 2.0])
    assert spent_until(AdaptiveCubic([w]), rosenbrock(w), 1e-8, 300) <= 180
    w = point([-2.0, 1.5])
    assert spent_until(AdaptiveCubic([w]), quadratic([[1.0, 0.0], [0.0, 100.0]], w), 1e-6 * 114.5, 100) <= 40
    task = deep_mlp(seed=1, init="lecun")
    (x, y), model, loss = task["data"], task["model"], task["loss"]
    assert spent_until(AdaptiveCubic(model.parameters()), lambda: loss(model(x), y), 0.9 * 0.499, 100) <= 60


def test_a_saddle_itself_is_left_and_a_minimum_is_not():
    w = point([0.0, 0.0])
    optimizer = AdaptiveCubic([w])
    optimizer.step(lambda: w[0] ** 2 - w[1] ** 2 + w[1] ** 4)
    assert optimizer.last.exit == "negative curvature"
    for _ in range(30):
        optimizer.step(lambda: w[0] ** 2 - w[1] ** 2 + w[1] ** 4)
    assert abs(w[1].item()) == pytest.approx(math.sqrt(0.5), rel=1e-6)
    w = point([0.0])
    optimizer = AdaptiveCubic([w])
    optimizer.step(lambda: (w**2).sum())
    assert (w.item(), optimizer.last.accepted, optimizer.last.exit) == (0, False, "interior")


def test_a_point_without_a_loss_is_not_gone_to():
    w = point([1e-3])
    optimizer = AdaptiveCubic([w], sigma=1e-3)
    optimizer.step(lambda: w.log().sum())
    assert (w.item(), optimizer.last.rho) == (1e-3, -math.inf)
    assert 2e-3 <= optimizer.last.damping < math.inf
    sigma = optimizer.last.damping
    assert math.isnan(optimizer.step(lambda: (w * math.nan).sum()))
    assert optimizer.last.damping == sigma


def test_the_state_goes_on_where_it_was_saved():
    model, closure = net()
    optimizer = AdaptiveCubic(model.parameters(), "rmsprop")
    for _ in range(3):
        optimizer.step(closure)
    kept, weights = saved(optimizer), copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.step(closure)
    after = [parameter.detach().clone() for parameter in model.parameters()]
    model.load_state_dict(weights)
    other = AdaptiveCubic(model.parameters())
    loaded(other, kept)
    for _ in range(3):
        other.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(after, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"metric": "ball"}, "metric is one of"),
        ({"sigma": 0.0}, "sigma has to be a positive number, not 0"),
        ({"eta": (0, 1)}, "eta"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(SpecError, match=says):
        AdaptiveCubic([point([1.0])], **settings)
