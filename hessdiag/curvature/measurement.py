"""What holds around every measurement of a problem: arithmetic, stream, and words for memory that runs out."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from hessdiag.machine.arithmetic import ieee
from hessdiag.machine.memory import free_bytes
from hessdiag.machine.shortage import ShortageError, fewer, ran_out, sentence
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.measuring import measuring
from hessdiag.problem.problem import Problem

P = ParamSpec("P")
R = TypeVar("R")

_HOME = Path(__file__).parents[1]
_OF_VECTORS = ("linalg", "statistics", "questions")  # rooms that hold vectors; the others run the model


def measurement(less: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function of a problem, its first argument, that measures throughout.

    Args:
        less: The flags with which it holds fewer vectors, if there are any.

    Raises:
        ShortageError: from the function, where memory runs out for good; with the flags that need less.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            asked: Any = args[0] if args else kwargs["problem"]
            problem = getattr(asked, "problem", asked)  # of an operator
            if not hasattr(problem, "device"):
                return function(*args, **kwargs)  # which says what it takes
            with measuring(problem.device), _told(lambda error: shortage(error, problem, less)):
                return function(*args, **kwargs)

        return measured

    return decorate


def ensemble(less: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `measurement`, for a function that makes its networks itself."""

    def in_words(error: BaseException) -> ShortageError:
        away = ", or --device cpu" if torch.cuda.is_initialized() else ""  # type: ignore[no-untyped-call]
        return ShortageError(f"{sentence(error)}.", less + away)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            with ieee(), _told(in_words):
                return function(*args, **kwargs)

        return measured

    return decorate


@contextmanager
def _told(words: Callable[[BaseException], ShortageError]) -> Iterator[None]:
    """Say in words that memory ran out for good, unless that was done further inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, ShortageError) or not ran_out(error):
            raise
        raise words(error) from error


def shortage(error: BaseException, problem: Problem, less: str | None) -> ShortageError:
    """What ran out where, and what to do."""
    what = sentence(error, free_bytes(problem.device), "" if problem.device.type == "cpu" else str(problem.device))
    vectors = _room(error) in _OF_VECTORS
    cures = [less] if less and vectors else []
    samples = max(batches.samples(batch) for batch in problem.data)
    if samples > 1 and not vectors:
        cures.append(f"--batch-size {fewer(samples)}")
    if len(problem.layer_slices) > 1:
        cures.append("--layers GLOB for some of the parameters")
    if problem.device.type != "cpu":
        cures.append("--device cpu")
    held = f"vectors of {problem.n_parameters:,} numbers" if vectors else f"{samples:,} samples at a time"
    return ShortageError(f"{what} (with {held}).", ", or ".join(cures) or "a machine with more memory")


def _room(error: BaseException) -> str:
    """The room of the house in which it happened."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _HOME in Path(frame.filename).parents:
            return Path(frame.filename).relative_to(_HOME).parts[0]
    return ""
