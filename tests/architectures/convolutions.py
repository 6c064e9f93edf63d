"""Convolutions, pooling and normalization, and the layouts of their targets."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.architectures.case import Case, Lambda, Net, case, classes, cut, normal
from tests.architectures.feedforward import of_output


def settled(model):
    """Running statistics and affine parameters away from where they start."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        if (
            isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
            and module.weight is not None
        ):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def mean_ce(y):
    return lambda z: -z.log_softmax(1).gather(1, y[:, None]).mean()


@case
def convolution_1d_with_segment_targets():
    """Logits (N, C, d), targets (N, d), some ignored, in batches of different lengths d."""
    x1, x2, y1, y2 = normal(2, 2, 7), normal(3, 2, 5), classes(3, 2, 5), classes(3, 3, 3)
    y1[0, :4], y2[1] = -100, -100
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 3, 1)).double()

    def value(a, b):
        chosen = [
            z.log_softmax(1).movedim(1, -1)[y != -100][torch.arange(int((y != -100).sum())), y[y != -100]]
            for z, y in ((a, y1), (b, y2))
        ]
        return -torch.cat(chosen).mean()

    received = lambda m: [m(x1), m(x2)]
    return Case(model, [(x1, y1), (x2, y2)], loss=F.cross_entropy, weights=[0.5, 0.5], received=received, value=value)


@case
def convolution_2d_with_max_pooling():
    x, y = normal(6, 1, 6, 6), classes(3, 6)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    return Case(
        model, cut(x, y, 2, 4), loss="ce", weights=[1 / 3, 2 / 3], oracle="double backward", **of_output(x, mean_ce(y))
    )


@case
def convolution_3d_with_average_pooling():
    x, y = normal(4, 1, 4, 4, 4), normal(4, 2)
    model = nn.Sequential(
        nn.Conv3d(1, 2, 2, stride=2), nn.SELU(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(2, 2)
    ).double()
    return Case(
        model, cut(x, y, 1, 3), loss="mse", oracle="double backward", **of_output(x, lambda z: (z - y).square().mean())
    )


@case
def depthwise_dilated_and_grouped():
    x, y = normal(5, 2, 6, 6), normal(5, 2)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, dilation=2),
        nn.Hardswish(),
        nn.Conv2d(4, 4, 2, groups=4, padding="same", padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ).double()
    return Case(
        model, cut(x, y, 2, 3), loss="mse", oracle="double backward", **of_output(x, lambda z: (z - y).square().mean())
    )


@case
def transposed_convolution_and_upsampling():
    """Images out; a mean over pixels, in batches of images of different sizes."""
    x1, x2, y1, y2 = normal(2, 1, 3, 3), normal(1, 1, 2, 2), normal(2, 1, 12, 12), normal(1, 1, 8, 8)
    model = nn.Sequential(
        nn.ConvTranspose2d(1, 2, 2, stride=2),
        nn.Tanh(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(2, 1, 3, padding=1),
    ).double()
    received, value = (
        lambda m: [m(x1), m(x2)],
        lambda a, b: ((a - y1).square().sum() + (b - y2).square().sum()) / (288 + 64),
    )
    return Case(
        model, [(x1, y1), (x2, y2)], loss=nn.MSELoss(), weights=[288 / 352, 64 / 352], received=received, value=value
    )


@case
def batch_norm_in_evaluation():
    x, y = normal(6, 2, 5, 5), classes(2, 6)
    model = settled(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, bias=False),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 2),
        ).double()
    )
    return Case(model, cut(x, y, 2, 4), loss="ce", **of_output(x, mean_ce(y)))


@case
def batch_norm_in_training():
    """Statistics of each batch: batches cannot be joined."""
    x, y = normal(9, 3), normal(9, 2)
    model = settled(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double())
    received = lambda m: [m(x[:4]), m(x[4:])]
    value = lambda a, b: (torch.cat([a, b]) - y).square().mean()
    return Case(
        model,
        cut(x, y, 4, 5),
        loss="mse",
        settings={"train_mode": True},
        tolerance=1e-8,
        received=received,
        value=value,
    )


