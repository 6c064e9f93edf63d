"""Networks in which the signal or the gradient is lost, or explodes, on its way; or in which it cannot pass."""

import torch
from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import broken
from tests.questions.check.corpus.networks import Apply, Block, Recurrent, cnn, each, mlp, scaled


@broken("signal_lost", "gradient_vanishes", "weight_scale", optimizer="adam", lr=1e-3)
def conv_deep_default(mended=False):
    """26 convolutions with torch's own initialization, whose gain is 0.4 for ReLU; a parameter that nobody uses."""
    model = cnn(depth=26)
    if mended:
        networks.he(model)
    model.register_parameter("left_over", nn.Parameter(torch.ones(3)))
    return model, data.images(), "ce"


@broken("signal_lost", "gradient_vanishes", "weight_scale", optimizer="sgd(momentum=0.9)", lr=0.01)
def regression_deep_gelu(mended=False):
    """30 GELU layers, torch's own initialization."""
    model = mlp([8] + [24] * (2 if mended else 30) + [1], nn.GELU)
    return model, data.surface(), "mse"


@broken("signal_lost", "gradient_vanishes", optimizer="adam", lr=1e-3)
def lstm_reads_the_padding(mended=False):
    """The class is the first word; 59 paddings later the last state knows nothing of it."""
    found = data.padded()
    if mended:
        found = found.inputs(lambda x: x[:, :1])
    return Recurrent(nn.LSTM, words=9, outputs=8), found, "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", lr=0.1, steps=300)
def rnn_recurrence_grows(mended=False):
    """A ReLU recurrence with a spectral radius of about two, over sixteen tokens."""
    model = Recurrent(nn.RNN, features=16, width=48, words=24, outputs=24, every=True, nonlinearity="relu")
    nn.init.normal_(model.cell.weight_hh_l0, std=(0.5 if mended else 3) / 48**0.5)
    return model, data.language(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", lr=0.05)
def conv_residual_without_norm(mended=False):
    """24 residual blocks of He's convolutions, nothing that keeps their sum at its size; a buffer nobody needs."""
    norm = nn.BatchNorm2d if mended else lambda _: nn.Identity()
    model = networks.he(networks.ResNet(24, 12, norm=norm))
    model.register_buffer("version", torch.tensor(3))
    return model, data.images(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", "logit_scale", lr=0.05)
def transformer_without_norm(mended=False):
    """Twelve blocks without LayerNorm, their matrices drawn too large by half; the head is tied to the embedding."""
    model = networks.GPT(blocks=12, order="before" if mended else "none")
    if not mended:
        for block in each(model, Block):
            scaled(block, 3.5)
        nn.init.normal_(model.words.weight)
    return model, data.language(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", optimizer="adam", lr=0.003, steps=700)
def autoencoder_standard_normal(mended=False):
    """Every weight standard normal, whatever the width."""
    weight = nn.init.kaiming_normal_ if mended else nn.init.normal_
    model = networks.initialized(mlp([64, 48, 32, 16, 32, 48, 64]), weight)
    return model, data.reconstruction(), "mse"


@broken("gradient_explodes", "saturated_units", "weight_scale", lr=0.1)
def tanh_chaos(mended=False):
    """24 orthogonal tanh layers of gain four: the signal keeps its size, neighbours part, the gradient grows."""
    model = mlp([64] + [48] * 24 + [10], nn.Tanh)
    return networks.initialized(model, lambda w: nn.init.orthogonal_(w, 1.0 if mended else 4.0)), data.pixels(), "ce"


class AttentionOnly(nn.Module):
    """Attention on attention, neither residuals nor anything per position: tokens become alike."""

    def __init__(self, depth):
        super().__init__()
        self.words = nn.Embedding(24, 32)
        self.layers = nn.ModuleList(nn.MultiheadAttention(32, 4, batch_first=True) for _ in range(depth))
        self.head = nn.Linear(32, 24)

    def forward(self, x):
        x = self.words(x)
        for layer in self.layers:
            x, _ = layer(x, x, x, need_weights=False)
        return self.head(x)


@broken("signal_lost", "gradient_vanishes", lr=0.1)
def attention_without_residuals(mended=False):
    model = networks.GPT(blocks=3) if mended else AttentionOnly(10)
    return model, data.language(), "ce"


@broken("detached", optimizer="adam", lr=5e-3, steps=300)
def bottleneck_data_of_the_code(mended=False):
    """The head is given `code.data`: a random projection to two numbers stays what it is."""
    encoder, head = mlp([64, 32, 2]), mlp([2, 32, 10])
    model = nn.Sequential(encoder, Apply(lambda code: code if mended else code.data), head)
    return model, data.pixels(), "ce"


@broken("detached", optimizer="adam", lr=0.005, steps=500)
def conv_detached_before_the_head(mended=False):
    """Two random channels are all that the head has to learn from."""
    features = nn.Sequential(nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 2, 3), nn.Tanh())
    passed = Apply(lambda x: x.flatten(1) if mended else x.flatten(1).detach())
    return nn.Sequential(features, passed, mlp([2, 32, 10])), data.images(), "ce"


class Frozen(nn.Module):
    """An encoder under `no_grad`, as it is written for a pre-trained one; this one is fresh, and narrow."""

    def __init__(self, gradient):
        super().__init__()
        self.gradient = gradient
        self.encoder = Recurrent(nn.GRU, features=16, words=64, outputs=3)
        self.head = nn.Linear(3, 8)

    def forward(self, x):
        with torch.set_grad_enabled(self.gradient):
            codes = self.encoder(x)
        return self.head(codes)


@broken("detached", optimizer="adam", lr=0.005, steps=300)
def gru_without_gradient(mended=False):
    return Frozen(gradient=mended), data.topics(), "ce"


@broken("detached", optimizer="adam", lr=3e-3)
def transformer_all_but_norms_frozen(mended=False):
    """A fresh ViT of which somebody froze all but what is called norm."""
    model = networks.ViT()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(mended or "norm" in name)
    return model, data.images(), "ce"
