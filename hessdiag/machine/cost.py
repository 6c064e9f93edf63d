"""What a measurement costs: planned before it is paid, measured while it is.

Operators enter every product that they finish, commands enter what they plan and how far they are, and whoever reports
on it listens. Time is that of the products, as measured, and of the arithmetic on vectors beside them, which is counted
in vectors that are read or written: their pace is that of the memory, and is measured too.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hessdiag.errors import ComputeError
from hessdiag.machine import memory
from hessdiag.machine.sizes import gib
from hessdiag.machine.work import Work

if TYPE_CHECKING:
    import torch

SPARE = 0.9  # of the free memory: what may be planned with
ENOUGH = 30.0  # vectors that arithmetic has read or written, from which their pace is known by the clock
CHECK = 12.0  # products and gradients of a check of the point that meets no trouble: 6 to 14

Range = tuple[float, float]


@dataclass(frozen=True)
class Progress:
    """How far a command is, after the check of the point.

    Attributes:
        vectors: That its arithmetic has read or written so far.
        ahead: The least and the most that is left; the most is `None` where nobody knows.
        at: When that was so.
    """

    vectors: float
    ahead: tuple[Work, Work | None]
    at: float


@dataclass(frozen=True)
class Plan:
    """What a command is going to do.

    Attributes:
        products: The fewest and the most products with single vectors; equal where their number is known.
        held: Bytes at the peak, by what holds them; "process" is what was there before.
        available: Bytes that this process may hold in all.
        vectors: The fewest and the most vectors that arithmetic beside the products reads or writes.
        pace: Seconds for one of them, as memory was measured before.
        search: Whether the most is only where a search gives up.
        processes: Over how many the bytes of each of which these are; 1 where nothing is spread.
    """

    products: tuple[int, int]
    held: Mapping[str, int]
    available: int
    vectors: Range = (0.0, 0.0)
    pace: float = 0.0
    search: bool = False
    processes: int = 1

    @property
    def peak(self) -> int:
        """Bytes at the peak, in all."""
        return sum(self.held.values())


@dataclass
class Ledger:
    """What was planned and what was spent, for one command.

    Attributes:
        plan: What is planned; `None` before it is known.
        products: Products with single vectors that are finished. One with several batches counts as parts.
        seconds: What they took, without the graph that is kept between them.
        gradients: Gradients of the checks of the point.
        listener: Called after each entry.
        progress: How far the work is; `None` before it is counted.
        started: When the check of the point began, with products and gradients so far.
        begun: When the check of the point was over, with products and seconds so far; `None` before.
        announced: What was said to be planned, in seconds; `None` where nothing was.
    """

    plan: Plan | None = None
    products: float = 0.0
    seconds: float = 0.0
    gradients: int = 0
    listener: Callable[["Ledger"], None] = field(default=lambda ledger: None, repr=False)
    progress: Progress | None = None
    started: tuple[float, float] | None = None
    begun: tuple[float, float, float] | None = None
    announced: Range | None = None

    @property
    def seconds_per_product(self) -> float | None:
        """As measured so far, since the check of the point where that is over; `None` before the first."""
        _, products, seconds = self.begun or (0.0, 0.0, 0.0)
        if self.products - products >= 1:
            return (self.seconds - seconds) / (self.products - products)
        return self.seconds / self.products if self.products else None

    @property
    def check(self) -> float:
        """Seconds that are left of the check of the point, about, from what it did so far."""
        if self.begun is not None or self.started is None:
            return 0.0
        began, before = self.started
        done = self.products + self.gradients - before
        return (time.perf_counter() - began) * max(CHECK / done - 1, 0.0) if done else 0.0

    @property
    def pace(self) -> float:
        """Seconds for a vector that arithmetic reads or writes: by the clock, once that has seen enough."""
        before = 0.0 if self.plan is None else self.plan.pace
        if self.progress is None or self.begun is None or self.progress.vectors < ENOUGH:
            return before
        began, _, seconds = self.begun
        return max(self.progress.at - began - (self.seconds - seconds), 0.0) / self.progress.vectors

    @property
    def planned_seconds(self) -> Range:
        """What all that is planned takes, the rest of the check of the point included; (0, 0) without plan or pace."""
        each = self.seconds_per_product
        if self.plan is None or each is None:
            return 0.0, 0.0
        ends = zip(self.plan.products, self.plan.vectors, strict=True)
        least, most = (self.check + products * each + vectors * self.pace for products, vectors in ends)
        return least, most

    @property
    def left(self) -> tuple[float, float | None] | None:
        """Seconds, the least and the most; the most is `None` where nobody knows, and all where nothing is counted."""
        each = self.seconds_per_product
        if self.progress is None or each is None:
            return None
        since = time.perf_counter() - self.progress.at
        least, most = (
            None if work is None else max(work.products * each + work.vectors * self.pace - since, 0.0)
            for work in self.progress.ahead
        )
        assert least is not None
        return least, most

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        spent = {
            "products": round(self.products),
            "gradients": self.gradients,
            "seconds_per_product": self.seconds_per_product,
        }
        if self.plan is None:
            return spent
        return spent | {
            "products_planned": list(self.plan.products),
            "seconds_planned": list(self.announced or self.planned_seconds),
            "memory_planned_bytes": self.plan.peak,
            "memory_by_holder": dict(self.plan.held),
            "memory_available_bytes": self.plan.available,
        }


_CURRENT: ContextVar[Ledger | None] = ContextVar("cost", default=None)


@contextmanager
def ledger(listener: Callable[[Ledger], None] = lambda ledger: None) -> Iterator[Ledger]:
    """A ledger for all that is computed within.

    >>> with ledger() as spent:
    ...     enter(2, 0.5)
    >>> spent.products, spent.seconds_per_product
    (2.0, 0.25)
    """
    own = Ledger(listener=listener)
    token = _CURRENT.set(own)
    try:
        yield own
    finally:
        _CURRENT.reset(token)


def enter(products: float, seconds: float) -> None:
    """Note finished products, or a part of them where there are several batches."""
    own = _CURRENT.get()
    if own is not None:
        own.products += products
        own.seconds += seconds
        own.listener(own)


def enter_gradient() -> None:
    """Note a gradient of the check of the point."""
    own = _CURRENT.get()
    if own is not None:
        own.gradients += 1
        own.listener(own)


def begin() -> None:
    """Note that the check of the point is over: what is timed from here on is the work."""
    own = _CURRENT.get()
    if own is not None:
        own.begun, own.progress = (time.perf_counter(), own.products, own.seconds), None


def reach(vectors: float, least: Work, most: Work | None) -> None:
    """Note how far the work is.

    Args:
        vectors: That its arithmetic has read or written since `begin`.
        least: What is left at least.
        most: And at most; `None` where nobody knows.
    """
    own = _CURRENT.get()
    if own is not None and own.begun is not None:
        own.progress = Progress(vectors, (least, most), time.perf_counter())


def plan(
    products: int | tuple[int, int],
    held: Mapping[str, float],
    device: "torch.device",
    *,
    vectors: Range = (0.0, 0.0),
    pace: float = 0.0,
    search: bool = False,
    processes: int = 1,
) -> Plan:
    """Note what is planned, from here on.

    Args:
        products: How many; the fewest and the most where that is not known.
        held: Bytes that will be held at the peak beyond what is held now, by what holds them.
        device: Where.
        vectors: The fewest and the most that arithmetic beside the products reads or writes.
        pace: Seconds for one of them.
        search: Whether the most is only where a search gives up.
        processes: Over how many the model is spread.
    """
    both = products if isinstance(products, tuple) else (products, products)
    before = memory.held_bytes(device)
    parts = {"process": before} | {name: int(size) for name, size in held.items()}
    found = Plan(both, parts, before + memory.free_bytes(device), vectors, pace, search, processes)
    own = _CURRENT.get()
    if own is not None:
        own.plan, own.started = found, (time.perf_counter(), own.products + own.gradients)
        own.listener(own)
    return found


def refuse_many(count: int, each: float, device: "torch.device | None", what: str, flag: str) -> None:
    """End before hours are spent on many things that memory will not hold, so many bytes each.

    Raises:
        ComputeError: with the largest number that fits, and its flag.
    """
    free = memory.free_bytes(device)
    if count * each > SPARE * free:
        largest = max(int(SPARE * free / each), 1)
        raise ComputeError(
            f"{count:,} {what} need {gib(count * each)}, and {gib(free)} of memory are free.", f"{flag} {largest}"
        )
