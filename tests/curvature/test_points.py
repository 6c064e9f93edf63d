"""Kinds of points, each with inputs of several forms; the truth is fourth-order differences, or the definition."""

import math
import warnings
from dataclasses import astuple
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from hessdiag import GaussNewtonOperator, HessianOperator, Problem, blocks, bounds, diag_share, eigs, hessian, spectrum
from hessdiag.curvature import differences
from hessdiag.curvature.checks import examine
from hessdiag.curvature.point import words
from hessdiag.curvature.point.examine import NoHessianError, PointWarning
from hessdiag.curvature.point.result import Point
from hessdiag.errors import ComputeError, ExitCode

D = torch.float64


def _seeded(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=D)


def _net(*sizes, act=nn.Tanh, seed=0, zero_bias=False):
    torch.manual_seed(seed)
    parts = []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), act()]
    net = nn.Sequential(*parts[:-1]).double()
    if zero_bias:
        for module in net:
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
    return net


def truth(problem, step=1e-3):
    """Fourth-order central differences of the gradient, symmetrized: knows nothing of second derivatives."""
    parameters = list(problem.parameters)
    start = [parameter.detach().clone() for parameter in parameters]

    def gradient(index, h):
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
            flat = torch.cat([value.flatten() for value in start])
            flat[index] += h
            for parameter, place in zip(parameters, problem.places(), strict=True):
                parameter.copy_(flat[place].view_as(parameter))
        value = sum(w * problem.evaluate(b) for w, b in zip(problem.batch_weights, problem.data, strict=True))
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, materialize_grads=True)])

    weights = {2: -1 / 12, 1: 8 / 12, -1: -8 / 12, -2: 1 / 12}
    rows = [sum(w * gradient(i, k * step) for k, w in weights.items()) / step for i in range(problem.n_parameters)]
    with torch.no_grad():
        for parameter, value in zip(parameters, start, strict=True):
            parameter.copy_(value)
    H = torch.stack(rows)
    return (H + H.T) / 2


def _apart(H, expected):
    return float((H - expected).norm() / expected.norm())


def _examined(problem):
    return examine(HessianOperator(problem, check=False))


def _quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PointWarning)
        return function(*args, **kwargs)


# --- smooth points where autograd fails ---------------------------------------------------------------------------


def _penalized(penalty):
    normal = _seeded()
    data = [(normal(9, 3), torch.arange(9) % 2)]
    net = _net(3, 4, 2, zero_bias=True)
    return Problem(net, data=data, objective=lambda m, b: functional.cross_entropy(m(b[0]), b[1]) + penalty(m))


class _Spectrum(nn.Module):
    """Power of a filter's frequencies: |z|^2 by abs(), at a filter that is zero."""

    def __init__(self):
        super().__init__()
        self.filter, self.head = nn.Parameter(torch.zeros(6, dtype=D)), nn.Linear(4, 1).double()

    def forward(self, x):
        return self.head(torch.fft.rfft(self.filter).abs() ** 2 * x[:, :4])


class _Inputs(nn.Module):
    """Distances of learned points from data that lie on some of them."""

    def __init__(self, points):
        super().__init__()
        self.points, self.head = nn.Parameter(points.clone()), nn.Linear(len(points), 1).double()

    def forward(self, x):
        return self.head(1 / (1 + (x[:, None] - self.points).norm(dim=-1) ** 2))


