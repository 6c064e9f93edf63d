"""How the loss of a run is seen: by an evaluation now and then, or for nothing by the steps' own losses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hessdiag.questions.escape.contenders import Entrant
from hessdiag.questions.escape.runs.counting import Clock, Tally
from hessdiag.questions.escape.runs.draws import Order, is_whole
from hessdiag.questions.escape.runs.watch import Watch
from hessdiag.questions.escape.start import Start

Way = Literal["exact", "sampled", "stream"]


def way(start: Start, entrant: Entrant, optimizer: torch.optim.Optimizer, order: Order) -> Way:
    """How the loss is seen.

    "exact" where each step sees all samples, so that its loss is the one after the step before: every step is watched;
    "sampled" by evaluations now and then; "stream" by the mean loss of the steps, where no batch comes twice.
    """
    if order == "stream":
        return "stream"
    everything = is_whole(start.problem, entrant.samples, order) and start.watches_all
    return "exact" if everything and _averages(optimizer) is None else "sampled"


class Looks:
    """Looks at the loss of one run; the seconds that they take are not the run's.

    Args:
        start: Where it starts.
        model: What is trained.
        optimizer: Trains it.
        watch: Told what is seen.
        tally: What the run costs, the seconds being entered here.
        how: How the loss is seen.
    """

    def __init__(
        self, start: Start, model: nn.Module, optimizer: torch.optim.Optimizer, watch: Watch, tally: Tally, how: Way
    ) -> None:
        self._start, self._model, self._averages = start, model, _averages(optimizer)
        self._watch, self._tally, self._way = watch, tally, how
        self._clock = Clock(start.problem.device)
        self._recent: list[Tensor | float] = []
        self._began = self._clock.now()

    def step(self, take: Callable[[Any], Tensor | float], draw: Any) -> tuple[Tensor | float, bool]:
        """Take a step; its loss, and whether there was a look."""
        tally, watch = self._tally, self._watch
        if self._way == "exact":
            before = replace(tally)
            loss = take(draw)
            self._pause()
            if before.steps:
                watch.see(float(loss), before)
            self._began = self._clock.now()
            return loss, True
        loss = take(draw)
        if self._way == "stream":
            self._recent.append(loss)
        looked = watch.due(tally)
        if looked:
            self._pause()
            watch.see(self._seen(), tally)
            self._began = self._clock.now()
        return loss, looked

    def close(self) -> None:
        """The last look."""
        self._pause()
        if self._way != "stream" or self._recent:
            self._watch.close(self._seen(), self._tally)

    def resume(self) -> None:
        """Go on after something that is not the run's."""
        self._began = self._clock.now()

    def _pause(self) -> None:
        self._tally.seconds += self._clock.now() - self._began

    def _seen(self) -> float:
        if self._way == "stream":
            mean = sum(float(one) for one in self._recent) / len(self._recent)
            self._recent.clear()
            return mean
        if self._averages is None:
            return self._start.loss(self._model)
        evaluate, train = self._averages
        evaluate()
        loss = self._start.loss(self._model)
        train()
        return loss


def _averages(optimizer: torch.optim.Optimizer) -> tuple[Callable[[], Any], Callable[[], Any]] | None:
    """How to switch to the weights that are meant and back, of an optimizer that trains others."""
    there, back = getattr(optimizer, "eval", None), getattr(optimizer, "train", None)
    return (there, back) if callable(there) and callable(back) else None
