"""Multilayer perceptrons with every kind of loss and reduction, in batches of unequal size."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.architectures.case import F64, Case, Lambda, Net, case, classes, cut, normal


def mlp(activation=None, inputs=3, hidden=4, outputs=2):
    return nn.Sequential(nn.Linear(inputs, hidden), activation or nn.Tanh(), nn.Linear(hidden, outputs)).double()


def of_output(x, value, **settings):
    """What every case here shares: the loss receives the output of all inputs at once."""
    return {"received": lambda model: [model(x)], "value": value} | settings


@case
def tanh_mse():
    x, y = normal(9, 3), normal(9, 2)
    return Case(
        mlp(), cut(x, y, 2, 7), loss="mse", weights=[2 / 9, 7 / 9], **of_output(x, lambda z: (z - y).square().mean())
    )


@case
def relu_cross_entropy():
    x, y = normal(9, 3), classes(3, 9)
    value = lambda z: (z.logsumexp(1) - z[torch.arange(9), y]).mean()
    model = mlp(nn.ReLU(), outputs=3)
    return Case(
        model, cut(x, y, 4, 5), loss="ce", weights=[4 / 9, 5 / 9], oracle="double backward", **of_output(x, value)
    )


@case
def gelu_huber():
    x, y = normal(8, 3), 2 * normal(8, 2)
    value = lambda z: torch.where((z - y).abs() < 0.7, 0.5 * (z - y) ** 2, 0.7 * ((z - y).abs() - 0.35)).sum()
    loss = nn.HuberLoss(reduction="sum", delta=0.7)
    return Case(
        mlp(nn.GELU()), cut(x, y, 3, 5), loss=loss, weights=[1, 1], oracle="double backward", **of_output(x, value)
    )


@case
def elu_smooth_l1():
    x, y = normal(8, 3), 2 * normal(8, 2)
    value = lambda z: torch.where((z - y).abs() < 1, 0.5 * (z - y) ** 2, (z - y).abs() - 0.5).mean()
    model, loss = mlp(nn.ELU()), nn.SmoothL1Loss()
    return Case(
        model, cut(x, y, 6, 2), loss=loss, weights=[0.75, 0.25], oracle="double backward", **of_output(x, value)
    )


@case
def softplus_poisson():
    x, y = normal(7, 3), torch.poisson(2 * torch.ones(7, 2, dtype=F64))
    loss = lambda z, t: F.poisson_nll_loss(z, t)
    value = lambda z: (z.exp() - y * z).mean()
    return Case(mlp(nn.Softplus()), cut(x, y, 5, 2), loss=loss, weights=[5 / 7, 2 / 7], **of_output(x, value))


@case
def swish_binary_with_pos_weight():
    x, y, p = normal(7, 3), classes(2, 7, 2).double(), torch.tensor([3.0, 0.5], dtype=F64)
    value = lambda z: (p * y * F.softplus(-z) + (1 - y) * F.softplus(z)).mean()
    loss = nn.BCEWithLogitsLoss(pos_weight=p)
    return Case(mlp(nn.SiLU()), cut(x, y, 1, 6), loss=loss, weights=[1 / 7, 6 / 7], **of_output(x, value))


@case
def binary_by_name_one_output():
    x, y = normal(8, 3), classes(2, 8)
    value = lambda z: (F.softplus(z[:, 0]) - y * z[:, 0]).mean()
    return Case(mlp(nn.Mish(), outputs=1), cut(x, y, 3, 5), loss="bce", weights=[3 / 8, 5 / 8], **of_output(x, value))


@case
def weighted_cross_entropy_with_ignored_targets():
    x, y, w = normal(10, 3), classes(4, 10), torch.tensor([0.2, 1.0, 4.0, 0.0], dtype=F64)
    y[3] = y[8] = y[9] = 1
    kept = y != 1
    own = [float(w[part[part != 1]].sum()) for part in y.split([4, 6])]

    def value(z):
        chosen = z.log_softmax(1)[torch.arange(10), y]
        return -(w[y] * chosen)[kept].sum() / w[y[kept]].sum()

    loss = nn.CrossEntropyLoss(weight=w, ignore_index=1)
    weights = [part / sum(own) for part in own]
    return Case(mlp(outputs=4), cut(x, y, 4, 6), loss=loss, weights=weights, **of_output(x, value))


@case
def functional_cross_entropy_with_ignored_targets():
    x, y = normal(10, 3), classes(3, 10)
    y[:5] = torch.tensor([-100, -100, 2, -100, 0])
    kept = y != -100
    value = lambda z: -(z.log_softmax(1)[kept, y[kept]]).mean()
    return Case(mlp(outputs=3), cut(x, y, 5, 5), loss=F.cross_entropy, weights=[2 / 7, 5 / 7], **of_output(x, value))


@case
def label_smoothing():
    x, y = normal(8, 3), classes(3, 8)
    soft = 0.8 * F.one_hot(y, 3).double() + 0.2 / 3
    loss = nn.CrossEntropyLoss(label_smoothing=0.2)
    value = lambda z: -(soft * z.log_softmax(1)).sum(1).mean()
    return Case(mlp(outputs=3), cut(x, y, 2, 6), loss=loss, weights=[0.25, 0.75], **of_output(x, value))


@case
def soft_targets():
    x, y = normal(8, 3), normal(8, 3).softmax(1)
    value = lambda z: -(y * z.log_softmax(1)).sum(1).mean()
    return Case(mlp(outputs=3), cut(x, y, 3, 5), loss="ce", weights=[3 / 8, 5 / 8], **of_output(x, value))


@case
def summed_squares_in_three_batches():
    x, y = normal(9, 3), normal(9, 2)
    loss = nn.MSELoss(reduction="sum")
    return Case(
        mlp(), cut(x, y, 1, 3, 5), loss=loss, weights=[1, 1, 1], **of_output(x, lambda z: (z - y).square().sum())
    )


@case
def sum_that_is_told_by_hand():
    x, y = normal(7, 3), normal(7, 2)
    value = lambda z: (z - y).pow(4).sum() / 4
    loss = lambda z, t: (z - t).pow(4).sum() / 4
    settings = {"reduction": "sum"}
    return Case(mlp(), cut(x, y, 2, 5), loss=loss, weights=[1, 1], settings=settings, **of_output(x, value))


@case
def expectile_at_a_generic_point():
    x, y = normal(8, 3), normal(8, 2)
    loss = lambda z, t: (torch.where(z > t, 0.9, 0.1) * (z - t) ** 2).mean()
    model = mlp()
    return Case(model, cut(x, y, 3, 5), loss=loss, oracle="double backward", **of_output(x, lambda z: loss(z, y)))


@case
def quantile_loss():
    """Piecewise linear: all curvature is that of the network; the Gauss-Newton matrix is zero."""
    x, y = normal(8, 3), normal(8, 2)
    loss = lambda z, t: torch.maximum(0.9 * (t - z), 0.1 * (z - t)).mean()
    return Case(mlp(), [(x, y)], loss=loss, oracle="double backward", **of_output(x, lambda z: loss(z, y)))


@case
def multi_margin_hinge():
    """torch's own has no second derivative: the Hessian comes from differences, and there is no Gauss-Newton matrix."""
    x, y = normal(8, 3), classes(3, 8)

    def value(z):
        margins = (1 - z[torch.arange(8), y][:, None] + z).relu() ** 2
        return (margins.sum(1) - 1).sum() / 8 / 3

    model, loss = mlp(outputs=3), nn.MultiMarginLoss(p=2)
    return Case(
        model, cut(x, y, 5, 3), loss=loss, oracle="double backward", weights=[5 / 8, 3 / 8], value=lambda m: value(m(x))
    )


