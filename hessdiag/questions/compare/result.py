"""What changed between results of one question, and whether beyond the errors of both."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hessdiag.fields import Count, Interval, NonEmpty, Number, Numbers
from hessdiag.questions.common.result import OPTIONAL, Result

How = Literal["estimates", "exact", "untold", "missing"]
Way = Literal["up", "down", "none", "open"]


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the results that are compared.

    Attributes:
        label: How it is called here.
        status: Its own.
        trusted: Whether its self-checks passed.
        model: What was measured.
        synthetic: Whether its batch was made up, from its seed.
        started: When it was measured.
        dtype: In which numbers.
        device: Where.
        seed: Of all that is random in it.
        weights_sha256: Of the weights; `None` where they have none.
        argv: The command line that gave it; empty in Python.
        cut: Questions of a report that its budget ended.
    """

    label: str
    status: str
    trusted: bool
    model: str
    synthetic: bool
    started: str
    dtype: str
    device: str
    seed: int | None
    weights_sha256: str | None
    argv: tuple[str, ...]
    cut: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """A setting in which the results differ.

    Attributes:
        setting: In words.
        values: Of each result, in their order.
        matters: Whether numbers may differ by it; if not, it changes their errors alone.
    """

    setting: str
    values: tuple[str, ...]
    matters: bool


@dataclass(frozen=True, kw_only=True)
class NumberChange:
    """One number of the first result and of the last.

    Attributes:
        command: The question that it answers.
        metric: Its path in that question's result.
        name: In words.
        before: The first value; `None` where it was not measured, or is not finite.
        after: The last.
        before_stderr: Its standard error; `None` where it is exact, or where none is known.
        after_stderr: Likewise.
        before_interval: Its 95 % interval, or where it certainly is; `None` where it is exact to rounding, or where
            nothing is known.
        after_interval: Likewise.
        change: The last value less the first.
        stderr: Standard error of that, at the ends that face each other; `None` where neither value is random.
        interval: 95 % interval of the change, or where it certainly is; `None` where logarithms were judged.
        p: How likely chance alone does this, by itself; `None` where neither value is random.
        p_adjusted: The same with all other numbers in mind (Holm's correction, weighted).
        significant: Whether the change is beyond the errors of both.
        how: Whether it was judged by errors ("estimates"), by what is certain ("exact"), or not: for no error is known
            ("untold"), or a value is missing.
        way: Where it went, if beyond the errors; "none" where no change is shown, "open" where that cannot be judged.
        better: Whether that is better, where there is such a thing whatever the network, and it is significant.
    """

    command: str
    metric: str
    name: str
    before: Number
    after: Number
    before_stderr: Number
    after_stderr: Number
    before_interval: Interval | None
    after_interval: Interval | None
    change: Number
    stderr: Number
    interval: Interval | None
    p: Number
    p_adjusted: Number
    significant: bool
    how: How
    way: Way
    better: bool | None


@dataclass(frozen=True, kw_only=True)
class Course:
    """A headline number along several results.

    Attributes:
        command: The question that it answers.
        metric: Its path in that question's result.
        name: In words.
        values: One of each result.
        low: Lower ends of their intervals; the values themselves where they are exact.
        high: Upper ends.
    """

    command: str
    metric: str
    name: str
    values: Numbers
    low: Numbers
    high: Numbers


@dataclass(frozen=True, kw_only=True)
class CourseStep:
    """A change of a headline number from one result to the next.

    Attributes:
        command: The question that it answers.
        metric: Its path in that question's result.
        name: In words.
        start: Label of the one.
        end: Label of the other.
        change: The second value less the first.
        stderr: Its standard error; `None` where neither value is random.
        p: With all steps of all headline numbers in mind (Holm); `None` likewise.
        significant: Whether it is beyond the errors of both.
    """

    command: str
    metric: str
    name: str
    start: str
    end: str
    change: Number
    stderr: Number
    p: Number
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Compare(Result):
    """What changed from the first result to the last, and on the way.

    Attributes:
        compared: The question that the results answer.
        runs: The results, in order.
        comparable: Whether they asked the same of the same network, weights aside.
        why: What else differs, in a sentence; empty where nothing does.
        settings: All settings that differ.
        differences: How many of these matter.
        same_draws: Whether estimates come from the same random numbers: their errors are not independent then.
        repeated: Whether all is the same, weights and seed included, so that the numbers ought to be.
        level: Of the tests, all together.
        significant: How many numbers changed beyond their errors.
        worse: How many of these got worse, where there is such a thing.
        better: How many got better.
        changes: Of every number, from the first result to the last.
        courses: Of headline numbers, along more than two results.
        steps: From each result to the next, likewise.
    """

    command: ClassVar[str] = "compare"

    compared: str
    runs: NonEmpty[ComparedRun]
    comparable: bool
    why: str
    settings: tuple[SettingDifference, ...]
    differences: Count
    same_draws: bool
    repeated: bool
    level: Number
    significant: Count
    worse: Count
    better: Count
    changes: tuple[NumberChange, ...]
    courses: tuple[Course, ...]
    steps: tuple[CourseStep, ...]
