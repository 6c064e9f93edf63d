"""Optimizers by name: what `--optimizer SPEC` and `--lr` say, and the optimizer itself for some parameters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

USUAL = "adam(lr=1e-3)"  # what stands in where no optimizer is given


@dataclass(frozen=True)
class Recipe:
    """How an optimizer is made.

    Attributes:
        name: As people call it, with its settings: "Adam(lr=0.001, eps=1e-08)".
        given: Whether the user named it.
        build: Makes it for some parameters.
    """

    name: str
    given: bool
    build: Callable[[Iterable[Tensor]], torch.optim.Optimizer]


def recipe(spec: str | None, lr: float | None, scripts: dict[Any, Any] | None = None) -> Recipe:
    """The optimizer that a spec names.

    Args:
        spec: "adam", "adam(eps=1e-2)", "sgd(momentum=0.9)", "torch.optim:AdamW", "train.py:optimizer"; `None` for
            the usual one, or with `lr` for plain gradient descent at it.
        lr: Learning rate, instead of the spec's own.
        scripts: Scripts of the user's that ran already.
    """
    raise NotImplementedError
