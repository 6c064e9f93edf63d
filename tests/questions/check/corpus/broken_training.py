"""Networks that would train, but not in this mode, with this optimizer or in these numbers."""

import torch
from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import broken
from tests.questions.check.corpus.networks import Recurrent, cnn, he, mlp


@broken("normalization_untrained", "mode", optimizer="sgd(momentum=0.9)", lr=0.02, steps=250)
def conv_norms_in_eval(mended=False):
    """14 convolutions, each with a BatchNorm that never saw a batch and is not to see one; a LayerNorm before the head."""
    layers = [layer for _ in range(14) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model.append(nn.Linear(32, 10))
    return model.train(mended), data.images(), "ce"


@broken("normalization_untrained", "mode", "input_scale", lr=0.1)
def tabular_norm_first_in_eval(mended=False):
    """BatchNorm was to standardize raw columns; in eval it takes them for standardized."""
    return nn.Sequential(nn.BatchNorm1d(30), *mlp([30, 24, 24, 1])).train(mended), data.tumours(raw=True), "bce"


@broken("dropout", "mode", optimizer="adam", lr=1e-3)
def dropout_of_nearly_all(mended=False):
    """Of 32 units 31 are dropped, three times over."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.1 if mended else 0.96))]
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), *layers, nn.Linear(32, 10)), data.pixels(), "ce"


@broken("dropout", "mode", optimizer="sgd(momentum=0.9)", lr=0.05)
def dropout_of_the_input(mended=False):
    """Somebody's 0.02 to keep became 0.98 to drop, on the words themselves."""
    model = networks.TextCNN()
    model.words = nn.Sequential(model.words, nn.Dropout(0.02 if mended else 0.98))
    return model, data.topics(), "ce"


@broken("learning_rate_too_high", lr=30.0, mended={"lr": 0.1})
def conv_sgd_30():
    return he(cnn()), data.images(), "ce"


@broken("learning_rate_too_high", lr=20.0, mended={"optimizer": "adam", "lr": 1e-2})
def regression_sgd_20():
    """A frozen first layer that does no harm."""
    model = mlp([8, 64, 32, 1])
    model[0].requires_grad_(False)
    return model, data.surface(), "mse"


@broken("learning_rate_too_high", optimizer="adam", lr=0.5, mended={"lr": 3e-3})
def transformer_adam_half():
    return networks.GPT(), data.language(), "ce"


@broken("updates_too_small", optimizer="adam", lr=1e-7, mended={"lr": 3e-3})
def conv_adam_1e7():
    return cnn(norm=nn.BatchNorm2d), data.images(), "ce"


@broken("updates_too_small", lr=1e-6, mended={"optimizer": "adam", "lr": 1e-2})
def text_sgd_1e6():
    return networks.TextCNN(), data.topics(), "ce"


@broken(
    "epsilon_floor", "updates_too_small", optimizer="adam(eps=1.0)", lr=1e-3, mended={"optimizer": "adam", "lr": 3e-3}
)
def lstm_eps_1():
    return Recurrent(nn.LSTM, words=24, features=16, outputs=24, every=True), data.language(), "ce"


@broken(
    "epsilon_floor",
    "updates_too_small",
    optimizer="adam(eps=1e-2)",
    lr=1e-3,
    mended={"optimizer": "adam", "steps": 400},
)
def regression_small_loss_eps():
    """Targets in thousandths: gradients of 1e-4 under an epsilon of 1e-2."""
    model = mlp([8, 32, 32, 1], nn.SiLU)
    with torch.no_grad():
        model[-1].weight.mul_(1e-2)
        model[-1].bias.zero_()
    return model, data.surface().targets(lambda y: 3e-3 * y), "mse"


@broken("weight_decay", optimizer="sgd(weight_decay=10.0)", lr=0.02, mended={"optimizer": "sgd(momentum=0.9)"})
def conv_decay_sgd():
    return he(cnn(depth=3)), data.images(), "ce"


@broken("weight_decay", optimizer="adamw(weight_decay=200.0)", lr=1e-3, mended={"optimizer": "adamw", "lr": 3e-3})
def text_decay_adamw():
    """Each step takes a fifth of every weight."""
    return networks.BERT(), data.topics(), "ce"


@broken("numeric_range", "gradient_vanishes", optimizer="sgd(momentum=0.9)", lr=1.0, steps=400)
def half_underflow(mended=False):
    """In float16 the squared errors of 1e-4 have gradients below the smallest number there is."""
    model, dtype = mlp([64, 96, 64], nn.Tanh), torch.float32 if mended else torch.float16
    with torch.no_grad():
        model[-1].weight.mul_(1e-4)
        model[-1].bias.zero_()
    small = data.reconstruction().inputs(lambda x: x - 0.5).targets(lambda y: 1e-4 * (y - y.mean()))
    return model.to(dtype), small.to(dtype), "mse"


class RootMeanSquare(nn.Module):
    """A normalization that squares in the dtype it is given."""

    def forward(self, x):
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) / x.shape[-1] + 1e-5)


@broken("numeric_range", "input_scale", optimizer="sgd(momentum=0.9)", lr=0.05)
def half_overflow(mended=False):
    """Squares of raw pixels sum to more than 65,504."""
    dtype = torch.float32 if mended else torch.float16
    found = data.raw_pixels().inputs(lambda x: 255 * x).to(dtype)
    return nn.Sequential(RootMeanSquare(), *he(mlp([64, 32, 32, 10]))).to(dtype), found, "ce"


@broken("numeric_range", "epsilon_floor", optimizer="adam", lr=3e-3)
def half_adam(mended=False):
    """In float16 Adam's epsilon of 1e-8 is zero, and so are gradients of pixels that are always dark: 0 / 0."""
    dtype = torch.float32 if mended else torch.float16
    return mlp([64, 48, 10]).to(dtype), data.raw_pixels().to(dtype), "ce"
