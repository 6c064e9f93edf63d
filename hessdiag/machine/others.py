"""The other processes of a run: where they run, whether they run, and how far they have come.

Beside its work every process writes into the store that all met in to how many exchanges it has come. One that waits
reads there for whom. A slow one is waited for as long as it takes, and named; a silent one is given up.
"""

import os
import socket
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hessdiag.machine.ranks import ranks
from hessdiag.numbers import duration, listed

GONE = (RuntimeError, ConnectionError)  # of a store that ended with the process that held it
SAID_AFTER, THEN_AFTER = 60.0, 10.0  # seconds of waiting, and so many times as long for each further time
FROZEN, GIVEN_UP = 10.0, 300.0  # seconds without a sign of life after which that is said, and after which it ends
BEAT = 1.0  # seconds between two signs of life
LEAVING = 10.0  # in which the last one is given, however busy the machine
LOOK = timedelta(seconds=1)  # between two looks of one that waits: so soon it hears signals


class WaitingWarning(UserWarning):
    """Another process takes long."""


class SilentError(RuntimeError):
    """A process has shown no sign of life for too long."""

    def __init__(self, rank: int) -> None:
        self.what = f"has shown no sign of life for {duration(GIVEN_UP)}."
        super().__init__(f"rank {rank} {self.what}")
        self.rank = rank


@dataclass
class _Run:
    """What this process shows to the others.

    Attributes:
        store: That all met in; `None` before, and where the user made the group.
        exchanges: That it has come to.
        under_way: The one that it waits for, or left waiting.
        leaves: Set when it leaves.
        beating: The thread that shows signs of life.
    """

    store: Any = None
    exchanges: int = 0
    under_way: Any = None
    leaves: threading.Event = field(default_factory=threading.Event)
    beating: threading.Thread | None = None


_run = _Run()


def begin(store: Any, patience: timedelta) -> None:
    """Tell the others where this process runs, wait for them to do so, and show signs of life from now on.

    Raises:
        RuntimeError: if one of them does not come.
    """
    global _run
    rank, size = ranks()
    store.set(_place(rank), f"{socket.gethostname()} {os.getpid()}")
    store.wait([_place(other) for other in range(size)], patience)  # none may leave while others still connect
    _run = _Run(store)
    _run.beating = threading.Thread(target=_beat, args=(_run, rank), daemon=True)
    _run.beating.start()


def end() -> None:
    """Show no more signs of life: a thread that is in the store at the exit of a process would abort it."""
    _run.leaves.set()
    if _run.beating is not None:
        _run.beating.join(LEAVING)


def _beat(run: _Run, rank: int) -> None:
    beats = 0
    try:
        while not run.leaves.wait(BEAT):
            beats += 1
            run.store.set(_sign(rank), f"{run.exchanges} {beats}")
    except GONE:
        return


def finish(exchange: Any) -> None:
    """Wait for an exchange that has begun; in the group that was made here, signals are heard between two looks.

    Raises:
        RuntimeError: of a connection that was closed.
        SilentError: if another process shows no sign of life for too long.
    """
    if _run.store is None:  # of other backends, some abort what was not done in time
        exchange.wait()
        return
    _run.exchanges += 1
    _run.under_way = exchange
    watch: _Watch | None = None
    while True:
        try:
            exchange.wait(LOOK)
            break
        except RuntimeError:
            if exchange.is_completed():
                raise
        watch = watch or _Watch()
        watch.look()
    _run.under_way = None


def is_waiting() -> bool:
    """Whether an exchange is under way that was given up, or interrupted: gloo's threads end with it, and no sooner."""
    return _run.under_way is not None and not _run.under_way.is_completed()


class _Watch:
    """Looks at those that are waited for. Looks are counted, not the clock: it goes on where all are stopped."""

    def __init__(self) -> None:
        self._looks, self._say_at = 0, SAID_AFTER
        self._signs: dict[int, str] = {}
        self._seen: dict[int, int] = {}  # at which look another sign was there than before

    def look(self) -> None:
        """Look once, and say for whom this process waits, if it is time.

        Raises:
            SilentError: if one shows no sign of life for too long.
        """
        self._looks += 1
        rank, size = ranks()
        others = [other for other in range(size) if other != rank]
        try:
            signs = {other: _found_sign(other) for other in others}
        except GONE:
            return
        self._seen |= {other: self._looks for other in others if self._signs.get(other) != signs[other]}
        self._signs = signs
        for other in others:
            if self._silent(other) > GIVEN_UP:
                raise SilentError(other)
        behind = [other for other in others if int(signs[other].split()[0]) < _run.exchanges]
        late = behind or [other for other in others if self._silent(other) > FROZEN]
        waited = self._looks * LOOK.total_seconds()
        if late and waited > self._say_at:
            self._say_at = THEN_AFTER * waited
            if set(range(rank)) <= set(late):  # the first of those that wait speaks
                self._say(late, waited)

    def _silent(self, rank: int) -> float:
        """Seconds without a sign of life."""
        return (self._looks - self._seen[rank]) * LOOK.total_seconds()

    def _say(self, late: Sequence[int], waited: float) -> None:
        rank, size = ranks()
        said = listed([f"rank {other} ({self._state(other)})" for other in late])
        warnings.warn(f"rank {rank} of {size} has waited {duration(waited)} for {said}.", WaitingWarning, stacklevel=2)

    def _state(self, rank: int) -> str:
        host, process = _found_place(_run.store, rank)
        state = "no sign of life" if self._silent(rank) > FROZEN else "alive"
        if host != socket.gethostname():
            return f"process {process} on {host}, {state}"
        return f"process {process}, {'stopped by a signal' if _letter(process) in ('T', 't') else state}"


def is_dead(store: Any, rank: int) -> bool:
    """Whether that process ran on this machine, and runs no more."""
    host, process = _found_place(store, rank)
    if host != socket.gethostname():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another's
        return False
    return _letter(process) == "Z"


def _letter(process: int) -> str | None:
    """By which Linux tells what a process does; `None` elsewhere."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def _found_place(store: Any, rank: int) -> tuple[str, int]:
    host, process = store.get(_place(rank)).decode().split()
    return host, int(process)


def _found_sign(rank: int) -> str:
    name = _sign(rank)
    found: bytes = _run.store.get(name) if _run.store.check([name]) else b"0 0"
    return found.decode()


def _place(rank: int) -> str:
    """The name in the store of where a process runs, and as which."""
    return f"hessdiag/process/{rank}"


def _sign(rank: int) -> str:
    """The name in the store of a sign of life: how many exchanges a process has come to, and how often it told."""
    return f"hessdiag/sign/{rank}"
