"""A training script that hessdiag can ask for its model, its batches and its loss.

Run it with `python examples/train.py`. Measure it with `hessdiag diag-share examples/train.py:setup`, or along training
with `hessdiag diag-share 'examples/train.py:setup(steps=0)' 'examples/train.py:setup(steps=300)'`.
"""

import torch
from torch import Tensor, nn

SAMPLES = 256


def spirals(samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Three interleaved spirals in the plane, (samples, 2), and their classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (samples,), generator=generator)
    radius = torch.rand(samples, generator=generator)
    angle = 4 * radius + 2 * torch.pi / 3 * y + 0.1 * torch.randn(samples, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y


def build_model(width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def setup(width: int = 32, steps: int = 0) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], str]:
    """What hessdiag asks for: the model after some steps, batches, and a loss by name or as a function."""
    torch.manual_seed(0)
    model, (x, y) = build_model(width), spirals()
    train(model, x, y, steps)
    return model, [(x, y)], "ce"


if __name__ == "__main__":
    model, [(x, y)], _ = setup(steps=300)
    print(f"accuracy {(model(x).argmax(1) == y).float().mean():.3f}")
