"""The networks that every library is timed on: drawn on the CPU, and the same on every device."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from hessdiag.problem.problem import Problem

CPU = torch.device("cpu")


def _problem(model: nn.Module, x: Tensor, y: Tensor, device: torch.device) -> Problem:
    return Problem(model.to(device), data=[(x.to(device), y.to(device))], loss="ce")


def tanh_mlp(
    width: int, hidden: int, outputs: int, samples: int, device: torch.device = CPU, inputs: int | None = None
) -> Problem:
    """Float32, cross-entropy: inputs - width x hidden - outputs."""
    torch.manual_seed(0)
    sizes = [inputs or width, *[width] * hidden, outputs]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.Tanh()]
    x, y = torch.randn(samples, sizes[0]), torch.randint(outputs, (samples,))
    return _problem(nn.Sequential(*layers[:-1]), x, y, device)


def deep_mlp(device: torch.device = CPU) -> Problem:
    """128 ReLU layers of width 32, batch 128."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(128):
        linear = nn.Linear(32, 32, bias=False)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    x, y = torch.randn(128, 32), torch.randint(32, (128,))
    return _problem(nn.Sequential(*layers[:-1]), x, y, device)


def lenet(device: torch.device = CPU) -> Problem:
    """62,006 parameters on 3x32x32, batch 32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    return _problem(model, torch.randn(32, 3, 32, 32), torch.randint(10, (32,)), device)


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def small_resnet(device: torch.device = CPU) -> Problem:
    """Three residual blocks of 16 channels on 3x16x16, eval mode, batch 32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), _Block(16), _Block(16), _Block(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    return _problem(model.eval(), torch.randn(32, 3, 16, 16), torch.randint(10, (32,)), device)


class _Stage(nn.Module):
    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip
        alike = before == channels and stride == 1
        skip = nn.Conv2d(before, channels, 1, stride, bias=False)
        self.skip = nn.Identity() if alike else nn.Sequential(skip, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.body(x))


def resnet(resolution: int, device: torch.device = CPU) -> Problem:
    """Three residual blocks of 32, 64 and 128 channels, 308,650 parameters, eval mode, batch 32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        _Stage(32, 32, 1), _Stage(32, 64, 2), _Stage(64, 128, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return _problem(model.eval(), torch.randn(32, 3, resolution, resolution), torch.randint(10, (32,)), device)
