"""The view of `escape`: which optimizer leaves this plateau, when, and why?"""

import math
from collections.abc import Iterable, Sequence

from hessdiag.fields import Number
from hessdiag.questions.common.view import subject
from hessdiag.questions.escape import charts, tables
from hessdiag.questions.escape.result import Contender, Escape, Plateau
from hessdiag.questions.escape.summary import best_scores, compared_by_score, ended, on_plateau, plain, rounded
from hessdiag.questions.escape.unstable import unstable_of
from hessdiag.report.numbers import MISSING, counted, number, percent
from hessdiag.report.view import Block, Fact, Table, View


def view(result: Escape) -> View:
    """Lay out a result of `escape`."""
    score = compared_by_score(result)
    blocks: tuple[Block | None, ...] = (
        tables.scores(result) if score else tables.race(result) if result.contenders else None,
        None if score else tables.networks(result),
        tables.notes(result),
        *charts.race(result),
        None if score else tables.further(result),
        tables.stability(result),
        tables.regions(result),
        tables.search(result),
        charts.landscape(result.landscape),
        _left_out(result.too_slow),
    )
    starts = (tables.plateaus(result.plateaus),) if len(result.plateaus) > 1 else ()
    return View(
        question="Which optimizer leaves this plateau, when, and why?",
        subject=(*subject(result.problem), *_race(result)),
        headline=_headline(result),
        facts=() if score else _facts(result.plateaus),
        blocks=tuple(block for block in blocks if block is not None),
        extra=(*starts, *((tables.runs(result),) if result.runs else ())),
    )


def _race(result: Escape) -> tuple[tuple[str, str], ...]:
    runs = max((contender.runs for contender in result.contenders), default=0)
    each = "" if runs < 2 else f", {counted(runs, 'network' if len(result.plateaus) > 1 else 'run')} each"
    said = f"up to {counted(result.budget, 'backpropagation')} a run{each}"
    frozen = (("kept still", ", ".join(result.frozen)),) if result.frozen else ()
    return (("race", f"{counted(len(result.contenders), 'optimizer')}, {said}"), *frozen)


def _headline(result: Escape) -> tuple[str, str]:
    if not result.contenders:
        return MISSING, "no run was made"
    if compared_by_score(result):
        return _by_score(result)
    if result.plateaus and all(one.dead for one in result.plateaus):
        return "dead", "is this network: its weights have no gradient, and no optimizer mends that"
    first, level = result.contenders[0], plain(result.threshold)
    if first.backprops is None and (thrown := _thrown(result)):
        return thrown
    if not any(map(ended, result.runs)):
        return MISSING, "no run came to its end before it was stopped"
    if first.backprops is None:
        some = max((one.escaped for one in result.contenders), default=0)
        how = "not one run" if not some else "no optimizer on more than half of them"
        how += "" if all(map(ended, result.runs)) else " of those that came to an end"
        what = "leaves the plateau" if on_plateau(result) else f"gets below {level} of the loss"
        return "none", f"{what} within {counted(result.budget, 'backpropagation')}: {how}"
    cost = counted(rounded(first.backprops), "backprop")
    if not on_plateau(result):
        return first.optimizer, f"is first below {level} of the loss: {cost}{_of(result, first)}"
    return first.optimizer, f"leaves the plateau first: {cost}{_of(result, first)}"


def _thrown(result: Escape) -> tuple[str, str] | None:
    """Where nobody leaves, for all were thrown about by their learning rates."""
    seen = [one for run in result.runs if (one := unstable_of(result, run)) is not None]
    if not seen or len(seen) < len(result.runs):
        return None
    who = "is this run" if len(seen) == 1 else "are all runs"
    return "unstable", f"{who}: {min(seen, key=lambda one: one.ratio or math.inf).says}"


def _of(result: Escape, contender: Contender) -> str:
    if contender.runs < 2:
        return ""
    what = "networks" if len(result.plateaus) > 1 else "runs"
    return f", {'on' if what == 'networks' else 'in'} {contender.escaped} of {contender.runs} {what}"


def _by_score(result: Escape) -> tuple[str, str]:
    (first, score), *_ = best_scores(result)
    start, end = result.score_window or (0.0, 1.0)
    return first.optimizer, (
        f"has the smallest mean loss: {number(score, 4)}, over the steps from {percent(start, 2)} to {percent(end, 2)}"
    )


def _facts(plateaus: Sequence[Plateau]) -> tuple[Fact, ...]:
    if not plateaus:
        return ()
    over = "" if len(plateaus) == 1 else f"; smallest and largest of {len(plateaus)} networks"
    said = plateaus[0].says
    learnt = any(one.begins for one in plateaus)
    there = "once the constant is learnt" if learnt else "there"
    facts = (
        Fact("loss", _ends(one.loss for one in plateaus), f"where the race starts{over}"),
        Fact("best constant", _ends(one.constant_loss for one in plateaus), "loss of the best constant output"),
        Fact("gradient", _ends(one.gradient_norm for one in plateaus), f"Euclidean norm {there}"),
        Fact("median entry", _ends(one.gradient_median for one in plateaus), "of the gradient, without zeros"),
        Fact("lowest eigenvalue", _ends(one.lowest for one in plateaus), f"of the Hessian {there}"),
        Fact("highest", _ends(one.highest for one in plateaus), f"of the Hessian {there}"),
        Fact("plateau", _share(plateaus), said or "a constant's loss, and a gradient that hardly moves it"),
    )
    return tuple(fact for fact in facts if fact.value != MISSING)


def _ends(values: Iterable[Number]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    low, high = number(min(known)), number(max(known))
    return low if low == high else f"{low} to {high}"


def _share(plateaus: Sequence[Plateau]) -> str:
    """Whether there is one; of several networks, on how many."""
    if any(one.dead for one in plateaus):
        dead = sum(one.dead for one in plateaus)
        return "dead" if dead == len(plateaus) else f"{dead} of {len(plateaus)} dead"
    present = sum(one.present for one in plateaus)
    if len(plateaus) == 1:
        return "yes" if present else "no"
    return f"{present} of {len(plateaus)}"


def _left_out(too_slow: Sequence[str]) -> Table | None:
    rows = tuple((said,) for said in too_slow)
    return Table("Left out", ("which, and why",), rows) if rows else None
