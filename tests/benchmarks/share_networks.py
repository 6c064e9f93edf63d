"""Small networks of which the whole Hessian can be known, for the coverage of `diag-share`.

The method was made on DEVELOPMENT. The first measurement of HELD_OUT, eight others, showed that the spread of few
neurons was taken for too small, and the method was changed once more; MENDED are the four of them that the table in
docs/concepts/errors.md has. FRESH were built after that, and nothing was changed for them: only they were fresh when
the numbers of the table were taken, on 2026-11-26. Whoever changes the method for what they show must build others.
"""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from hessdiag.problem.problem import Problem

LOSSES = {"ce": functional.cross_entropy, "mse": functional.mse_loss}


def mlp(sizes, activation):
    """Linear layers, with an activation between each two."""
    parts = [nn.Linear(sizes[0], sizes[1])]
    for fan_in, fan_out in itertools.pairwise(sizes[1:]):
        parts += [activation(), nn.Linear(fan_in, fan_out)]
    return nn.Sequential(*parts).double()


def normal(*shape):
    """Standard normal numbers, drawn in float32."""
    return torch.randn(*shape).double()


def clusters(samples, features, classes, seed, spread=1.0):
    """Gaussian clusters, one a class."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, features, generator=generator).double() * 1.5
    labels = torch.arange(samples) % classes
    return centres[labels] + spread * torch.randn(samples, features, generator=generator).double(), labels


def adam(rate):
    """An optimizer for `trained`."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def sgd(rate):
    """Likewise, with momentum."""
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def trained(model, batch, loss, steps, optimizer):
    """The problem of a model after some steps on its only batch."""
    x, y = batch
    optimizer = optimizer(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        LOSSES[loss](model(x), y).backward()
        optimizer.step()
    return Problem(model, data=[batch], loss=loss)


def d_relu():
    torch.manual_seed(3)
    return Problem(mlp([12, 30, 30, 10], nn.ReLU), data=[(normal(24, 12), torch.arange(24) % 10)], loss="ce")


def d_dead():
    """ReLU with dead neurons and inputs of scales that differ from neuron to neuron."""
    torch.manual_seed(4)
    model = mlp([20, 30, 30, 3], nn.ReLU)
    with torch.no_grad():
        model[0].bias -= 0.7
        model[2].bias[::2] -= 1.0
        model[0].weight *= torch.exp(normal(30, 1))
    return Problem(model, data=[(torch.rand(40, 20).double(), torch.arange(40) % 3)], loss="ce")


def d_pixels():
    """Inputs of which some are always zero."""
    torch.manual_seed(0)
    x = torch.rand(40, 25).double() * (torch.rand(25) > 0.4)
    return Problem(mlp([25, 12, 12, 4], nn.ReLU), data=[(x, torch.arange(40) % 4)], loss="ce")


def d_narrow():
    torch.manual_seed(1)
    data = [(normal(32, 10), normal(32, 3))]
    return Problem(mlp([10] * 12 + [3], nn.Tanh), data=data, loss="mse")


def d_trained():
    torch.manual_seed(2)
    batch = clusters(64, 20, 5, 0)
    return trained(mlp([20, 32, 24, 5], nn.Tanh), batch, "ce", 300, adam(0.01))


def d_conv():
    torch.manual_seed(0)
    features = [nn.Conv2d(1, 6, 3), nn.Tanh(), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten()]
    model = nn.Sequential(*features, nn.Linear(128, 5)).double()
    return Problem(model, data=[(normal(12, 1, 8, 8), torch.arange(12) % 5)], loss="ce")


def a_gelu():
    torch.manual_seed(11)
    model = mlp([16, 24, 24, 24, 4], nn.GELU)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
    return trained(model, clusters(50, 16, 4, 11), "ce", 100, sgd(0.05))


def a_relu_trained():
    torch.manual_seed(12)
    return trained(mlp([20, 40, 20, 4], nn.ReLU), clusters(80, 20, 4, 12, 1.5), "ce", 600, adam(0.01))


def a_shallow():
    torch.manual_seed(13)
    return Problem(mlp([10, 120, 3], nn.Tanh), data=[(normal(30, 10), normal(30, 3))], loss="mse")


def a_orth():
    torch.manual_seed(14)
    model = mlp([14] * 7 + [2], nn.ReLU)
    for parameter in model.parameters():
        nn.init.orthogonal_(parameter, 1.4) if parameter.ndim > 1 else nn.init.normal_(parameter, 0, 0.1)
    return Problem(model, data=[(normal(40, 14), normal(40, 2))], loss="mse")


def a_conv():
    torch.manual_seed(15)
    features = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*features, nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 4)).double()
    x, y = torch.rand(40, 2, 8, 8).double(), torch.arange(40) % 4
    x[:, 0] += y[:, None, None] * 0.4
    return trained(model, (x, y), "ce", 150, adam(0.005))


