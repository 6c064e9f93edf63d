"""A race in a few numbers: what charts, tables and sentences about it have in common. Of results alone."""

import math
import statistics
from collections.abc import Iterable, Sequence

from hessdiag.fields import Number, Numbers
from hessdiag.numbers import MISSING
from hessdiag.questions.escape.result import Contender, Escape, Plateau, Prediction, Run

SOLVED = 1e-6  # of the first loss


def runs_of(result: Escape, contender: Contender) -> tuple[Run, ...]:
    """The runs that one optimizer made."""
    return tuple(run for run in result.runs if run.optimizer == contender.optimizer)


def ended(run: Run) -> bool:
    """Whether a run came to an end of its own: one that was stopped says nothing of what it would have done."""
    return run.outcome != "stopped"


def plateau_of(result: Escape, run: Run) -> Plateau | None:
    """Where a run started; the only one, where all started there."""
    if len(result.plateaus) == 1:
        return result.plateaus[0]
    return next((plateau for plateau in result.plateaus if plateau.seed == run.seed), None)


def on_plateau(result: Escape) -> bool:
    """Whether any of the networks starts on a plateau; where that was not looked at, as one asked for an escape."""
    return not result.plateaus or any(plateau.present for plateau in result.plateaus)


def ratio(loss: Number, plateau: Plateau | None) -> Number:
    """A loss as a share of the way from the floor to the reference: what is compared with the threshold.

    >>> start = Plateau(seed=0, loss=3.0, constant_loss=2.0, reference=2.0, floor=1.0, gradient_norm=0.0,
    ...                 gradient_median=None, gradient_zeros=1.0)
    >>> ratio(1.5, start), ratio(None, start)
    (0.5, None)
    """
    if loss is None or plateau is None or not plateau.reference > plateau.floor:
        return None
    return (loss - plateau.floor) / (plateau.reference - plateau.floor)


def ratios(result: Escape, run: Run) -> Numbers:
    """Its losses in that form."""
    start = plateau_of(result, run)
    return tuple(ratio(loss, start) for loss in run.loss)


def median(values: Iterable[Number]) -> Number:
    """Their median, with what did not happen as infinite; `None` where that is what it is.

    >>> median([10, None, 30]), median([10, None, None]), median([])
    (30.0, None, None)
    """
    known = [math.inf if value is None else float(value) for value in values]
    found = statistics.median(known) if known else math.inf
    return found if math.isfinite(found) else None


def rounded(value: Number) -> Number:
    """The same, as a whole number where it is one.

    >>> rounded(18.0), rounded(17.5), rounded(math.inf)
    (18, 17.5, inf)
    """
    return int(value) if value is not None and math.isfinite(value) and value == int(value) else value


def plain(value: Number) -> str:
    """A share as people write it.

    >>> plain(0.9), plain(None)
    ('0.9', '–')
    """
    return MISSING if value is None else f"{value:g}"


def typical_run(result: Escape, contender: Contender) -> Run | None:
    """The run in the middle, by when they escaped and then by how low they came: what a chart draws in full."""
    runs = sorted(runs_of(result, contender), key=lambda run: (_late(run.backprops), _late(run.best_loss)))
    return runs[(len(runs) - 1) // 2] if runs else None


def _late(value: Number) -> float:
    return math.inf if value is None or math.isnan(value) else float(value)


def prediction_of(runs: Sequence[Run]) -> Prediction | None:
    """What was predicted of an optimizer: of several networks, the medians."""
    known = [run.predicted for run in runs if run.predicted is not None]
    if not known:
        return None
    first = known[0]
    if len(known) == 1:
        return first
    middle = (median(one.typical for one in known), median(one.low for one in known), median(one.high for one in known))
    typical, low, high = (math.inf if value is None else value for value in middle)
    return Prediction(law=first.law, typical=typical, low=low, high=high, says=first.says)


def held(run: Run) -> bool | None:
    """Whether a run did as predicted; `None` where nothing was, or where it ended before that could be seen.

    One that stayed to the end of its budget did so where the band ends beyond it.
    """
    said = run.predicted
    if said is None or said.low is None or said.high is None or run.outcome in ("dead", "diverged"):
        return None
    if run.escaped and run.steps is not None:
        return said.low <= run.steps <= said.high
    if run.outcome != "stuck":
        return None
    return None if said.low <= run.spent.steps < said.high else said.low > run.spent.steps


def predicted_later(run: Run) -> bool:
    """Whether a run that was stuck may leave later: its prediction is finite, and lies beyond what it was granted."""
    said = run.predicted
    if run.outcome != "stuck" or said is None or said.typical is None or not math.isfinite(said.typical):
        return False
    return said.typical > run.spent.steps


def solved(run: Run) -> bool:
    """Whether a gradient of exactly zero is that of a minimum: the loss is next to nothing of what it was."""
    first, last = next((loss for loss in run.loss if loss is not None), None), run.final_loss
    return first is not None and last is not None and abs(last) <= SOLVED * abs(first)


def compared_by_score(result: Escape) -> bool:
    """Whether the task compares mean losses over a window of steps, and not when a plateau is left."""
    return result.score_window is not None and any(run.score is not None for run in result.runs)


def best_scores(result: Escape) -> list[tuple[Contender, Number]]:
    """The optimizers with their median scores, the smallest first."""
    found = [(one, median(run.score for run in runs_of(result, one))) for one in result.contenders]
    return sorted(found, key=lambda pair: _late(pair[1]))
