"""Points and forward passes at which autograd's second derivative is not the answer, or there is no answer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.architectures.case import F64, Case, Lambda, Net, case, classes, cut, normal
from tests.architectures.convolutions import mean_ce
from tests.architectures.feedforward import mlp, of_output

Answer = Literal["differences", "kink", "none"]


@dataclass(frozen=True)
class Point:
    """What is promised of a case.

    Attributes:
        answer: "differences" (the smooth function's Hessian, by the declared difference engine), "kink" (that of one
            piece, with a warning), or "none" (status inexact, and nothing is proven).
        words: One of these is in what the findings say, in small letters: the cause.
    """

    answer: Answer
    words: tuple[str, ...]


POINTS: dict[str, Point] = {}


def point(answer: Answer, *words: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Add a case with what is promised of it."""

    def add(build: Callable[[], Case]) -> Callable[[], Case]:
        POINTS[build.__name__] = Point(answer, words)
        return case(build)

    return add


def with_penalty(model, penalty, outputs=3):
    """Cross-entropy and a penalty on the parameters."""
    x, y = normal(8, 3), classes(outputs, 8)

    def objective(m, batch):
        return F.cross_entropy(m(batch[0]), batch[1]) + penalty(m)

    return Case(model, cut(x, y, 3, 5), objective=objective, tolerance=1e-7, value=lambda m: objective(m, (x, y)))


def zeroed(model, *names):
    for name in names:
        nn.init.zeros_(model.get_parameter(name))
    return model


# --- smooth, and autograd is wrong or NaN ---------------------------------------------------------------------------------


@point("differences", "0.bias")
def absolute_squares_of_zero_biases():
    return with_penalty(
        zeroed(mlp(outputs=3), "0.bias", "2.bias"), lambda m: 0.3 * sum((p.abs() ** 2).sum() for p in m.parameters())
    )


@point("differences", "b")
def squared_norm_of_a_zero_adapter():
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: m.head(torch.tanh(x + x @ m.A.T @ m.B.T)),
        A=normal(2, 3),
        B=torch.zeros(3, 2),
        head=nn.Linear(3, 2),
    ).double()
    value = lambda m, x=x, y=y: (m(x) - y).square().mean() + 0.2 * torch.linalg.matrix_norm(m.B) ** 2
    return Case(model, cut(x, y, 3, 5), objective=lambda m, b: value(m, *b), tolerance=1e-7, value=value)


@point("differences", "1.weight")
def variance_of_equal_gains():
    """A penalty on the variance of gains that all start at one, written as the square of a deviation."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3)).double()
    built = with_penalty(model, lambda m: 2 * m[1].weight.std() ** 2)
    return Case(**{**vars(built), "tolerance": 1e-6})


@point("differences", "filter")
def power_spectrum_of_a_zero_filter():
    model = Net(lambda m, x: m.head(torch.tanh(x + m.filter)), filter=torch.zeros(3), head=nn.Linear(3, 3)).double()
    return with_penalty(model, lambda m: torch.fft.rfft(m.filter).abs().square().sum())


@point("differences", "differentiated twice", "centres")
def radial_basis_by_pairwise_distances():
    x, y = normal(7, 2), normal(7, 1)
    model = Net(
        lambda m, x: m.head((-(torch.cdist(x, m.centres) ** 2)).exp()), centres=x[2:5].clone(), head=nn.Linear(3, 1)
    ).double()
    return Case(model, [(x, y)], loss="mse", tolerance=1e-6, **of_output(x, lambda z: (z - y).square().mean()))


@point("differences", "frequency")
def cardinal_sine_at_zero():
    x, y = normal(7, 2), normal(7, 1)
    model = Net(
        lambda m, x: m.head(torch.sinc(x @ m.frequency)), frequency=torch.zeros(2, 3), head=nn.Linear(3, 1)
    ).double()
    return Case(model, [(x, y)], loss="mse", tolerance=1e-6, **of_output(x, lambda z: (z - y).square().mean()))


class _Cube(torch.autograd.Function):
    """Right gradient; the second derivative is wrong, as what is saved is no input."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 3 * x.detach() ** 2
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g * ctx.slope