class _ZeroRow(nn.Module):
    """A layer without bias sees a sample of zeros, whose features are normalized: zero for all weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4, bias=False).double(), nn.Linear(4, 2).double()

    def forward(self, x):
        return self.second(functional.normalize(self.first(x)))


class _Sinc(nn.Module):
    def __init__(self):
        super().__init__()
        self.frequency, self.head = nn.Parameter(torch.zeros(3, dtype=D)), nn.Linear(3, 1).double()

    def forward(self, x):
        return self.head(torch.sinc(self.frequency * x) * x)


def _points():
    normal = _seeded(1)
    x, y = normal(8, 3), normal(8, 1)
    zeros = x.clone()
    zeros[0] = 0
    torch.manual_seed(3)
    return {
        "abs squared": (_penalized(lambda m: sum((0.4 * p.abs() ** 2).sum() for p in m.parameters())), "wrong"),
        "std squared": (
            _penalized(lambda m: sum(p.std(unbiased=False) ** 2 for p in (m[0].bias, m[2].bias, m[0].weight))),
            "wrong",
        ),
        "norm squared": (_penalized(lambda m: 0.1 * sum(p.norm() ** 2 for p in m.parameters())), "nan"),
        "power spectrum": (Problem(_Spectrum(), data=[(normal(7, 5), normal(7, 1))], loss="mse"), "wrong"),
        "points on data": (Problem(_Inputs(x[:2]), data=[(x, y)], loss="mse"), "nan"),
        "a normalized row of zeros": (
            Problem(_ZeroRow(), data=[(zeros, torch.arange(8) % 2)], loss="ce"),
            "nan",
        ),
        "sinc": (Problem(_Sinc(), data=[(x, y)], loss="mse"), "nan"),
    }


@pytest.mark.parametrize("name", list(_points()))
def test_smooth_points_have_the_right_hessian(name):
    problem, kind = _points()[name]
    found = _examined(problem)
    assert found.point.kind == kind
    assert not found.failed
    expected = truth(problem)
    operator = HessianOperator(problem)
    with pytest.warns(PointWarning, match="central differences"):
        H = hessian(Problem(problem.model, problem.data, problem.loss, problem.objective))
    v = torch.ones(len(H), dtype=D)
    assert _apart(_quietly(operator.__matmul__, v), expected @ v) < 1e-6
    assert "central differences of gradients" in operator.engine
    assert found.point.parameters
    assert _apart(H, expected) < (1e-6 if name == "sinc" else 1e-8)


def test_commands_take_the_differences_and_name_the_parameters():
    problem = _points()["abs squared"][0]
    expected = torch.linalg.eigvalsh(truth(problem))
    found = eigs(problem)
    assert found.spectrum == pytest.approx(expected.tolist(), abs=1e-8)
    assert diag_share(problem).trace == pytest.approx(float(expected.sum()), rel=1e-8)
    assert spectrum(problem).trace == pytest.approx(float(expected.sum()), rel=1e-8)
    assert blocks(problem).norm == pytest.approx(float(expected.norm()), rel=1e-8)
    measured = bounds(problem)
    assert measured.measured == pytest.approx((float(expected[0]), float(expected[-1])), rel=1e-6)
    for one in (found, measured):
        assert one.status == "ok"
        assert one.findings[0].level == "warn"
        assert "0.bias" in one.findings[0].says
        assert "0.weight" not in one.findings[0].says
        assert "central differences" in one.engine
        assert "--dtype" not in one.findings[0].remedy


@pytest.mark.parametrize("name", ["abs squared", "norm squared", "points on data"])
def test_the_same_in_float32(name):
    problem, kind = _points()[name]
    expected = truth(problem)
    data = [tuple(t.float() if t.is_floating_point() else t for t in batch) for batch in problem.data]
    single = Problem(problem.model.float(), data, problem.loss, problem.objective)
    assert _examined(single).point.kind == kind
    assert _apart(_quietly(hessian, single).double(), expected) < 1e-5


@pytest.mark.parametrize(("weight", "kind"), [(0.0, "smooth"), (1e-3, "wrong")])
def test_a_little_that_is_wrong_at_zero_parameters_shows_in_float32(weight, kind):
    """Both directions are looked at together, each with the same weight: the large one must not hide the small one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.bias)

    def objective(model, batch):
        x, y = batch
        return functional.cross_entropy(model(x), y) + weight * (model[2].bias.abs() ** 2).sum()

    problem = Problem(model, [(torch.randn(32, 8), torch.arange(32) % 4)], objective=objective)
    assert _examined(problem).point.kind == kind


# --- kinks --------------------------------------------------------------------------------------------------------


class _Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        nn.init.zeros_(self.body[-1].weight)
        self.last = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.last(x + self.body(x))


