"""How far from here the Hessian can be believed, against closed forms and by hand."""

import math

import pytest
import torch
from torch import nn

from hessdiag import Problem, ProblemRequest, load_problem, trust_radius
from hessdiag.errors import SpecError
from hessdiag.questions.trust_radius import measure
from hessdiag.questions.trust_radius.metric import metric
from hessdiag.questions.trust_radius.trusted import trusted_radius

D = torch.float64


class Point(nn.Module):
    """Weights, and a function of them."""

    def __init__(self, values, function):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values, dtype=D))
        self.function = function

    def forward(self, _):
        return self.function(self.w)


def problem(values, function):
    return Problem(Point(values, function), data=[None], objective=lambda model, batch: model(batch))


def network(activation=nn.ReLU, scale=1.0, dtype=D, batches=1, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 12), activation(), nn.Linear(12, 12), activation(), nn.Linear(12, 2))
    x, y = torch.randn(40, 6, dtype=D).to(dtype), torch.randn(40, 2, dtype=D).to(dtype)
    data = [(x, y)] if batches == 1 else [(x[:10], y[:10]), (x[10:], y[10:])]
    loss = lambda output, target: scale * nn.functional.mse_loss(output, target)  # noqa: E731
    return Problem(model.to(dtype), data=data, loss=loss, reduction="mean")


A = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, -1.0]], dtype=D)  # indefinite
B = torch.tensor([1.0, -2.0, 0.3], dtype=D)


def test_of_a_quadratic_function_the_model_is_true_everywhere():
    found = trust_radius(problem([1.0, -0.5, 2.0], lambda w: w @ A @ w / 2 + B @ w))
    assert len(found.radii) == 27
    assert all(row.rho == pytest.approx(1.0, abs=1e-9) for row in found.radii)
    assert found.trusted_radius == pytest.approx(dict.fromkeys(("uniform", "rmsprop", "adagrad"), 0.1), rel=1e-12)
    assert (found.gates, found.missing_share, found.trusted_radius_frozen_gates) == (0, None, {})
    assert all(row.rho_frozen_gates is None and row.gates_flipped is None for row in found.radii)


def test_decrease_and_quadratic_share_are_those_of_the_step():
    w = torch.tensor([1.0, -0.5, 2.0], dtype=D)
    g = A @ w + B
    found = trust_radius(problem(w.tolist(), lambda w: w @ A @ w / 2 + B @ w), radii=[1e-2], norms=["uniform"])
    (row,) = found.radii
    step = -1e-2 * math.sqrt(3) * g / g.norm()  # shorter than to the minimum along the gradient
    assert (row.exit, row.products, row.cauchy) == ("boundary", 1, 1.0)
    assert row.reach == pytest.approx(1e-2, rel=1e-12)
    assert row.decrease == pytest.approx(-float(g @ step + step @ A @ step / 2), rel=1e-12)
    assert row.quadratic_share == pytest.approx(abs(float(step @ A @ step)) / 2 / abs(float(g @ step)), rel=1e-9)
    assert found.gradient_norm == pytest.approx(float(g.norm()), rel=1e-12)
    assert found.weight_rms == pytest.approx(float(w.norm()) / math.sqrt(3), rel=1e-12)


def test_gltr_reaches_the_minimum_that_conjugate_gradients_miss():
    w = torch.tensor([1.0, -0.5, 2.0], dtype=D)
    g = A @ w + B
    found = trust_radius(problem(w.tolist(), lambda w: w @ A @ w / 2 + B @ w), radii=[4.0], norms=["uniform"])
    (row,) = found.radii
    exact = -_least(A, g, 4 * math.sqrt(3))
    assert row.gltr == pytest.approx(exact / row.decrease, rel=1e-4)
    assert row.gltr > 1.1 > 1 > row.cauchy
    along = float(g @ g / (g @ A @ g))  # the minimum along the gradient is inside
    assert row.cauchy == pytest.approx(along * float(g @ g) / 2 / row.decrease, rel=1e-12)


