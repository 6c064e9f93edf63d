"""Train a LeNet (62,006 parameters) and a tanh MLP (411,146) on digits at 3x32x32; save their weights along the way.

    python examples/train_32x32.py --out examples/out
    hessdiag diag-share builtin:lenet --weights examples/out/lenet-30.pt --data 'builtin:digits(size=32, channels=3)'

They are the networks of Adaptive norms, Figure 2, by their numbers of parameters.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import hessdiag
from hessdiag.nets.convnet import LeNet
from hessdiag.nets.mlp import MLP

DATA = "builtin:digits(size=32, channels=3)"
TRAINING = 1400  # images; the others are for the test


def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images, (1797, 3, 32, 32) in [0, 1], and their classes."""
    request = hessdiag.ProblemRequest("builtin:lenet", data=DATA, batch_size=1797, device="cpu")
    ((x, y),) = hessdiag.load_problem(request).data
    return x.float(), y


def networks() -> dict[str, nn.Module]:
    """Both networks, with fresh weights."""
    torch.manual_seed(0)
    single = torch.float32
    wide = MLP(depth=3, width=128, in_features=3072, out_features=10, activation="tanh", bias=True, dtype=single)
    return {"lenet": LeNet(dtype=single), "mlp": wide}


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    optimizer = torch.optim.RMSprop(model.parameters(), lr=5e-4)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder for what is saved")
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3, 10, 30], help="after which to save")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images, classes = digits()
    for name, model in networks().items():
        x = images.flatten(1) if name == "mlp" else images
        done = 0
        for epochs in sorted(arguments.epochs):
            train(model, x[:TRAINING], classes[:TRAINING], epochs - done)
            done = epochs
            torch.save(model.state_dict(), arguments.out / f"{name}-{epochs}.pt")
            with torch.no_grad():
                right = (model(x).argmax(1) == classes).float()
            seen, unseen = float(right[:TRAINING].mean()), float(right[TRAINING:].mean())
            print(f"{name}, {epochs} epochs: accuracy {seen:.3f} in training, {unseen:.3f} in the test")


if __name__ == "__main__":
    main()
