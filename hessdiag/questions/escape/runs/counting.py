"""Counting what a run costs, inside optimizers that differentiate by themselves, too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hessdiag.problem.replaced import replaced
from hessdiag.questions.escape.result import Spent


@dataclass
class Tally:
    """What a run has cost so far, in whole numbers; see `Spent`.

    Attributes:
        drawn: Samples.
        passed: Samples times the gradients and products that went through them.
    """

    steps: int = 0
    gradients: int = 0
    products: int = 0
    evaluations: int = 0
    drawn: int = 0
    passed: int = 0
    seconds: float = 0.0

    @property
    def backprops(self) -> int:
        """Gradients and products."""
        return self.gradients + self.products

    def spent(self, samples: int) -> Spent:
        """The same as results hold it, for so many samples in all."""
        return Spent(
            steps=self.steps,
            gradients=self.gradients,
            products=self.products,
            evaluations=self.evaluations,
            backprops=self.backprops,
            epochs=self.drawn / samples,
            sample_passes=self.passed / samples,
            seconds=self.seconds,
        )


def total(spent: list[Spent]) -> Spent:
    """What several runs cost together."""
    names = list(Spent.__dataclass_fields__)
    return Spent(**{name: sum(getattr(one, name) for one in spent) for name in names})


class Calls:
    """How often autograd was called while it was watched: one for each gradient, and one for each product."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count all calls within."""
        grad, backward = torch.autograd.grad, torch.autograd.backward

        def counted_grad(outputs: Any, inputs: Any, grad_outputs: Any = None, *args: Any, **keywords: Any) -> Any:
            several = grad_outputs if keywords.get("is_grads_batched") else None
            first = several[0] if isinstance(several, (tuple, list)) else several
            self.count += 1 if first is None else len(first)
            return grad(outputs, inputs, grad_outputs, *args, **keywords)

        def counted_backward(*args: Any, **keywords: Any) -> Any:
            self.count += 1
            return backward(*args, **keywords)

        with replaced(torch.autograd, grad=counted_grad, backward=counted_backward):
            yield


class Clock:
    """Seconds of the process on a CPU, where other programs may run; of the wall on a GPU, which is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None

    def now(self) -> float:
        """Seconds since some moment."""
        if self._device is None:
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()
