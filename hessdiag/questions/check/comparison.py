"""Whether a cure helped: two short training runs, compared."""

import math
from dataclasses import dataclass

from hessdiag.numbers import number, percent
from hessdiag.questions.check.result import TrialRun

LEARNT = 0.9  # of chance: a network below it has learnt something
CLEARLY = 0.1  # of chance, by which the mended network's loss must be below the other's
ACCURATE = 0.2  # of all samples, that the mended network must tell more than the other where its loss falls slowly
RELATIVELY = 0.2  # of the other's loss, where chance is not known


@dataclass(frozen=True)
class Outcome:
    """Of one network: its run, and the loss on all batches before it."""

    run: TrialRun
    start: float


def compared(before: Outcome, after: Outcome, chance: float | None, steps: int) -> tuple[bool, str]:
    """Whether the mended network trains better, and by which numbers.

    It helped where the mended network's loss ends clearly below chance (its own start, where that is not known) and
    clearly below the other's, or its accuracy clearly above; that says nothing where both train.

    Args:
        before: The network as it is.
        after: The mended one.
        chance: Loss of the best constant output.
        steps: How many each was trained.

    >>> runs = [Outcome(TrialRun(losses=(), final=final), start=2.4) for final in (2.3, 0.1)]
    >>> compared(*runs, chance=2.3, steps=300)[0], compared(*runs[::-1], chance=2.3, steps=300)[0]
    (True, False)
    """
    known = chance if chance is not None and chance > 0 else None
    as_is, mended = (_final(one.run) for one in (before, after))
    learns = mended < LEARNT * (after.start if known is None else known)
    learnt = as_is < LEARNT * (before.start if known is None else known)
    gap = RELATIVELY * as_is if known is None else CLEARLY * known
    better = math.isinf(as_is) or as_is - mended > gap
    helped = math.isfinite(mended) and ((learns and better) or _tells_more(before.run, after.run))
    if helped:
        word = ""
    elif math.isinf(mended):
        word = "Training with the cure diverges: "
    elif not learns:
        word = "It does not train with the cure: " if learnt else "Neither trains: "
    else:
        word = "Both train: " if learnt else "It trains hardly better: "
    beside = "" if known is None else f" (chance: {number(known)})"
    text = (
        f"{word}after {steps} steps the loss is {_said(after.run)} with the cure, {_said(before.run)} without{beside}."
    )
    return helped, text[:1].upper() + text[1:]


def _tells_more(before: TrialRun, after: TrialRun) -> bool:
    return (
        before.accuracy is not None
        and after.accuracy is not None
        and after.accuracy - before.accuracy > ACCURATE
        and _final(after) < _final(before)
    )


def _final(run: TrialRun) -> float:
    return run.final if run.final is not None and math.isfinite(run.final) else math.inf


def _said(run: TrialRun) -> str:
    if math.isinf(_final(run)):
        return "no number"
    right = "" if run.accuracy is None else f" and the accuracy {percent(run.accuracy, 2)}"
    return f"{number(run.final)}{right}"
