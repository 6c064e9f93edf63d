"""Models that return several tensors, in every container, and losses that look at all of them."""

from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.architectures.case import Case, Net, case, classes, cut, normal

Gaussian = namedtuple("Gaussian", "mean log_variance")


@dataclass
class Mixture:
    """A plain dataclass, as users write them."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor


def heads(pack, **sizes):
    """A tanh layer with one linear head per name; `pack` makes the output of the heads' values."""
    parts = {name: nn.Linear(4, size) for name, size in sizes.items()}

    def forward(m, x):
        h = torch.tanh(m.body(x))
        return pack(*(getattr(m, name)(h) for name in sizes))

    return Net(forward, body=nn.Linear(3, 4), **parts).double()


def gaussian_nll(mean, log_variance, target):
    return 0.5 * ((target - mean) ** 2 * (-log_variance).exp() + log_variance).mean()


@case
def heteroscedastic_named_tuple():
    x, y = normal(9, 3), normal(9, 2)
    model = heads(Gaussian, mean=2, log_variance=2)
    loss = lambda out, t: gaussian_nll(out.mean, out.log_variance, t)
    received = lambda m: list(m(x))
    return Case(model, cut(x, y, 2, 7), loss=loss, received=received, value=lambda a, b: gaussian_nll(a, b, y))


@case
def heteroscedastic_by_torchs_function():
    x, y = normal(9, 3), normal(9, 2)
    model = heads(lambda a, b: [a, F.softplus(b) + 0.1], mean=2, variance=2)
    loss = lambda out, t: F.gaussian_nll_loss(out[0], t, out[1])
    value = lambda a, v: 0.5 * (v.log() + (a - y) ** 2 / v).mean()
    return Case(model, cut(x, y, 4, 5), loss=loss, received=lambda m: m(x), value=value)


@case
def mixture_density_in_a_dataclass():
    x, y = normal(9, 3), normal(9)
    model = heads(Mixture, logits=2, means=2, log_scales=2)

    def density(logits, means, log_scales, t):
        each = -0.5 * ((t[:, None] - means) * (-log_scales).exp()) ** 2 - log_scales
        return -(logits.log_softmax(1) + each).logsumexp(1).mean()

    loss = lambda out, t: density(out.logits, out.means, out.log_scales, t)
    received = lambda m: list(vars(m(x)).values())
    return Case(
        model, cut(x, y, 3, 6), loss=loss, weights=[1 / 3, 2 / 3], received=received, value=lambda *z: density(*z, y)
    )


@case
def multi_task_dictionary():
    x, y, c = normal(9, 3), normal(9, 2), classes(3, 9)
    model = heads(lambda a, b: {"regression": a, "classes": b}, regression=2, classes=3)

    def loss(out, target):
        return F.mse_loss(out["regression"], target["value"]) + 0.3 * F.cross_entropy(out["classes"], target["label"])

    data = [(x[s], {"value": y[s], "label": c[s]}) for s in (slice(0, 4), slice(4, 9))]
    received = lambda m: list(m(x).values())
    value = lambda a, b: (a - y).square().mean() - 0.3 * b.log_softmax(1)[torch.arange(9), c].mean()
    return Case(model, data, loss=loss, weights=[4 / 9, 5 / 9], received=received, value=value)


@case
def deep_supervision_in_a_nest():
    """Lists in tuples in a mapping, with entries that are no float tensors."""
    x, y = normal(8, 3), normal(8, 2)
    model = heads(
        lambda a, b, c: {"main": a, "aux": ([b, None], (c, {"step": 3, "index": torch.arange(2)}))}, a=2, b=2, c=2
    )

    def loss(out, t):
        (b, _), (c, extra) = out["aux"]
        return (
            (out["main"] - t).square().mean()
            + 0.3 * torch.cosh(b - t).mean()
            + 0.1 * (b * c).sum(extra["index"].numel() - 1).square().mean()
        )

    def received(m):
        out = m(x)
        return [out["main"], out["aux"][0][0], out["aux"][1][0]]

    value = lambda a, b, c: (
        (a - y).square().mean() + 0.3 * torch.cosh(b - y).mean() + 0.1 * (b * c).sum(1).square().mean()
    )
    return Case(model, cut(x, y, 3, 5), loss=loss, received=received, value=value)


