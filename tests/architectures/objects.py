"""Outputs that are objects, complex, repeated or written to, and losses with their own parameters or settings."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import distributions, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.case import Case, Net, case, classes, cut, normal
from tests.architectures.convolutions import mean_ce
from tests.architectures.feedforward import mlp, of_output
from tests.architectures.outputs import heads


@case
def distribution_as_output():
    """torch's own object: its attributes hold the tensors."""
    x, y = normal(9, 3), normal(9, 2)
    model = heads(lambda a, b: distributions.Normal(a, b.exp()), mean=2, log_scale=2)

    def received(m):
        d = m(x)
        return [d.loc, d.scale]

    value = lambda a, s: (0.5 * ((y - a) / s) ** 2 + s.log()).mean()
    loss = lambda d, t: -d.log_prob(t).mean()
    return Case(model, cut(x, y, 3, 6), loss=loss, weights=[1 / 3, 2 / 3], received=received, value=value)


@case
def categorical_distribution():
    """It normalizes its logits when it is made, which is what the loss receives."""
    x, y = normal(9, 3), classes(3, 9)
    model = heads(lambda a: distributions.Categorical(logits=a), logits=3)
    loss = lambda d, t: -d.log_prob(t).mean() - 0.1 * d.entropy().mean()
    value = lambda z: -z[torch.arange(9), y].mean() + 0.1 * (z.softmax(1) * z).sum(1).mean()
    return Case(
        model, cut(x, y, 4, 5), loss=loss, weights=[4 / 9, 5 / 9], received=lambda m: [m(x).logits], value=value
    )


@case
def model_output_of_transformers():
    from transformers.utils import ModelOutput

    @dataclass
    class Found(ModelOutput):
        loss: Any = None
        logits: Any = None
        hidden: Any = None

    x, y = normal(8, 3), classes(3, 8)
    model = heads(lambda a, b: Found(hidden=b, logits=a), logits=3, hidden=2)
    value = lambda z, h: -z.log_softmax(1)[torch.arange(8), y].mean() + 0.1 * h.square().sum() / 8
    loss = lambda out, t: F.cross_entropy(out.logits, t) + 0.1 * out["hidden"].square().sum() / len(t)
    received = lambda m: [m(x).logits, m(x).hidden]
    return Case(model, cut(x, y, 3, 5), loss=loss, weights=[3 / 8, 5 / 8], received=received, value=value)


@case
def own_class_with_slots():
    class Pair:
        __slots__ = ("left", "right")

        def __init__(self, left, right):
            self.left, self.right = left, right

        def distance(self, target):
            return ((self.left - self.right - target) ** 2 * (1 + self.left**2)).mean()

    x, y = normal(8, 3), normal(8, 2)
    model = heads(Pair, a=2, b=2)
    value = lambda a, b: ((a - b - y) ** 2 * (1 + a**2)).mean()
    received = lambda m: [m(x).left, m(x).right]
    return Case(model, cut(x, y, 3, 5), loss=lambda out, t: out.distance(t), received=received, value=value)


@case
def loss_that_writes_to_the_logits():
    """Masks classes in place."""
    x, y = normal(8, 3), classes(3, 8)
    model = mlp(outputs=4)

    def loss(z, t):
        z[:, 3] = -1e3
        z /= 0.7
        return F.cross_entropy(z, t)

    value = lambda z: F.cross_entropy(z[:, :3] / 0.7, y)
    return Case(model, cut(x, y, 3, 5), loss=loss, weights=[3 / 8, 5 / 8], **of_output(x, value))


@case
def complex_output():
    """A wave's amplitude against a complex target."""
    x, y = normal(7, 3), torch.complex(normal(7, 2), normal(7, 2))
    model = heads(lambda a, b: torch.complex(a, b), real=2, imaginary=2)
    target = torch.view_as_real(y)

    def value(z):
        return (z - target).square().sum(-1).mean() + 0.1 * (1 + z.square().sum(-1)).log().mean()

    def loss(z, t):
        difference = torch.view_as_real(z - t).square().sum(-1)
        return difference.mean() + 0.1 * (1 + torch.view_as_real(z).square().sum(-1)).log().mean()

    received = lambda m: [torch.view_as_real(m(x))]
    return Case(model, cut(x, y, 3, 4), loss=loss, weights=[3 / 7, 4 / 7], received=received, value=value)


@case
def one_tensor_twice():
    x, y = normal(8, 3), normal(8, 2)
    model = heads(lambda a: (a, [a]), a=2)
    value = lambda a, b: (a * b - y).square().mean()
    received = lambda m: [m(x)[0], m(x)[1][0]]
    return Case(
        model,
        cut(x, y, 3, 5),
        loss=lambda out, t: (out[0] * out[1][0] - t).square().mean(),
        received=received,
        value=value,
    )


