"""What `check` finds: why a network will not train, ranked, with what was read off it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from hessdiag.fields import Count, Number, Numbers, Share
from hessdiag.questions.check.readings import (
    InputReading,
    LayerReading,
    ModeReading,
    OutputReading,
    RangeReading,
    StepReading,
    TargetReading,
)
from hessdiag.questions.common.result import ModelSubject, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    Weights: TypeAlias = Mapping[str, Tensor] | None
else:
    Weights = None  # of a document, which holds none

BROKEN = 0.7  # confidence from which a network will not train as it is


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What follows from a cause, and would be one by itself; one of each identifier.

    Attributes:
        id: As those of causes.
        layer: The first that shows it; `None` where it is of no single layer.
        value: The number that shows it there.
        says: One sentence, with the number.
        more: How many other layers show it.
    """

    id: str
    layer: str | None
    value: Number
    says: str
    more: Count = 0


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One reason why the network does not train.

    Attributes:
        id: From the list in the docs: `dead_units`, `input_scale`, ...
        layer: Where; `None` where it is of no single layer.
        value: The number that shows it.
        threshold: From where on it counts.
        quantity: What the number is, in words.
        confidence: 0 to 1. From 0.7 on the network will not train well as it is; below, it may.
        says: One sentence, with the number.
        remedy: What to do, in one sentence.
        symptoms: What follows from it.
    """

    id: str
    layer: str | None
    value: Number
    threshold: Number
    quantity: str
    confidence: Share
    says: str
    remedy: str
    symptoms: tuple[Symptom, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """A short training run: the loss before each step and after the last, on the batches in turn."""

    losses: Numbers
    final: Number
    accuracy: Number = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A cure that was tried on a copy.

    Attributes:
        cure: Its name.
        cause: Identifier of the cause that it is for.
        layer: Where.
        says: What it does, in one sentence.
        code: The change to one's own code.
        optimizer: What both were trained with.
        steps: How many steps each was trained.
        before: The network as it is.
        after: With the cure.
        helped: Whether it trains better.
        because: By which numbers.
        mended: The weights with the cure; `None` where it changes none. Not in the document.
    """

    cure: str
    cause: str
    layer: str | None
    says: str
    code: str
    optimizer: str
    steps: int
    before: TrialRun
    after: TrialRun
    helped: bool
    because: str
    mended: Weights = field(default=None, repr=False, compare=False, metadata={"apart": True})


@dataclass(frozen=True, kw_only=True)
class Check(Result):
    """Why a network will not train: its causes, ranked, and what they were concluded from.

    Attributes:
        causes: The likeliest first; none for a healthy network.
        confidence: That of the first cause; 0 without one.
        trains: Whether its loss fell in the few steps that were taken; `None` where none were, or where that did not
            tell.
        trained: Whether its loss is clearly below chance already.
        layers: By execution.
        inputs: What the model receives.
        targets: What it should put out.
        output: What it puts out, and the loss.
        modes: Modules that hang on their mode.
        numbers: How its numbers lie in their range.
        step: What the optimizer does with it; `None` where no gradient reaches a parameter.
        not_looked_at: What was left out, and why.
        trial: A cure that was tried; `None` where none was asked for or is known.
    """

    command: ClassVar[str] = "check"

    problem: ModelSubject = ModelSubject()  # noqa: RUF009 - frozen
    causes: tuple[Cause, ...] = ()
    confidence: Share = 0.0
    trains: bool | None = None
    trained: bool | None = None
    layers: tuple[LayerReading, ...] = ()
    inputs: tuple[InputReading, ...] = ()
    targets: TargetReading | None = None
    output: OutputReading | None = None
    modes: tuple[ModeReading, ...] = ()
    numbers: RangeReading | None = None
    step: StepReading | None = None
    not_looked_at: tuple[str, ...] = ()
    trial: Trial | None = None
