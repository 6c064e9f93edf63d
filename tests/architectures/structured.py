"""Graphs, sets, solvers, derivatives inside the loss, experts, adapters, checkpoints."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.architectures.case import F64, Case, Lambda, Net, case, classes, cut, normal
from tests.architectures.convolutions import mean_ce
from tests.architectures.feedforward import mlp, of_output


def _graph(m, edges, x):
    h = torch.tanh(m.message(x))
    into = torch.zeros_like(h).index_add(0, edges[1], h[edges[0]])
    return m.head(torch.sin(into + m.own(x)))


@case
def graph_with_edges_first():
    """Edges (2, E), then nodes; some nodes have no label. A sample is a labelled node."""
    edges1, edges2, x1, x2 = classes(5, 2, 9), classes(4, 2, 7), normal(5, 2), normal(4, 2)
    y1, y2 = classes(3, 5), classes(3, 4)
    y1[:3], y2[0] = -100, -100
    parts = {"message": nn.Linear(2, 3), "own": nn.Linear(2, 3, bias=False), "head": nn.Linear(3, 3)}
    model = Net(_graph, **parts).double()
    received = lambda m: [torch.cat([m(edges1, x1)[3:], m(edges2, x2)[1:]])]
    data = [((edges1, x1), y1), ((edges2, x2), y2)]
    return Case(
        model, data, loss="ce", weights=[0.4, 0.6], received=received, value=mean_ce(torch.cat([y1[3:], y2[1:]]))
    )


@case
def graph_regression_as_a_mapping():
    edges, x, y = classes(6, 2, 12), normal(6, 2), normal(6, 1)
    parts = {"message": nn.Linear(2, 3), "own": nn.Linear(2, 3, bias=False), "head": nn.Linear(3, 1)}
    model = Net(_graph, **parts).double()
    data = [{"edges": edges, "x": x, "y": y}]
    return Case(model, data, loss="mse", received=lambda m: [m(edges, x)], value=lambda z: (z - y).square().mean())


@case
def deep_sets():
    x, y = normal(6, 5, 2), normal(6, 2)
    model = nn.Sequential(
        nn.Linear(2, 4), nn.Tanh(), Lambda(lambda h: h.mean(1) + h.logsumexp(1)), nn.Linear(4, 2)
    ).double()
    return Case(model, cut(x, y, 2, 4), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def physics_informed():
    """u'' + u = 0 with u(0) = 1: the loss holds second derivatives in the input."""
    t = torch.linspace(0, 2, 6, dtype=F64)[:, None]
    model = mlp(inputs=1, hidden=5, outputs=1)

    def residual(m, t):
        t = t.clone().requires_grad_()
        u = m(t)
        slope = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        return torch.autograd.grad(slope.sum(), t, create_graph=True)[0] + u

    def objective(m, batch):
        return residual(m, batch).square().mean() + (m(torch.zeros(1, 1, dtype=F64)) - 1).square().sum()

    return Case(model, [t[:2], t[2:]], objective=objective, weights=[1 / 3, 2 / 3], value=lambda m: objective(m, t))


@case
def forces_from_an_energy():
    """The forward pass differentiates: forces are minus the gradient of an energy."""
    x, y = normal(6, 2), normal(6, 2)

    def forward(m, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return -torch.autograd.grad(m.energy(x).sum(), x, create_graph=True)[0]

    model = Net(forward, energy=mlp(inputs=2, outputs=1)).double()
    return Case(model, cut(x, y, 2, 4), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def neural_differential_equation():
    """Four steps of Runge-Kutta."""
    x, y = normal(5, 2), normal(5, 2)

    def forward(m, x):
        for _ in range(4):
            a = m.field(x)
            b = m.field(x + 0.125 * a)
            c = m.field(x + 0.125 * b)
            d = m.field(x + 0.25 * c)
            x = x + 0.25 / 6 * (a + 2 * b + 2 * c + d)
        return x

    model = Net(forward, field=mlp(inputs=2)).double()
    return Case(model, cut(x, y, 2, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def deep_equilibrium():
    """A fixed point by 50 iterations of a contraction, differentiated through."""
    x, y = normal(5, 2), normal(5, 1)

    def forward(m, x):
        z = torch.zeros(len(x), 3, dtype=x.dtype)
        for _ in range(50):
            z = torch.tanh(m.loop(z) + m.into(x))
        return m.head(z)

    model = Net(forward, loop=nn.Linear(3, 3, bias=False), into=nn.Linear(2, 3), head=nn.Linear(3, 1)).double()
    model.loop.weight.data *= 0.7 / torch.linalg.matrix_norm(model.loop.weight.data, 2)
    return Case(model, cut(x, y, 2, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def hypernetwork_with_film():
    """A condition makes the weights of another layer, and scales and shifts its features."""
    x, c, y = normal(6, 2), normal(6, 2), normal(6, 1)

    def forward(m, x, c):
        w = m.hyper(c).view(-1, 3, 2)
        scale, shift = m.film(c).chunk(2, 1)
        return m.head(torch.tanh((w @ x[:, :, None])[:, :, 0] * (1 + scale) + shift))

    model = Net(forward, hyper=nn.Linear(2, 6), film=nn.Linear(2, 6), head=nn.Linear(3, 1)).double()
    data = [((x[:2], c[:2]), y[:2]), ((x[2:], c[2:]), y[2:])]
    return Case(model, data, loss="mse", received=lambda m: [m(x, c)], value=lambda z: (z - y).square().mean())


@case
def mixture_of_experts():
    x, y = normal(7, 2), classes(3, 7)

    def forward(m, x):
        each = torch.stack([expert(x) for expert in m.experts], 2)
        return (each * m.gate(x).softmax(1)[:, None]).sum(2)

    experts = nn.ModuleList([nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)) for _ in range(2)])
    model = Net(forward, gate=nn.Linear(2, 2), experts=experts).double()
    return Case(model, cut(x, y, 3, 4), loss="ce", weights=[3 / 7, 4 / 7], **of_output(x, mean_ce(y)))


@case
def low_rank_adapter_at_its_start():
    """Frozen base, B = 0: half of the diagonal vanishes, and the point is smooth."""
    x, y = normal(8, 3), classes(3, 8)
    model = Net(
        lambda m, x: m.head(torch.tanh(m.base(x) + x @ m.A.T @ m.B.T)),
        base=nn.Linear(3, 4),
        A=normal(2, 3),
        B=torch.zeros(4, 2),
        head=nn.Linear(4, 3),
    ).double()
    for part in (model.base, model.head):
        part.requires_grad_(False)
    return Case(model, cut(x, y, 3, 5), loss="ce", weights=[3 / 8, 5 / 8], tolerance=2e-8, **of_output(x, mean_ce(y)))


@case
def zero_head():
    x, y = normal(8, 3), classes(3, 8)
    model = mlp(outputs=3)
    for parameter in model[2].parameters():
        nn.init.zeros_(parameter)
    return Case(model, cut(x, y, 3, 5), loss="ce", **of_output(x, mean_ce(y)))


@case
def checkpoint_without_reentry():
    x, y = normal(7, 3), normal(7, 2)
    model = Net(
        lambda m, x: m.head(checkpoint(lambda t: torch.tanh(m.body(t)), m.first(x), use_reentrant=False)),
        first=nn.Linear(3, 3),
        body=nn.Linear(3, 3),
        head=nn.Linear(3, 2),
    ).double()
    received = lambda m: [m.head(torch.tanh(m.body(m.first(x))))]
    return Case(model, cut(x, y, 3, 4), loss="mse", received=received, value=lambda z: (z - y).square().mean())


@case
def checkpoint_with_reentry():
    x, y = normal(7, 3), normal(7, 2)
    model = Net(
        lambda m, x: m.head(checkpoint(lambda t: torch.tanh(m.body(t)), m.first(x), use_reentrant=True)),
        first=nn.Linear(3, 3),
        body=nn.Linear(3, 3),
        head=nn.Linear(3, 2),
    ).double()
    received = lambda m: [m.head(torch.tanh(m.body(m.first(x))))]
    return Case(model, cut(x, y, 3, 4), loss="mse", received=received, value=lambda z: (z - y).square().mean())


@case
def gaussian_process_evidence():
    """Cholesky and log-determinant of a kernel on learned features; no target, one batch."""
    x, y = normal(6, 2), normal(6)

    def objective(m, batch):
        z = torch.tanh(m.features(batch[0]))
        K = (-0.5 * (z[:, None] - z[None]).square().sum(-1)).exp() + (m.log_noise.exp() + 0.1) * torch.eye(
            len(z), dtype=F64
        )
        L = torch.linalg.cholesky(K)
        return 0.5 * (batch[1] * torch.cholesky_solve(batch[1][:, None], L)[:, 0]).sum() + L.diagonal().log().sum()

    model = Net(lambda m, x: m.features(x), features=nn.Linear(2, 2), log_noise=normal(1)[0]).double()
    return Case(model, [(x, y)], objective=objective, value=lambda m: objective(m, (x, y)))


@case
def policy_gradient_with_entropy():
    """Actions and advantages beside states: an objective of a batch of three."""
    s, a, r = normal(8, 3), classes(3, 8), normal(8)

    def objective(m, batch):
        states, actions, advantages = batch
        p = m(states).log_softmax(1)
        return -(p[torch.arange(len(actions)), actions] * advantages).mean() + 0.1 * (p.exp() * p).sum(1).mean()

    data = [(s[:3], a[:3], r[:3]), (s[3:], a[3:], r[3:])]
    return Case(
        mlp(outputs=3), data, objective=objective, weights=[3 / 8, 5 / 8], value=lambda m: objective(m, (s, a, r))
    )


@case
def actor_and_critic_from_dictionaries():
    s, a, r = normal(8, 3), classes(2, 8), normal(8)
    model = Net(
        lambda m, state: {
            "policy": m.actor(torch.tanh(m.body(state))),
            "value": m.critic(torch.tanh(m.body(state)))[:, 0],
        },
        body=nn.Linear(3, 4),
        actor=nn.Linear(4, 2),
        critic=nn.Linear(4, 1),
    ).double()

    def loss(out, t):
        chosen = out["policy"].log_softmax(1)[torch.arange(len(t["action"])), t["action"]]
        return -(chosen * t["reward"]).mean() + (t["reward"] - out["value"]).square().mean()

    data = [{"state": s[k], "labels": {"action": a[k], "reward": r[k]}} for k in (slice(0, 3), slice(3, 8))]
    value = lambda p, v: -(p.log_softmax(1)[torch.arange(8), a] * r).mean() + (r - v).square().mean()
    return Case(model, data, loss=loss, weights=[3 / 8, 5 / 8], received=lambda m: list(m(s).values()), value=value)


@case
def differentiable_sorting_and_singular_values():
    """Sorted outputs and the nuclear norm of a weight."""
    x, y = normal(7, 3), normal(7, 3)
    model = mlp(outputs=3)

    def objective(m, batch):
        return (m(batch[0]).sort(1).values - batch[1].sort(1).values).square().mean() + 0.1 * torch.linalg.matrix_norm(
            m[2].weight, "nuc"
        )

    return Case(
        model, cut(x, y, 3, 4), objective=objective, oracle="double backward", value=lambda m: objective(m, (x, y))
    )


@case
def fourier_features_and_complex_inside():
    """Real parameters, complex numbers inside: a filter in the frequency domain."""
    x, y = normal(5, 8), normal(5, 8)

    def forward(m, x):
        spectrum = torch.fft.rfft(x) * torch.complex(m.real, m.imaginary)
        return torch.tanh(torch.fft.irfft(spectrum, 8)) * m.gain

    model = Net(forward, real=normal(5), imaginary=normal(5), gain=normal(8))
    return Case(model, cut(x, y, 2, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def weight_decay_inside_the_objective():
    x, y = normal(8, 3), classes(3, 8)

    def objective(m, batch):
        return F.cross_entropy(m(batch[0]), batch[1]) + 0.05 * sum(p.square().sum() for p in m.parameters())

    return Case(
        mlp(outputs=3),
        cut(x, y, 3, 5),
        objective=objective,
        weights=[3 / 8, 5 / 8],
        value=lambda m: objective(m, (x, y)),
    )


@case
def chosen_layers_only():
    x, y = normal(8, 3), normal(8, 2)
    model = mlp()
    model[0].requires_grad_(False)
    return Case(
        model, cut(x, y, 3, 5), loss="mse", settings={"layers": "2*"}, **of_output(x, lambda z: (z - y).square().mean())
    )


@case
def scale_of_the_loss_registered_first():
    """Learned task weights are registered before the layers that they come after."""
    x, y = normal(8, 3), normal(8, 2)
    model = Net(
        lambda m, x: (m.second(torch.tanh(m.first(x))), m.log_scale),
        log_scale=normal(2),
        first=nn.Linear(3, 4),
        second=nn.Linear(4, 2),
    ).double()
    value = lambda z, s, t=y: ((-s).exp() * (z - t).square().mean(0) + s).sum()
    return Case(
        model,
        cut(x, y, 3, 5),
        loss=lambda out, t: value(*out, t),
        weights=[3 / 8, 5 / 8],
        received=lambda m: m(x),
        value=value,
    )