@case
def packed_output():
    x, lengths, y = normal(3, 3, 2), torch.tensor([3, 2, 1]), normal(3, 3, 2)

    def forward(m, x, lengths):
        return m.rnn(pack_padded_sequence(x, lengths, batch_first=True))[0]

    model = Net(forward, rnn=nn.GRU(2, 2, batch_first=True)).double()
    target = pack_padded_sequence(y, lengths, batch_first=True).data
    loss = lambda out, t: (pad_packed_sequence(out, batch_first=True)[0] - t).masked_select(keep).square().sum() / 6
    keep = (torch.arange(3) < lengths[:, None])[..., None]
    received = lambda m: [m(x, lengths).data]
    return Case(
        model, [((x, lengths), y)], loss=loss, received=received, value=lambda z: (z - target).square().sum() / 6
    )


@case
def criterion_with_weights_of_its_own():
    """Learned task weights are in the loss module, and not among the model's parameters: they are constants."""
    x, y, c = normal(8, 3), normal(8, 2), classes(3, 8)

    class Uncertain(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))

        def forward(self, out, target):
            parts = torch.stack([F.mse_loss(out[0], target[0]), F.cross_entropy(out[1], target[1])])
            return ((-self.log_scale).exp() * parts + self.log_scale).sum()

    model = heads(lambda a, b: (a, b), regression=2, classes=3)
    weights = torch.tensor([-0.3, 0.2], dtype=torch.float64).exp()
    value = lambda a, b: weights[0] * (a - y).square().mean() + weights[1] * F.cross_entropy(b, c) + 0.1
    data = [(x[:3], (y[:3], c[:3])), (x[3:], (y[3:], c[3:]))]
    return Case(model, data, loss=Uncertain(), weights=[3 / 8, 5 / 8], received=lambda m: m(x), value=value)


@case
def functional_losses_of_torch():
    """`F.mse_loss` means over elements, in batches whose samples have different numbers of them."""
    x1, x2, y1, y2 = normal(1, 5, 3), normal(4, 2, 3), normal(1, 5, 2), normal(4, 2, 2)
    value = lambda a, b: ((a - y1).square().sum() + (b - y2).square().sum()) / 26
    received = lambda m: [m(x1), m(x2)]
    return Case(
        mlp(), [(x1, y1), (x2, y2)], loss=F.mse_loss, weights=[10 / 26, 16 / 26], received=received, value=value
    )


@case
def binary_segmentation_by_name():
    """`bce` means over pixels."""
    x1, x2 = normal(1, 1, 4, 4), normal(3, 1, 2, 2)
    y1, y2 = classes(2, 1, 1, 4, 4).double(), classes(2, 3, 1, 2, 2).double()
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 1)).double()
    each = lambda z, y: (F.softplus(z) - y * z).sum()
    value = lambda a, b: (each(a, y1) + each(b, y2)) / 28
    received = lambda m: [m(x1), m(x2)]
    return Case(model, [(x1, y1), (x2, y2)], loss="bce", weights=[16 / 28, 12 / 28], received=received, value=value)


@case
def segmentation_by_name_with_ignored_pixels():
    """`ce` on logits (N, C, h, w): a mean over pixels that are not ignored."""
    x1, x2 = normal(1, 1, 3, 4), normal(3, 1, 2, 2)
    y1, y2 = classes(3, 1, 3, 4), classes(3, 3, 2, 2)
    y1[0, 0], y2[0] = -100, -100
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 3, 1)).double()

    def received(m):
        return [torch.cat([m(x).movedim(1, -1)[y != -100] for x, y in ((x1, y1), (x2, y2))])]

    value = mean_ce(torch.cat([y1[y1 != -100], y2[y2 != -100]]))
    return Case(model, [(x1, y1), (x2, y2)], loss="ce", weights=[0.5, 0.5], received=received, value=value)


@case
def mean_over_samples_of_sums_over_pixels():
    """A user's own reduction: the target's length weighs."""
    x1, x2, y1, y2 = normal(2, 4, 3), normal(3, 2, 3), normal(2, 4, 1), normal(3, 2, 1)
    loss = lambda z, t: (z - t).square().sum((1, 2)).mean()
    value = lambda a, b: ((a - y1).square().sum() + (b - y2).square().sum()) / 5
    received = lambda m: [m(x1), m(x2)]
    return Case(mlp(outputs=1), [(x1, y1), (x2, y2)], loss=loss, weights=[0.4, 0.6], received=received, value=value)
