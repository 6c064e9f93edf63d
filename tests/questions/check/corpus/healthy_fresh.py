"""Networks as they are before training, which train: the common architectures, initializations, losses and inputs."""

import torch
from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import healthy
from tests.questions.check.corpus.networks import Recurrent, cnn, each, he, initialized, mlp


@healthy(optimizer="sgd", lr=0.1)
def relu_he():
    return he(mlp([64, 48, 48, 10])), data.pixels(), "ce"


@healthy()
def relu_default():
    return mlp([64, 48, 48, 10]), data.pixels(), "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.02)
def tanh_xavier():
    return initialized(mlp([64, 48, 48, 48, 10], nn.Tanh), nn.init.xavier_normal_), data.pixels(), "ce"


@healthy()
def gelu_default():
    return mlp([64, 48, 48, 48, 10], nn.GELU), data.raw_pixels(), "ce"


@healthy()
def silu_double():
    """In float64."""
    return mlp([64, 48, 48, 10], nn.SiLU).double(), data.pixels().to(torch.float64), "ce"


@healthy(optimizer="sgd", lr=0.1)
def leaky_he():
    return he(mlp([64, 48, 48, 10], lambda: nn.LeakyReLU(0.1))), data.pixels(), "ce"


@healthy(optimizer="sgd", lr=0.05)
def selu_lecun():
    """Six self-normalizing layers."""
    model = mlp([64] + [48] * 6 + [10], nn.SELU)
    return initialized(model, lambda w: nn.init.normal_(w, std=w.shape[1] ** -0.5)), data.pixels(), "ce"


@healthy(lr=1e-2)
def sigmoid_shallow():
    return mlp([64, 48, 10], nn.Sigmoid), data.pixels(), "ce"


@healthy(optimizer="sgd", lr=0.05)
def deep_linear_orthogonal():
    """Twelve orthogonal layers and no activation."""
    return initialized(mlp([64] * 13 + [10], nn.Identity), nn.init.orthogonal_), data.pixels(), "ce"


@healthy(optimizer="sgd", lr=0.1)
def tanh_deep_orthogonal():
    """Twenty tanh layers at the edge of chaos."""
    model = initialized(mlp([64] + [48] * 20 + [10], nn.Tanh), lambda w: nn.init.orthogonal_(w, 1.05))
    return model, data.pixels(), "ce"


@healthy(optimizer="sgd", lr=0.1)
def logistic_regression():
    return nn.Linear(64, 10), data.pixels(), "ce"


@healthy(lr=1e-2)
def logistic_of_tumours():
    return nn.Linear(30, 1), data.tumours(), "bce"


@healthy(lr=1e-2)
def linear_regression():
    """A single layer, on targets that are linear."""
    found = data.surface()
    weights = torch.linspace(-1, 1, 8)[:, None]
    found = data.Data(found.x, found.x @ weights, found.test_x, found.test_x @ weights, "real")
    return nn.Linear(8, 1), found, "mse"


@healthy()
def conv_default():
    return cnn(), data.images(), "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.05)
def conv_batch_norm():
    return cnn(norm=nn.BatchNorm2d), data.images(), "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.05, steps=120)
def resnet():
    return networks.ResNet(), data.images(), "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.05)
def resnet_zero_branches():
    """The last normalization of every branch starts at zero."""
    model = networks.ResNet()
    for block in model.blocks:
        nn.init.zeros_(block.branch[-1].weight)
    return model, data.images(), "ce"


@healthy(steps=120)
def densenet():
    return networks.DenseNet(), data.images(), "ce"


@healthy(steps=120)
def unet():
    return networks.UNet(norm=nn.BatchNorm2d), data.segments(), "ce"


@healthy(lr=1e-2)
def masks_unbalanced():
    """A mask's pixels, a third of which are bright."""
    return networks.UNet(classes=1), data.masks(), "bce"


@healthy()
def conv_group_norm():
    return cnn(norm=lambda c: nn.GroupNorm(4, c)), data.images(), "ce"


@healthy(lr=1e-2)
def conv_instance_norm():
    return cnn(norm=lambda c: nn.InstanceNorm2d(c, affine=True), depth=3), data.images(), "ce"


@healthy()
def lstm_language():
    return Recurrent(nn.LSTM, words=24, features=16, outputs=24, every=True), data.language(), "ce"


@healthy()
def gru_rows():
    return Recurrent(nn.GRU), data.rows(), "ce"


@healthy()
def bidirectional_lstm():
    model = Recurrent(nn.LSTM, words=64, features=16, width=24, bidirectional=True)
    model.head = nn.Linear(48, 8)
    return model, data.topics(), "ce"