def a_sigmoid_ae():
    """An autoencoder."""
    torch.manual_seed(16)
    model = mlp([20, 16, 6, 16, 20], nn.Sigmoid)
    x = torch.rand(60, 20).double() ** 3
    return trained(model, (x, x), "mse", 300, adam(0.02))


class Transformer(nn.Module):
    """One block with causal attention of two heads, of 12 tokens and sequences of 8."""

    def __init__(self, tokens=12, width=10, heads=2, hidden=20):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.position = nn.Parameter(torch.randn(8, width) * 0.1)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.logits = nn.Linear(width, tokens, bias=False)
        self.heads = heads

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position
        normed = self.first(x)
        batch, length, width = normed.shape
        query, key, value = (
            layer(normed).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        later = torch.full((length, length), -1e9, dtype=x.dtype).triu(1)
        attended = torch.softmax(query @ key.mT / math.sqrt(width // self.heads) + later, -1) @ value
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return self.logits(self.feedforward(self.second(x)) + x).flatten(0, 1)


def a_attn():
    torch.manual_seed(17)
    model = Transformer().double()
    tokens = torch.randint(0, 12, (6, 9))
    return trained(model, (tokens[:, :-1], tokens[:, 1:].flatten()), "ce", 60, adam(0.01))


class Residual(nn.Module):
    """Two residual blocks with LayerNorm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 16)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(2)
        )
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def b_resnet():
    torch.manual_seed(21)
    return trained(Residual().double(), clusters(60, 12, 5, 21), "ce", 80, sgd(0.05))


def b_leaky():
    """Inputs of which most are zero."""
    torch.manual_seed(22)
    model = mlp([30, 50, 12, 6], lambda: nn.LeakyReLU(0.1))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter)
    x = (torch.rand(50, 30) > 0.85).double() * torch.rand(50, 30).double() * 2
    return Problem(model, data=[(x, torch.arange(50) % 6)], loss="ce")


def b_overfit():
    """Fitted to random labels."""
    torch.manual_seed(23)
    model = mlp([18, 36, 18, 6], nn.ReLU)
    return trained(model, (normal(60, 18), torch.randint(0, 6, (60,))), "ce", 2000, adam(0.005))


class Recurrent(nn.Module):
    """The last output of a GRU, classified."""

    def __init__(self):
        super().__init__()
        self.recurrent = nn.GRU(6, 14, batch_first=True)
        self.out = nn.Linear(14, 4)

    def forward(self, x):
        return self.out(self.recurrent(x)[0][:, -1])


def b_gru():
    torch.manual_seed(24)
    batch = normal(24, 5, 6), torch.arange(24) % 4
    return trained(Recurrent().double(), batch, "ce", 60, adam(0.02))


def b_deep():
    torch.manual_seed(25)
    model = mlp([8] * 20 + [3], nn.SiLU)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 1.6 / math.sqrt(8)) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return Problem(model, data=[(normal(40, 8), normal(40, 3))], loss="mse")


class Mixer(nn.Module):
    """Patches, mixed among each other and each by itself."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.tokens = nn.Linear(9, 9)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.out = nn.Linear(12, 5)
        self.norm = nn.LayerNorm(12)

    def forward(self, x):
        x = self.patches(x).flatten(2)
        x = (x + torch.tanh(self.tokens(x))).mT
        x = x + self.down(functional.gelu(self.up(self.norm(x))))
        return self.out(x.mean(1))


def b_mixer():
    torch.manual_seed(26)
    x = normal(20, 3, 12, 12)
    return Problem(Mixer().double(), data=[(x, torch.arange(20) % 5)], loss="ce")


def b_skewed():
    """Inputs of scales over three decades, trained regression."""
    torch.manual_seed(27)
    model = mlp([16, 40, 20, 1], nn.Softplus)
    x = normal(80, 16) * torch.logspace(-2, 1, 16).double()
    y = (x[:, -3:].sum(1, keepdim=True) / 5).sin()
    return trained(model, (x, y), "mse", 400, adam(0.01))


def b_wide():
    torch.manual_seed(28)
    return trained(mlp([9, 150, 5], nn.ReLU), clusters(40, 9, 5, 28), "ce", 200, adam(0.01))


def c_relu6():
    torch.manual_seed(31)
    model = mlp([24, 20, 20, 20, 6], nn.ReLU6)
    for parameter in model.parameters():
        nn.init.kaiming_normal_(parameter) if parameter.ndim > 1 else nn.init.uniform_(parameter, -0.2, 0.2)
    return trained(model, clusters(70, 24, 6, 31, 2.0), "ce", 60, adam(0.005))


def c_batchnorm():
    """BatchNorm in evaluation, after one batch and training."""
    torch.manual_seed(32)
    first = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    model = nn.Sequential(*first, *second).double()
    x = normal(30, 1, 8, 8)
    model(x)
    return trained(model.eval(), (x, torch.arange(30) % 5), "ce", 100, sgd(0.05))


class Language(nn.Module):
    """The next of nine tokens by an LSTM."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.recurrent = nn.LSTM(8, 10, batch_first=True)
        self.out = nn.Linear(10, 9)

    def forward(self, tokens):
        return self.out(self.recurrent(self.embedding(tokens))[0]).flatten(0, 1)


def c_lstm():
    torch.manual_seed(33)
    model = Language().double()
    tokens = torch.randint(0, 9, (8, 7))
    return trained(model, (tokens[:, :-1], tokens[:, 1:].flatten()), "ce", 120, adam(0.01))


def c_regression():
    torch.manual_seed(34)
    model = mlp([7, 60, 20, 2], nn.Tanh)
    x = normal(50, 7)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs()], 1)
    return trained(model, (x, y), "mse", 500, adam(0.01))


def c_deadrelu():
    torch.manual_seed(35)
    model = mlp([14, 48, 24, 4], nn.ReLU)
    with torch.no_grad():
        model[0].bias -= torch.rand(48) * 4
        model[2].weight *= torch.exp(1.2 * normal(24, 1))
    return Problem(model, data=[clusters(60, 14, 4, 35)], loss="ce")


def c_ortho_deep():
    torch.manual_seed(36)
    model = mlp([12] * 9 + [4], nn.ELU)
    for parameter in model.parameters():
        nn.init.orthogonal_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    return trained(model, clusters(40, 12, 4, 36), "ce", 30, sgd(0.1))


def _named(*makes):
    return {make.__name__: make for make in makes}


DEVELOPMENT = _named(
    *(d_relu, d_dead, d_pixels, d_narrow, d_trained, d_conv),
    *(a_gelu, a_relu_trained, a_shallow, a_orth, a_conv, a_sigmoid_ae, a_attn),
)
MENDED = _named(b_resnet, b_leaky, b_overfit, b_gru)
HELD_OUT = MENDED | _named(b_deep, b_mixer, b_skewed, b_wide)
FRESH = _named(c_relu6, c_batchnorm, c_lstm, c_regression, c_deadrelu, c_ortho_deep)
ALL = DEVELOPMENT | HELD_OUT | FRESH