@point("differences", "autograd", "second derivative")
def function_that_saves_an_intermediate():
    x, y = normal(8, 3), normal(8, 2)
    model = mlp(Lambda(_Cube.apply))
    return Case(
        model, cut(x, y, 3, 5), loss="mse", tolerance=1e-7, received=None, value=lambda m: (m(x) - y).square().mean()
    )


# --- kinks ------------------------------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))


@point("kink", "kink")
def residual_network_with_zero_last_gains():
    x, y = normal(4, 1, 5, 5), classes(2, 4)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), _Residual(2), nn.Flatten(), nn.Linear(18, 2)).double()
    return Case(model, cut(x, y, 1, 3), loss="ce", oracle="double backward", **of_output(x, mean_ce(y)))


@point("kink", "kink")
def dark_borders_and_zero_biases():
    x, y = normal(4, 1, 6, 6), classes(2, 4)
    x[:, :, :3] = 0
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).double()
    zeroed(model, "0.bias")
    return Case(model, cut(x, y, 1, 3), loss="ce", oracle="double backward", **of_output(x, mean_ce(y)))


@point("kink", "kink")
def leaky_units_of_blank_samples():
    x, y = normal(8, 3), normal(8, 2)
    x[2] = x[5] = 0
    model = zeroed(mlp(nn.LeakyReLU(0.2)), "0.bias")
    return Case(
        model, cut(x, y, 3, 5), loss="mse", oracle="double backward", **of_output(x, lambda z: (z - y).square().mean())
    )


@point("kink", "kink")
def absolute_penalty_of_zero_biases():
    """The gradient jumps, the curvature is the same on all sides."""
    built = with_penalty(
        zeroed(mlp(outputs=3), "0.bias", "2.bias"), lambda m: 0.1 * sum(p.abs().sum() for p in m.parameters())
    )
    return Case(**{**vars(built), "oracle": "double backward"})


# --- no Hessian here ----------------------------------------------------------------------------------------------------------


@point("none", "side")
def square_with_a_sign_of_zero_outputs():
    """x |x| has curvature 2 on one side and -2 on the other."""
    x, y = normal(8, 3), torch.zeros(8, 2, dtype=F64)
    loss = lambda z, t: ((z - t) * (z - t).abs()).mean() + (z - t).mean()
    return Case(zeroed(mlp(), "2.weight", "2.bias"), [(x, y)], loss=loss, value=lambda m: loss(m(x), y))


@point("none", "side")
def one_sided_square_of_a_zero_head():
    x, y = normal(8, 3), 2.0 * classes(2, 8, 1) - 1
    loss = lambda z, t: torch.relu(-t * z).square().mean()
    return Case(
        zeroed(mlp(outputs=1), "2.weight", "2.bias"), [(x, y.double())], loss=loss, value=lambda m: loss(m(x), y)
    )


@point("none", "shift", "kink", "not finite", "nan")
def norm_at_zero():
    """A cone: no derivative of any order."""
    model = Net(lambda m, x: m.head(x) + m.shift, head=nn.Linear(3, 3), shift=torch.zeros(3)).double()
    return with_penalty(model, lambda m: m.shift.norm())


# --- forward passes that are no function of the parameters -----------------------------------------------------------------------


@point("none", "random")
def noise_of_an_own_generator():
    x, y = normal(8, 3), normal(8, 2)
    generator = torch.Generator().manual_seed(3)
    model = mlp(
        Lambda(lambda h: torch.tanh(h) + 0.3 * torch.from_numpy(torch.randn(h.shape, generator=generator).numpy()))
    )
    return Case(model, [(x, y)], loss="mse", value=lambda m: (m(x) - y).square().mean())


