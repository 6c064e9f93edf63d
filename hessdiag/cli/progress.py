"""Progress on stderr: the cost before it is paid, then a bar with an ETA, or sparse lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from hessdiag.cli.speech import columns, say
from hessdiag.numbers import duration, short
from hessdiag.report.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hessdiag.machine.cost import Ledger

PLAIN_EVERY = 30.0  # seconds between lines where stderr is not a terminal
PATIENCE = 120.0  # and where a command counts its own work, but has said nothing
SHORT = 2.0  # seconds that nobody need be told of
MOST = "at most "  # begins the unit of what may end earlier
FEW, LONG = 2, 5.0  # products, or seconds of them, after which their time is known
HUNDRED = 100  # products: what a search often takes, where it gives up after thousands
USUAL = 0.02  # of the products at which a search gives up: so few often do, and are worth to be told of
SURE = 1.5  # ratio of two times up to which they are told as one
HOURS = 7200.0  # seconds of work that are announced as soon as its pace is known


@contextmanager
def reporter(enabled: bool = True) -> Iterator["Telling"]:
    """A function of (done, total, what) for a diagnostic to call.

    A call with `done` = 0 announces a new piece of work: its `what` is a sentence. Later ones name the unit, as in
    "products". Before and between them, what operators enter in the ledger of costs is told.
    """
    from hessdiag.machine import cost

    bar = _bar() if enabled and sys.stderr.isatty() else None
    telling = Telling(bar, silent=not enabled)
    with bar or nullcontext(), cost.ledger(telling.hear) as telling.ledger:
        yield telling


class Telling:
    """What has been said, and when the next line is due.

    Args:
        bar: Where stderr is a terminal.
        silent: Say nothing, and keep the ledger only.

    Attributes:
        ledger: What was planned and spent.
    """

    ledger: "Ledger"

    def __init__(self, bar: "Progress | None" = None, *, silent: bool = False) -> None:
        self._bar, self._silent = bar, silent
        self._announced = ""
        self._told = False  # the cost
        self._started = self._last = time.monotonic()
        self._before: tuple[int, float] | None = None  # what was done when it was first counted, and when
        self._warned = False  # of hours
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Tell of the work that a command counts."""
        if self._silent:
            return
        if done == 0 and what not in ("", self._announced):
            self._announced, self._started, self._last = what, time.monotonic(), time.monotonic()
            self._before, self._warned = None, False
            self._say(what)
            self._show("", total)
        if self._bar is not None and self._task is not None:
            left = self._left(done, total, what) if 0 < done < total else ""
            described = visible(what) if done else ""
            self._bar.update(self._task, completed=done, total=total, description=described, left=left)
        elif self._bar is None and 0 < done < total and self._due():
            most, unit = MOST * what.startswith(MOST), what.removeprefix(MOST)
            say(f"  {done:,} of {most}{total:,}{f' {unit}' * bool(unit)}, {self._left(done, total, what)}")
        if 0 < done < total and not what.startswith(MOST):
            self._warn(done, total)
        if done and self._before is None:  # checks and graphs came first
            self._before = done, time.monotonic()

    def _warn(self, done: int, total: int) -> None:
        """Say once that this takes hours, or years: whoever mistyped a number need not wait for the next line."""
        if self._warned or self._before is None or done <= self._before[0]:
            return
        if time.monotonic() - self._before[1] >= SHORT:
            left, _ = self._range(done, total)
            self._warned = True
            if left >= HOURS:
                self._say(f"  at this pace it takes about {duration(left)}; Ctrl-C ends it")

    def _range(self, done: int, total: int) -> tuple[float, float | None]:
        """Seconds that are left of all, the least and the most; of what is counted here, where no more is known."""
        left = self.ledger.left
        return left if left is not None else (self._each(done) * (total - done),) * 2

    def _left(self, done: int, total: int, what: str) -> str:
        """The time that is left, in words; of a search whose end nobody knows, what a step takes."""
        if what.startswith(MOST) and self.ledger.left is None:
            # The time to its limit, hours where minutes are likely, says nothing.
            return f"{short(self._each(done))} each"
        least, most = self._range(done, total)
        if most is None:  # the least, a few products for true residuals, says nothing
            return f"{short(self._each(done))} each"
        if most <= SURE * max(least, SHORT):
            return f"about {duration((least + most) / 2)} left"
        return f"{duration(least)} to {duration(most)} left"

    def _each(self, done: int) -> float:
        """Seconds of one unit: since they are counted; before that, of a product, or since the work was announced."""
        now = time.monotonic()
        if self._before is not None and done > self._before[0]:
            return (now - self._before[1]) / (done - self._before[0])
        measured = self.ledger.seconds_per_product
        return (now - self._started) / done if measured is None else measured

    def hear(self, ledger: "Ledger") -> None:
        """Tell of products and gradients as they are finished: the cost, once they have told what one takes."""
        if self._silent:
            return
        each = ledger.seconds_per_product
        if not self._told and each is not None and (ledger.products >= FEW or ledger.seconds >= LONG):
            self._told = ledger.plan is not None
            if ledger.plan is not None:
                least, most = ledger.planned_seconds
                if (USUAL * most if ledger.plan.search else least) >= SHORT:
                    ledger.announced = least, most
                    self._say(cost_line(ledger))
        spent = f"{ledger.products:,.0f} products and {ledger.gradients:,} gradients so far"
        if self._bar is None:
            if self._due(PLAIN_EVERY if self._before is None else PATIENCE):
                say(f"  {spent}" + (f", {short(each)} a product" if each else ""))
        elif self._task is None and time.monotonic() - self._started >= SHORT:
            self._show(spent, None)
        elif self._task is not None and self._bar.tasks[-1].total is None:
            self._bar.update(self._task, description=spent)

    def _due(self, every: float = PLAIN_EVERY) -> bool:
        """Whether it is time for another line in a log; then the clock starts anew."""
        now = time.monotonic()
        if now - self._last < every:
            return False
        self._last = now
        return True

    def _say(self, sentence: str) -> None:
        if self._bar is None:
            say(sentence)
        else:
            self._bar.console.print(visible(sentence), highlight=False, markup=False)

    def _show(self, what: str, total: int | None) -> None:
        """Draw a new bar in place of the last."""
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, left="")


