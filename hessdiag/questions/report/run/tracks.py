"""From the looks of a run to where each quantity went, and the verdict."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hessdiag.questions.report.run.record import Record
from hessdiag.questions.report.run.result import MonitoredRun, Track
from hessdiag.questions.report.run.verdict import findings

QUANTITIES = ("loss", "gradient_norms", "lambda_max", "sharpness", "negative_curvature", "trace", "diag_share")


def followed(run: MonitoredRun) -> MonitoredRun:
    """The same run with its tracks, its counts and its verdict."""
    held = [name for name in QUANTITIES if name in run.quantities or any(name in one.readings for one in run.records)]
    tracks: dict[str, Any] = {name: track(run.records, name) for name in held}
    whole = replace(
        run,
        looks=sum(bool(record.readings) for record in run.records),
        skipped=sum(record.skipped is not None for record in run.records),
        share=run.records[-1].share if run.records else None,
        **tracks,
    )
    return replace(whole, findings=tuple(findings(whole)))


def track(records: Sequence[Record], name: str) -> Track:
    """Where a quantity went.

    >>> from hessdiag.questions.report.run.record import Reading
    >>> looks = [Record(step=step, readings={"loss": Reading(value=1 / step)}) for step in (1, 2, 4)]
    >>> found = track(looks, "loss")
    >>> found.first, found.last, found.at, found.measured
    (1.0, 0.25, 4, 3)
    """
    known = [(record.step, *found) for record in records if (found := record.known(name)) is not None]
    values = [value for _, value, _ in known]
    last = known[-1][2] if known else None
    return Track(
        first=values[0] if known else None,
        last=values[-1] if known else None,
        smallest=min(values, default=None),
        largest=max(values, default=None),
        at=known[-1][0] if known else None,
        measured=len(known),
        unconverged=sum(reading.bound is not None for *_, reading in known),
        stderr=None if last is None else last.stderr,
    )