@case
def focal():
    """Not convex in the logits: G is indefinite."""
    x, y = normal(8, 3), classes(3, 8)

    def focal_loss(z, t):
        p = z.softmax(1)[torch.arange(len(t)), t]
        return (-((1 - p) ** 2) * p.log()).mean()

    return Case(mlp(outputs=3), cut(x, y, 6, 2), loss=focal_loss, **of_output(x, lambda z: focal_loss(z, y)))


@case
def kullback_leibler_of_log_probabilities():
    """Linear in what it receives, so that G = 0; the model's own curvature is all there is."""
    x, y = normal(8, 3), normal(8, 3).softmax(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(1)).double()
    loss = nn.KLDivLoss(reduction="batchmean")
    return Case(model, [(x, y)], loss=loss, **of_output(x, lambda z: (y * (y.log() - z)).sum() / 8))


@case
def functional_nll_of_log_probabilities():
    """Likewise, and the mean is over targets that are not ignored."""
    x, y = normal(9, 3), classes(3, 9)
    y[0] = y[1] = -100
    kept = y != -100
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(1)).double()
    value = lambda z: -z[kept, y[kept]].mean()
    return Case(model, cut(x, y, 3, 6), loss=F.nll_loss, weights=[1 / 7, 6 / 7], **of_output(x, value))


