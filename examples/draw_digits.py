"""Train the network of LODO's section 5.3 to name pixels of digits, and let it draw some, pixel by pixel.

    python examples/draw_digits.py --out digits.png
    python examples/draw_digits.py --out lodo.png --optimizer 'lodo(alpha=0.08459, meta_lr=7.946e-6, beta=0.9343)'

At 8x8 pixels that takes minutes. At 28x28, the paper's size, it wants a GPU: `--size 28 --batch 256 --steps 20000`.
Losses are means over the last tenth of the steps.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.image import imsave
from torch import Tensor, nn

from hessdiag.nets.tasks.pixel_cnn import PixelCNN, drawn, questions, shades
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.recipe import recipe

ADAM = "adam(lr=9.554e-4, betas=(0.9323, 0.99505))"  # the paper's constants
TENTHS = 10  # of the steps, over each of which a loss is averaged
EDGE = 8  # pictures side by side


def closure(model: nn.Module, optimizer: torch.optim.Optimizer, seen: Tensor, right: Tensor) -> Callable[[], Tensor]:
    """What a step of the optimizer calls: those of hessdiag differentiate the loss themselves."""

    def loss() -> Tensor:
        return F.cross_entropy(model(seen), right)

    def with_gradient() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    return loss if isinstance(optimizer, ClosureOptimizer) else with_gradient


def train(model: nn.Module, pictures: Tensor, optimizer: torch.optim.Optimizer, steps: int, batch: int) -> float:
    """Steps on pixels that are drawn anew each time; the mean loss of the last tenth of them."""
    parameter, generator = next(model.parameters()), torch.Generator().manual_seed(0)
    losses: list[float] = []
    tenth = max(steps // TENTHS, 1)
    for step in range(steps):
        seen, right = questions(pictures, batch, generator)
        losses.append(float(optimizer.step(closure(model, optimizer, seen.to(parameter), right.to(parameter.device)))))
        if (step + 1) % tenth == 0:
            print(f"to step {step + 1:>6}: loss {sum(losses[-tenth:]) / tenth:.3f}", flush=True)
    return sum(losses[-tenth:]) / len(losses[-tenth:])


def sheet(pictures: Tensor) -> Tensor:
    """Pictures (n, size, size) in rows of eight, with a black line between them."""
    framed = F.pad(pictures, (0, 1, 0, 1))
    framed = F.pad(framed, (0, 0, 0, 0, 0, -len(framed) % EDGE))
    rows = framed.reshape(-1, EDGE, *framed.shape[1:])
    return rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the PNG")
    parser.add_argument("--size", type=int, default=8, help="pixels on each side, at most 32")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--optimizer", default=ADAM, help="as in hessdiag escape --optimizer")
    given = parser.parse_args()
    digits = shades(given.size)
    network = PixelCNN(given.size, seed=0, dtype=torch.float32).to("cuda" if torch.cuda.is_available() else "cpu")
    final = train(network, digits, recipe(given.optimizer, None).build(network), given.steps, given.batch)
    found = drawn(network, given.pictures, given.size, torch.Generator().manual_seed(1))
    imsave(given.out, sheet(found).numpy(), cmap="gray", vmin=0, vmax=255)
    print(f"loss {final:.3f} of {given.size}x{given.size} pixels with 256 shades; {len(found)} pictures in {given.out}")
