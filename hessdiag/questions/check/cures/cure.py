"""What a cure is, and what it is done to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hessdiag.optimizers.recipe import Recipe
from hessdiag.problem.losses.loss import Objective


@dataclass(frozen=True)
class Setup:
    """All that decides how a network trains.

    Attributes:
        model: The network, in the modes that it is trained in.
        data: Batches.
        objective: The loss of a batch.
        recipe: Makes the optimizer of a model.
        judge: The loss that it is compared by, where `objective` is in other units; `None` for the same.
        kind: What the loss is ("ce", "nll", ...), where that is known.
    """

    model: nn.Module
    data: tuple[Any, ...]
    objective: Objective
    recipe: Recipe
    judge: Objective | None = None
    kind: str | None = None

    def loss(self, batch: Any) -> float:
        """The loss of a batch by which setups are compared."""
        return float((self.judge or self.objective)(self.model, batch).detach())


Apply = Callable[[Setup], Setup]


def unchanged(setup: Setup) -> Setup:
    """The same."""
    return setup


@dataclass(frozen=True)
class Cure:
    """One way to mend a network.

    Attributes:
        name: Short, for people.
        says: What it does, in one sentence.
        code: The change to one's own code.
        apply: Does it: to the setup's model in place, which is a copy, and to the rest by another setup.
        weights: Whether the model's state is another afterwards.
        settle: What else is done to the mended model before its state is saved.
        judged: Has a network without the cure measured by the loss with it, where that is another.
    """

    name: str
    says: str
    code: str
    apply: Apply
    weights: bool = False
    settle: Callable[[Setup], None] = field(default=lambda setup: None)
    judged: Apply = unchanged

    def then(self, other: "Cure") -> "Cure":
        """This one, and another after it."""
        return Cure(
            f"{self.name}, and {other.name}",
            f"{self.says.removesuffix('.')}, and {other.says[:1].lower()}{other.says[1:]}",
            f"{self.code}\n{other.code}",
            lambda setup: other.apply(self.apply(setup)),
            weights=self.weights or other.weights,
            settle=self.settle,
            judged=self.judged,
        )
