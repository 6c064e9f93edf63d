"""Samples of an ensemble that are drawn while a GPU is busy with those before: the CPU takes longer to draw them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache

from hessdiag.machine import capacity
from hessdiag.nets.ensemble import CPU, Ensemble, Sample


def drawn_ahead(ensemble: Ensemble, chunks: Sequence[tuple[int, int]]) -> Iterator[Callable[[], Sample]]:
    """For each chunk of networks, from one number to before another, what gives them.

    Nothing is drawn before it is asked for; then the next chunks are too, in other threads, where the device works
    alone. The networks are those of `Ensemble.draw`.
    """
    ahead = min(capacity.of(ensemble.device).drawn_ahead, (os.cpu_count() or 1) - 1)
    host = replace(ensemble, device=CPU)
    drawn: dict[int, Future[Sample]] = {}
    pool = ThreadPoolExecutor(max(ahead, 1))

    def sample(index: int) -> Sample:
        start, stop = chunks[index]
        if ahead < 1:
            return ensemble.draw(start, stop - start)
        for later in range(index, min(index + 1 + ahead, len(chunks))):
            if later not in drawn:
                first, last = chunks[later]
                drawn[later] = pool.submit(host.draw, first, last - first)
        return drawn[index].result().to(ensemble.device)

    try:
        for index in range(len(chunks)):
            yield cache(lambda index=index: sample(index))
            drawn.pop(index, None)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