def residual_network(dtype=D, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), _Block(3), _Block(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(3, 3),
    ).to(dtype)  # fmt: skip


def _images(dtype=D):
    normal = _seeded(5)
    return [(normal(5, 2, 6, 6).to(dtype), torch.arange(5) % 3)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("train_mode", [False, True])
def test_residual_networks_with_zero_last_gains(dtype, train_mode):
    """The numbers are those of one piece: of a network whose blocks' last biases are a little below zero."""
    problem = Problem(residual_network(dtype), _images(dtype), "ce", train_mode=train_mode)
    found = _examined(problem)
    assert (found.point.kind, found.point.beside, found.failed) == ("kink", "adjacent", False)
    assert {(kink.module, kink.operation) for kink in found.point.kinks} == {("3.last", "relu"), ("4.last", "relu")}
    assert all(0 < kink.share < 1 and kink.jump > 0 for kink in found.point.kinks)
    with pytest.warns(PointWarning, match="at a kink"):
        H = hessian(problem)
    beside = Problem(residual_network(), _images(), "ce", train_mode=train_mode)
    for block in (beside.model[3], beside.model[4]):
        nn.init.constant_(block.body[-1].bias, -1e-9)
    assert _apart(H.double(), hessian(beside)) < (1e-7 if dtype == D else 1e-4)


def test_a_residual_network_by_every_command():
    problem = Problem(residual_network(), _images(), "ce")
    for command in (diag_share, eigs, spectrum, bounds, blocks):
        found = command(problem)
        assert found.status == "ok"
        assert found.findings[0].level == "warn"
        assert "3.last" in found.findings[0].says
        assert found.point.kinks[0].operation == "relu"
        assert found.point.kind == "kink"


def _blank(act, objective=None, pool=False, dtype=D):
    """Blank samples and zero biases."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), act(), nn.MaxPool2d(2) if pool else nn.Identity(), nn.Flatten(),
        nn.Linear(12 if pool else 48, 3),
    ).to(dtype)  # fmt: skip
    nn.init.zeros_(net[0].bias)
    x = _seeded(3)(4, 1, 6, 6).to(dtype)
    x[0] = 0
    x[1, :, :3] = 0
    return Problem(net, [(x, torch.arange(4) % 3)], None if objective else "ce", objective)


@pytest.mark.parametrize("act", [nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.CELU], ids=lambda act: act.__name__)
@pytest.mark.parametrize("pool", [False, True])
def test_blank_samples_and_zero_biases(act, pool):
    problem = _blank(act, pool=pool)
    found = _examined(problem)
    assert (found.point.kind, found.point.beside, found.failed) == ("kink", "adjacent", False)
    assert found.point.kinks[0].module == "1"
    assert found.point.error < 1e-5


def test_a_penalty_on_absolute_values_is_the_same_on_all_sides():
    problem = _penalized(lambda m: 0.02 * sum(p.abs().sum() for p in m.parameters()))
    found = _examined(problem)
    assert (found.point.kind, found.point.beside, found.failed) == ("kink", "everywhere", False)
    plain = _penalized(lambda m: 0.0)
    assert _apart(_quietly(hessian, problem), hessian(plain)) < 1e-12


@pytest.mark.parametrize(
    ("penalty", "kind"),
    [
        (lambda m: 0.2 * sum((p.abs() ** 2).sum() for p in m.parameters()), "kink_and_wrong"),
        (lambda m: 0.2 * sum(p.norm() ** 2 for p in m.parameters()), "kink_and_nan"),
    ],
)
def test_autograd_fails_beside_a_kink(penalty, kind):
    """Pieces are held, and differences taken: the Hessian of the piece, to which the penalty adds a multiple of 1."""
    problem = _blank(nn.ReLU, lambda m, b: functional.cross_entropy(m(b[0]), b[1]) + penalty(m))
    found = _examined(problem)
    assert (found.point.kind, found.point.engine, found.failed) == (kind, "held differences", False)
    H = _quietly(hessian, problem)
    piece = _quietly(hessian, _blank(nn.ReLU))
    assert _apart(H, piece + 0.4 * torch.eye(len(H), dtype=D)) < 1e-8


def test_a_gradient_of_zero_at_the_kink_of_prelu_is_not_taken_for_a_hessian():
    """torch's second derivative of PReLU at zero drops the slope's own: it is that of no piece."""
    problem = _blank(nn.PReLU)
    assert _examined(problem).point.kind == "kink_and_wrong"
    beside = _blank(nn.PReLU)
    nn.init.constant_(beside.model[0].bias, -1e-9)
    assert _apart(_quietly(hessian, problem), hessian(beside)) < 1e-6


# --- no Hessian ---------------------------------------------------------------------------------------------------


def _zero_head(loss, target=0.0):
    net = _net(3, 4, 1)
    for parameter in net[2].parameters():
        nn.init.zeros_(parameter)
    normal = _seeded(4)
    return Problem(net, [(normal(9, 3), torch.full((9, 1), target, dtype=D))], loss)


NOWHERE = {
    "squared hinges": lambda z, t: (functional.relu(z - t) ** 2 + 3 * functional.relu(t - z) ** 2).mean(),
    "x |x|": lambda z, t: ((z - t) * (z - t).abs()).mean() + z.mean(),
    "absolute": functional.l1_loss,
    "quantile": lambda z, t: torch.maximum(0.8 * (t - z), -0.2 * (t - z)).mean(),
}


@pytest.mark.parametrize("name", list(NOWHERE))
def test_no_hessian_at_this_point(name):
    problem = _zero_head(NOWHERE[name])
    found = _examined(problem)
    assert (found.point.kind, found.failed) == ("no_hessian", True)
    with pytest.raises(NoHessianError, match="no Hessian at this point"):
        hessian(problem)
    for command in (diag_share, eigs, bounds, blocks):
        measured = command(problem)
        assert measured.status == "inexact"
        said = " | ".join(" ".join(astuple(finding)) for finding in measured.findings)
        assert "no Hessian at this point" in said
        assert "exactly zero: second" not in said
        assert "dead" not in said
        assert "proven" not in said
        assert "ertain" not in said


def test_a_mask_takes_one_side():
    """Curvature differs between sides, and the numbers are those of one of them: weights of a quarter for all."""
    problem = _zero_head(lambda z, t: (torch.where(z > t, 0.75, 0.25) * (z - t) ** 2).mean())
    point = _examined(problem).point
    assert (point.kind, point.beside) == ("kink", "adjacent")
    assert point.spread > 0.1
    assert (
        _apart(_quietly(hessian, problem), hessian(_zero_head(lambda z, t: 0.25 * functional.mse_loss(z, t)))) < 1e-12
    )


def test_one_sided_curvatures_are_given():
    problem = _zero_head(NOWHERE["squared hinges"])
    point = _examined(problem).point
    below, above = sorted(point.one_sided)
    assert above / below > 1.01
    assert point.spread > 0.1


@pytest.mark.parametrize(
    ("penalty", "names"),
    [
        (lambda m: 0.1 * sum(p.norm() for p in m.parameters()), {"0.bias", "2.bias"}),
        (lambda m: 0.1 * m[0].bias.square().sum().sqrt(), {"0.bias"}),
    ],
)
def test_what_is_not_finite_is_named(penalty, names):
    problem = _penalized(penalty)
    point = _examined(problem).point
    assert point.kind == "no_hessian"
    assert set(point.parameters) == names
    with pytest.raises(NoHessianError, match=r"0\.bias") as caught:
        hessian(problem)
    assert caught.value.exit_code == ExitCode.INEXACT
    assert "--dtype" not in str(caught.value)
    with pytest.raises(ComputeError, match=r"0\.bias"):
        eigs(problem)


# --- gradients that are not the loss's ----------------------------------------------------------------------------


class _Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4).double()

    def forward(self, x):
        w = self.linear.weight
        return functional.linear(x, w + (torch.round(w * 4) / 4 - w).detach(), self.linear.bias)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


def _detached(share):
    return lambda z, t: ((z - t) ** 2).mean() + share * (z.detach() * z).mean()


INCONSISTENT = {
    "straight through": lambda: Problem(
        nn.Sequential(_Rounded(), nn.Tanh(), nn.Linear(4, 1).double()), _pairs(), "mse"
    ),
    "detached": lambda: Problem(_net(3, 4, 1), _pairs(), _detached(0.5)),
    "a little detached": lambda: Problem(_net(3, 4, 1), _pairs(), _detached(0.01)),
    "detached, at a head of zeros": lambda: _zero_head(_detached(1.0), 1.0),
    "a doubled gradient": lambda: Problem(
        _net(3, 4, 1), _pairs(), lambda z, t: functional.mse_loss(_Doubled.apply(z), t)
    ),
}


def _pairs():
    normal = _seeded(6)
    return [(normal(9, 3), normal(9, 1))]


@pytest.mark.parametrize("name", list(INCONSISTENT))
def test_gradients_of_something_else(name):
    torch.manual_seed(0)
    problem = INCONSISTENT[name]()
    found = _examined(problem)
    assert (found.point.kind, found.failed) == ("inconsistent", True)
    with pytest.raises(NoHessianError, match="not that of the loss"):
        HessianOperator(problem) @ torch.ones(problem.n_parameters, dtype=D)
    measured = eigs(problem)
    assert (measured.status, measured.negative_certificate.certain) == ("inexact", False)
    assert not any(word in str(measured.findings) for word in ("proven", "certain"))
    if name == "straight through":
        assert ("0", "round") in found.point.rounds
        assert "straight-through" in measured.findings[0].because
        assert set(found.point.parameters) == {"0.linear.weight"}


# --- forward passes that draw, and that write -----------------------------------------------------------------------


class _Draws(nn.Module):
    def __init__(self, generator=None):
        super().__init__()
        self.first, self.second, self.generator = nn.Linear(3, 5), nn.Linear(5, 1), generator

    def forward(self, x):
        h = torch.tanh(self.first(x))
        noise = torch.rand(h.shape, dtype=h.dtype, generator=self.generator)
        return self.second(h * noise)


def test_one_draw_of_torchs_random_numbers():
    torch.manual_seed(0)
    problem = Problem(_Draws().double(), _pairs(), "mse")
    with pytest.warns(PointWarning, match="one draw"):
        H = hessian(problem)
    assert _apart(H, truth(problem)) < 1e-8
    again = Problem(problem.model, problem.data, "mse")
    assert torch.equal(_quietly(hessian, again), H)
    found = eigs(problem)
    assert found.status == "ok"
    assert found.lowest[0].eigenvalue == pytest.approx(float(torch.linalg.eigvalsh(H)[0]), rel=1e-9)
    assert "one draw" in found.findings[0].says
    assert "two passes differ by" in found.findings[0].because


def test_random_numbers_of_another_source_are_named():
    problem = Problem(_Draws(torch.Generator().manual_seed(0)).double(), _pairs(), "mse")
    with pytest.raises(NoHessianError, match=r"forward pass is random.*differ by"):
        HessianOperator(problem) @ torch.ones(problem.n_parameters, dtype=D)
    with pytest.raises(NoHessianError, match="forward pass is random"):
        GaussNewtonOperator(problem) @ torch.ones(problem.n_parameters, dtype=D)


class _Counts(nn.Module):
    """Larger by a little in some of its forward passes, by their number."""

    def __init__(self, little, passes):
        super().__init__()
        self.inner, self.little, self.passes, self.count = _net(3, 4, 1), little, passes, 0

    def forward(self, x):
        self.count += 1
        return self.inner(x) * (1 + self.little * (self.count in self.passes))


@pytest.mark.parametrize("passes", [(1,), range(2, 99), range(2, 99, 2)], ids=["first", "later", "every other"])
@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_passes_that_differ_show_as_well_beside_the_point_as_at_it(passes, dtype):
    """There is one at the point and one on each side of it; another one at it only where those leave a doubt."""
    x, y = torch.linspace(-1, 1, 9, dtype=dtype).view(3, 3), torch.ones(3, 1, dtype=dtype)
    problems = [Problem(_Counts(little, passes).to(dtype), [(x, y)], "mse") for little in (2e-6, 1e-15)]
    before = torch.get_rng_state()
    assert _examined(problems[0]).point.draw == pytest.approx(3e-6, rel=0.5)  # of the loss or of the gradient
    same = _examined(problems[1])
    assert (same.point.kind, same.failed, same.point.draw) == ("smooth", False, 0.0)
    assert torch.equal(torch.get_rng_state(), before)


class _Writes(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.table = nn.Embedding(6, 3, max_norm=0.5 if kind == "max_norm" else None)
        self.head, self.kind = nn.Linear(3, 6, bias=False), kind
        if kind == "max_norm":
            self.head.weight = self.table.weight

    def forward(self, x):
        if self.kind == "clamp":
            self.table.weight.data.clamp_(-0.3, 0.3)
        return self.head(self.table(x).mean(1))


@pytest.mark.parametrize("kind", ["max_norm", "clamp"])
def test_parameters_that_a_forward_pass_rewrites(kind):
    torch.manual_seed(1)
    model = _Writes(kind).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = [(torch.arange(8).view(4, 2) % 6, torch.arange(4))]
    shares = []
    for command in (diag_share, eigs, spectrum, bounds, blocks):
        problem = Problem(model, data, "ce")
        found = command(problem)
        assert found.status == "inexact"
        assert "table.weight" in found.findings[0].says
        assert len(found.findings) == 1, "nothing else is said"
        shares.append(getattr(found, "trace", None))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if kind == "max_norm":
        assert shares[0] == pytest.approx(shares[2], rel=1e-9), "commands agree on what they measured"
    with pytest.raises(NoHessianError, match=r"rewrites parameters, table\.weight"):
        hessian(Problem(model, data, "ce"))
    problem = Problem(model, data, "ce")
    problem.evaluate(data[0])
    assert problem.rewritten == ("table.weight",)
    with pytest.raises(ComputeError):
        Problem(model, data, objective=lambda m, b: m(b[0]).sum() * torch.nan).evaluate(data[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "and after errors"


# --- dtypes, copies, and what it costs ------------------------------------------------------------------------------


class _Cast(nn.Module):
    def __init__(self, inside=None):
        super().__init__()
        self.first, self.second, self.inside = nn.Linear(3, 6), nn.Linear(6, 1), inside

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.second(h if self.inside is None else h.to(self.inside).to(x.dtype))


@pytest.mark.parametrize("inside", [torch.float32, torch.bfloat16])
def test_a_coarse_dtype_inside_is_told_from_errors(inside):
    torch.manual_seed(0)
    found = _examined(Problem(_Cast(inside).double(), _pairs(), "mse"))
    assert found.point.computes_in == str(inside).removeprefix("torch.")
    assert found.point.kind == "smooth"
    assert not found.failed


class _Residual(nn.Module):
    """Language models compute so: small weights, zero biases, norms that make it bend, logits in float32."""

    def __init__(self, width, depth, tokens):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens):
        h = self.embedding(tokens)
        for block in self.blocks:
            h = h + block(h)
        return (self.norm(h) @ self.embedding.weight.T).float()


@pytest.mark.parametrize(("seed", "width", "depth", "tokens"), [(0, 16, 3, 100), (1, 16, 4, 30), (2, 16, 6, 20)])
def test_networks_that_bend_along_the_steps_of_a_coarse_dtype_are_smooth(seed, width, depth, tokens):
    torch.manual_seed(seed)
    data = [(torch.randint(tokens, (8,)), torch.randint(tokens, (8,)))]
    found = _examined(Problem(_Residual(width, depth, tokens).double(), data, "ce"))
    assert found.point.computes_in == "float32"
    assert found.point.kind == "smooth"
    assert not found.failed


class _NormOfZeros(nn.Module):
    """A fresh ViT-MAE is so: tokens and positions of its decoder are zero, and their norm has an eps of 1e-12."""

    def __init__(self, inside):
        super().__init__()
        self.token, self.inside = nn.Parameter(torch.zeros(16)), inside
        self.norm = nn.LayerNorm(16, eps=1e-12)
        self.attention, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        h = self.norm(x * self.token)
        return self.head(h + self.attention(h).to(self.inside).softmax(-1).to(h))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inside", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_a_norm_of_exact_zeros_is_smooth(dtype, inside, seed):
    torch.manual_seed(seed)
    data = [(torch.randn(8, 16).to(dtype), torch.arange(8) % 4)]
    found = _examined(Problem(_NormOfZeros(inside).to(dtype), data, "ce"))
    assert found.point.kind == "smooth"
    assert not found.failed
    assert found.size > 1e9


def test_a_float64_copy_that_cannot_be_used_falls_back_to_the_models_own_dtype():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x):
            return torch.tanh(self.linear(x)) @ torch.ones(4, 1)

    torch.manual_seed(0)
    (x, y), *_ = _pairs()
    found = _examined(Problem(Single(), [(x.float(), y.float())], "mse"))
    assert found.point.kind == "smooth"
    assert found.checks["hvp_finite_difference"] < 1e-2


def test_what_cannot_be_copied_is_said_and_not_failed():
    problem = Problem(_net(3, 4, 1), _pairs(), "mse")
    problem.model.held = (number for number in range(3))
    found = _examined(problem)
    assert (found.point.kind, found.failed) == ("unchecked", False)
    assert "cannot be copied" in found.point.why


def test_an_objective_that_does_not_use_its_argument_is_not_called_wrong():
    net = _net(3, 4, 1)
    problem = Problem(net, _pairs(), objective=lambda m, b: functional.mse_loss(net(b[0]), b[1]))
    found = _examined(problem)
    assert (found.point.kind, found.failed) == ("unchecked", False)
    assert _apart(hessian(problem), hessian(Problem(net, _pairs(), "mse"))) < 1e-12


def test_the_point_is_looked_at_once_and_anew_where_parameters_have_moved(monkeypatch):
    calls = []
    here = differences.Moved.here
    monkeypatch.setattr(differences.Moved, "here", lambda self: calls.append(1) or here(self))
    problem = Problem(_net(3, 4, 1), _pairs(), "mse")
    v = torch.ones(problem.n_parameters, dtype=D)
    HessianOperator(problem) @ v
    assert len(calls) == 3
    HessianOperator(problem) @ v
    hessian(problem)
    eigs(problem)
    assert len(calls) == 3
    with torch.no_grad():
        problem.parameters[0].add_(0.1)
    HessianOperator(problem, check=False) @ v
    assert len(calls) == 3
    HessianOperator(problem) @ v
    assert len(calls) == 6


def test_a_model_at_a_zero_point_that_then_trains_is_not_held_to_it():
    problem = _points()["norm squared"][0]
    operator = HessianOperator(problem)
    v = torch.ones(problem.n_parameters, dtype=D)
    with pytest.warns(PointWarning):
        operator @ v
    with torch.no_grad():
        for parameter in problem.parameters:
            parameter.add_(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PointWarning)
        later = HessianOperator(problem)
        assert _apart(later @ v, truth(problem) @ v) < 1e-8
    assert later.engine.endswith("double backward")


ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU, nn.ELU, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Softplus, nn.SELU]
LOSSES = [
    "ce",
    "mse",
    functional.l1_loss,
    functional.smooth_l1_loss,
    lambda z, t: functional.relu(1 - z * t.sign()).mean(),
    lambda z, t: functional.huber_loss(z, t, delta=0.3),
]


def _generic(index, dtype):
    torch.manual_seed(100 + index)
    act, loss = ACTIVATIONS[index % len(ACTIVATIONS)], LOSSES[index % len(LOSSES)]
    if index % 4 == 3:
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), act(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )
        x = torch.randn(16, 1, 6, 6)
    else:
        width = (8, 24, 60)[index % 3]
        net = nn.Sequential(nn.Linear(6, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 3))
        x = torch.randn(24, 6)
    y = torch.arange(len(x)) % 3 if loss == "ce" else torch.randn(len(x), 3).to(dtype)
    return Problem(net.to(dtype), [(x.to(dtype), y)], loss, train_mode=index % 8 == 7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_generic_networks_raise_no_alarm_and_cost_little(dtype, monkeypatch):
    calls = []
    here = differences.Moved.here
    monkeypatch.setattr(differences.Moved, "here", lambda self: calls.append(1) or here(self))
    counts = []
    for index in range(40):
        calls.clear()
        found = _examined(_generic(index, dtype))
        assert (found.point.kind, found.failed) == ("smooth", False), index
        assert found.point.error < (1e-5 if dtype == D else 1e-4), index
        counts.append(len(calls))
    assert sorted(counts)[20] <= 3
    assert max(counts) <= 18


@pytest.mark.parametrize(("power", "kind"), [(1.5, "no_hessian"), (3.0, "unchecked")])
def test_where_no_step_aside_can_be_taken(power, kind, monkeypatch):
    """Products that are not finite stay refused; those that only disagree (here by half) stay unchecked, with the cause."""

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.abs() ** power

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad * power * x.detach().abs() ** (power / 2 - 0.5) * x.abs() ** (power / 2 - 0.5) * x.sign()

    def fails(*arguments):
        raise RuntimeError("no room")

    model = nn.Linear(4, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.0 if kind == "no_hessian" else 0.7)
    problem = Problem(model, data=[None], objective=lambda model, batch: Half.apply(model.weight).sum())
    monkeypatch.setattr("hessdiag.curvature.point.examine.resolve", fails)
    point = _examined(problem).point
    assert (point.kind, point.why) == (kind, "at a step aside: no room")
    assert (point.error == math.inf) is (kind == "no_hessian")


def test_words_count_rows_and_name_what_hindered():
    nan = [
        words.describe(Point("nan", "differences", parameters=("table.weight",), rows=rows))
        for rows in ((3, 1200), (1, 1))
    ]
    for told, expected in zip(nan, ("(3 of 1,200 rows of table.weight)", "(1 of 1 row of table.weight)"), strict=True):
        assert any(expected in sentence for sentence in (told.says, told.because, told.remedy))
    told = words.describe(Point("unresolved", why="it holds a generator"))
    assert (told.level, told.because) == ("bad", "it holds a generator")
    assert told.remedy.startswith("objective(model, batch)")


def _crowded(dtype, last=None, at_kink=0):
    """A unit whose samples are so close to its kink, on both sides, that no step is without some; and how many at it."""
    draw = _seeded(3)
    apart = 1e-6 * torch.linspace(-1, 1, 40_000, dtype=D)
    apart[:at_kink] = 0.0
    x = torch.stack([apart, draw(len(apart)).abs()], dim=1).to(dtype)
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1), nn.Tanh()).to(dtype)
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0]]))
        net[2].weight.fill_(0.7)
        net[2].bias.fill_(-0.3)
    if last is not None:
        net.append(last)
    return Problem(net, [(x, torch.ones(len(x), 1, dtype=dtype))], "mse")


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_a_point_with_kinks_in_every_step_is_smooth_and_costs_little(dtype, monkeypatch):
    calls = []
    here = differences.Moved.here
    monkeypatch.setattr(differences.Moved, "here", lambda self: calls.append(1) or here(self))
    found = _examined(_crowded(dtype))
    assert (found.point.kind, found.failed) == ("smooth", False)
    assert found.point.error < (1e-5 if dtype == D else 1e-4)
    assert len(calls) <= (18 if dtype == D else 6)  # along two directions; smaller and larger steps took 48 and 50


class _HalfCube(torch.autograd.Function):
    """x^3, whose second derivative by autograd is half of what it is."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x.detach()


class _Cubed(nn.Module):
    def forward(self, x):
        return _HalfCube.apply(x)


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_kinks_in_every_step_excuse_no_wrong_second_derivative(dtype):
    assert _examined(_crowded(dtype, _Cubed())).point.kind not in ("smooth", "unchecked")


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_kinks_in_every_step_hide_none_at_the_point(dtype):
    assert _examined(_crowded(dtype, at_kink=20_000)).point.kind not in ("smooth", "unchecked")
