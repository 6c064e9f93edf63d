"""Networks with units that are dead, saturated or copies of each other."""

import torch
from torch import nn

from tests.questions.check.corpus import data
from tests.questions.check.corpus.case import broken
from tests.questions.check.corpus.networks import Recurrent, cnn, he, mlp


@broken("dead_units", layers=("2",))
def tabular_dead_by_bias(mended=False):
    """The second layer's biases are -40; two more columns are constant, one is there twice."""
    cells = data.tumours().inputs(lambda x: torch.cat([x, torch.ones(len(x), 2), x[:, :1]], 1))
    model = mlp([33, 24, 24, 1])
    if not mended:
        nn.init.constant_(model[2].bias, -40.0)
    return model, cells, "bce"


@broken("dead_units", layers=("0",), optimizer="adam", lr=0.005, steps=400)
def autoencoder_dead_by_sign(mended=False):
    """Inputs are not negative, and all weights of the first layer are."""
    model = mlp([64, 48, 16, 48, 64])
    if not mended:
        with torch.no_grad():
            model[0].weight.copy_(-model[0].weight.abs())
            model[0].bias.fill_(-0.1)
    return model, data.reconstruction(), "mse"


@broken("dead_units", layers=("4",), optimizer="sgd(momentum=0.9)", lr=0.05, steps=300)
def conv_almost_all_dead(mended=False):
    """Of 32 channels 31 are dead, and the head sees the mean of the last; one of sixteen is dead in the first layer."""
    model = he(cnn(depth=3, width=16))
    model[6], model[8] = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)
    with torch.no_grad():
        model[0].bias[0] = -30.0
        if not mended:
            model[4].bias[:31] = -60.0
    return model, data.images(), "ce"


@broken("dead_units", layers=("head.feed",), optimizer="adam", lr=1e-3)
def gru_dead_behind(mended=False):
    """A ReLU layer on a GRU's states, which lie in (-1, 1), with biases of -9."""
    model = Recurrent(nn.GRU, words=64, features=16, outputs=8)
    model.head = nn.Sequential()
    model.head.add_module("feed", nn.Linear(32, 32))
    model.head.add_module("relu", nn.ReLU())
    model.head.add_module("out", nn.Linear(32, 8))
    if not mended:
        nn.init.constant_(model.head.feed.bias, -9.0)
    return model, data.topics(), "ce"


@broken("saturated_units", layers=("2",))
def tanh_pushed_by_bias(mended=False):
    """Biases of +-12 in the second tanh layer."""
    model = mlp([64, 32, 32, 10], nn.Tanh)
    if not mended:
        with torch.no_grad():
            model[2].bias.copy_(12 * torch.randn(32).sign())
    return model, data.pixels(), "ce"


@broken("saturated_units", "weight_scale", layers=("2",), optimizer="sgd(momentum=0.9)", lr=0.1)
def sigmoid_driven_hard(mended=False):
    """The second of three sigmoid layers is 1000 times too large, and narrow; LayerNorm stands before it."""
    model = mlp([8, 24, 4, 24, 1], nn.Sigmoid)
    model[1] = nn.Sequential(nn.Sigmoid(), nn.LayerNorm(24))
    with torch.no_grad():
        model[2].weight.mul_(1 if mended else 1000)
    return model, data.surface(), "mse"


@broken("saturated_units", "signal_lost", layers=("cell",), optimizer="adam", lr=1e-3)
def lstm_gates_shut(mended=False):
    """Biases that were to open the forget gate shut the input gate: nothing enters the cell."""
    model = Recurrent(nn.LSTM, words=24, features=16, outputs=24, every=True)
    with torch.no_grad():
        if not mended:
            model.cell.bias_ih_l0[:32] = -25.0
            model.cell.bias_hh_l0[:32] = -25.0
    return model, data.language(), "ce"


@broken("identical_units", layers=("0", "2"), optimizer="sgd(momentum=0.9)", lr=0.05, steps=300)
def conv_same_filters(mended=False):
    """All filters of the two convolutions are the same, and the head weighs them alike."""
    model = cnn(depth=2)
    model[4], model[6] = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)
    if not mended:
        nn.init.constant_(model[6].weight, 0.05)
        for layer in (model[0], model[2]):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
    return model, data.images(), "ce"


@broken("identical_units", "signal_lost", "gradient_vanishes", "weight_scale", "dead_units", optimizer="adam", lr=3e-3)
def regression_two_zero_layers(mended=False):
    """Both of the last two layers start at zero: neither gets a gradient through the other."""
    model = mlp([8, 32, 32, 1])
    if not mended:
        for layer in (model[2], model[4]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model, data.surface(), "mse"


@broken("identical_units", layers=("cell",), optimizer="adam", lr=1e-3)
def lstm_all_weights_alike(mended=False):
    """The embedding is random, all of the cell is 0.05, and the head weighs its units alike."""
    model = Recurrent(nn.LSTM, words=24, features=16, outputs=24, every=True)
    if not mended:
        for parameter in model.cell.parameters():
            nn.init.constant_(parameter, 0.05)
        nn.init.constant_(model.head.weight, 0.05)
    return model, data.language(), "ce"


@broken("identical_units", layers=("0", "2", "4"), optimizer="adam", lr=3e-3, steps=400)
def autoencoder_layers_alike(mended=False):
    """The encoder and the first layer of the decoder are constant: the code is one number, eight times."""
    model = mlp([64, 48, 16, 48, 64], nn.GELU)
    if not mended:
        for layer in (model[0], model[2], model[4]):
            nn.init.constant_(layer.weight, 1 / layer.in_features)
            nn.init.zeros_(layer.bias)
    return model, data.reconstruction(), "mse"