@point("none", "two", "random", "differ")
def calls_are_counted_outside_of_buffers():
    x, y = normal(8, 3), normal(8, 2)

    def forward(m, x):
        m.calls += 1
        return m.body(x) * (1 + 0.1 * m.calls)

    model = Net(forward, body=mlp())
    model.calls = 0
    return Case(model, [(x, y)], loss="mse", value=lambda m: (m(x) - y).square().mean())


@point("none", "w")
def weights_that_are_clipped_in_the_forward_pass():
    x, y = normal(8, 3), normal(8, 2)

    def forward(m, x):
        with torch.no_grad():
            m.w.clamp_(-0.5, 0.5)
        return m.head(torch.tanh(x @ m.w))

    model = Net(forward, w=normal(3, 4), head=nn.Linear(4, 2)).double()
    return Case(model, [(x, y)], loss="mse", value=lambda m: (m(x) - y).square().mean())


@point("none", "straight-through", "detach")
def binary_units_with_a_straight_through_gradient():
    x, y = normal(8, 3), normal(8, 2)
    model = mlp(Lambda(lambda h: torch.tanh(h) + (torch.sign(h) - torch.tanh(h)).detach()))
    return Case(model, [(x, y)], loss="mse", value=lambda m: (m(x) - y).square().mean())


@point("none", "detach")
def bootstrapped_targets():
    """Temporal differences: the target is the network's own, cut from the graph."""
    x, after, r = normal(8, 3), normal(8, 3), normal(8, 1)
    model = mlp(outputs=1)

    def objective(m, batch):
        return (m(batch[0]) - batch[2] - 0.9 * m(batch[1]).detach()).square().mean()

    return Case(model, [(x, after, r)], objective=objective, value=lambda m: objective(m, (x, after, r)))


@point("none", "gradient")
def table_that_scales_its_gradient():
    """By torch's own option: rows that occur often learn slowly, and the gradient is not that of the loss."""
    ids, y = torch.tensor([1, 1, 1, 2, 2, 3, 3, 3]), classes(3, 8)
    model = nn.Sequential(nn.Embedding(5, 2, scale_grad_by_freq=True), nn.Tanh(), nn.Linear(2, 3)).double()
    return Case(model, [(ids, y)], loss="ce", value=lambda m: F.cross_entropy(m(ids), y))


# --- what may not be an error ---------------------------------------------------------------------------------------------------------


@case
def dropout_that_is_always_on():
    """torch's own random numbers: one draw can be held."""
    x, y = normal(8, 3), normal(8, 2)
    model = mlp(Lambda(lambda h: F.dropout(torch.tanh(h), 0.5, training=True)))
    return Case(model, [(x, y)], loss="mse", value=lambda m: (m(x) - y).square().mean())


@case
def constants_of_float32_inside():
    """Cannot be evaluated in float64: checked in its own dtype."""
    x, y = normal(8, 3).float(), normal(8, 2).float()
    table = torch.linspace(0, 1, 12, dtype=torch.float32).view(3, 4)
    model = Net(
        lambda m, x: m.head(torch.tanh(torch.mm(x.float(), table) + m.body(x))),
        body=nn.Linear(3, 4),
        head=nn.Linear(4, 2),
    )
    return Case(
        model,
        [(x, y)],
        loss="mse",
        oracle="double backward",
        tolerance=1e-5,
        **of_output(x, lambda z: (z - y).square().mean()),
    )


@case
def mixed_precision_inside():
    x, y = normal(8, 3).float(), normal(8, 2).float()

    def forward(m, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.body(x).float()

    model = Net(forward, body=mlp().float())
    return Case(
        model,
        [(x, y)],
        loss="mse",
        oracle="double backward",
        tolerance=3e-2,
        **of_output(x, lambda z: (z - y).square().mean()),
    )


@case
def model_that_holds_a_lock():
    """It cannot be copied."""
    x, y = normal(8, 3), normal(8, 2)
    model = mlp()
    model.lock = threading.Lock()
    return Case(model, cut(x, y, 3, 5), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))
