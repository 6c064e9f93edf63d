"""Skip connections, and the one way in which the papers' networks stack layers, normalization and activation."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

SKIPPED = 3  # layers under one skip connection: Vanishing Curvature, appendix A; over single layers, norms explode


class Residual(nn.Module):
    """x + f(x), with f the layers in order; where f changes the shape, x goes through a shortcut.

    >>> import torch
    >>> Residual([nn.ReLU(), nn.ReLU()])(torch.tensor([-1.0, 2.0]))
    tensor([-1.,  4.])
    """

    def __init__(self, layers: Sequence[nn.Module], shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Add what the layers make of x to x."""
        kept: Tensor = x if self.shortcut is None else self.shortcut(x)
        added: Tensor = self.body(x)
        return kept + added


def stack(
    layers: Sequence[nn.Module],
    activation: Callable[[], nn.Module],
    normalization: Callable[[], nn.Module] | None = None,
    *,
    residual: bool = False,
) -> list[nn.Module]:
    """Put normalization and activation behind every layer but the last, and skip connections over three at a time.

    The first and the last layer change the width and stay outside of skips, as do those left over when hidden layers
    are counted off by three. A skip ends before the activation of its last layer, as in ResNets.

    >>> [type(module).__name__ for module in stack([nn.Identity() for _ in range(6)], nn.ReLU, residual=True)]
    ['Identity', 'ReLU', 'Residual', 'ReLU', 'Identity', 'ReLU', 'Identity']
    """
    *hidden, last = layers
    units = [[layer, *([normalization()] if normalization else [])] for layer in hidden]
    found: list[nn.Module] = []
    while units:
        count = SKIPPED if residual and found and len(units) >= SKIPPED else 1
        parts = [part for unit in units[:count] for part in (*unit, activation())]
        found += [Residual(parts[:-1]), parts[-1]] if count > 1 else parts
        units = units[count:]
    return [*found, last]
