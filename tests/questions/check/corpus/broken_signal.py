"""Networks in which the signal or the gradient is lost, or explodes, on its way; or in which it cannot pass."""

import torch
from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import broken
from tests.questions.check.corpus.networks import Apply, Block, Recurrent, cnn, each, mlp, scaled


@broken("signal_lost", "gradient_vanishes", "weight_scale", optimizer="adam", lr=1e-3)
def conv_deep_default():
    """26 convolutions with torch's own initialization, whose gain is 0.4 for ReLU; a parameter that nobody uses."""
    model = cnn(depth=26)
    model.register_parameter("left_over", nn.Parameter(torch.ones(3)))
    return model, data.images(), "ce"


@broken("signal_lost", "gradient_vanishes", "weight_scale", optimizer="sgd(momentum=0.9)", lr=0.01)
def regression_deep_gelu():
    """30 GELU layers, torch's own initialization."""
    return mlp([8] + [24] * 30 + [1], nn.GELU), data.surface(), "mse"


@broken("signal_lost", "gradient_vanishes", optimizer="adam", lr=1e-3)
def lstm_reads_the_padding():
    """The class is the first word; 59 paddings later the last state knows nothing of it."""
    return Recurrent(nn.LSTM, words=9, outputs=8), data.padded(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", lr=0.01)
def rnn_recurrence_grows():
    """A ReLU recurrence with a spectral radius of about two, over sixteen tokens."""
    model = Recurrent(nn.RNN, features=16, width=48, words=24, outputs=24, every=True, nonlinearity="relu")
    nn.init.normal_(model.cell.weight_hh_l0, std=3 / 48**0.5)
    return model, data.language(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", lr=0.05)
def conv_residual_without_norm():
    """24 residual blocks of He's convolutions, nothing that keeps their sum at its size; a buffer nobody needs."""
    model = networks.he(networks.ResNet(24, 12, norm=lambda _: nn.Identity()))
    model.register_buffer("version", torch.tensor(3))
    return model, data.images(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", "logit_scale", lr=0.05)
def transformer_without_norm():
    """Twelve blocks without LayerNorm, their matrices drawn too large by half; the head is tied to the embedding."""
    model = networks.GPT(blocks=12, order="none")
    for block in each(model, Block):
        scaled(block, 3.5)
    nn.init.normal_(model.words.weight)
    return model, data.language(), "ce"


@broken("signal_explodes", "gradient_explodes", "weight_scale", lr=0.01)
def autoencoder_standard_normal():
    """Every weight standard normal, whatever the width."""
    model = networks.initialized(mlp([64, 48, 24, 8, 24, 48, 64]), nn.init.normal_)
    return model, data.reconstruction(), "mse"


@broken("gradient_explodes", "saturated_units", "weight_scale", lr=0.1)
def tanh_chaos():
    """24 orthogonal tanh layers of gain four: the signal keeps its size, neighbours part, the gradient grows."""
    model = mlp([64] + [48] * 24 + [10], nn.Tanh)
    return networks.initialized(model, lambda w: nn.init.orthogonal_(w, 4.0)), data.pixels(), "ce"


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
def attention_without_residuals():
    return AttentionOnly(10), data.language(), "ce"


@broken("detached", optimizer="adam", lr=3e-3)
def autoencoder_data_of_the_code():
    """The decoder is given `code.data`: a random projection to three numbers stays what it is."""
    encoder, decoder = mlp([64, 32, 3]), mlp([3, 32, 64])
    model = nn.Sequential(encoder, Apply(lambda code: code.data), decoder)
    return model, data.reconstruction(), "mse"


@broken("detached", lr=0.1)
def conv_detached_before_the_head():
    """A global average of two random channels is all that the head has to learn from."""
    features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(features, Apply(lambda x: x.flatten(1).detach()), nn.Linear(2, 10)), data.images(), "ce"


class Frozen(nn.Module):
    """An encoder under `no_grad`, as it is written for a pre-trained one; this one is fresh, and narrow."""

    def __init__(self):
        super().__init__()
        self.encoder = Recurrent(nn.GRU, features=4, width=3, words=24, outputs=2, every=True)
        self.head = nn.Linear(2, 24)

    def forward(self, x):
        with torch.no_grad():
            codes = self.encoder(x)
        return self.head(codes)


@broken("detached", optimizer="adam", lr=3e-3)
def gru_without_gradient():
    return Frozen(), data.language(), "ce"


@broken("detached", optimizer="adam", lr=3e-3)
def transformer_all_but_norms_frozen():
    """A fresh ViT of which somebody froze all but what is called norm."""
    model = networks.ViT()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" in name)
    return model, data.images(), "ce"
