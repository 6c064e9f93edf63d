"""A training run as a `Monitor` saw it: all its looks, and where each quantity went."""

from dataclasses import dataclass
from typing import ClassVar

from hessdiag.fields import Count, Number
from hessdiag.questions.common.result import ModelSubject, Result
from hessdiag.questions.report.run.record import Record


@dataclass(frozen=True, kw_only=True)
class RunOptimizer:
    """The optimizer that trained, as it was when the log began."""

    kind: str
    settings: dict[str, Number]


@dataclass(frozen=True, kw_only=True)
class Track:
    """Where one quantity went.

    Attributes:
        first: Its first value; `None`, as the others, where it was never measured.
        last: Its last.
        smallest: Of all looks.
        largest: Of all looks.
        at: Step of the last value.
        measured: How many looks have it.
        unconverged: At how many of them it is only a bound.
        stderr: How far the last value can be off, as the log has it.
    """

    first: Number
    last: Number
    smallest: Number
    largest: Number
    at: Count | None
    measured: Count
    unconverged: Count
    stderr: Number


@dataclass(frozen=True, kw_only=True)
class MonitoredRun(Result):
    """A training run, as a `Monitor` saw it.

    Attributes:
        optimizer: That trained, where the monitor knew it.
        every: Steps between looks, at least.
        budget: Share of training's time that looks might take, as it was given; `None` for no limit.
        quantities: That were to be measured.
        records: All looks, those that were left out included, by step.
        resumed: Steps after which the log was taken up again.
        replaced: How many records a run that went back has made again; they are not among `records`.
        unread: What of the file could not be read.
        looks: How many looks measured something.
        skipped: How many were left out, for the budget.
        share: Time of all looks over training's own, at the last.
        loss: Of the fixed batches; `None`, as the others, where it was not to be measured.
        gradient_norms: Of the whole gradient.
        lambda_max: The largest eigenvalue.
        sharpness: Curvature in the optimizer's metric over its threshold: 1 is the edge of stability.
        negative_curvature: The lowest Ritz value.
        trace: By random signs.
        diag_share: By exact rows.
    """

    command: ClassVar[str] = "report"

    problem: ModelSubject = ModelSubject()  # noqa: RUF009 - frozen
    optimizer: RunOptimizer | None
    every: Count
    budget: str | float | None
    quantities: tuple[str, ...]
    records: tuple[Record, ...]
    resumed: tuple[Count, ...] = ()
    replaced: Count = 0
    unread: tuple[str, ...] = ()
    looks: Count = 0
    skipped: Count = 0
    share: Number = None
    loss: Track | None = None
    gradient_norms: Track | None = None
    lambda_max: Track | None = None
    sharpness: Track | None = None
    negative_curvature: Track | None = None
    trace: Track | None = None
    diag_share: Track | None = None
