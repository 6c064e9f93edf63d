"""Train the network of LODO's section 5.3 to name pixels of digits, and let it draw some, pixel by pixel.

    python examples/draw_digits.py -o digits.svg
    python examples/draw_digits.py -o lodo.png --steps 600 --optimizer 'lodo(alpha=0.08459, meta_lr=7.946e-6)'

Every optimizer that is named, or four, starts from the same weights and sees the same pixels. At 8x8 pixels that takes
some ten minutes each. At 28x28, the paper's size, it wants a GPU: `--size 28 --batch 256 --steps 20000`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.figure import Figure
from torch import Tensor, nn

from hessdiag.nets.tasks.pixel_cnn import PixelCNN, drawn, questions, shades
from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.recipe import recipe

OPTIMIZERS = (  # the paper's constants; RMSprop's learning rate is lost
    "lodo(alpha=0.08459, meta_lr=7.946e-6, beta=0.9343)",
    "adam(lr=9.554e-4, betas=(0.9323, 0.99505))",
    "sgd(lr=3.411e-3, momentum=0.964)",
    "rmsprop(lr=1e-3)",
)
TENTHS = 10  # of the steps, over each of which a loss is averaged


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


def train(model: nn.Module, pictures: Tensor, optimizer: torch.optim.Optimizer, steps: int, batch: int) -> list[float]:
    """Steps on pixels that are drawn anew each time; the mean loss of each tenth of them."""
    parameter, generator = next(model.parameters()), torch.Generator().manual_seed(0)
    losses: list[float] = []
    for _ in range(steps):
        seen, right = questions(pictures, batch, generator)
        losses.append(float(optimizer.step(closure(model, optimizer, seen.to(parameter), right.to(parameter.device)))))
    return [float(part.mean()) for part in torch.tensor(losses).tensor_split(min(TENTHS, steps))]


def draw(path: Path, curves: dict[str, list[float]], pictures: dict[str, Tensor], steps: int) -> None:
    """Losses on the left, pictures (n, size, size) of each optimizer on the right."""
    mpl.rcParams["svg.hashsalt"] = "digits"  # the same file each time
    figure = Figure(figsize=(8.4, 0.55 * len(pictures) + 1.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.4))
    axes = left.subplots()
    for name, losses in curves.items():
        axes.plot([steps * (at + 0.5) / len(losses) for at in range(len(losses))], losses, marker=".", label=name)
    axes.set(xlabel="step", ylabel="loss of a pixel")
    axes.legend(frameon=False, fontsize="small")
    for panel, (name, shown) in zip(right.subplots(len(pictures), squeeze=False)[:, 0], pictures.items(), strict=True):
        row = F.pad(shown, (0, 1)).permute(1, 0, 2).flatten(1)
        panel.imshow(row, cmap="gray", vmin=0, vmax=255)
        panel.set(xticks=[], yticks=[])
        panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(given: argparse.Namespace) -> None:
    """Train with each optimizer, print its losses, and draw."""
    digits = shades(given.size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    curves: dict[str, list[float]] = {}
    pictures = {"digits": digits[: given.pictures]}
    for spec in given.optimizer or OPTIMIZERS:
        name = spec.partition("(")[0] if spec in OPTIMIZERS else spec
        network = PixelCNN(given.size, seed=0, dtype=torch.float32).to(device)
        curves[name] = train(network, digits, recipe(spec, None).build(network), given.steps, given.batch)
        pictures[name] = drawn(network, given.pictures, given.size, torch.Generator().manual_seed(1))
        print(f"{name}: loss {' '.join(f'{value:.3f}' for value in curves[name])}", flush=True)
    draw(given.output, curves, pictures, given.steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("digits.svg"))
    parser.add_argument("--size", type=int, default=8, help="pixels on each side, at most 32")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=12, help="of each optimizer")
    parser.add_argument("--optimizer", action="append", help="as in hessdiag escape --optimizer; repeatable")
    main(parser.parse_args())
