"""What a case of the corpus is: a network with its data, its loss and the settings it is trained with.

Each is a function of a module here, and a MODEL of the command line, from the root of the repository:

    hessdiag check tests.questions.check.corpus.broken_units:conv_same_filters --optimizer sgd --lr 0.1
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.questions.check.corpus.data import Data


@dataclass(frozen=True)
class Case:
    """One network, broken in one way or healthy.

    Attributes:
        name: Of the function that builds it.
        build: Builds it from torch's global random numbers: model, data, loss. Of a broken one whose defect is not in
            its optimizer it takes `mended`: the same without the defect.
        optimizer: As `--optimizer` takes it.
        lr: Learning rate.
        steps: How many steps are to be enough for its healthy kin, on its batches in turn.
        causes: Identifiers that are right for the first cause, the most proper one first; none for a healthy one.
        layers: Layers that are at fault, where it is one, or any of which may be named; empty where it is none.
        cure: Settings of the optimizer with which it trains once it is mended, where they are others.
        state: "broken", "fresh", "half-trained", "trained" or "pretrained".
    """

    name: str
    build: Callable[[], tuple[nn.Module, Data, Any]]
    optimizer: str
    lr: float
    steps: int = 200
    causes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    cure: Mapping[str, Any] = field(default_factory=dict)
    state: str = "fresh"

    @property
    def is_broken(self) -> bool:
        """Whether it does not train."""
        return self.state == "broken"

    def parts(self, seed: int = 0) -> tuple[nn.Module, Data, Any]:
        """The model, all of its data and the loss. Global random numbers are left as they were."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def make(self, seed: int = 0) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Any]:
        """The model, its batches and the loss, as a user's script returns them."""
        model, data, loss = self.parts(seed)
        return model, data.batches, loss

    @property
    def mended(self) -> "Case":
        """The healthy twin of a broken one."""
        takes = "mended" in inspect.signature(self.build).parameters
        build = functools.partial(self.build, mended=True) if takes else self.build
        return replace(self, build=build, causes=(), layers=(), state="fresh", **self.cure)

    def __call__(self, seed: int = 0, mended: bool = False) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Any]:
        return (self.mended if mended else self).make(seed)


BROKEN: dict[str, Case] = {}
HEALTHY: dict[str, Case] = {}


def broken(
    *causes: str,
    layers: tuple[str, ...] = (),
    optimizer: str = "sgd",
    lr: float = 0.1,
    steps: int = 200,
    mended: Mapping[str, Any] | None = None,
):
    """Enter a broken network: what may be named first, where, how it is trained in vain, and how else it would."""

    def enter(build):
        case = Case(build.__name__, build, optimizer, lr, steps, causes, layers, mended or {}, "broken")
        return _entered(BROKEN, case)

    return enter


def healthy(state: str = "fresh", optimizer: str = "adam", lr: float = 3e-3, steps: int = 200):
    """Enter a healthy network."""

    def enter(build):
        return _entered(HEALTHY, Case(build.__name__, build, optimizer, lr, steps, state=state))

    return enter


def _entered(table: dict[str, Case], case: Case) -> Case:
    if case.name in table:
        raise ValueError(f"two cases are called {case.name}")
    table[case.name] = case
    return case
