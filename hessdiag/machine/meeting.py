"""Where the processes of a run meet, and what one that ends leaves to the others: the first error is said once.

A process writes why it ends into the store that all of them met in, before its connections are closed. One that finds a
connection closed looks there; where nothing is written, it finds out who is gone.
"""

import contextlib
import ctypes
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from hessdiag.errors import ComputeError, ExitCode, HessdiagError, first_line, said
from hessdiag.machine import others
from hessdiag.machine.others import GONE
from hessdiag.machine.ranks import ranks
from hessdiag.machine.shortage import ran_out, sentence
from hessdiag.machine.whole import whole

PATIENCE = timedelta(minutes=30)  # for all to meet
ENDLESS = timedelta(days=1_000)  # of an exchange: a lost rank closes its connection, `others` sees to a silent one
ROLL_CALL = 5.0  # seconds in which whoever is still there says so,
AGREEING = 5.0  # and in which the others may turn out to end for the same reason
LINGERING = 10.0  # in which the others are done with the store, before the process that holds it ends
STANDING_BY = 10.0  # in which the others may meet an error of the model that was caught here,
SIGNALLED = 0.3  # in which a signal that another process got may come here too
FEWER = "fewer ranks on a machine if memory ran out (its kernel's log tells)"
_FIRST, _SPOKEN = "hessdiag/first", "hessdiag/spoken"


@dataclass(frozen=True)
class Words:
    """Why a process ended.

    Attributes:
        rank: Which one; -1 for none of them.
        what: One sentence, or "" for none of its own.
        hint: What to do.
        code: Its exit code.
        own: Whether it says so itself.
    """

    rank: int
    what: str
    hint: str | None
    code: int
    own: bool = True

    def told(self) -> str:
        """The same with the rank's name before it."""
        return self.what if self.rank < 0 else f"rank {self.rank} of {ranks()[1]}{':' * self.own} {self.what}"


class LostRankError(HessdiagError):
    """Another process ended: with its words. Nothing that this one computes is to blame, and no `ComputeError`."""

    def __init__(self, words: Words) -> None:
        super().__init__(words.told(), words.hint)
        self.words = words


_is_spread = False  # whether this run's model is in pieces already
_store: Any = None  # of the run; `None` before they met, and where the user made the group
_lost: HessdiagError | None = None  # why this process is no more with the others: what fails afterwards fails of it
_caught: list[Exception] = []  # what the model raised here that the others have not been asked about
_count = 0  # of all that it raised here


def meet() -> None:
    """Meet the other processes, if there are any and they were not met before.

    Raises:
        ComputeError: if they cannot be met.
    """
    global _store
    rank, size = ranks()
    if size < 2 or dist.is_initialized():
        return
    try:
        store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        store.set_timeout(PATIENCE)
        store.set(_arrival(rank), "")
        # To connect is to wait where no signal is heard: torchrun would have to kill who waits for one that is gone.
        if not _until(lambda: store.check([_arrival(other) for other in range(size)]), PATIENCE.total_seconds()):
            raise ConnectionError("some have not come")
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=ENDLESS)
        others.begin(store, PATIENCE)
    except (RuntimeError, ConnectionError) as error:
        raise ComputeError(
            f"rank {rank} of {size} cannot meet the others: {first_line(error)}",
            "a free MASTER_PORT at a MASTER_ADDR that all of them reach",
        ) from error
    _store = store


def is_met() -> bool:
    """Whether this process has met others."""
    return _store is not None


def spread() -> None:
    """Say that the model of this run is in pieces: then --shard is no way out of missing memory."""
    global _is_spread
    _is_spread = True


def _fewer() -> str:
    return f"{FEWER}, or more machines" if _is_spread else f"{FEWER}, or --shard"


def last_words(what: str, hint: str | None, code: int, *, own: bool = True) -> Words | None:
    """Leave to the others why this process ends.

    Args:
        what: One sentence.
        hint: What to do.
        code: The exit code.
        own: Whether this process says it; if not, whoever wants to may.

    Returns:
        What this process is to say: its words, with its rank before them unless all end for the same reason; `None`
        where another process failed first, and says why.
    """
    rank, size = ranks()
    words = Words(rank if size > 1 else -1, what, hint, code, own)
    with whole(), contextlib.suppress(*GONE):
        if _store is None:
            return words
        _store.set(_reason(rank), what)
        first = _first(words).rank == rank
        if first and own and _all_say(what, size):
            words = Words(-1, what, hint, code)
        _part()
        return words if first else None
    return words


def follow(words: Words) -> bool:
    """End because another process did; whether this one is to say so."""
    with whole(), contextlib.suppress(*GONE):
        if _store is not None:
            _store.set(_reason(ranks()[0]), "")
            speaks = not words.own and _store.add(_SPOKEN, 1) == 1
            _part()
            return speaks
    return not words.own


def lost(error: BaseException) -> HessdiagError:
    """Why a connection was closed: what the process left that failed first, or who is gone."""
    global _lost
    _lost = _lost or LostRankError(_lost_words(error))
    return _lost


def cause(error: Exception) -> Exception:
    """What an error comes of: that another process was lost before, that an error was this one's alone, or itself."""
    return _lost or error


