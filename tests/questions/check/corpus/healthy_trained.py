"""Networks that are trained, half-trained, or trained on something near: their small gradients, dead units and large logits are health."""

from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import healthy
from tests.questions.check.corpus.networks import LowRank, Recurrent, cnn, mlp
from tests.questions.check.corpus.training import fit


@healthy("half-trained")
def relu_half_way():
    model, found = mlp([64, 48, 48, 10]), data.pixels()
    return fit(model, found, "ce", 30)[0], found, "ce"


@healthy("half-trained", optimizer="sgd(momentum=0.9)", lr=0.02)
def conv_half_way():
    model, found = cnn(norm=nn.BatchNorm2d), data.images()
    return fit(model, found, "ce", 20, 0.05, "sgd")[0], found, "ce"


@healthy("half-trained")
def gpt_half_way():
    model, found = networks.GPT(), data.language()
    return fit(model, found, "ce", 60)[0], found, "ce"


@healthy("trained")
def relu_to_zero_loss():
    """Trained on 256 digits until nothing is left to learn of them."""
    found = data.pixels(256)
    return fit(mlp([64, 96, 10]), found, "ce", 300, 1e-2)[0], found, "ce"


@healthy("trained", optimizer="sgd", lr=0.05)
def tanh_trained():
    found = data.pixels()
    return fit(mlp([64, 48, 48, 10], nn.Tanh), found, "ce", 200)[0], found, "ce"


@healthy("trained")
def sigmoid_trained():
    found = data.pixels()
    return fit(mlp([64, 48, 10], nn.Sigmoid), found, "ce", 300, 1e-2)[0], found, "ce"


@healthy("trained")
def conv_trained_in_eval():
    """BatchNorm that has seen its data, left in eval mode."""
    found = data.images()
    return fit(cnn(norm=nn.BatchNorm2d), found, "ce", 150, 1e-2)[0].eval(), found, "ce"


@healthy("trained", optimizer="sgd(momentum=0.9)", lr=0.01)
def resnet_trained():
    found = data.images()
    return fit(networks.ResNet(2, 8), found, "ce", 150, 1e-2)[0], found, "ce"


@healthy("trained")
def dropout_trained_in_eval():
    found = data.pixels()
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
    return fit(model, found, "ce", 200, 1e-2)[0].eval(), found, "ce"


@healthy("trained")
def lstm_trained():
    found = data.language()
    model = Recurrent(nn.LSTM, words=24, features=16, outputs=24, every=True)
    return fit(model, found, "ce", 250, 1e-2)[0], found, "ce"


@healthy("trained")
def regression_trained():
    found = data.surface()
    return fit(mlp([8, 48, 48, 1], nn.SiLU), found, "mse", 400, 5e-3)[0], found, "mse"


@healthy("trained")
def autoencoder_trained():
    found = data.reconstruction()
    return fit(mlp([64, 48, 16, 48, 64]), found, "mse", 400, 5e-3)[0], found, "mse"


@healthy("trained")
def tumours_trained():
    found = data.tumours()
    return fit(mlp([30, 24, 1]), found, "bce", 150, 1e-2)[0], found, "bce"


@healthy("pretrained")
def conv_of_half_the_classes():
    """Trained on the digits below five, to be trained on all."""
    found = data.images()
    low = found.y < 5
    some = data.Data(found.x[low], found.y[low], found.test_x, found.test_y, "classes")
    return fit(cnn(), some, "ce", 150, 1e-2)[0], found, "ce"


@healthy("pretrained", lr=1e-2)
def fresh_head_on_a_frozen_body():
    """The body told the digits apart, and is frozen and in eval mode; the head is new."""
    found = data.images()
    model = fit(cnn(norm=nn.BatchNorm2d), found, "ce", 150, 1e-2)[0].eval()
    model.requires_grad_(False)
    model[-1] = nn.Linear(64, 10)
    return model, found, "ce"


@healthy("pretrained", lr=1e-2)
def low_rank_change():
    """LoRA: the digits' numbers are turned about, each frozen matrix gets a change whose second factor is zero."""
    found = data.pixels()
    model = fit(mlp([64, 48, 48, 10]), found, "ce", 150)[0]
    for index in (0, 2, 4):
        model[index] = LowRank(model[index])
    return model, found.targets(lambda y: (y + 3) % 10), "ce"


@healthy("pretrained")
def frozen_embedding():
    """Words' vectors are given and frozen."""
    model = networks.BERT()
    model.words.requires_grad_(False)
    return model, data.topics(), "ce"


@healthy("pretrained", optimizer="adam", lr=3e-3)
def gpt_of_another_language():
    """Trained on one chain of words, and to be trained on its opposite."""
    found = data.language()
    model = fit(networks.GPT(), found, "ce", 120)[0]

    def turned(part):
        return part.flip(1)

    found = data.Data(turned(found.y), turned(found.x), turned(found.test_y), turned(found.test_x), "classes", 32)
    return model, found, "ce"


@healthy("pretrained")
def encoder_of_an_autoencoder():
    """The encoder of a trained autoencoder, and a new head for its code."""
    body = fit(mlp([64, 48, 16, 48, 64]), data.reconstruction(), "mse", 150)[0]
    return nn.Sequential(*body[:3], nn.ReLU(), nn.Linear(16, 10)), data.raw_pixels(), "ce"