@healthy(optimizer="adamw(weight_decay=0.1)")
def gpt_tied():
    return networks.GPT(), data.language(), "ce"


@healthy(optimizer="adamw(weight_decay=0.05)", lr=2e-3, steps=300)
def vit():
    return networks.ViT(), data.images(), "ce"


@healthy()
def bert():
    return networks.BERT(), data.topics(), "ce"


@healthy(lr=1e-2)
def text_conv():
    return networks.TextCNN(), data.topics(), "ce"


@healthy(steps=400)
def autoencoder():
    """The last layer is a sigmoid, and the pixels are in [0, 1]."""
    return mlp([64, 48, 16, 48, 64], last=[nn.Sigmoid()]), data.reconstruction(), "mse"


@healthy(steps=400)
def regression_tanh():
    return mlp([8, 48, 48, 1], nn.Tanh), data.surface(), "mse"


@healthy(steps=400)
def regression_many_outputs():
    return mlp([8, 64, 64, 4], nn.SiLU), data.surface(outputs=4), "mse"


@healthy(steps=400)
def siamese():
    return networks.Siamese(), data.pairs(), "bce"


@healthy(lr=1e-2)
def weight_norm():
    model = mlp([64, 48, 48, 10])
    for layer in each(model, nn.Linear):
        nn.utils.parametrizations.weight_norm(layer)
    return model, data.pixels(), "ce"


@healthy(lr=1e-2)
def spectral_norm():
    model = mlp([64, 48, 48, 10])
    for layer in each(model, nn.Linear):
        nn.utils.parametrizations.spectral_norm(layer)
    return model, data.pixels(), "ce"


@healthy()
def dropout_half():
    layers = [layer for _ in range(2) for layer in (nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5))]
    return nn.Sequential(*layers, nn.Linear(64, 10)), data.pixels(), "ce"


@healthy(optimizer="sgd", lr=0.1)
def zero_head():
    """The last layer starts at zero."""
    model = he(mlp([64, 48, 48, 10]))
    nn.init.zeros_(model[-1].weight)
    return model, data.pixels(), "ce"


@healthy(steps=400)
def batch_of_four():
    return mlp([64, 48, 48, 10]), data.pixels().sized(4), "ce"


@healthy(lr=1e-2, steps=120)
def batch_of_512():
    return mlp([64, 48, 48, 10]), data.pixels().sized(512), "ce"


@healthy(optimizer="rmsprop", lr=1e-3)
def one_hot_inputs():
    """Words as rows of zeros and a one, twelve to a text."""
    topics = data.topics().inputs(lambda x: nn.functional.one_hot(x, 64).float().flatten(1))
    return mlp([12 * 64, 48, 8]), topics, "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.05)
def raw_pixels_behind_batch_norm():
    """Pixels up to 255, which the first layer normalizes."""
    found = data.raw_pixels().inputs(lambda x: 255 * x)
    return nn.Sequential(nn.BatchNorm1d(64), *mlp([64, 48, 10])), found, "ce"


@healthy()
def log_softmax_nll():
    return mlp([64, 48, 10], last=[nn.LogSoftmax(1)]), data.pixels(), "nll"


@healthy()
def noisy_labels():
    """Three labels in ten are drawn anew."""
    found = data.pixels()
    generator = torch.Generator().manual_seed(3)
    strays = torch.rand(len(found.y), generator=generator) < 0.3
    drawn = torch.randint(10, found.y.shape, generator=generator)
    y = torch.where(strays, drawn, found.y)
    return mlp([64, 48, 10]), data.Data(found.x, y, found.test_x, found.test_y, "classes"), "ce"


@healthy(optimizer="sgd(momentum=0.9)", lr=0.02)
def one_against_nine():
    """Binary, one in ten is the digit that is looked for."""
    found = data.pixels().targets(lambda y: (y == 3).float()[:, None])
    found = data.Data(found.x, found.y, found.test_x, found.test_y, "binary")
    return mlp([64, 48, 48, 1]), found, "bce"


@healthy()
def constant_and_double_features():
    """Some columns are constant, some there twice; one of twenty units is dead; a parameter is not used."""
    found = data.pixels().inputs(lambda x: torch.cat([x, torch.ones(len(x), 4), x[:, 20:24]], 1))
    model = mlp([72, 40, 40, 10])
    model.register_parameter("left_over", nn.Parameter(torch.zeros(5)))
    with torch.no_grad():
        model[2].bias[:2] = -20.0
    return model, found, "ce"


@healthy(lr=1e-3, steps=300)
def deep_layer_norm():
    model = he(mlp([64] + [48] * 8 + [10], norm=nn.LayerNorm))
    return model, data.pixels(), "ce"
