"""Digits through a deep sigmoid autoencoder that six optimizers trained, each with the same number of backpropagations.

python examples/reconstructions.py -o reconstructions.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch.nn.functional import binary_cross_entropy_with_logits

import hessdiag
from hessdiag.optimizers import EllipsoidalTrustRegion

FIRST, SECOND = 32, 512  # samples of a minibatch: of gradients, with products
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.03),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.003),
    "TR uniform": lambda p: EllipsoidalTrustRegion(p, metric="uniform"),
    "TR Adagrad": lambda p: EllipsoidalTrustRegion(p, metric="adagrad"),
    "TR RMSprop": lambda p: EllipsoidalTrustRegion(p, metric="rmsprop"),
}


def trained(make, images: torch.Tensor, seed: int, budget: int) -> torch.nn.Module:
    """The network after so many gradients and products with curvature."""
    request = hessdiag.ProblemRequest("builtin:autoencoder", device="cpu", seed=seed)
    model = hessdiag.load_problem(request).model.train()
    optimizer = make(model.parameters())
    ours = isinstance(optimizer, EllipsoidalTrustRegion)
    source = torch.Generator().manual_seed(seed)
    spent = 0
    while spent < budget:
        for chosen in torch.randperm(len(images), generator=source).split(SECOND if ours else FIRST):
            batch = images[chosen]

            def loss(batch: torch.Tensor = batch) -> torch.Tensor:
                return binary_cross_entropy_with_logits(model(batch), batch)

            if ours:
                optimizer.step(loss)
                spent += optimizer.last.gradients + optimizer.last.products
            else:
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
                spent += 1
            if spent >= budget:
                break
    return model


def draw(path: Path, seed: int, budget: int) -> None:
    mpl.rcParams["svg.hashsalt"] = "reconstructions"  # the same file each time
    images = torch.from_numpy(load_digits().data) / 16
    constant = images.mean(0).logit(eps=1e-12).expand_as(images)
    print(f"{'constant':>10}: loss {binary_cross_entropy_with_logits(constant, images):.4f}")
    rows = {"original": images[:10]}
    with torch.no_grad():
        for name, make in OPTIMIZERS.items():
            with torch.enable_grad():
                model = trained(make, images, seed, budget)
            output = model(images)
            rows[name] = output[:10].sigmoid()
            spread = output.sigmoid().std(0).mean() / images.std(0).mean()
            value = binary_cross_entropy_with_logits(output, images)
            print(f"{name:>10}: loss {value:.4f}, deviation over images {spread:.1%} of the originals'")
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    for panel, (name, shown) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
        panel.imshow(shown.reshape(-1, 8, 8).permute(1, 0, 2).reshape(8, -1), cmap="gray", vmin=0, vmax=1)
        panel.set(xticks=[], yticks=[])
        panel.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("reconstructions.svg"))
    parser.add_argument("--budget", type=int, default=3000, help="backpropagations")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw(asked.output, asked.seed, asked.budget)
