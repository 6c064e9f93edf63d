"""Train a small MLP and a small CNN on scikit-learn's handwritten digits; save both, before and after, and a batch.

    python examples/digits.py --out examples/out

The models are plain torch.nn layers, so `hessdiag diag-share mlp-trained.pt --data batch.npz` loads them as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

BATCH = 64  # samples in batch.npz: what the Hessian is measured on
EPOCHS = 30
CHECKPOINTS = (0, 1, 3, 10, 30)  # epochs


def digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images, (1797, 64) in [0, 1], and their classes, shuffled."""
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]


def mlp() -> nn.Module:
    """3,466 parameters."""
    return nn.Sequential(
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def cnn() -> nn.Module:
    """3,818 parameters; it takes the same flat images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int = EPOCHS) -> None:
    """In float64, whose rounding does not grow to digits that count: the same network on any machine."""
    model, x = model.double(), x.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    model.float()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out", help="folder for what is saved")
    parser.add_argument("--checkpoints", action="store_true", help="save the MLP after 0, 1, 3, 10 and 30 epochs too")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)

    x, y = digits()
    train_x, test_x, train_y, test_y = x[:1400], x[1400:], y[:1400], y[1400:]
    np.savez(out / "batch.npz", x=train_x[:BATCH], y=train_y[:BATCH])
    for build in (mlp, cnn):
        torch.manual_seed(0)
        model = build()
        torch.save(model, out / f"{build.__name__}-init.pt")
        train(model, train_x, train_y)
        torch.save(model, out / f"{build.__name__}-trained.pt")
        print(f"{build.__name__}: test accuracy {accuracy(model, test_x, test_y):.3f}")
    for epochs in CHECKPOINTS if options.checkpoints else ():
        torch.manual_seed(0)
        model = mlp()
        train(model, train_x, train_y, epochs)
        torch.save(model, out / f"epoch-{epochs}.pt")


if __name__ == "__main__":
    main()
