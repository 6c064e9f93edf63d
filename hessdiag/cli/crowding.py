"""Whether other programs keep busy the cores that torch's threads want: a product can take fifty times as long then."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hessdiag.cli.speech import say

SPARE = 0.5  # cores that others may take beyond what is free


@dataclass(frozen=True)
class Reading:
    """What the machine's cores have done so far.

    Attributes:
        wall: Seconds on some clock.
        busy: Core-seconds of all programs.
        own: Core-seconds of this one.
    """

    wall: float
    busy: float
    own: float


def reading() -> Reading | None:
    """The cores' work up to now; `None` where the system does not say."""
    try:
        user, nice, system, _idle, _wait, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    except (OSError, ValueError, IndexError):
        return None
    ticks = sum(map(int, (user, nice, system, *interrupts)))
    own = os.times()
    return Reading(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own.user + own.system)


def note(before: Reading, after: Reading, threads: int, cores: int) -> str | None:
    """What to say of threads that are slowed down by others; `None` where there is room for them.

    >>> print(note(Reading(0, 100, 0), Reading(2, 105, 2), threads=2, cores=2))
    note: other programs keep 1.5 of 2 cores busy; torch's 2 threads wait for each other
      try: OMP_NUM_THREADS=1 before the command; it is often much faster then
    """
    others = ((after.busy - before.busy) - (after.own - before.own)) / max(after.wall - before.wall, 1e-3)
    if threads < 2 or others <= cores - threads + SPARE:
        return None
    return (
        f"note: other programs keep {others:.1f} of {cores} cores busy; torch's {threads} threads wait for each other\n"
        "  try: OMP_NUM_THREADS=1 before the command; it is often much faster then"
    )


def warn(before: Reading | None) -> None:
    """Say so on stderr. Other ranks of this run are no other programs."""
    after = reading()
    if before is None or after is None or "WORLD_SIZE" in os.environ or "torch" not in sys.modules:
        return
    said = note(before, after, sys.modules["torch"].get_num_threads(), os.cpu_count() or 1)
    if said is not None:
        say(*said.splitlines())
