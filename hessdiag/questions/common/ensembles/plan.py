"""What measurements of many random networks have in common: refusals, the plan, and what an interrupt leaves."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from hessdiag.errors import SpecError
from hessdiag.machine.ranks import ranks
from hessdiag.nets.initializers import Distribution, law
from hessdiag.problem.device import notes
from hessdiag.questions.common.result import Subject
from hessdiag.questions.common.runs.pieces import Pieces
from hessdiag.questions.common.runs.progress import Progress

T = TypeVar("T")


def refuse_below(least: int, usual: int, **counts: int | str | None) -> None:
    """Refuse numbers of things that are too small, before anything is computed.

    Args:
        least: What each must be.
        usual: What would work, for the message.
        **counts: The numbers by the names of their flags; words and `None` pass.

    Raises:
        SpecError: naming the first flag.

    >>> refuse_below(1, 32, depth=4, width="same")
    """
    for name, count in counts.items():
        if isinstance(count, int) and count < least:
            flag = f"--{name.replace('_', '-')}"
            raise SpecError(f"{flag} must be at least {least}, not {count}.", f"{flag} {usual}")


def distinct_inits(init: str | Sequence[str]) -> tuple[str, ...]:
    """One or several initializations as a list, each once.

    Raises:
        SpecError: if there is none.

    >>> distinct_inits("lecun"), distinct_inits(["he_normal", "lecun", "he_normal"])
    (('lecun',), ('he_normal', 'lecun'))
    """
    names = tuple(dict.fromkeys((init,) if isinstance(init, str) else init))
    if not names:
        raise SpecError("no initialization was given.", "--init he_normal")
    return names


def drawn_from(init: str, distribution: Distribution | None = None) -> Distribution | None:
    """What an initialization draws each weight from; `None` for dependent weights, such as orthogonal ones.

    Args:
        init: A key of `hessdiag.nets.INITS`.
        distribution: Draw from this, at the initialization's variance.

    Raises:
        SpecError: if the name is unknown.

    >>> drawn_from("lecun"), drawn_from("lecun", "normal"), drawn_from("orthogonal")
    ('uniform', 'normal', None)
    """
    weights = law(init, 1, 1, distribution)
    return weights.distribution if weights else None


def built_in(device: str, place: torch.device | str, seed: int) -> Subject:
    """What is measured, where the networks are fully connected ones that the question makes itself.

    Args:
        device: As it was asked for.
        place: What came of it.
        seed: Of all randomness.
    """
    return Subject(model="builtin:mlp", device=str(place), dtype="float64", seed=seed, notes=notes(device, place))


class Meter:
    """How far a measurement is, told to whoever wants to know.

    Args:
        progress: Called with (done, total, what).
        total: Steps in all.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0.0

    def say(self, what: str) -> None:
        """Tell how far it is, and what is done from here on."""
        if self._progress is not None:
            self._progress(round(self._done), self._total, what)

    def advance(self, steps: float = 1) -> None:
        """So many steps more are done."""
        self.reach(self._done + steps)

    def reach(self, done: float) -> None:
        """So many steps are done in all."""
        self._done = min(done, self._total)
        self.say("")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to be measured, once nothing speaks against it.

    Attributes:
        what: In words, with what it costs.
        steps: Of its progress, in all.
        settings: All that the numbers depend on besides the device, in JSON's types; see `Pieces`.
        device: Where it is computed.
        kept: Bytes that finished pieces take at most, and their number.
    """

    what: str
    steps: int
    settings: Mapping[str, Any]
    device: torch.device
    kept: tuple[float, float]

    def begin(self, resume: str | Path | None, progress: Progress | None) -> "Run":
        """Open the folder for finished pieces, and say what is planned.

        Raises:
            SpecError: if the folder holds something else, or pieces of other settings.
        """
        pieces, meter = Pieces(resume, self.settings, self.device), Meter(progress, self.steps)
        meter.say(f"{self.what}{pieces.said(*self.kept)}")
        return Run(pieces, meter)


@dataclass(frozen=True)
class Run:
    """A measurement under way.

    Attributes:
        pieces: Where finished parts are kept.
        meter: How far it is.
    """

    pieces: Pieces
    meter: Meter


def until_interrupted(parts: Iterable[T]) -> tuple[list[T], bool]:
    """What was measured part by part until an interrupt, and whether there was one.

    Raises:
        KeyboardInterrupt: if it comes before the first part is done, or to one of several processes.
    """
    found: list[T] = []
    try:
        for part in parts:
            found.append(part)
    except KeyboardInterrupt:
        if not found or ranks()[1] > 1:
            raise
        return found, True
    return found, False
