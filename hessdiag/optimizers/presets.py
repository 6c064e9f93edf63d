"""Constants of the trust-region method, as sets with names."""

from dataclasses import dataclass, replace
from typing import Literal

START = (
    0.015  # of the parameters' length; kinks of deep networks undo longer steps, and shrinking costs more than growing
)
Metric = Literal["uniform", "rmsprop", "adagrad", "diagonal", "full"]


@dataclass(frozen=True)
class Preset:
    """What the trust-region method is told.

    Attributes:
        radius: At the start, in the metric; `None` for `START` of the parameters' length.
        max_radius: At most; `None` for ten times the parameters' length.
        eta: Ratios of actual to predicted decrease: from the first on a step is taken, from the second on the radius
            grows, and below the first it shrinks.
        gamma: By which factor it grows, and by which it shrinks.
        tolerance: Of the subproblem's solver, relative to the gradient.
        theta: That tolerance is at most the gradient's norm to this power.
        most: Products a step.
        beta: Decay of the metric's average.
        eps: Floor of the metric.
        relative: Whether `eps` is relative to the median of the averaged gradient's entries, and the metric has mean 1.
        tries: Radii that a step may try, at most, with the products that it has made: shorter ones until the loss
            falls, longer ones as long as it falls as the model says. Each takes a forward pass.
        inside: Whether the radius grows after steps that end inside the region, too. Where minibatches are noisy, such
            steps say nothing of how far the model holds.
    """

    radius: float | None = None
    max_radius: float | None = None
    eta: tuple[float, float] = (1e-4, 0.25)
    gamma: tuple[float, float] = (2.0, 2.0)
    tolerance: float = 0.1
    theta: float = 0.0
    most: int = 50
    beta: float = 0.8
    eps: float = 3e-3
    relative: bool = True
    tries: int = 10
    inside: bool = False


_PAPER = Preset(0.05, 10.0, (0.01, 0.95), (1.1, 1.5), theta=0.5, eps=1e-10, relative=False, tries=1, inside=True)
PRESETS = {
    "robust": Preset(),
    "paper": _PAPER,
    "classic": Preset(eta=(1e-4, 0.75), gamma=(2.0, 4.0), theta=0.5, tries=1),
}


def preset(name: str, metric: str) -> Preset:
    """The constants of a preset for a metric."""
    if name == "paper" and metric == "rmsprop":
        return replace(_PAPER, radius=1e-4, gamma=(1.1, 1.75))
    return PRESETS[name]