def failed(error: Exception) -> None:
    """Note what the model raised here: it may be caught, and the others may wait in the midst of the model."""
    global _count
    rank, size = ranks()
    if size > 1 and _store is not None and _lost is None and not isinstance(error, LostRankError):
        with whole(), contextlib.suppress(*GONE):
            _count += 1
            _caught.append(error)
            _store.set(_failure(_count, rank), "")


def go_on() -> None:
    """Before an exchange or an answer: what the model raised here, and was caught, it has to have raised for all.

    Raises:
        HessdiagError: with the first error, where it has not: the others wait for numbers of another size, and gloo
            ends processes that are sent such. Or that a process was lost before.
    """
    global _lost
    if _caught and _lost is None:
        with whole(), contextlib.suppress(*GONE):
            names = [_failure(_count, rank) for rank in range(ranks()[1])]
            _until(lambda: _store.check(names) or _store.check([_FIRST]), STANDING_BY)
            if not _store.check(names):
                first = _caught[0]
                what = sentence(first) if ran_out(first) else f"the model or its loss raised {said(first)}"
                _lost = HessdiagError(f"{what}, and in this process alone.")
        _caught.clear()
    if _lost is not None:
        raise _lost


def _lost_words(error: BaseException) -> Words:
    with whole():
        rank, size = ranks()
        unknown = Words(-1, f"rank {rank} of {size} lost another rank: {first_line(error)}", _fewer(), ExitCode.FAILED)
        words = None
        with contextlib.suppress(*GONE):
            words = _told() or _first(_silent(error) or _missing(error, wait=True) or unknown)
            if words.code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
                time.sleep(SIGNALLED)
        if words is None:  # the store is gone, and whoever held it with it
            words = unknown if _store is None or rank == 0 else _gone(0)
        return words


def ended() -> Words | None:
    """Why this process may have been told to stop: that another one ended; `None` for no such reason."""
    if _store is None:
        return None
    with whole(), contextlib.suppress(*GONE):
        found = _told() or _missing(None, wait=False)
        return None if found is None or found.rank == ranks()[0] else _first(found)
    return None


def leave() -> None:
    """End the threads of the connection: at the exit of a process that leaves them running, one in twenty aborts."""
    global _store
    others.end()
    if others.is_waiting():  # to destroy the group would be to wait as well, also at the end of Python
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(dist.group.WORLD))
    elif dist.is_initialized():
        dist.destroy_process_group()
    _store = None


def _first(words: Words) -> Words:
    """These words, if no others were there before."""
    found = _store.compare_set(_FIRST, "", json.dumps(asdict(words)))
    return Words(**json.loads(found))


def _told() -> Words | None:
    return Words(**json.loads(_store.get(_FIRST))) if _store.check([_FIRST]) else None


def _silent(error: BaseException) -> Words | None:
    if not isinstance(error, others.SilentError):
        return None
    return Words(error.rank, error.what, None, ExitCode.FAILED, own=False)


def _missing(error: BaseException | None, *, wait: bool) -> Words | None:
    """Who has ended without a word: a process of this machine that is no more, or who does not answer."""
    rank, size = ranks()
    every = [other for other in range(size) if other != rank]
    _store.set(f"hessdiag/here/{rank}", "")

    def settled() -> bool:
        return any(map(_is_dead, every)) or all(_store.check([f"hessdiag/here/{other}"]) for other in every)

    if wait:
        _until(settled, ROLL_CALL)
        silent = [other for other in every if not _store.check([f"hessdiag/here/{other}"])]
    dead = [other for other in every if _is_dead(other)]
    if dead or not wait:
        return _gone(dead[0]) if dead else None
    if told := _told():
        return told
    if silent:
        return _gone(silent[0])
    what = f"the processes could not exchange numbers: {first_line(error) if error else 'no reason is known'}"
    return Words(-1, what, None, ExitCode.FAILED, own=False)


def _gone(rank: int) -> Words:
    return Words(rank, "ended without a word, as one that is killed does.", _fewer(), ExitCode.FAILED, own=False)


def _is_dead(rank: int) -> bool:
    return others.is_dead(_store, rank)


def _all_say(what: str, size: int) -> bool:
    """Whether all processes end with the same words; those that wait for this one are told by its connections."""
    _close()
    names = [_reason(rank) for rank in range(size)]
    return _until(lambda: _store.check(names), AGREEING) and all(_store.get(name).decode() == what for name in names)


def _part() -> None:
    """Leave the store; whoever holds it, unless torchrun does, after all others."""
    rank, size = ranks()
    _store.set(f"hessdiag/parted/{rank}", "")
    if rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        _close()
        rest = range(1, size)
        _until(lambda: all(_store.check([f"hessdiag/parted/{one}"]) or _is_dead(one) for one in rest), LINGERING)


def _close() -> None:
    """Let those that wait for this process notice that it ends."""
    if dist.is_initialized() and not torch.cuda.is_initialized() and not others.is_waiting():  # type: ignore[no-untyped-call]
        dist.destroy_process_group()  # between GPUs it may wait for those that wait


def _reason(rank: int) -> str:
    """The name in the store of why a process ends."""
    return f"hessdiag/reason/{rank}"


def _arrival(rank: int) -> str:
    """The name in the store of a process that has come to meet the others."""
    return f"hessdiag/came/{rank}"


def _failure(count: int, rank: int) -> str:
    """The name in the store of an error of the model."""
    return f"hessdiag/failed/{count}/{rank}"


def _until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
