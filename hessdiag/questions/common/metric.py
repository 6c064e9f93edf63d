"""The metric that a matrix was taken in, as results hold it, and its words."""

from dataclasses import dataclass
from typing import Literal

from hessdiag.fields import Count, Number
from hessdiag.numbers import number

_SOURCES = {  # of P, by `Metric.state`
    "checkpoint": "the state in the checkpoint",
    "optimizer": "the optimizer's own state",
    "gradients": "the gradients here, as of an optimizer that has not stepped yet",
    "given": "the numbers that were given",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The diagonal metric P of P^(-1/2) A P^(-1/2), of an optimizer that divides the gradient by P.

    Attributes:
        optimizer: Which, with its settings; what was asked for, where nothing was measured.
        kind: Its class in small letters: "adam". "given" for numbers that were given.
        state: Where P is from: "checkpoint", "optimizer" (a live one's state), "gradients" (of an optimizer that has
            not stepped yet: v is the mean of the batches' squared gradients here) or "given".
        lr: Learning rate; the largest where groups differ.
        rates_differ: Whether groups have learning rates that differ: then P is divided by their ratios to `lr`.
        threshold: c: the optimizer is stable here while lr * lambda_max < c; `None` where none is derived.
        weight_decay: Weight decay; the largest where groups differ.
        coupled: Whether it is part of the gradient: then it adds weight_decay / P to this curvature.
        smallest: Smallest entry of P.
        largest: Largest of those that are finite.
        held: Parameters that the optimizer does not move, whose rows are zero here.
        notes: What to keep in mind of it.
    """

    optimizer: str
    kind: str = ""
    state: Literal["checkpoint", "optimizer", "gradients", "given"] | None = None
    lr: Number = None
    rates_differ: bool = False
    threshold: Number = None
    weight_decay: Number = None
    coupled: bool = False
    smallest: Number = None
    largest: Number = None
    held: Count = 0
    notes: tuple[str, ...] = ()

    @property
    def shift(self) -> float | None:
        """What a coupled weight decay adds to the largest eigenvalue; `None` where that is another matrix."""
        if not self.coupled or not self.weight_decay:
            return 0.0
        even = self.smallest is not None and self.smallest == self.largest and not self.held
        return self.weight_decay / self.smallest if even and self.smallest else None

    def limit(self, curvature: float) -> float | None:
        """The learning rate up to which the optimizer is stable at a largest eigenvalue; `None` if that is not known.

        >>> Metric(optimizer="SGD(momentum=0.9)", threshold=3.8, smallest=1.0, largest=1.0).limit(7.6)
        0.5
        """
        if self.threshold is None or self.shift is None or curvature + self.shift <= 0:
            return None
        return self.threshold / (curvature + self.shift)


def noun(word: str, metric: Metric | None) -> str:
    """What a matrix is called in sentences.

    >>> noun("Hessian", Metric(optimizer="Adam"))
    'preconditioned Hessian'
    """
    return word if metric is None else f"preconditioned {word}"


def here(metric: Metric | None) -> str:
    """The end of a sentence whose numbers are in a metric."""
    return "" if metric is None else f" in the metric of {metric.optimizer}"


def source(metric: Metric) -> str:
    """Where P is from, and how far it goes; empty where nothing was measured.

    >>> source(Metric(optimizer="SGD", state="gradients", smallest=1.0, largest=1.0))
    'P is 1.0 throughout'
    """
    if metric.state is None:
        return ""
    if metric.smallest == metric.largest:
        return f"P is {number(metric.smallest, 2)} throughout"
    return f"P is from {_SOURCES[metric.state]}: {number(metric.smallest, 2)} to {number(metric.largest, 2)}"
