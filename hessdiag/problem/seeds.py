"""The usual random generators: seeded for a while, and put back; and whether something draws from them."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators of torch, numpy and Python seeded, and put back afterwards.

    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     bool(torch.rand(1) == first)
    True
    """
    ours, numpys = random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def sow(seed: int, device: torch.device) -> None:
    """Seed torch's numbers on the host and on this device, and none of another GPU, whose state nobody keeps here.

    >>> before = torch.random.get_rng_state()
    >>> sow(3, torch.device("cpu"))
    >>> torch.initial_seed()
    3
    >>> torch.random.set_rng_state(before)
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


def drawing(call: Callable[[], Any]) -> tuple[Any, bool]:
    """What a call gives, and whether it drew from one of these generators.

    >>> drawing(lambda: 1), drawing(random.random)[1]
    ((1, False), True)
    """
    before = _states()
    value = call()
    return value, before != _states()


def _states() -> tuple[Any, ...]:
    numpys = np.random.get_state(legacy=False)
    counted = numpys["state"]
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), counted["key"].tobytes(), counted["pos"]