def cost_line(ledger: "Ledger") -> str:
    """Products, time and memory of what is planned, in one line."""
    from hessdiag.machine.sizes import gib

    plan, each = ledger.plan, ledger.seconds_per_product
    assert plan is not None
    assert each is not None
    fewest, most = plan.products
    each_of = f" in each of {plan.processes:,} processes," if plan.processes > 1 else ""
    memory = f"peak memory {gib(plan.peak)}{each_of} of {gib(plan.available)} that are free"
    ends = ledger.planned_seconds
    if plan.search:
        until = f", {duration(HUNDRED * each)} for each hundred until the pairs converge" if most > HUNDRED else ""
        return (
            f"cost: {short(each)} a product as measured{until}; at most {most:,} products, {duration(ends[1])} with "
            f"checks and arithmetic; {memory}"
        )
    many = f"{fewest:,}" if fewest == most else f"{fewest:,} to at most {most:,}"
    whole = f", {_span(*ends)} in all with checks and arithmetic" if plan.vectors[1] else ""
    for_them = _span(each * fewest, each * most)
    return f"cost: {many} products, {short(each)} each as measured: {for_them} for them{whole}; {memory}"


def _span(least: float, most: float) -> str:
    """One duration, or two."""
    first, last = duration(least), duration(most)
    return first if first == last else f"{first} to {last}"


def _bar() -> "Progress":
    from rich.console import Console  # neither --help nor a log needs a bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    shown = (
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    return Progress(*shown, console=Console(stderr=True, width=columns(), height=24), transient=True)
