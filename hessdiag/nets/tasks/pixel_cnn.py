"""A network that draws digits pixel by pixel (LODO, section 5.3 and appendix F.2)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hessdiag.errors import SpecError
from hessdiag.nets.initializers import source
from hessdiag.nets.network import Network, seeded
from hessdiag.nets.reinitialize import reinitialize
from hessdiag.nets.residual import Residual
from hessdiag.nets.tasks.grey_digits import WHITE, grey_digits
from hessdiag.nets.tasks.task import setup

CHANNELS = 5
BETWEEN, INSIDE, SPREAD = 20, 40, 120  # channels between blocks, and inside them before and behind their 3x3 filters
POOLS, BLOCKS = 5, 4
SHADES = 256
LARGEST = 2**POOLS
BATCH = 256
CONTENDERS = (
    "adam(lr=9.554e-4, betas=(0.9323, 0.99505))",
    "sgd(lr=3.411e-3, momentum=0.964)",
    "rmsprop",
    "lodo(alpha=0.08459, meta_lr=7.946e-6, beta=0.9343)",
)


class Arctangent(nn.Module):
    """The activation that the paper takes, against gradients that grow or vanish."""

    def forward(self, x: Tensor) -> Tensor:
        """Entry by entry."""
        return x.atan()


class PixelCNN(Network):
    """The shade of one pixel from those above and left of it: (n, 5, size, size) to logits (n, 256).

    A 3x3 convolution to 20 channels; five times four residual blocks (1x1 to 40 channels, arctangent, 3x3 filters of
    single channels to 120, arctangent, 1x1 to 20) and an average over 2x2 pixels; a 1x1 convolution to 256 shades.

    Only the convolutions from 20 to 40 channels have no bias: so it comes to the paper's 94,696 parameters. Its
    authors' program has a first convolution of 1x1 and biases everywhere, which comes to the same number. An image of
    odd size gets a row and a column of zeros before it is averaged.

    Args:
        size: Height and width of the images, at most 32.
        seed: Of the weights; `None` takes torch's global random state.
        dtype: Of the parameters.

    Raises:
        SpecError: if the size is below 1 or above 32.

    >>> net = PixelCNN(seed=0)
    >>> sum(parameter.numel() for parameter in net.parameters())
    94696
    >>> net(torch.zeros(2, 5, 28, 28, dtype=torch.float64)).shape
    torch.Size([2, 256])
    """

    def __init__(self, size: int = 28, seed: int | None = None, dtype: torch.dtype = torch.float64) -> None:
        if not 1 <= size <= LARGEST:
            raise SpecError(f"images are 1 to {LARGEST} pixels high and wide, not {size}.", "size=28")
        layers: list[nn.Module] = [nn.Conv2d(CHANNELS, BETWEEN, 3, padding=1)]
        for _ in range(POOLS):
            layers += [_block() for _ in range(BLOCKS)]
            layers += [nn.ZeroPad2d((0, 1, 0, 1))] if size % 2 else []
            layers.append(nn.AvgPool2d(2))
            size = (size + 1) // 2
        super().__init__(*layers, nn.Conv2d(BETWEEN, SHADES, 1), nn.Flatten())
        self.to(dtype)
        reinitialize(self, "lecun_normal", seeded(seed))


def _block() -> Residual:
    return Residual(
        [
            nn.Conv2d(BETWEEN, INSIDE, 1, bias=False),
            Arctangent(),
            nn.Conv2d(INSIDE, SPREAD, 3, padding=1, groups=INSIDE),
            Arctangent(),
            nn.Conv2d(SPREAD, BETWEEN, 1),
        ]
    )


def pixel_cnn(
    size: int = 28, samples: int = 1024, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Mapping[str, Any]:
    """`PixelCNN` and pixels of scikit-learn's digits, which stand in for MNIST: cross-entropy of 256 shades.

    The paper draws a batch of 256 anew at every one of 300,000 steps. Constants of Adam and of momentum are its own,
    of RMSprop the learning rate is lost. `examples/draw_digits.py` trains it and draws.

    Args:
        size: Height and width of the images.
        samples: Pixels, each with the image that it is in.
        seed: Of weights and samples.
        dtype: Of the parameters.

    Returns:
        `{"model", "data", "loss"}`; inputs (samples, 5, size, size) and shades (samples,).

    Raises:
        SpecError: if the size is below 1 or above 32.
        LoadError: if scikit-learn is not installed.

    >>> x, shade = pixel_cnn(size=8, samples=10)["data"]
    >>> x.shape, shade.shape
    (torch.Size([10, 5, 8, 8]), torch.Size([10]))
    """
    model = PixelCNN(size, seed, dtype)
    return setup(
        model=model,
        data=questions(shades(size), samples, source(seed, SHADES)),
        loss="ce",
        contenders=CONTENDERS,
        samples=BATCH,
        score=(0.9, 1.0),
    )


def shades(size: int) -> Tensor:
    """The digits as whole numbers from 0 to 255, (1797, size, size)."""
    pixels, _ = grey_digits(size)
    return (pixels[:, 0] * ((SHADES - 1) / WHITE)).round().long()


def questions(pictures: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pixels drawn at random from pictures drawn at random: what the network sees, and the shade that is right.

    Args:
        pictures: Whole numbers (n, size, size).
        samples: How many pixels.
        generator: Draws them.

    Returns:
        Inputs (samples, 5, size, size), and shades (samples,).
    """
    size = pictures.shape[-1]
    which = torch.randint(len(pictures), (samples,), generator=generator)
    pixels = torch.randint(size**2, (samples,), generator=generator)
    return inputs(pictures[which], pixels), pictures.flatten(1)[which, pixels]


def inputs(pictures: Tensor, pixels: Tensor) -> Tensor:
    """What the network sees of pictures (n, size, size) before it names one pixel of each, (n, 5, size, size).

    Channels: shades over 256 of the pixels before that one, row by row, the others black; which these are; which
    columns are left of it; the row and the column of every pixel, from -1. Yes is 1 and no is -1.

    >>> picture = torch.tensor([[[64, 128], [192, 0]]])
    >>> inputs(picture, torch.tensor([2]))[0, :3].tolist()  # the third pixel: row 1, column 0
    [[[0.25, 0.5], [0.0, 0.0]], [[1.0, 1.0], [-1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]]
    """
    count, size, _ = pictures.shape
    order = torch.arange(size**2, device=pictures.device).reshape(size, size)
    before = (order < pixels[:, None, None]).double()
    left = (order % size < (pixels % size)[:, None, None]).double()
    places = torch.stack([order // size, order % size]).double() * (2 / size) - 1
    seen = torch.stack([pictures.double() / SHADES * before, 2 * before - 1, 2 * left - 1], dim=1)
    return torch.cat([seen, places.expand(count, -1, -1, -1)], dim=1)


def drawn(model: nn.Module, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Pictures drawn pixel by pixel by a trained network, whole numbers (count, size, size).

    Args:
        model: Gives the logits of a shade.
        count: How many.
        size: Height and width for which the network was made.
        generator: Draws each shade from the network's probabilities.
    """
    parameter = next(model.parameters())
    pictures = torch.zeros(count, size, size, dtype=torch.long)
    with torch.no_grad():
        for pixel in range(size**2):
            seen = inputs(pictures, torch.full((count,), pixel)).to(parameter)
            chances = F.softmax(model(seen), dim=1).cpu()
            pictures.flatten(1)[:, pixel] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return pictures
