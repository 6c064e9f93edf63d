"""What optimizers of this package have in common: parameters as one vector, and a closure that is differentiated.

They are `torch.optim.Optimizer`s, but for the closure: it returns the loss (or the loss and the model's output) with
its graph, and does not go backward, for products with curvature need the graph.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.local import flat, like
from hessdiag.errors import SpecError
from hessdiag.optimizers.step import Step
from hessdiag.optimizers.update import uncompiled

Closure = Callable[[], Any]
NOISE = 10.0  # units of rounding of the loss below which a difference of two says nothing


class ClosureOptimizer(torch.optim.Optimizer):
    """One group of parameters, moved as one vector (n,).

    Attributes:
        last: What the last step did; `None` before the first.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        with uncompiled():
            super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise SpecError(f"{type(self).__name__} takes one group of parameters, not {len(self.param_groups)}.")
        self.last: Step | None = None
        self._evaluations = 0
        self._drawn: list[tuple[torch.device | None, Tensor]] = []  # states of generators before the last graph

    def __getstate__(self) -> dict[str, Any]:
        """All but hooks: torch keeps what it knows of, and a copy would lack what this class adds."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_hooks")}

    @property
    def parameters(self) -> list[Tensor]:
        """Those that are moved."""
        return [parameter for parameter in self.param_groups[0]["params"] if parameter.requires_grad]

    @property
    def anchor(self) -> Tensor:
        """The widest of them, under which state is kept: what is loaded takes its dtype."""
        return max(self.parameters, key=lambda parameter: parameter.dtype.itemsize)

    def point(self) -> Tensor:
        """A copy of the parameters, (n,)."""
        return flat([parameter.detach() for parameter in self.parameters])

    @torch.no_grad()
    def place(self, point: Tensor) -> None:
        """Set the parameters, from a vector (n,)."""
        for parameter, value in zip(self.parameters, like(point, self.parameters), strict=True):
            parameter.copy_(value)

    @contextmanager
    def unless_interrupted(self, point: Tensor) -> Iterator[None]:
        """What ends the block early, an error of the closure or Ctrl-C, leaves the parameters at this point."""
        try:
            yield
        except BaseException:
            self.place(point)
            raise

    def evaluate(self, closure: Closure) -> tuple[Tensor, Any]:
        """The loss with its graph, and the model's output where the closure returns it, too, else `None`.

        Raises:
            SpecError: if the closure returns no loss.
        """
        self._evaluations += 1
        self._drawn = _generators(self.parameters)
        with torch.enable_grad():
            found = closure()
        loss, output = _parts(found)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            kind = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise SpecError(
                f"the closure of {type(self).__name__} returned {kind} and no loss.",
                "return loss, a tensor of one number that still has its graph, without .backward(), .item() or float()",
            )
        with torch.enable_grad():
            return loss.reshape(()), output

    def value(self, closure: Closure) -> float:
        """The loss alone, with the same random numbers as the last with its graph; infinite where it is not finite."""
        self._evaluations += 1
        for kind, state in self._drawn:
            torch.set_rng_state(state) if kind is None else torch.cuda.set_rng_state(state, kind)
        with torch.no_grad():
            found = closure()
        value = float(_parts(found)[0].detach())
        return value if math.isfinite(value) else math.inf

    def counted(self) -> int:
        """Evaluations since this was asked last."""
        count, self._evaluations = self._evaluations, 0
        return count


def _generators(parameters: Iterable[Tensor]) -> list[tuple[torch.device | None, Tensor]]:
    """States of the generators that a closure may draw from: two losses of one mask can be compared."""
    gpus = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    return [(None, torch.get_rng_state()), *((gpu, torch.cuda.get_rng_state(gpu)) for gpu in gpus)]


def _parts(found: Any) -> tuple[Any, Any]:
    """Loss and output of what a closure returned."""
    return (found[0], found[1]) if isinstance(found, (tuple, list)) and len(found) == 2 else (found, None)
