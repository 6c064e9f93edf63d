"""Progress on stderr: the cost before it is paid, then a bar with an ETA, or plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_EVERY = 30.0  # seconds between lines where stderr is not a terminal

Reporter = Callable[[int, int, str], None]


@contextmanager
def reporter(enabled: bool = True) -> Iterator[Reporter]:
    """A function of (done, total, what) for a diagnostic to call.

    A call with `done` = 0 announces a new piece of work: its `what` is a sentence that says the cost.
    """
    if not enabled:
        yield lambda done, total, what: None
        return
    bar = _bar() if sys.stderr.isatty() else None
    announced = ""
    started = last = time.monotonic()

    def report(done: int, total: int, what: str) -> None:
        nonlocal announced, started, last
        if done == 0 and what not in ("", announced):
            announced, started, last = what, time.monotonic(), time.monotonic()
            if bar is None:
                click.echo(what, err=True)
            else:
                bar.console.print(what, highlight=False, markup=False)
                for task in bar.task_ids:
                    bar.remove_task(task)
                bar.add_task("", total=total)
        if bar is not None and bar.task_ids:
            bar.update(bar.task_ids[-1], completed=done, total=total)
        elif bar is None and 0 < done < total and time.monotonic() - last >= PLAIN_EVERY:
            last = time.monotonic()
            left = (last - started) / done * (total - done)
            click.echo(f"  {done:,} of {total:,}, about {duration(left)} left", err=True)

    with bar or nullcontext():
        yield report


def _bar() -> Progress:
    columns = (
        TextColumn(" "),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(42.2), duration(130), duration(7300)
    ('42 s', '2 min', '2 h 1 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
