"""Watching a run: when the loss fell below which level and stayed there, and what ends the run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hessdiag.questions.escape.result import Milestone, Spent
from hessdiag.questions.escape.runs.counting import Tally

HELD = 3  # looks for which the loss must stay below a level, where they are of a run on minibatches
FAR = 1e4  # times the start: diverged
FINE, COARSE = 20, 10  # a look at every 20th part of what was spent, and at least every 10 backpropagations
SHOWN = 300  # losses of a run that are kept


@dataclass
class Level:
    """One level, and since when the loss has been below it.

    Attributes:
        share: Of the reference loss.
        loss: The level itself.
        held: Looks for which it must stay there.
        below: Looks in a row, up to `held`.
        since: What had been spent at the first of them.
    """

    share: float
    loss: float
    held: int = HELD
    below: int = 0
    since: Spent | None = None

    @property
    def reached(self) -> bool:
        """Whether it was reached and held."""
        return self.below >= self.held

    def see(self, loss: float, tally: Tally, samples: int) -> None:
        """One look at the loss."""
        if self.reached:
            return
        if loss > self.loss or math.isnan(loss):
            self.below, self.since = 0, None
            return
        if not self.below:
            self.since = tally.spent(samples)
        self.below += 1


@dataclass
class Watch:
    """What was seen of a run.

    Attributes:
        levels: The first is the one that counts as out.
        samples: Of the whole data.
        budget: Backpropagations.
        losses: At each look that is kept.
        at: What had been spent then.
    """

    levels: list[Level]
    samples: int
    budget: int
    losses: list[float] = field(default_factory=list)
    at: list[Spent] = field(default_factory=list)
    best: float = math.inf
    last: float = math.nan
    unchanged: int = 0
    due_at: int = 0
    _start: float = math.nan

    def due(self, tally: Tally) -> bool:
        """Whether it is time for a look."""
        return tally.backprops >= self.due_at

    def see(self, loss: float, tally: Tally) -> None:
        """One look."""
        for level in self.levels:
            level.see(loss, tally, self.samples)
        if not self.losses:
            self._start = loss
        self.unchanged = self.unchanged + 1 if loss == self.last else 0
        self.last = loss
        if loss < self.best:
            self.best = loss
        if self.due(tally) or not self.losses:
            self.losses.append(loss)
            self.at.append(tally.spent(self.samples))
            every = max(COARSE, self.budget // (2 * SHOWN))
            self.due_at = tally.backprops + max(1, min(tally.backprops // FINE, every))

    def close(self, loss: float, tally: Tally) -> None:
        """The last look, which is always kept."""
        self.due_at = 0
        if self.at and self.at[-1].steps == tally.steps:
            return
        self.see(loss, tally)

    @property
    def escaped(self) -> Level | None:
        """The level that counts as out, once it is reached."""
        return self.levels[0] if self.levels[0].reached else None

    @property
    def diverged(self) -> bool:
        """Whether the last loss is no number, or far above the first."""
        return not math.isfinite(self.last) or self.last > FAR * max(abs(self._start), self.levels[0].loss, 1e-300)

    def milestones(self) -> tuple[Milestone, ...]:
        """The other levels that were reached."""
        return tuple(
            Milestone(level=level.share, spent=level.since)
            for level in self.levels[1:]
            if level.reached and level.since is not None
        )

    def thinned(self) -> tuple[tuple[float, ...], tuple[Spent, ...]]:
        """At most `SHOWN` of the losses, ends included, with what had been spent."""
        kept = shown(len(self.losses))
        return tuple(self.losses[index] for index in kept), tuple(self.at[index] for index in kept)


def shown(count: int) -> Sequence[int]:
    """Which of so many are kept: at most `SHOWN`, ends included.

    >>> list(shown(4)), len(shown(1000)), shown(1000)[-1]
    ([0, 1, 2, 3], 300, 999)
    """
    return range(count) if count <= SHOWN else sorted({round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)})