@case
def group_norm_and_instance_norm():
    x, y = normal(4, 2, 5, 5), normal(4, 2)
    model = settled(
        nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.GroupNorm(2, 4),
            nn.SiLU(),
            nn.Conv2d(4, 2, 2),
            nn.InstanceNorm2d(2, affine=True),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8, 2),
        ).double()
    )
    return Case(model, cut(x, y, 1, 3), loss="mse", tolerance=1e-5, **of_output(x, lambda z: (z - y).square().mean()))


@case
def layer_norm():
    x, y = normal(7, 3), classes(3, 7)
    model = settled(
        nn.Sequential(
            nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(approximate="tanh"), nn.Linear(5, 3), nn.LayerNorm(3)
        ).double()
    )
    return Case(model, cut(x, y, 3, 4), loss="ce", tolerance=1e-6, **of_output(x, mean_ce(y)))


@case
def weight_norm_by_parametrization():
    x, y = normal(7, 3), normal(7, 2)
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
        nn.Tanh(),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 2), dim=None),
    ).double()
    return Case(model, cut(x, y, 3, 4), loss="mse", tolerance=1e-8, **of_output(x, lambda z: (z - y).square().mean()))


@case
def weight_norm_of_old():
    x, y = normal(4, 2, 6), normal(4, 2)
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Conv1d(2, 3, 3).double()), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2).double()
    )
    return Case(model, cut(x, y, 1, 3), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def spectral_norm():
    x, y = normal(7, 3), normal(7, 2)
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)).double()
    return Case(model, cut(x, y, 3, 4), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def orthogonal_parametrization():
    x, y = normal(7, 3), normal(7, 2)
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3).double(), orthogonal_map="cayley")
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(3, 2).double())
    return Case(model, [(x, y)], loss="mse", **of_output(x, lambda z: (z - y).square().mean()))


@case
def residual_network_with_squeeze_and_excitation():
    x, y = normal(4, 2, 4, 4), classes(3, 4)

    def forward(m, x):
        h = m.bn(m.conv(x)).tanh()
        h = x + h * m.excite(h.mean((2, 3))).sigmoid()[:, :, None, None]
        return m.head(h.mean((2, 3)))

    parts = {
        "conv": nn.Conv2d(2, 2, 3, padding=1, bias=False),
        "bn": nn.BatchNorm2d(2),
        "excite": nn.Linear(2, 2),
        "head": nn.Linear(2, 3),
    }
    return Case(
        settled(Net(forward, **parts).double()),
        cut(x, y, 1, 3),
        loss="ce",
        weights=[0.25, 0.75],
        **of_output(x, mean_ce(y)),
    )


@case
def list_of_images_of_different_sizes():
    """A batch is a list of images, each of its own size: as many samples as targets."""
    images, y = [normal(1, 4 + i, 6 - i % 2) for i in range(5)], classes(2, 5)
    model = Net(
        lambda m, *images: torch.stack([m.head(torch.tanh(m.conv(image)).mean((1, 2))) for image in images]),
        conv=nn.Conv2d(1, 3, 3),
        head=nn.Linear(3, 2),
    ).double()
    received = lambda m: [m(*images)]
    return Case(
        model,
        [(images[:2], y[:2]), (images[2:], y[2:])],
        loss="ce",
        weights=[0.4, 0.6],
        received=received,
        value=mean_ce(y),
    )


@case
def pixel_shuffle_with_channels_last():
    x, y = normal(3, 2, 3, 3), normal(3, 1, 6, 6)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Lambda(torch.sin), nn.PixelShuffle(2)).double()
    x = x.to(memory_format=torch.channels_last)
    return Case(model, cut(x, y, 1, 2), loss="mse", **of_output(x, lambda z: (z - y).square().mean()))
