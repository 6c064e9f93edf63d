"""What a measurement costs: planned before it is paid, measured while it is.

Operators enter every product that they finish, commands enter what they plan, and whoever reports on it listens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hessdiag.curvature import memory
from hessdiag.errors import ComputeError

if TYPE_CHECKING:
    import torch

SPARE = 0.9  # of the free memory: what may be planned with


@dataclass(frozen=True)
class Plan:
    """What a command is going to do.

    Attributes:
        products: The fewest and the most products with single vectors; equal where their number is known.
        held: Bytes at the peak, by what holds them; "process" is what was there before.
        available: Bytes that this process may hold in all.
    """

    products: tuple[int, int]
    held: Mapping[str, int]
    available: int

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
    """

    plan: Plan | None = None
    products: float = 0.0
    seconds: float = 0.0
    gradients: int = 0
    listener: Callable[["Ledger"], None] = field(default=lambda ledger: None, repr=False)

    @property
    def seconds_per_product(self) -> float | None:
        """As measured so far; `None` before the first."""
        return self.seconds / self.products if self.products else None

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


def plan(products: int | tuple[int, int], held: Mapping[str, float], device: "torch.device") -> Plan:
    """Note what is planned, from here on.

    Args:
        products: How many; the fewest and the most where that is not known.
        held: Bytes that will be held at the peak beyond what is held now, by what holds them.
        device: Where.
    """
    both = products if isinstance(products, tuple) else (products, products)
    before = memory.held_bytes(device)
    parts = {"process": before} | {name: int(size) for name, size in held.items()}
    found = Plan(both, parts, before + memory.free_bytes(device))
    own = _CURRENT.get()
    if own is not None:
        own.plan = found
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


def gib(size: float) -> str:
    """Bytes for people.

    >>> gib(3.2e9), gib(5e6), gib(2e11)
    ('3.0 GiB', '5 MiB', '186 GiB')
    """
    if size < 2**30:
        return f"{size / 2**20:.0f} MiB"
    return f"{size / 2**30:.1f} GiB" if size < 100 * 2**30 else f"{size / 2**30:,.0f} GiB"
