"""Where a race starts: one network, with its plateau and the samples that runs are watched on."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.result import Plateau
from hessdiag.questions.escape.runs.draws import Draw, whole
from hessdiag.questions.escape.runs.watch import Level

WATCHED, FEW = 2048, 256  # samples on which the loss is watched, at most; and where that takes long
LEVELS = (0.5, 0.1)  # that are noted, beside the one that counts as out


@dataclass(frozen=True)
class Start:
    """One network.

    Attributes:
        problem: Frozen.
        seed: Of the network.
        plateau: What is known of it.
        floor: The loss that no model is below.
        threshold: Share of the way from the floor to the reference loss that counts as out.
        most: Samples on which the loss is watched.
    """

    problem: Problem
    seed: int
    plateau: Plateau
    floor: float
    threshold: float
    most: int = WATCHED

    @cached_property
    def watched(self) -> Draw:
        """On what the loss is watched: all samples, if they are not too many."""
        return whole(self.problem, self.most)

    @property
    def watches_all(self) -> bool:
        """Whether the loss is watched on all samples."""
        return self.watched.samples >= self.problem.n_samples

    def levels(self, first: float) -> list[Level]:
        """Levels of the loss, for a first loss on what is watched, which differs from that of all samples."""
        scale = 1.0 if self.watches_all or not self.plateau.loss else first / self.plateau.loss
        reference = self.plateau.reference * scale
        shares = [self.threshold, *(share for share in LEVELS if share < self.threshold)]
        return [Level(share, self.floor + share * (reference - self.floor)) for share in shares]

    def loss(self, model: nn.Module) -> float:
        """The loss that is watched, of a model within `training`."""
        with torch.set_grad_enabled(self.needs_graph):
            return float(self.watched.loss(self.problem, model))

    @cached_property
    def needs_graph(self) -> bool:
        """Whether the objective differentiates by itself, and fails where there is no graph."""
        try:
            with self.problem.evaluation(), torch.no_grad():
                self.watched.loss(self.problem, self.problem.model)
        except RuntimeError:
            return True
        return False

    def moves(self, model: nn.Module) -> bool:
        """Whether any entry of the gradient is not exactly zero, of a model within `training`."""
        with torch.enable_grad():
            loss = self.watched.loss(self.problem, model)
            if not loss.requires_grad:
                return False
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        return any(part is not None and bool(part.any()) for part in parts)
