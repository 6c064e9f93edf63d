"""The ellipsoidal trust region: identities, counts, scales, plateaus, and what it does where something is wrong."""

import copy
import inspect
import itertools
import math

import pytest
import torch

from hessdiag.curvature import pullback
from hessdiag.errors import ComputeError, SpecError
from hessdiag.linalg import gltr, steihaug
from hessdiag.nets.tasks.deep_mlp import deep_mlp
from hessdiag.optimizers import AdaptiveCubic, EllipsoidalTrustRegion

METRICS = ("uniform", "rmsprop", "adagrad")
ALL = (*METRICS, "diagonal", "full")


def point(values, dtype=torch.float64):
    return torch.nn.Parameter(torch.tensor(values, dtype=dtype))


def quadratic(H, w):
    return lambda: w @ torch.tensor(H, dtype=w.dtype) @ w / 2


def rosenbrock(w):
    return lambda: 0.01 * (w[0] - 1) ** 2 + (w[1] - w[0] ** 2) ** 2


def net(dtype=torch.float64, seed=0):
    """A small network with its data, and a parameter that the loss does not reach."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).to(dtype)
    x, y = torch.randn(20, 3, dtype=dtype), torch.randn(20, 2, dtype=dtype)
    return model, lambda: ((model(x) - y) ** 2).mean()


def saved(optimizer):
    """Its `state_dict`, below what imports torch's compiler: seconds."""
    return copy.deepcopy(inspect.unwrap(torch.optim.Optimizer.state_dict)(optimizer))


def loaded(optimizer, state):
    """The same of `load_state_dict`."""
    inspect.unwrap(torch.optim.Optimizer.load_state_dict)(optimizer, state)


def spent_until(optimizer, closure, level, budget):
    """Backpropagations until the loss is at most this."""
    spent = 0
    while spent < budget:
        optimizer.step(closure)
        spent += optimizer.last.backpropagations
        if float(closure().detach()) <= level:
            return spent
    return math.inf


