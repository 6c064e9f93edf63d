"""Rules on modes and state: normalizations that never saw data, statistics of too few values, too much dropout."""

from collections.abc import Sequence

from hessdiag.numbers import counted, number, percent
from hessdiag.questions.check.causes.candidate import Candidate, grade
from hessdiag.questions.check.causes.path import named, sentence
from hessdiag.questions.check.readings import ModeReading
from hessdiag.questions.check.result import Check

UNTRAINED, FAR_UNTRAINED = 1.5, 5.0  # mismatch of statistics that no batch has formed
STALE, FAR_STALE = 5.0, 30.0  # of those that some have
FEW = 4  # values that one statistic is of
DROPPED, MOST_DROPPED = 0.8, 0.95


def modes(check: Check) -> list[Candidate]:
    """What sits in the wrong mode or state."""
    return [*_untrained(check.modes), *_stale(check.modes), *_few(check.modes), *_dropout(check.modes)]


def _untrained(found: Sequence[ModeReading]) -> list[Candidate]:
    """Normalizations in eval mode whose statistics are those of their construction."""
    norms = [one for one in found if one.drop is None]
    hit = [one for one in norms if not one.training and one.tracked == 0]
    worst = max(hit, key=_mismatch, default=None)
    if worst is None or not (sure := grade(_mismatch(worst), UNTRAINED, FAR_UNTRAINED)):
        return []
    where = "" if len(hit) == 1 else f" at layer {worst.layer}"
    says = (
        f"{_some(hit, norms)} in eval mode and never saw a batch: running means and variances are still 0 and 1, "
        f"{number(_mismatch(worst))} times off those of this batch{where}."
    )
    remedy = "Train in training mode: call model.train() before the training loop."
    return [
        Candidate(
            "normalization_untrained",
            hit[0].layer,
            _mismatch(worst),
            UNTRAINED,
            "factor between running statistics and the batch's",
            sure,
            says,
            remedy,
        )
    ]


def _stale(found: Sequence[ModeReading]) -> list[Candidate]:
    """Normalizations in eval mode whose statistics are of other data than this."""
    hit = [one for one in found if one.drop is None and not one.training and one.tracked != 0]
    worst = max(hit, key=_mismatch, default=None)
    if worst is None or not (sure := grade(_mismatch(worst), STALE, FAR_STALE)):
        return []
    says = (
        f"The running statistics of {named(worst)}, in eval mode, are {number(_mismatch(worst))} times off "
        "those of this batch: they belong to other data or other weights."
    )
    remedy = "Train in training mode (model.train()), or renew the statistics with a few forward passes in it."
    return [
        Candidate(
            "normalization_untrained",
            worst.layer,
            _mismatch(worst),
            STALE,
            "factor between running statistics and the batch's",
            sure,
            says,
            remedy,
        )
    ]


def _few(found: Sequence[ModeReading]) -> list[Candidate]:
    """Normalizations in training mode over a handful of values."""
    hit = [one for one in found if one.training and one.samples is not None and one.samples <= FEW]
    if not hit:
        return []
    least = min(hit, key=lambda one: one.samples or 0)
    sure = {1: 0.9, 2: 0.8}.get(least.samples or 0, 0.45)
    says = (
        f"{sentence(named(least))} normalizes each feature over {counted(least.samples, 'value')}: "
        f"{'only signs are left of its input' if sure > 0.7 else 'its statistics are mostly noise'}."
    )
    remedy = "Use larger batches, or a normalization over features: LayerNorm, GroupNorm."
    return [Candidate("mode", least.layer, least.samples, FEW, "values that one statistic is of", sure, says, remedy)]


def _dropout(found: Sequence[ModeReading]) -> list[Candidate]:
    """Dropout that leaves next to nothing."""
    hit = [one for one in found if one.training and one.drop is not None]
    most = max(hit, key=lambda one: one.drop or 0.0, default=None)
    if most is None or most.drop is None:
        return []
    sure = grade(1 - most.drop, 1 - DROPPED, 1 - MOST_DROPPED)
    if not sure:
        return []
    says = f"{sentence(named(most))} drops {percent(most.drop, 2)} of its input: too little is left to learn from."
    remedy = "Set its p to 0.5 or less; p is the share that is dropped, not the share that is kept."
    where = None if most.kind == "function" else most.layer
    return [Candidate("dropout", where, most.drop, DROPPED, "share that dropout drops", sure, says, remedy)]


def _mismatch(one: ModeReading) -> float:
    return one.mismatch or 0.0


def _some(hit: Sequence[ModeReading], of: Sequence[ModeReading]) -> str:
    """How many of them."""
    if len(hit) == 1:
        return f"{sentence(named(hit[0]))} is"
    return f"{'All' if len(hit) == len(of) else f'{len(hit)} of'} {len(of)} normalizations are"
