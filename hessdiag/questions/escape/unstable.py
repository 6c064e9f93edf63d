"""Whether a run failed because its learning rate is more than its optimizer stands, and not on a plateau. Of results.

A run near its threshold is no failure: learning rates that train well drive curvature up to it, and stay there. And in
its first steps Adam divides by gradients that it has seen once, so that its ratio may be in the hundreds for a moment.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

from hessdiag.numbers import counted, number
from hessdiag.questions.common.result import Finding
from hessdiag.questions.escape.result import Escape, Plateau, Run
from hessdiag.questions.escape.summary import plain, plateau_of, runs_of

Look: TypeAlias = tuple[int, float, float]  # step, ratio and loss
ABOVE = 1.1  # of the threshold: runs at their edge hover about it, and it is measured to 5 %
ROSE = 0.1  # of the way from the floor to the reference loss, above the lowest so far: no plateau's loss does that


@dataclass(frozen=True)
class Unstable:
    """Where a run was seen above its threshold.

    Attributes:
        step: Of the run.
        ratio: Learning rate times curvature over the threshold there; `None` where the run had been thrown away from
            its course by then: curvature there is of a place that it would not have come to.
        before: The step at which it was still below; `None` where it never was.
        threshold: The optimizer's own.
        lr: The learning rate, where it is known.
        optimizer: Its name, without settings.
    """

    step: int
    ratio: float | None
    before: int | None
    threshold: float
    lr: float | None
    optimizer: str

    @property
    def says(self) -> str:
        """As a part of a sentence."""
        stands = f"what {self.optimizer} stands ({plain(self.threshold)})"
        if self.ratio is None:
            since = "" if self.before is None else f" between steps {self.before:,} and {self.step:,}"
            return f"lr x curvature passed {stands}{since}"
        when = f"at step {self.step:,}" if self.step else "where it starts"
        return f"lr x curvature is {number(self.ratio, 2)} times {stands}, {when}"

    def instead(self, plateau: Plateau | None) -> str:
        """The learning rate that would be at the threshold there, down to two digits, or a guess."""
        grows = ", for curvature grows where a plateau ends" if plateau is not None and plateau.present else ""
        rate = 0.0 if self.ratio is None or self.lr is None else self.lr / self.ratio
        if not 0 < rate < math.inf:
            return f"a tenth of the learning rate{grows}"
        scale = 10.0 ** (math.floor(math.log10(rate)) - 1)
        most = float(f"{math.floor(rate / scale * (1 + 1e-12)) * scale:.2g}")
        return f"a learning rate {'well ' if grows else ''}below {most:g}{grows}"


def unstable(run: Run, plateau: Plateau | None) -> Unstable | None:
    """Where a failed run turned unstable; `None` of one that did not, or did not fail.

    A run has failed that diverged or died; or that is still above its level though the loss has gone up and down, as on
    no plateau. Then what is told is the first look that is above the threshold. Of optimizers whose metric follows the
    gradients, first steps do not count: the smallest ratio above it of later looks, if most of those are above it.

    Args:
        run: With its looks at stability.
        plateau: Where it started.
    """
    found = run.stability
    if found is None or not found.steps or (plateau is not None and plateau.dead):
        return None
    adaptive = found.steps[0] > 0  # its metric is made on the way
    if run.outcome not in ("diverged", "stuck") and (adaptive or run.outcome != "dead"):
        return None
    if run.outcome == "stuck" and not shaken(run, plateau):
        return None
    every = zip(found.steps, found.ratio, found.loss, strict=True)
    looks = [(step, ratio, loss) for step, ratio, loss in every if ratio is not None and loss is not None]
    over = _late(looks) if adaptive else next((look for look in looks if look[1] > ABOVE), None)
    if over is None:
        return None
    step, ratio, loss = over
    lr, before = run.settings.get("lr"), [at for at, other, _ in looks if at < step and other <= 1]
    thrown = not loss <= looks[0][2] + ROSE * _scale(run, plateau)
    return Unstable(
        step,
        None if thrown and not adaptive else ratio,
        before[-1] if before else None,
        found.threshold,
        float(lr) if isinstance(lr, (int, float)) and not isinstance(lr, bool) else None,
        run.optimizer.partition("(")[0],
    )


def _late(looks: Sequence[Look]) -> Look | None:
    """Of the later half, the one that is least above the threshold, if most of them are."""
    late = looks[len(looks) // 2 :]
    if not late or median(ratio for _, ratio, _ in late) <= 1:
        return None
    return min((look for look in late if look[1] > ABOVE), key=lambda look: look[1], default=None)


def _scale(run: Run, plateau: Plateau | None) -> float:
    first = run.loss[0] if run.loss else None
    if plateau is None or plateau.reference is None or plateau.floor is None:  # null in a document
        return abs(first or 0.0)
    return plateau.reference - plateau.floor


def shaken(run: Run, plateau: Plateau | None) -> bool:
    """Whether the loss rose by a tenth of the reference above the lowest so far.

    >>> shaken(Run(optimizer="sgd", seed=0, settings={}, outcome="stuck", escaped=False, steps=None, backprops=None,
    ...            epochs=None, sample_passes=None, seconds=None, loss=(1.0, 0.9, 1.3), at=((),) * 3), None)
    True
    """
    losses = [math.inf if loss is None or math.isnan(loss) else loss for loss in run.loss]
    if len(losses) < 2:
        return False
    scale = _scale(run, plateau)
    lowest = losses[0]
    for _, loss in pairwise(losses):
        if loss > lowest + ROSE * scale:
            return True
        lowest = min(lowest, loss)
    return False


def unstable_of(result: Escape, run: Run) -> Unstable | None:
    """The same of a run among others."""
    return unstable(run, plateau_of(result, run))


def unstable_findings(result: Escape) -> list[Finding]:
    """Whose learning rate is too large."""
    found = []
    for contender in result.contenders:
        own = runs_of(result, contender)
        seen = [one for run in own if (one := unstable_of(result, run)) is not None]
        if not seen:
            continue
        some = "" if len(own) == 1 else f" in {len(seen)} of {counted(len(own), 'run')}"
        start = plateau_of(result, own[0])
        found.append(
            Finding(
                "bad" if result.named else "note",
                f"{contender.optimizer} is unstable{some}: its learning rate is too large.",
                f"{seen[0].says}; {_went(result, own)}",
                min(seen, key=lambda one: -(one.ratio or math.inf)).instead(start),
            )
        )
    return found


def _went(result: Escape, runs: Sequence[Run]) -> str:
    """What became of those that were."""
    ends = {run.outcome for run in runs if unstable_of(result, run) is not None}
    if "diverged" in ends:
        return "its loss grew beyond all bounds"
    if "dead" in ends:
        return "its units died"
    return "its loss goes up and down, which is no plateau"