def test_first_order_trust_region_identity():
    """Lemma 1: of linear models in an ellipsoid the preconditioned gradient is the step."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    A, g, lr = root @ root.T + torch.eye(30), torch.randn(30, generator=generator, dtype=torch.float64), 0.1
    expected = -lr * torch.linalg.solve(A, g)
    radius = lr * math.sqrt(g @ torch.linalg.solve(A, g))
    for solver in (steihaug, gltr):
        found = solver(torch.zeros_like(A), g, radius, metric=A)
        assert torch.allclose(found.step, expected, rtol=1e-12, atol=1e-15)
        assert math.sqrt(found.step @ A @ found.step) == pytest.approx(radius, rel=1e-12)
        assert found.decrease == pytest.approx(lr * float(g @ torch.linalg.solve(A, g)), rel=1e-12)


@pytest.mark.parametrize("metric", ["rmsprop", "adagrad"])
def test_a_linear_loss_is_stepped_along_as_the_first_order_method_would(metric):
    """The metric of the paper, sqrt(v + eps), with v by the book."""
    g, w = torch.tensor([3.0, -0.5, 1e-3], dtype=torch.float64), point([0.0, 0.0, 0.0])
    optimizer = EllipsoidalTrustRegion([w], metric, preset="paper", eps=1e-2, radius=0.5)
    optimizer.step(lambda: (g * w).sum())
    v = g**2 * (0.2 if metric == "rmsprop" else 1)
    preconditioned = -g / (v + 1e-2).sqrt()
    assert torch.allclose(w.detach(), preconditioned * 0.5 / math.sqrt(-g @ preconditioned), rtol=1e-12, atol=0)
    assert optimizer.last.radius == pytest.approx(0.5 * 1.1)
    start = w.detach().clone()
    optimizer.step(lambda: (2 * g * w).sum())
    v = (0.8 * v + 0.2 * (2 * g) ** 2) if metric == "rmsprop" else v + (2 * g) ** 2
    preconditioned = -g / (v + 1e-2).sqrt()
    expected = preconditioned * 0.55 / math.sqrt(-g @ preconditioned)
    assert torch.allclose(w.detach() - start, expected, rtol=1e-12, atol=0)


def test_the_robust_metric_has_mean_one_and_a_relative_floor():
    g, w = torch.tensor([3e-14, 4e-14, 0.0, 0.0], dtype=torch.float64), point([1.0, 1.0, 1.0, 1.0])
    optimizer = EllipsoidalTrustRegion([w])
    optimizer.step(lambda: (g * w).sum())
    roots = torch.sqrt((g / 3e-14) ** 2 + 9e-6)  # relative to the median of those that are not zero, the lower of two
    assert torch.allclose(optimizer.state[w]["metric"], roots / roots.mean(), rtol=1e-12)


def test_the_whole_matrix_is_the_root_of_averaged_products():
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(2))
    w = point([1.0, 1.0, 1.0, 1.0])
    optimizer = EllipsoidalTrustRegion([w], "full")
    for g in (first, second):
        optimizer.step(lambda g=g: (g * w).sum())
    V = 0.8 * 0.2 * torch.outer(first, first) + 0.2 * torch.outer(second, second)
    M = optimizer.state[w]["metric"]
    assert torch.trace(M) == pytest.approx(4)
    squared = M @ M
    expected = V + 9e-6 * V.diagonal().sort().values[1] * torch.eye(4)  # the median of four: the lower of two
    assert torch.allclose(squared / torch.trace(squared), expected / torch.trace(expected), atol=1e-12)


def test_the_diagonal_is_that_of_the_hessian():
    w = point([1.0, 1.0, 1.0])
    optimizer = EllipsoidalTrustRegion([w], "diagonal", eps=0.0)
    optimizer.step(lambda: (torch.tensor([1.0, -2.0, 6.0]) * w**2).sum() / 2)
    assert torch.allclose(optimizer.state[w]["metric"], torch.tensor([1.0, 2.0, 6.0]).double() / 3)
    assert optimizer.last.products >= 3
    model, closure = deep_net_of(70)
    optimizer = EllipsoidalTrustRegion([model], "diagonal", eps=0.0)
    optimizer.step(closure)  # a diagonal matrix has no other entries that an estimate could mistake
    assert torch.allclose(optimizer.state[model]["metric"], torch.arange(1.0, 71.0).double() / 35.5)


def deep_net_of(n):
    w = torch.nn.Parameter(torch.ones(n, dtype=torch.float64))
    return w, lambda: (torch.arange(1.0, n + 1).double() * w**2).sum() / 2


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("solver", ["cg", "gltr"])
def test_counts_are_the_calls_of_autograd(metric, solver, monkeypatch):
    model, closure = net()
    assert sum(parameter.numel() for parameter in model.parameters()) == 32
    gradients, products, evaluations = [], [], []
    grad, pull = torch.autograd.grad, pullback.pullback

    def counted_grad(*args, **options):
        gradients.append(1)
        return grad(*args, **options)

    def counted_pull(*args, **options):
        products.append(1)
        return pull(*args, **options)

    def counted():
        evaluations.append(1)
        return closure()

    monkeypatch.setattr(torch.autograd, "grad", counted_grad)
    monkeypatch.setattr(pullback, "pullback", counted_pull)
    optimizer = EllipsoidalTrustRegion(model.parameters(), metric, solver)
    for _ in range(4):
        gradients.clear(), products.clear(), evaluations.clear()
        optimizer.step(counted)
        last = optimizer.last
        exact = 32 - 1 if last.products >= 32 else 0  # all columns of the identity are one call
        assert (last.gradients, last.evaluations) == (len(gradients), len(evaluations))
        assert last.gradients == 1
        assert last.products == len(products) + exact
        assert last.backpropagations == last.gradients + last.products


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("scale", [2.0**-60, 2.0**40])
def test_the_scale_of_the_loss_changes_nothing(metric, scale):
    w, scaled = point([-0.5, 2.0]), point([-0.5, 2.0])
    f, g = rosenbrock(w), rosenbrock(scaled)
    one, other = (EllipsoidalTrustRegion([parameter], metric) for parameter in (w, scaled))
    for _ in range(25):
        one.step(f)
        other.step(lambda: scale * g())
        assert torch.allclose(w, scaled, rtol=1e-9, atol=1e-12)
        assert one.last.exit == other.last.exit
        assert one.last.products == other.last.products


@pytest.mark.parametrize("metric", ["uniform", "rmsprop"])
@pytest.mark.parametrize("layers", [20, 40, 80])
def test_the_chain_is_left_within_25_backpropagations(metric, layers):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(layers, generator=generator, dtype=torch.float64)
    w = torch.nn.Parameter(0.5 * (1 + 0.01 * noise))
    closure = lambda: (1 - w.prod()) ** 2 / 2  # noqa: E731
    assert spent_until(EllipsoidalTrustRegion([w], metric), closure, float(closure().detach()) / 2, 100) <= 25


@pytest.mark.parametrize("solver", ["cg", "gltr"])
@pytest.mark.parametrize("metric", METRICS)
def test_rosenbrock_is_solved_within_180_backpropagations(metric, solver):
    w = point([-0.5, 2.0])
    assert spent_until(EllipsoidalTrustRegion([w], metric, solver), rosenbrock(w), 1e-8, 300) <= 180


C = math.sqrt(0.5)
TILTED = [[C * C * 101, C * C * -99], [C * C * -99, C * C * 101]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("H", [[[1.0, 0.0], [0.0, 1.5]], [[1.0, 0.0], [0.0, 100.0]], TILTED])
def test_quadratics_of_two_dimensions_take_as_few_steps_however_they_lie(metric, H):
    w = point([-2.0, 1.5])
    closure = quadratic(H, w)
    assert spent_until(EllipsoidalTrustRegion([w], metric), closure, 1e-6 * float(closure().detach()), 100) <= 31


def test_the_deep_network_leaves_its_plateau():
    for init in ("he_uniform", "lecun_variance", "lecun"):
        task = deep_mlp(seed=1, init=init)
        (x, y), model = task["data"], task["model"]
        closure = lambda model=model, x=x, y=y, loss=task["loss"]: loss(model(x), y)  # noqa: E731
        optimizer = EllipsoidalTrustRegion(model.parameters())
        assert spent_until(optimizer, closure, 0.9 * float(closure().detach()), 100) <= 60


def test_a_point_without_a_loss_is_not_gone_to():
    w = point([1e-3])
    optimizer = EllipsoidalTrustRegion([w], radius=1.0, tries=1)
    optimizer.step(lambda: w.log().sum())  # falls to where there is none
    assert w.item() == 1e-3
    assert (optimizer.last.accepted, optimizer.last.rho, optimizer.last.radius) == (False, -math.inf, 0.5)
    for loss in (math.nan, math.inf):
        assert not math.isfinite(optimizer.step(lambda loss=loss: (w * loss).sum()))
        assert w.item() == 1e-3
        assert optimizer.last.radius == 0.5


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", [EllipsoidalTrustRegion, AdaptiveCubic])
def test_an_error_or_an_interrupt_where_a_step_is_tried_leaves_the_weights(kind, error):
    w, calls = point([2.0, 1.0]), []

    def closure():
        calls.append(1)
        if len(calls) > 1:
            raise error
        return w.square().sum()

    with pytest.raises(error):
        kind([w]).step(closure)
    assert (len(calls), w.tolist()) == (2, [2.0, 1.0])


def test_a_step_that_does_not_pay_is_not_taken_and_leaves_the_metric():
    w = point([1.0, -1.0])
    optimizer = EllipsoidalTrustRegion([w], radius=1.0)
    optimizer.step(quadratic([[1.0, 0.0], [0.0, 4.0]], w))
    start, losses = w.detach().clone(), itertools.chain([w.sum()], itertools.repeat(w.sum().detach() + 1))
    optimizer.step(lambda: next(losses))
    metric = optimizer.state[w]["metric"].clone()
    assert not optimizer.last.accepted
    assert torch.equal(w, start)
    optimizer.step(lambda: (torch.tensor([5.0, 1.0]).double() * w).sum())
    assert torch.equal(optimizer.state[w]["metric"], metric)  # [C]: frozen after a rejection
    optimizer.step(lambda: (torch.tensor([5.0, 1.0]).double() * w).sum())
    assert not torch.equal(optimizer.state[w]["metric"], metric)


@pytest.mark.parametrize("solver", ["cg", "gltr"])
@pytest.mark.parametrize(("first", "evaluations"), [(2.0**-4, 1 + 5), (1.0, 1 + 2), (2.0, 1 + 3)])
def test_a_step_tries_radii_for_the_longest_that_pays_as_foreseen_and_else_one_that_pays(solver, first, evaluations):
    """The loss 4 w^4 - w falls by 1 - 4 r^3 of what its gradient says: 1/2 at r = 1/2, and -3 at 1."""
    w = point([0.0])
    optimizer = EllipsoidalTrustRegion([w], "uniform", solver, radius=first, max_radius=100.0)
    optimizer.step(lambda: (4 * w**4 - w).sum())
    last = optimizer.last
    assert (w.item(), last.rho, last.radius) == pytest.approx((0.5, 0.5, 1.0))
    assert (last.evaluations, last.gradients, last.products, last.accepted) == (evaluations, 1, 1, True)


@pytest.mark.parametrize("solver", ["cg", "gltr"])
def test_a_shorter_step_is_the_one_of_its_radius_without_products_of_its_own(solver):
    generator = torch.Generator().manual_seed(2)
    H = torch.diag(torch.logspace(-2, 0, 8, dtype=torch.float64))  # what is longest of the step comes last
    g, x = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    w = torch.nn.Parameter(x.clone())
    optimizer = EllipsoidalTrustRegion([w], "uniform", solver, radius=1e3, tolerance=1e-6, max_radius=1e4)

    def closure():
        s = w - x
        return g @ s + s @ H @ s / 2 + 1e-5 * s.square().sum() ** 2

    optimizer.step(closure)
    last, solve = optimizer.last, {"cg": steihaug, "gltr": gltr}[solver]
    whole = solve(H, g, 1e3, tolerance=1e-6)
    assert (whole.exit, whole.products) == ("interior", last.products)
    halved = last.evaluations - 2  # from the length of the first step, which ended inside
    expected = solve(H, g, whole.length / 2**halved, tolerance=1e-6)
    assert 1 < expected.products <= whole.products
    assert expected.exit == last.exit == "boundary"
    assert torch.allclose(w.detach() - x, expected.step, rtol=1e-9, atol=1e-12)
    assert last.accepted


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("solver", ["cg", "gltr"])
def test_what_the_loss_does_not_reach_stays(metric, solver):
    w, idle, frozen = point([0.0, 0.5]), point([1.0, 2.0]), point([3.0])
    frozen.requires_grad_(False)
    optimizer = EllipsoidalTrustRegion([w, idle, frozen], metric, solver)
    for _ in range(5):
        optimizer.step(lambda: (w**4 - w**2).sum())
    assert idle.tolist() == [1.0, 2.0]
    assert frozen.item() == 3.0
    assert abs(w[1].item()) == pytest.approx(C, abs=0.1)


def test_at_a_saddle_itself_only_lanczos_moves():
    for solver, moves in (("cg", False), ("gltr", True)):
        w, idle = point([0.0, 0.0]), point([1.0])
        optimizer = EllipsoidalTrustRegion([w, idle], solver=solver)
        optimizer.step(lambda w=w: (w[0] ** 2 - w[1] ** 2 + w[1] ** 4).sum())
        assert (w[1].item() != 0) is moves
        assert idle.item() == 1
        assert optimizer.last.exit == ("negative curvature" if moves else "interior")


def test_the_state_goes_on_where_it_was_saved():
    model, closure = net()
    optimizer = EllipsoidalTrustRegion(model.parameters())
    for _ in range(3):
        optimizer.step(closure)
    kept, weights = saved(optimizer), copy.deepcopy(model.state_dict())
    for _ in range(3):
        optimizer.step(closure)
    after, radius = [parameter.detach().clone() for parameter in model.parameters()], optimizer.last.radius
    model.load_state_dict(weights)
    other = EllipsoidalTrustRegion(model.parameters(), radius=123.0)
    loaded(other, kept)
    for _ in range(3):
        other.step(closure)
    assert other.last.radius == radius
    assert all(torch.equal(a, b) for a, b in zip(after, model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_of_the_loss_does_not_shrink_the_radius(dtype):
    model, closure = net(dtype)
    optimizer = EllipsoidalTrustRegion(model.parameters())
    losses = [optimizer.step(closure) for _ in range(60)]
    assert min(losses) < 0.8 * losses[0]
    if dtype == torch.float32:  # at the minimum, differences are rounding
        assert optimizer.last.radius > 1e-3
        assert losses[-1] <= min(losses) * (1 + 1e-6)


def test_what_rounding_of_the_loss_cannot_explain_is_seen():
    w = point([0.0])
    optimizer = EllipsoidalTrustRegion([w], "uniform", radius=1.0, tries=1)
    optimizer.step(lambda: (1 + 1e-13 * (2 * w**3 - w)).sum())
    slack = 10 * 2.0**-52
    assert optimizer.last.rho == pytest.approx((slack - 1e-13) / (slack + 1e-13), abs=5e-3)
    assert not optimizer.last.accepted


def test_parameters_of_several_dtypes():
    w, v = point([-0.5], torch.float32), point([2.0])
    closure = lambda: (0.01 * (w.double() - 1) ** 2 + (v - w.double() ** 2) ** 2).sum()  # noqa: E731
    optimizer = EllipsoidalTrustRegion([w, v])
    assert spent_until(optimizer, closure, 1e-6, 300) <= 180
    loaded(optimizer, saved(optimizer))
    assert optimizer.state[v]["metric"].dtype == torch.float64


def test_parameters_that_are_zero_or_tiny_are_left_behind():
    for start in (0.0, 1e-20):
        w = point([start, start])
        optimizer = EllipsoidalTrustRegion([w])
        for _ in range(40):
            optimizer.step(lambda w=w: ((w - 100.0) ** 2).sum())
        assert w.tolist() == pytest.approx([100.0, 100.0], rel=1e-6)


def test_dropout_draws_the_same_mask_for_all_losses_of_a_step():
    model, _ = net()
    x, y = torch.randn(20, 3).double(), torch.randn(20, 2).double()
    seen = []

    def closure():
        mask = torch.rand(20, 3)
        seen.append(mask)
        return ((model(x * (mask > 0.5)) - y) ** 2).mean()

    optimizer, masks = EllipsoidalTrustRegion(model.parameters()), []
    for _ in range(3):
        seen.clear()
        optimizer.step(closure)
        assert len(seen) == optimizer.last.evaluations >= 2
        assert all(torch.equal(mask, seen[0]) for mask in seen)
        masks.append(seen[0])
    assert not torch.equal(masks[0], masks[1])


def test_the_radius_is_bounded():
    w = point([1.0])
    optimizer = EllipsoidalTrustRegion([w], max_radius=0.3)
    for _ in range(10):
        optimizer.step(lambda: -w.sum())
    assert optimizer.last.radius == 0.3
    assert optimizer.last.length == pytest.approx(0.3)


def test_radii_that_are_not_given_go_by_the_length_of_the_parameters():
    for values, radius in (([3.0, 4.0], 0.075), ([0.0] * 4, 0.015 * 0.02)):  # of zeros: as if they were 0.01 each
        w = point(values)
        optimizer = EllipsoidalTrustRegion([w], "uniform", tries=1)
        optimizer.step(w.sum)
        assert optimizer.last.length == pytest.approx(radius)
    for tries in (1, 10):
        w = point([1.2])
        optimizer = EllipsoidalTrustRegion([w], "uniform", radius=10.0, tries=tries)
        optimizer.step(w.sum)  # falls as foreseen, however far
        assert optimizer.last.radius == pytest.approx(12.0)
        assert optimizer.last.length == pytest.approx(12.0 if tries > 1 else 10.0)


def test_after_a_step_that_ends_inside_only_the_papers_radius_grows():
    for preset, grows in (("robust", 1.0), ("classic", 1.0), ("paper", 1.1)):
        w = point([1.0, 1.0])
        optimizer = EllipsoidalTrustRegion([w], "uniform", preset=preset, radius=5.0)
        optimizer.step(quadratic([[1.0, 0.0], [0.0, 4.0]], w))
        assert optimizer.last.exit == "interior"
        assert optimizer.last.radius == pytest.approx(5.0 * grows)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"metric": "rmspro"}, "not 'rmspro'.\n  try: metric='rmsprop'"),
        ({"solver": "lanczos"}, "solver is one of cg, gltr"),
        ({"preset": "papr"}, "try: preset='paper'"),
        ({"radius": -1.0}, "radius has to be a positive number, not -1"),
        ({"max_radius": 0.0}, "max_radius has to be above 0, not 0"),
        ({"eta": (0.9, 0.1)}, "eta has to be two ratios"),
        ({"gamma": (2.0, 0.5)}, "gamma has to be two factors"),
        ({"beta": 1.0}, "beta has to be at least 0 and below 1, not 1"),
        ({"most": 0}, "most has to be at least 1, not 0"),
        ({"tries": 0}, "tries has to be at least 1, not 0"),
        ({"eps": -1.0}, "eps has to be 0 or a positive number, not -1"),
    ],
)
def test_what_cannot_be_is_refused(settings, says):
    with pytest.raises(SpecError) as refused:
        EllipsoidalTrustRegion([point([1.0])], **settings)
    assert says in str(refused.value)


def test_a_whole_matrix_is_for_few_parameters():
    with pytest.raises(SpecError, match="2,000"):
        EllipsoidalTrustRegion([torch.nn.Parameter(torch.zeros(2001))], "full")


def test_what_cannot_be_differentiated_is_said():
    w = point([0.0])
    optimizer = EllipsoidalTrustRegion([w])
    with pytest.raises(ComputeError, match="the gradient is not finite"):
        optimizer.step(lambda: w.abs().sqrt().sum())
    with pytest.raises(ComputeError, match="does not depend"):
        optimizer.step(lambda: torch.tensor(1.0))


def test_presets():
    groups = {
        (name, metric): EllipsoidalTrustRegion([point([1.0])], metric, preset=name).param_groups[0]
        for name in ("robust", "paper", "classic")
        for metric in ("uniform", "rmsprop")
    }
    assert groups["paper", "rmsprop"]["radius"] == 1e-4
    assert groups["paper", "uniform"]["radius"] == 0.05
    assert groups["paper", "rmsprop"]["gamma"] == (1.1, 1.75)
    assert groups["paper", "uniform"]["eta"] == (0.01, 0.95)
    assert groups["classic", "uniform"]["gamma"] == (2.0, 4.0)
    assert groups["robust", "uniform"]["eta"] == (1e-4, 0.25)
    assert groups["classic", "uniform"]["eta"] == (1e-4, 0.75)
    assert [groups[name, "uniform"]["tries"] for name in ("robust", "paper", "classic")] == [10, 1, 1]
    assert (groups["paper", "rmsprop"]["eps"], groups["robust", "rmsprop"]["eps"]) == (1e-10, 3e-3)
