"""Networks whose weights, inputs, outputs or targets are of the wrong size, and losses that receive the wrong thing."""

from dataclasses import replace

import torch
from torch import nn

from tests.questions.check.corpus import data, networks
from tests.questions.check.corpus.case import broken
from tests.questions.check.corpus.networks import Apply, Recurrent, cnn, he, mlp


@broken("weight_scale", "signal_lost", layers=("2", "4"), lr=0.05)
def conv_two_layers_small(mended=False):
    """The second and the third of four convolutions are 1e-3 of what they should be."""
    model = he(cnn(depth=4))
    with torch.no_grad():
        if not mended:
            model[2].weight.mul_(1e-3)
            model[4].weight.mul_(1e-3)
    return model, data.images(), "ce"


@broken(
    "weight_scale",
    "signal_explodes",
    "logit_scale",
    layers=("blocks.1.feed.2",),
    optimizer="sgd(momentum=0.9)",
    lr=0.02,
    steps=400,
)
def transformer_one_layer_large(mended=False):
    """The second network's last matrix is 300 times too large, and no normalization follows."""
    model = networks.ViT()
    model.norm = nn.Identity()
    with torch.no_grad():
        model.blocks[1].feed[2].weight.mul_(1 if mended else 300)
    return model, data.images(), "ce"


@broken("weight_scale", "signal_explodes", layers=("2",), lr=0.05)
def regression_one_layer_large(mended=False):
    """The second layer 200 times too large."""
    model = he(mlp([8, 32, 32, 1]))
    with torch.no_grad():
        model[2].weight.mul_(1 if mended else 200)
    return model, data.surface(), "mse"


@broken("input_scale", optimizer="sgd(momentum=0.9)", lr=0.02)
def rnn_rows_255(mended=False):
    """Rows of raw pixels up to 255 into a ReLU recurrence."""
    scale = 2 if mended else 255
    found = data.raw_pixels().inputs(lambda x: scale * x.reshape(-1, 8, 8))
    return Recurrent(nn.RNN, nonlinearity="relu"), found, "ce"


@broken("input_scale", optimizer="sgd(momentum=0.9)", lr=0.05)
def segmentation_255(mended=False):
    """Raw pixels into a U-Net without normalization."""
    return networks.UNet(), data.segments().inputs(lambda x: x if mended else 80 * x + 80), "ce"


@broken("input_scale", lr=0.1)
def conv_inputs_tiny(mended=False):
    """Images in volts, of 1e-4."""
    return he(cnn(depth=3)), data.images().inputs(lambda x: x if mended else 1e-4 * x), "ce"


@broken("input_scale", lr=0.05)
def regression_years(mended=False):
    """One in four of the columns is a year: 2000 and what varies."""
    shift = torch.tensor([2000.0, 0, 0, 0, 2000.0, 0, 0, 0])
    return mlp([8, 32, 32, 1]), data.surface().inputs(lambda x: x if mended else x + shift), "mse"


@broken("input_scale", lr=0.05)
def tabular_own_units(mended=False):
    """Thirty measurements in their own units, from 0.001 to 4,000."""
    return mlp([30, 24, 24, 1]), data.tumours(raw=not mended), "bce"


@broken("loss_at_start", "logit_scale", lr=0.02)
def tabular_output_bias(mended=False):
    """Logistic regression whose logit starts at 300."""
    model = nn.Linear(30, 1)
    if not mended:
        nn.init.constant_(model.bias, 300.0)
    return model, data.tumours(), "bce"


@broken("loss_at_start", "targets", optimizer="adam", lr=1e-3)
def regression_mean_1000(mended=False):
    """Targets of mean 1000 and deviation 1."""
    return mlp([8, 32, 32, 1]), data.surface().targets(lambda y: y if mended else y + 1000), "mse"


@broken("targets", "saturated_units", "loss_at_start", "output_range", optimizer="adam", lr=3e-3)
def regression_behind_a_sigmoid(mended=False):
    """Targets from 150 to 250, and an output that ends at one."""
    model = mlp([8, 32, 32, 1], last=[] if mended else [nn.Sigmoid()])
    return model, data.surface().targets(lambda y: y if mended else 200 + 15 * y), "mse"


@broken("logit_scale", "loss_at_start", lr=0.1)
def conv_cold_softmax(mended=False):
    """Logits are divided by a temperature of 1/200."""
    return nn.Sequential(*he(cnn()), Apply(lambda z: z if mended else z / 0.005)), data.images(), "ce"


@broken("outputs_are_probabilities", optimizer="sgd(momentum=0.9)", lr=0.05)
def conv_softmax_before_ce(mended=False):
    """Softmax as the last layer, and again in the loss."""
    return nn.Sequential(*cnn(), *([] if mended else [nn.Softmax(1)])), data.images(), "ce"


class Probabilities(nn.Module):
    """Returns probabilities of itself."""

    def __init__(self):
        super().__init__()
        self.body = networks.UNet(classes=1)

    def forward(self, x):
        return torch.sigmoid(self.body(x))


@broken("outputs_are_probabilities", lr=0.05)
def masks_sigmoid_before_bce(mended=False):
    """A sigmoid in forward, and the logits' loss: what is below 1/2 cannot be said."""
    return networks.UNet(classes=1) if mended else Probabilities(), data.masks(), "bce"


@broken("targets", lr=0.05)
def masks_255(mended=False):
    """Masks as they come from a file, 0 and 255, under binary cross-entropy."""
    found = data.masks()
    return networks.UNet(classes=1), replace(found, y=(1 if mended else 255) * found.y), "bce"


@broken("targets", optimizer="adam", lr=3e-3)
def conv_shuffled_targets(mended=False):
    """Images and labels were shuffled each for itself."""
    found = data.images()
    order = torch.randperm(len(found.y), generator=torch.Generator().manual_seed(5))
    return cnn(norm=nn.BatchNorm2d), replace(found, y=found.y if mended else found.y[order]), "ce"


@broken("targets", optimizer="adam", lr=3e-3)
def text_constant_targets(mended=False):
    """The label column was read from the wrong place: always 2."""
    found = data.topics()
    return networks.TextCNN(), replace(found, y=found.y if mended else torch.full_like(found.y, 2)), "ce"


@broken("targets", optimizer="adam", lr=3e-3)
def regression_reversed_targets(mended=False):
    """Targets are in the reverse order of the inputs."""
    found = data.surface()
    return mlp([8, 32, 32, 1]), replace(found, y=found.y if mended else found.y.flip(0)), "mse"


def own_accuracy(output, target):
    """What a user called a loss: the share of wrong answers, which has no slope anywhere."""
    return (torch.sigmoid(output).round() - target).square().mean()


@broken("loss_ignores_output", "detached", "gradient_vanishes", lr=0.1)
def tabular_rounded_in_the_loss(mended=False):
    return mlp([30, 24, 24, 24, 1]), data.tumours(), "bce" if mended else own_accuracy


def target_with_itself(output, target):
    """A slip: the target is compared with itself."""
    return nn.functional.mse_loss(target + 0 * output, target)


@broken("loss_ignores_output", "detached", optimizer="adam", lr=0.005, steps=400)
def autoencoder_compared_with_itself(mended=False):
    return mlp([64, 48, 16, 48, 64]), data.reconstruction(), "mse" if mended else target_with_itself
