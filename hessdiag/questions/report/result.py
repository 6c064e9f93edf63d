"""The report of a model: answers of several questions, what was left out, and one verdict over all."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hessdiag.fields import Count, Number
from hessdiag.questions.common.result import OPTIONAL, ModelSubject, Result

Preset = Literal["quick", "normal", "full"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One question that was answered.

    Attributes:
        command: Its name.
        argv: The single command that gives the same numbers.
        announced_seconds: What it was planned to take; `None` where nobody could know.
        seconds: What it took.
        whole_seconds: What it takes to its end, about, where the budget ended it before; `None` where it did not.
        document: Its whole document, as the single command writes it.
    """

    command: str
    argv: tuple[str, ...]
    announced_seconds: Number = None
    seconds: float
    whole_seconds: Number = field(default=None, metadata=OPTIONAL)
    document: dict[str, Any]

    @property
    def cut(self) -> bool:
        """Whether the budget ended it before its end."""
        return self.whole_seconds is not None

    @property
    def trusted(self) -> bool:
        """Whether its numbers are: those of a part are, unless a self-check failed."""
        status = self.document["status"]
        return status == "ok" or (status == "interrupted" and self.document["result"].get("trusted") is not False)


@dataclass(frozen=True, kw_only=True)
class NotAnswered:
    """One question that was not answered.

    Attributes:
        command: Its name.
        why: In a sentence.
        seconds: What it would take; `None` where nobody could know, or where it does not apply.
        argv: The command that answers it; empty where it does not apply to this model.
    """

    command: str
    why: str
    seconds: Number = None
    argv: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyNumber:
    """One of the numbers to look at first.

    Attributes:
        command: The question that it answers.
        metric: Its path in that question's result, as gates take it.
        meaning: In words.
        value: Itself.
        stderr: Its standard error; `None` where it is exact or the question gives none.
    """

    command: str
    metric: str
    meaning: str
    value: Number
    stderr: Number = None


@dataclass(frozen=True, kw_only=True)
class Report(Result):
    """Everything that applies to a model, as far as the budget went.

    Attributes:
        preset: How much was wanted.
        budget_seconds: Most time that the questions were to take together; `None` for no limit.
        seconds: What they took together, loading aside.
        products: Hessian products that were spent.
        sections: Questions that were answered, in reading order.
        left_out: Those that were not.
        key_numbers: To look at first.
    """

    command: ClassVar[str] = "report"

    problem: ModelSubject = ModelSubject()  # noqa: RUF009 - frozen
    preset: Preset
    budget_seconds: Number
    seconds: float
    products: Count | None = None
    sections: tuple[Section, ...]
    left_out: tuple[NotAnswered, ...]
    key_numbers: tuple[KeyNumber, ...]
