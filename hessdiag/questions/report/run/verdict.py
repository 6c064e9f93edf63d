"""What a run's looks say: stability first, then curvature, loss, gradients, and what the log does not know."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hessdiag.numbers import counted, listed, number, percent, with_error
from hessdiag.questions.common.result import Finding, Level
from hessdiag.questions.common.verdict import by_severity
from hessdiag.questions.report.run.record import Reading
from hessdiag.questions.report.run.result import MonitoredRun, Track

AROUND = 0.1  # of a ratio, on both sides of 1: at the edge of stability it wanders, more than one look is within
FEW = 3  # looks that are a stretch
MOVED = 1.5  # factor from which on a curvature is said to have moved
HELD = 0.1  # of its median: a curvature that stays within is said to have held
VANISHED = 1e-4  # of the largest layer's gradient
GREW = 10.0  # times its first value: a gradient or a loss that is worth a warning
SIGMAS = 1.96


@dataclass(frozen=True)
class At:
    """One quantity at one step."""

    step: int
    value: float
    reading: Reading


def findings(run: MonitoredRun) -> list[Finding]:
    """The answer to stability first, where it was asked, then the others, the most severe first."""
    first = [*_ended(run), *_sharpness(run)]
    rest = [finding for part in PARTS for finding in part(run)]
    return [*first, *by_severity([*_nothing(run), *rest])]


def course(run: MonitoredRun, name: str) -> list[At]:
    """A quantity at all looks that have it."""
    return [At(record.step, *found) for record in run.records if (found := record.known(name)) is not None]


def _nothing(run: MonitoredRun) -> list[Finding]:
    if run.looks:
        return []
    said = counted(run.skipped, "look was", "looks were")
    return [
        Finding(
            "warn",
            "The log has no look in which anything was measured.",
            f"{said} left out for the budget" if run.skipped else "it ends before the first look that was due",
            "a smaller batch for the monitor, a larger budget=, or a smaller every=",
        )
    ]


def _ended(run: MonitoredRun) -> list[Finding]:
    """That the loss is no number any more, where it is so at the end."""
    failed = [record for record in run.records if "loss" in (record.failed or {})]
    looks = course(run, "loss")
    if not failed or (looks and looks[-1].step > failed[-1].step):
        return []
    since = next(record for record in failed if not looks or record.step > looks[-1].step)
    why = (since.failed or {})["loss"]
    before = f"; at step {looks[-1].step:,} it was {number(looks[-1].value)}" if looks else ""
    says = f"From step {since.step:,} on there is no loss{before}."
    return [Finding("bad", says, why, "hessdiag check MODEL, for why; a smaller learning rate")]


def _sharpness(run: MonitoredRun) -> list[Finding]:
    looks = course(run, "sharpness")
    if not looks:
        return []
    bounds = sum(at.reading.bound is not None for at in looks)
    known = f"; {bounds} of them only from below, for they did not converge" if bounds else ""
    edge = f"ratios at {counted(len(looks), 'look')}{known}; the edge is 1, and within {AROUND:g} of it counts as at it"
    beyond = [at for at in looks if at.value - (at.reading.stderr or 0.0) > 1 + AROUND]
    level: Level = "warn" if looks[-1] in beyond else "note"
    remedy = "a smaller learning rate, or more warmup" if level == "warn" else ""
    stretch = _longest(looks)
    top = max(looks, key=lambda at: at.value)
    if len(stretch) >= FEW:
        high = max(at.value for at in stretch)
        where = "At the edge of stability or beyond it" if high > 1 + AROUND else "At the edge of stability"
        until = "on" if stretch[-1] is looks[-1] else f"to {stretch[-1].step:,}"
        says = f"{where} from step {stretch[0].step:,} {until}: the ratio was {number(min(at.value for at in stretch))} to {number(high)}."
        return [Finding(level, says, f"{counted(len(stretch), 'look')} on end; {edge}", remedy)]
    if beyond:
        says = f"Beyond the edge of stability at {_steps(beyond)}: up to {number(top.value)} times the threshold."
        return [Finding(level, says, edge, remedy)]
    if top.value >= 1 - AROUND:
        return [Finding("note", f"The ratio came to {number(top.value)}, at step {top.step:,}: the edge.", edge, "")]
    seen = "seen " if bounds else ""
    says = f"Stable at every look: the ratio was {seen}at most {number(top.value)}, at step {top.step:,}."
    return [Finding("note" if bounds else "ok", says, edge, "")]


def _longest(looks: Sequence[At]) -> list[At]:
    """The most looks on end at which the ratio was about 1 or above."""
    found: list[At] = []
    now: list[At] = []
    for at in looks:
        now = [*now, at] if at.value >= 1 - AROUND else []
        found = max(found, now, key=len)
    return found


def _steps(looks: Sequence[At]) -> str:
    return f"step{'s' * (len(looks) > 1)} {listed([f'{at.step:,}' for at in looks])}"


def _curvature(run: MonitoredRun) -> Iterator[Finding]:
    looks = course(run, "lambda_max")
    if not looks:
        return
    track = run.lambda_max
    bounds = 0 if track is None else track.unconverged
    known = f"; {bounds} of them only from below: not converged" if bounds else ""
    yield Finding("note", f"{_moved(looks)}.", f"lambda_max at {counted(len(looks), 'look')}{known}", "")


def _moved(looks: Sequence[At]) -> str:
    """Where the largest eigenvalue went, in a sentence."""
    first, last = looks[0], looks[-1]
    top = max(looks, key=lambda at: at.value)
    low, high = min(at.value for at in looks), top.value
    if len(looks) == 1:
        return f"lambda_max was {number(first.value)} at step {first.step:,}, the only look at it"
    if first.value <= 0 or last.value <= 0:
        return f"lambda_max went from {number(first.value)} to {number(last.value)}"
    if top.value > MOVED * max(first.value, last.value):
        way = f"rose from {number(first.value)} to {number(top.value)} at step {top.step:,}, and fell to"
        return f"lambda_max {way} {number(last.value)}"
    if high <= MOVED * low:
        return f"lambda_max stayed within {number(low)} to {number(high)}"
    ends = f"from {number(first.value)} to {number(last.value)}"
    if last.value > MOVED * first.value:
        return f"lambda_max rose {ends}{_then(looks)}"
    if first.value > MOVED * last.value:
        return f"lambda_max fell {ends}{_then(looks)}"
    return f"lambda_max went {ends}, within {number(low)} to {number(high)}"


def _then(looks: Sequence[At]) -> str:
    """Whether it held over the last third of the looks."""
    end = [at.value for at in looks[-(len(looks) // 3) :]]
    middle = statistics.median(end)
    held = len(end) >= FEW and all(abs(value - middle) <= HELD * abs(middle) for value in end)
    return (
        f", then stayed within {percent(HELD, 2)} of {number(middle)} from step {looks[-len(end)].step:,} on"
        if held
        else ""
    )


def _loss(run: MonitoredRun) -> Iterator[Finding]:
    looks = course(run, "loss")
    if len(looks) < 2:
        return
    first, last = looks[0], looks[-1]
    ends = f"from {number(first.value)} to {number(last.value)}"
    because = f"of the fixed batches, from step {first.step:,} to {last.step:,}; its smallest is {number(min(at.value for at in looks))}"
    if last.value <= first.value:
        yield Finding("ok", f"The loss fell {ends}.", because, "")
    else:
        yield Finding("warn", f"The loss rose {ends}.", because, "hessdiag check MODEL, for why")


def _gradient(run: MonitoredRun) -> Iterator[Finding]:
    looks = course(run, "gradient_norms")
    if not looks:
        return
    last = looks[-1]
    layers = {name: norm for name, norm in (last.reading.layers or {}).items() if norm is not None}
    largest = max(layers.values(), default=0.0)
    gone = [name for name, norm in layers.items() if largest > 0 and norm <= VANISHED * largest]
    if gone:
        norms = [layers[name] for name in gone]
        yield Finding(
            "warn",
            f"The gradient of {listed(gone)} has vanished: at step {last.step:,} it is {number(max(norms))}{' at most' * (len(gone) > 1)}.",
            f"at most {VANISHED:g} of the largest layer's, {number(largest)}",
            "hessdiag check MODEL, for why",
        )
    first = looks[0]
    if first.value > 0 and last.value > GREW * first.value:
        yield Finding(
            "warn",
            f"The gradient grew from {number(first.value)} to {number(last.value)}.",
            f"norm at steps {first.step:,} and {last.step:,}; more than {GREW:g} times",
            "",
        )


def _downward(run: MonitoredRun) -> Iterator[Finding]:
    looks = course(run, "negative_curvature")
    proven = [at for at in looks if at.reading.proven]
    if proven:
        low = min(proven, key=lambda at: at.value)
        yield Finding(
            "note",
            f"Negative curvature was proven at {len(proven)} of {counted(len(looks), 'look')}.",
            f"v'Hv < 0 was seen; the lowest is {number(low.value)} at step {low.step:,}, an upper bound of the lowest eigenvalue",
            "",
        )
    elif looks:
        yield Finding(
            "note", "No negative curvature was seen.", f"{counted(len(looks), 'look')} of few products each", ""
        )


def _estimates(run: MonitoredRun) -> Iterator[Finding]:
    """Whether estimates moved beyond their errors."""
    for name, words in (("trace", "The trace"), ("diag_share", "The diagonal share")):
        looks = course(run, name)
        if len(looks) < 2:
            continue
        first, last = looks[0], looks[-1]
        errors = [at.reading.stderr for at in (first, last)]
        ends = f"{with_error(first.value, errors[0])} to {with_error(last.value, errors[1])}"
        noise = SIGMAS * sum((error or 0.0) ** 2 for error in errors) ** 0.5
        moved = abs(last.value - first.value) > noise
        way = "rose" if last.value > first.value else "fell"
        says = f"{words} {way} from {ends}." if moved else f"{words} shows no change beyond its errors: {ends}."
        yield Finding(
            "note",
            says,
            f"first look and last of {len(looks)}, with standard errors; one look is judged against one other",
            "",
        )


def _gaps(run: MonitoredRun) -> Iterator[Finding]:
    """What there is no reading of."""
    short = [record for record in run.records if record.left_out]
    if (run.skipped and run.looks) or short:
        parts = [f"{run.skipped} of {counted(len(run.records), 'look')} left out"] if run.skipped else []
        parts += [f"{counted(len(short), 'look')} without what takes products"] if short else []
        yield Finding(
            "note",
            f"The budget was short: {', and '.join(parts)}.",
            f"budget {given_budget(run.budget)}; looks took {percent(run.share, 2)} of training's own time",
            "a smaller batch for the monitor, or a larger budget=",
        )
    failed = {name: (record.step, why) for record in run.records for name, why in (record.failed or {}).items()}
    given_up = {name for record in run.records for name in record.gave_up or ()}
    if _ended(run):
        failed.pop("loss")  # which is said first
    for name, (step, why) in failed.items():
        count = sum(name in (record.failed or {}) for record in run.records)
        more = ", and was given up" if name in given_up else ""
        yield Finding(
            "warn",
            f"{name} failed at {counted(count, 'look')}, the last time at step {step:,}{more}.",
            why,
            "",
        )


def _damage(run: MonitoredRun) -> Iterator[Finding]:
    if run.unread:
        says = f"The log is damaged: {'; '.join(run.unread)}."
        yield Finding("warn", says, "all that is whole is drawn", "")
    if run.replaced:
        says = f"Training went back to an older step: {counted(run.replaced, 'record was', 'records were')} made again."
        yield Finding("note", says, "the later ones are drawn", "")


def _unlogged(run: MonitoredRun) -> Iterator[Finding]:
    tracks: dict[str, Track | None] = {
        "loss": run.loss,
        "gradient_norms": run.gradient_norms,
        "lambda_max": run.lambda_max,
        "sharpness": run.sharpness,
        "negative_curvature": run.negative_curvature,
        "trace": run.trace,
        "diag_share": run.diag_share,
    }
    missing = [name for name, track in tracks.items() if track is None]
    if missing:
        why = "not asked for"
        if "sharpness" in missing and run.optimizer is None:
            why = "sharpness is against an optimizer's threshold, and the monitor was given none"
        yield Finding(
            "note",
            f"This run did not log {listed(missing, len(missing))}.",
            why,
            f"hessdiag.Monitor(..., quantities=[{', '.join(map(repr, missing[:2]))}, ...])",
        )
    never = [name for name, track in tracks.items() if track is not None and not track.measured]
    if never and run.looks:
        whys = {reading.why for record in run.records for name in never if (reading := record.readings.get(name))}
        said = listed(sorted(why for why in whys if why)) or "each look that had time for it failed, or none had"
        yield Finding("note", f"There is no number of {listed(never, len(never))}.", said, "")


def given_budget(budget: str | float | None) -> str:
    """How the budget was given."""
    return "without limit" if budget is None else budget if isinstance(budget, str) else percent(budget, 2)


PARTS: tuple[Callable[[MonitoredRun], Iterator[Finding]], ...] = (
    _curvature,
    _loss,
    _gradient,
    _downward,
    _estimates,
    _gaps,
    _damage,
    _unlogged,
)