@case
def named_loss_takes_the_logits_of_a_mapping():
    x, y = normal(8, 3), classes(3, 8)
    model = heads(lambda a, b: {"features": b, "logits": a}, a=3, b=2)
    value = lambda z: F.cross_entropy(z, y)
    return Case(
        model, cut(x, y, 3, 5), loss="ce", weights=[3 / 8, 5 / 8], received=lambda m: [m(x)["logits"]], value=value
    )


@case
def named_loss_takes_the_first_of_a_tuple():
    x, y = normal(8, 3), normal(8, 2)
    model = heads(lambda a, b: (a, b), a=2, b=2)
    return Case(
        model, cut(x, y, 3, 5), loss="mse", received=lambda m: [m(x)[0]], value=lambda z: (z - y).square().mean()
    )


@case
def criterion_module_with_an_auxiliary_loss():
    """The user's own module as a loss; a load-balancing term of a mixture of experts beside the prediction."""
    x, y = normal(8, 3), normal(8, 2)

    def forward(m, x):
        gates = m.gate(x).softmax(1)
        each = torch.stack([torch.tanh(m.first(x)), torch.sin(m.second(x))], 2)
        return (each * gates[:, None]).sum(2), gates.mean(0)

    model = Net(forward, gate=nn.Linear(3, 2), first=nn.Linear(3, 2), second=nn.Linear(3, 2)).double()

    class Balanced(nn.Module):
        def forward(self, out, target):
            return (out[0] - target).square().mean() + 0.5 * out[1].square().sum()

    return Case(
        model,
        [(x, y)],
        loss=Balanced(),
        received=lambda m: m(x),
        value=lambda z, g: (z - y).square().mean() + 0.5 * g.square().sum(),
    )


@case
def output_beside_what_it_was_made_of():
    """Features and logits: one output is a function of the other, and the loss looks at both."""
    x, y = normal(8, 3), classes(3, 8)

    def forward(m, x):
        h = torch.tanh(m.body(x))
        return h, m.head(h)

    model = Net(forward, body=nn.Linear(3, 4), head=nn.Linear(4, 3)).double()
    value = lambda h, z, t=y: F.cross_entropy(z, t) + 0.2 * (h.T @ h / len(h) - torch.eye(4)).square().sum()
    return Case(model, [(x, y)], loss=lambda out, t: value(*out, t), received=lambda m: m(x), value=value)


@case
def output_that_is_a_parameter():
    """The model hands its weights to the loss, for a penalty."""
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: (m.head(torch.tanh(m.body(x))), m.head.weight), body=nn.Linear(3, 4), head=nn.Linear(4, 2)
    ).double()
    value = lambda z, w, t=y: (z - t).square().mean() + 0.05 * w.square().sum() + 0.1 * (w @ w.T).square().sum()
    return Case(model, [(x, y)], loss=lambda out, t: value(*out, t), received=lambda m: m(x), value=value)


@case
def autoencoder_with_a_latent_penalty():
    x = normal(8, 4)

    def forward(m, x):
        z = m.encode(x)
        return m.decode(torch.tanh(z)), z

    model = Net(forward, encode=nn.Linear(4, 2), decode=nn.Linear(2, 4)).double()
    value = lambda r, z, t=x: (r - t).square().sum(1).mean() + 0.1 * z.pow(4).sum(1).mean()
    return Case(
        model,
        cut(x, x, 3, 5),
        loss=lambda out, t: value(*out, t),
        weights=[3 / 8, 5 / 8],
        received=lambda m: m(x),
        value=value,
    )


@case
def variational_autoencoder_with_given_noise():
    """Noise is an input, so that the function is fixed; three outputs."""
    x, e = normal(8, 4), normal(8, 2)

    def forward(m, x, noise):
        mean, log_variance = m.encode(x).chunk(2, 1)
        return m.decode(torch.tanh(mean + noise * (log_variance / 2).exp())), mean, log_variance

    model = Net(forward, encode=nn.Linear(4, 4), decode=nn.Linear(2, 4)).double()

    def elbo(out, t):
        r, mean, log_variance = out
        return (r - t).square().sum(1).mean() + 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()

    data = [((x[:2], e[:2]), x[:2]), ((x[2:], e[2:]), x[2:])]
    return Case(model, data, loss=elbo, weights=[0.25, 0.75], received=lambda m: m(x, e), value=lambda *z: elbo(z, x))