@case
def nll_by_name_is_measured_in_logits():
    """Log-probabilities are logits: the G of the name `nll` is that of cross-entropy."""
    x, y = normal(9, 3), classes(3, 9)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.LogSoftmax(1)).double()
    value = lambda z: (z.logsumexp(1) - z[torch.arange(9), y]).mean()
    return Case(model, cut(x, y, 3, 6), loss="nll", weights=[3 / 9, 6 / 9], **of_output(x, value))


@case
def own_function_named_ce():
    """A user's own cross-entropy with a temperature and a confidence penalty."""
    x, y = normal(8, 3), classes(3, 8)

    def ce(output, target):
        p = (output / 0.5).log_softmax(1)
        return -p[torch.arange(len(target)), target].mean() + 0.1 * (p.exp() * p).sum(1).mean()

    return Case(mlp(outputs=3), cut(x, y, 3, 5), loss=ce, weights=[3 / 8, 5 / 8], **of_output(x, lambda z: ce(z, y)))


@case
def own_function_named_mse():
    x, y = normal(8, 3), normal(8, 2)

    def mse(output, target):
        return (output - target).square().sum(1).mean() / 2

    return Case(mlp(), cut(x, y, 3, 5), loss=mse, **of_output(x, lambda z: (z - y).square().sum() / 16))


@case
def own_function_named_bce():
    """Takes probabilities, not logits."""
    x, y = normal(8, 3), classes(2, 8, 1).double()
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid()).double()

    def bce(output, target):
        return F.binary_cross_entropy(output, target)

    value = lambda p: -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    return Case(model, cut(x, y, 2, 6), loss=bce, weights=[0.25, 0.75], **of_output(x, value))


@case
def own_function_named_nll_on_two_outputs():
    """The mean and the log scale of a Laplace distribution, made smooth."""
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: (m.mean(torch.tanh(m.body(x))), m.scale(torch.tanh(m.body(x)))),
        body=nn.Linear(3, 4),
        mean=nn.Linear(4, 2),
        scale=nn.Linear(4, 2),
    ).double()

    def nll(output, target):
        mean, scale = output
        return ((1 + ((target - mean) * (-scale).exp()) ** 2).sqrt() + scale).mean()

    return Case(
        model,
        cut(x, y, 3, 5),
        loss=nll,
        weights=[3 / 8, 5 / 8],
        received=lambda m: m(x),
        value=lambda a, b: nll((a, b), y),
    )


@case
def frozen_unused_and_scalar_parameters():
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: m.scale * m.head(torch.tanh(m.frozen(x))) + m.shift,
        scale=normal(1)[0],
        unused=normal(3),
        frozen=nn.Linear(3, 4),
        head=nn.Linear(4, 2),
        shift=normal(2),
    ).double()
    model.frozen.weight.requires_grad_(False)
    return Case(model, cut(x, y, 3, 5), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def tied_weights():
    """One matrix twice, once transposed: it counts once."""
    x = normal(8, 3)
    model = Net(
        lambda m, x: F.linear(torch.tanh(m.encode(x)), m.encode.weight.T, m.bias),
        encode=nn.Linear(3, 5),
        bias=normal(3),
    ).double()
    model.again = model.encode
    return Case(model, cut(x, x, 6, 2), loss="mse", **of_output(x, lambda z: (z - x).square().mean()))


@case
def two_dtypes():
    """A float32 part inside: the answer is as good as float32."""
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: m.head(torch.tanh(m.body(x.float())).double()), body=nn.Linear(3, 4), head=nn.Linear(4, 2).double()
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
def gated_linear_units_with_rms_norm():
    x, y = normal(7, 4), classes(3, 7)
    model = nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.RMSNorm(3), nn.Linear(3, 3), Lambda(torch.sin)).double()
    value = lambda z: (z.logsumexp(1) - z[torch.arange(7), y]).mean()
    return Case(
        model,
        cut(x, y, 3, 4),
        loss=nn.CrossEntropyLoss(),
        weights=[3 / 7, 4 / 7],
        tolerance=1e-8,
        **of_output(x, value),
    )


@case
def elements_weigh_in_a_squared_error():
    """Batches whose samples have different numbers of outputs: a mean is over elements."""
    x1, x2, y1, y2 = normal(2, 6, 3), normal(5, 2, 3), normal(2, 6, 1), normal(5, 2, 1)
    value = lambda a, b: ((a - y1).square().sum() + (b - y2).square().sum()) / 22
    received = lambda m: [m(x1), m(x2)]
    return Case(
        mlp(outputs=1), [(x1, y1), (x2, y2)], loss="mse", weights=[12 / 22, 10 / 22], received=received, value=value
    )