def _least(matrix, g, radius):
    """The least value of the quadratic model on the sphere, by bisection on the shift of a dense matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    c = vectors.T @ g
    low, high = float(-values[0]) + 1e-12, 1e9
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (middle, high) if float((c / (values + middle)).norm()) > radius else (low, middle)
    h = -c / (values + high)
    return float(c @ h + h @ (values * h) / 2)


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e6])
def test_one_weight_against_its_closed_form_whatever_the_scale_of_the_loss(factor):
    """Of w^4 / 4 at 2 the step is -r: actual (16 - (2 - r)^4) / 4, predicted 8 r - 6 r^2; at r = 0.1 both are near."""
    radii = [0.01, 0.1, 0.5, 0.6]
    found = trust_radius(problem([2.0], lambda w: factor * w.pow(4).sum() / 4), radii=radii, norms=["uniform"])
    for row, r in zip(found.radii, radii, strict=True):
        assert row.rho == pytest.approx((16 - (2 - r) ** 4) / 4 / (8 * r - 6 * r**2), rel=1e-9)


def test_inside_the_region_the_step_is_as_long_as_it_is():
    """Of exp(w) - w at 0.2 the Newton step is (e - 1) / e with e = exp(0.2): 0.18, and longer radii change nothing."""
    e = math.exp(0.2)
    newton = (e - 1) / e
    found = trust_radius(problem([0.2], lambda w: (w.exp() - w).sum()), radii=[0.1, 0.5, 2.0], norms=["uniform"])
    short, *rest = found.radii
    assert short.exit == "boundary"
    for row in rest:
        assert (row.exit, row.products) == ("interior", 1)
        assert row.reach == pytest.approx(newton, rel=1e-12)
        actual = e - 0.2 - (math.exp(0.2 - newton) - 0.2 + newton)
        assert row.rho == pytest.approx(actual / ((e - 1) ** 2 / (2 * e)), rel=1e-9)
    assert found.trusted_radius["uniform"] == pytest.approx(newton, rel=1e-12)


def test_gates_of_one_weight_by_hand():
    """Of (relu(w) - 2)^2 / 2 at 0.1 plus w / 2: g = -1.4, H = 1. The step is +r; below zero nothing is crossed."""
    towards = trust_radius(
        problem([0.1], lambda w: (w.relu() - 2).square().sum() / 2), radii=[0.05, 1.0], norms=["uniform"]
    )
    assert [row.gates_flipped for row in towards.radii] == [0.0, 0.0]
    assert [row.rho for row in towards.radii] == pytest.approx([1.0, 1.0], abs=1e-12)
    # Of (relu(w) + 2)^2 / 2 at 0.1: g = 2.1, H = 1, the step is -r. Live, the loss stops at 2 once w < 0.
    away = trust_radius(
        problem([0.1], lambda w: (w.relu() + 2).square().sum() / 2), radii=[0.05, 1.0], norms=["uniform"]
    )
    near, far = away.radii
    assert (near.gates_flipped, far.gates_flipped, away.gates) == (0.0, 1.0, 1)
    assert near.rho == pytest.approx(1.0, abs=1e-12)
    predicted = 2.1 - 0.5
    assert far.rho == pytest.approx((2.1**2 / 2 - 2) / predicted, rel=1e-12)
    assert far.rho_frozen_gates == pytest.approx(1.0, abs=1e-12)
    kinks = 2 - (2.1**2 / 2 - predicted)  # the loss as it is over that with the gate held
    assert far.missing_share == pytest.approx(kinks / (kinks + 0.5), rel=1e-12)
    assert away.missing_share == far.missing_share


def test_with_gates_held_one_layer_is_true_at_all_radii_and_live_it_is_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)).double()
    data = [(torch.randn(64, 8, dtype=D), torch.randn(64, 1, dtype=D))]
    found = trust_radius(Problem(model, data=data, loss="mse", layers="0.*"), radii=[1e-3, 1e-1, 1.0])
    assert all(row.rho_frozen_gates == pytest.approx(1.0, abs=1e-9) for row in found.radii)
    assert any(abs(row.rho - 1) > 0.05 for row in found.radii)
    assert found.gates == 64 * 32
    assert any("smooth activation" in finding.remedy for finding in found.findings) == (
        2 * found.trusted_radius["uniform"] <= found.trusted_radius_frozen_gates["uniform"]
    )


def test_the_scale_of_the_loss_changes_no_ratio():
    one, other = trust_radius(network()), trust_radius(network(scale=1e-7))
    for a, b in zip(one.radii, other.radii, strict=True):
        assert b.rho == pytest.approx(a.rho, rel=1e-6)
        assert (a.exit, a.products, a.gates_flipped) == (b.exit, b.products, b.gates_flipped)
    assert other.trusted_radius == pytest.approx(one.trusted_radius, rel=1e-5)


def test_batches_count_by_their_samples():
    one, two = (trust_radius(network(batches=batches), norms=["uniform"]) for batches in (1, 2))
    assert (one.gradients, two.gradients, one.gates, two.gates) == (1, 1, 960, 960)
    for a, b in zip(one.radii, two.radii, strict=True):
        assert (b.rho, b.rho_frozen_gates) == pytest.approx((a.rho, a.rho_frozen_gates), rel=1e-6)
        assert a.gates_flipped == b.gates_flipped
    three = trust_radius(network(batches=2), radii=[1e-2])
    assert three.gradients == 2
    uniform, rmsprop, adagrad = (three.of(norm)[0] for norm in three.norms)
    assert len({uniform.decrease, rmsprop.decrease, adagrad.decrease}) == 3


def test_metrics_by_hand():
    first, second = torch.tensor([1.0, 3.0], dtype=D), torch.tensor([2.0, 1.0], dtype=D)
    assert metric("uniform", [first]) is None
    squares = torch.tensor([5.0, 10.0], dtype=D)
    adagrad = (squares + 1e-6 * 7.5).sqrt()
    torch.testing.assert_close(metric("adagrad", [first, second]), adagrad / adagrad.mean())
    squares = torch.tensor([0.8 * 1 + 4, 0.8 * 9 + 1], dtype=D)  # up to a factor
    rmsprop = (squares + 1e-6 * squares.mean()).sqrt()
    torch.testing.assert_close(metric("rmsprop", [first, second]), rmsprop / rmsprop.mean())
    tiny = [1e-200 * first, 1e-200 * second]
    torch.testing.assert_close(metric("rmsprop", tiny), metric("rmsprop", [first, second]))
    assert metric("adagrad", [torch.zeros(2)]) is None


def test_of_one_batch_both_ellipsoids_are_the_same():
    found = trust_radius(network(), radii=[1e-3, 1e-2])
    twins = [[(row.radius, row.rho, row.products) for row in found.of(norm)] for norm in ("rmsprop", "adagrad")]
    assert twins[0] == twins[1]
    assert len(found.radii) == 6


def test_the_trusted_radius_is_where_rho_leaves_the_band():
    assert trusted_radius([(1e-4, 1.0), (1e-3, 0.9), (1e-2, 0.6)]) == pytest.approx(10**-2.5)  # half way to 0.6
    assert trusted_radius([(1e-4, 1.0), (1e-3, 1.5), (1e-2, 1.0)]) == pytest.approx(10**-3.5)
    assert trusted_radius([(1e-4, None), (1e-3, 0.7)]) == 0.0
    assert trusted_radius([(1e-4, None), (1e-3, 0.8), (1e-2, -math.inf)]) == 1e-3
    assert trusted_radius([(1e-4, 1.2), (1e-3, 0.8)]) == 1e-3
    assert trusted_radius([(1e-4, None)]) is None


def test_what_rounding_covers_is_not_known():
    """A loss of 1 that steps change by 1e-12 and less; from r = 1e-1 on the change is seen in float64 of 1e-20."""
    flat = problem([1.0], lambda w: 1 + 1e-12 * w.pow(2).sum())
    found = trust_radius(flat, radii=[1e-5, 1e-3], norms=["uniform"])
    assert [row.rho for row in found.radii] == [None, None]
    assert found.trusted_radius == {"uniform": None}
    assert "below rounding" in found.findings[0].says
    seen = trust_radius(problem([1.0], lambda w: 1 + 1e-9 * w.pow(2).sum()), radii=[1e-5, 1e-1], norms=["uniform"])
    assert [row.rho is None for row in seen.radii] == [True, False]
    assert any("1 of 2 radii" in finding.says for finding in seen.findings)


def test_in_float32_losses_are_those_of_a_copy_in_float64():
    found = trust_radius(network(dtype=torch.float32), norms=["uniform"])
    exact = trust_radius(network(dtype=D), norms=["uniform"])
    assert found.radii[0].rho == pytest.approx(1.0, abs=1e-3)
    assert found.trusted_radius["uniform"] == pytest.approx(exact.trusted_radius["uniform"], rel=0.05)


def test_smooth_networks_have_no_gates_and_are_true_farther_than_kinked_ones():
    deep = {
        name: trust_radius(_deep(activation), norms=["uniform"])
        for name, activation in (("relu", nn.ReLU), ("gelu", nn.GELU))
    }
    assert deep["gelu"].gates == 0
    assert any("No unit has a kink" in finding.says for finding in deep["gelu"].findings)
    relu = deep["relu"]
    assert relu.gates == 128 * 16 * 31
    assert relu.trusted_radius_frozen_gates["uniform"] > 2 * relu.trusted_radius["uniform"]
    assert 0.2 < relu.missing_share < 1
    kinks = next(finding for finding in relu.findings if "kinks take over" in finding.says)
    assert kinks.level == "note"


def _deep(activation, depth=32, width=16):
    torch.manual_seed(1)
    layers = []
    for _ in range(depth - 1):
        layer = nn.Linear(width, width, bias=False)
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        layers += [layer, activation()]
    model = nn.Sequential(*layers, nn.Linear(width, 1, bias=False)).double()
    x = torch.randn(128, width, dtype=D)
    return Problem(model, data=[(x, x.relu() @ torch.randn(width, 1, dtype=D))], loss="mse")


def test_the_users_model_stays_untouched():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1)).double()
    data = [(torch.randn(8, 3, dtype=D), torch.randn(8, 1, dtype=D))]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = trust_radius(Problem(model, data=data, loss="mse", train_mode=True), radii=[1e-5, 1e-2])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert found.radii[0].rho == pytest.approx(1.0, abs=1e-3)  # one draw of dropout, the same in all evaluations


def test_an_interrupt_keeps_the_radii_that_are_done(monkeypatch):
    done = []

    def interrupted(self, radius, at=measure.Stepper.at):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(radius)
        return at(self, radius)

    monkeypatch.setattr(measure.Stepper, "at", interrupted)
    found = trust_radius(network())
    assert found.interrupted
    assert [row.radius for row in found.radii] == list(measure.RADII[:4])
    assert list(found.trusted_radius) == ["uniform"]
    monkeypatch.setattr(measure.Stepper, "at", lambda self, radius: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        trust_radius(network())


def test_a_gradient_of_zero_is_said():
    found = trust_radius(problem([0.0, 0.0], lambda w: w.square().sum()))
    assert [row.rho for row in found.radii[:2]] == [None, None]
    assert "exactly zero" in found.findings[0].says


def test_what_is_asked_must_be_a_radius():
    for radii, norms in (([], ["uniform"]), ([-1.0], ["uniform"]), ([1e-3], []), ([1e-3], ["sphere"])):
        with pytest.raises(SpecError):
            trust_radius(network(), radii=radii, norms=norms)


def test_on_the_deep_narrow_network_kinks_hide_most_of_the_curvature():
    """The study's table on a network of another generator: rho 1.03, 0.71, 0.17 and with gates held 1.000, 1.001, 1.075."""
    found = trust_radius(
        load_problem(ProblemRequest("builtin:deep_mlp", seed=1)), radii=[1e-5, 1e-4, 1e-3], norms=["uniform", "rmsprop"]
    )
    rho, held, flipped = zip(
        *((row.rho, row.rho_frozen_gates, row.gates_flipped) for row in found.of("uniform")), strict=True
    )
    assert 0.85 < rho[0] < 1.15
    assert 0.5 < rho[1] < 0.85
    assert rho[2] < 0.25
    assert held == pytest.approx((1.0, 1.001, 1.0), abs=0.1)
    assert 0.001 < flipped[0] < 0.005 < 0.01 < flipped[1] < 0.03 < 0.05 < flipped[2] < 0.15
    assert found.missing_share > 0.5
    assert found.trusted_radius["rmsprop"] > 2 * found.trusted_radius["uniform"]