@case
def normalizing_flow():
    """Two affine couplings; the loss receives the latent point and the log-determinant."""
    x = normal(9, 2)

    def forward(m, x):
        a, b = x.chunk(2, 1)
        s, t = m.first(a).tanh().chunk(2, 1)
        b = b * s.exp() + t
        u, v = m.second(b).tanh().chunk(2, 1)
        return torch.cat([a * u.exp() + v, b], 1), (s + u).sum(1)

    model = Net(forward, first=nn.Linear(1, 2), second=nn.Linear(1, 2)).double()
    value = lambda z, d: (0.5 * z.square().sum(1) - d).mean()
    return Case(
        model,
        cut(x, torch.zeros(9), 4, 5),
        loss=lambda out, t: value(*out),
        weights=[4 / 9, 5 / 9],
        received=lambda m: m(x),
        value=value,
    )


@case
def siamese_cosine_similarity():
    """Not convex in the two embeddings."""
    a, b, y = normal(8, 3), normal(8, 3), 2.0 * classes(2, 8) - 1
    model = Net(
        lambda m, a, b: (m.body(a), m.body(b)), body=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    ).double()
    loss = lambda out, t: F.cosine_embedding_loss(*out, t, margin=-2.0)

    def value(u, v):
        cosine = (u * v).sum(1) / u.norm(dim=1) / v.norm(dim=1)
        return torch.where(y > 0, 1 - cosine, cosine + 2).mean()

    data = [((a[:3], b[:3]), y[:3]), ((a[3:], b[3:]), y[3:])]
    return Case(model, data, loss=loss, weights=[3 / 8, 5 / 8], tolerance=1e-8, received=lambda m: m(a, b), value=value)


@case
def triplets():
    a, p, n = normal(7, 3), normal(7, 3), normal(7, 3)
    body = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model = Net(lambda m, *xs: [m.body(x) for x in xs], body=body).double()
    value = lambda u, v, w: F.softplus((u - v).square().sum(1) - (u - w).square().sum(1)).mean()
    data = [((a[:2], p[:2], n[:2]), torch.zeros(2)), ((a[2:], p[2:], n[2:]), torch.zeros(5))]
    return Case(
        model, data, loss=lambda out, t: value(*out), weights=[2 / 7, 5 / 7], received=lambda m: m(a, p, n), value=value
    )


@case
def contrastive_within_a_batch():
    """InfoNCE: samples of a batch meet one another, so that batches cannot be joined; their mean is over samples."""
    a, b = normal(7, 3), normal(7, 3)
    model = Net(
        lambda m, a, b: (m.left(a).tanh(), m.right(b).tanh()), left=nn.Linear(3, 3), right=nn.Linear(3, 3)
    ).double()

    def loss(out, t):
        u, v = (F.normalize(part, dim=1) for part in out)
        return F.cross_entropy(u @ v.T / 0.5, t)

    data = [((a[:3], b[:3]), torch.arange(3)), ((a[3:], b[3:]), torch.arange(4))]
    value = lambda u, v: (3 * loss((u[:3], v[:3]), torch.arange(3)) + 4 * loss((u[3:], v[3:]), torch.arange(4))) / 7
    return Case(model, data, loss=loss, weights=[3 / 7, 4 / 7], tolerance=1e-8, received=lambda m: m(a, b), value=value)


@case
def loss_that_reads_one_of_three():
    """Only the middle output counts; the others must not matter."""
    x, y = normal(8, 3), normal(8, 2)
    model = heads(lambda a, b, c: (a, b, c), a=2, b=2, c=1)
    return Case(
        model,
        cut(x, y, 2, 6),
        loss=lambda out, t: F.l1_loss(out[1].exp(), t.abs() + 9),
        weights=[0.25, 0.75],
        received=lambda m: [m(x)[1]],
        value=lambda z: (9 + y.abs() - z.exp()).mean(),
    )
