"""Which of several processes this one is, as `torchrun` tells in the environment. Loads no torch."""

import os

from hessdiag.errors import SpecError

ALONE = "unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE, or torchrun --nproc-per-node 2 -m hessdiag ..."


def ranks() -> tuple[int, int]:
    """This process's rank and how many there are.

    Raises:
        SpecError: if the environment names one without the other, or nonsense: a rank that is left over from another
            job would otherwise be silent and wait.

    >>> ranks()
    (0, 1)
    """
    names = ("RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not given:
        return 0, 1
    if len(given) == 1:
        ((name, value),) = given.items()
        missing = next(other for other in names if other != name)
        if name == "WORLD_SIZE" and value == "1":
            return 0, 1
        raise SpecError(f"the environment has {name}={value} and no {missing}: a rank is left over.", ALONE)
    rank, size = (_number(name) for name in names)
    if rank >= size:
        raise SpecError(f"the environment has RANK={rank} of WORLD_SIZE={size}: ranks count from 0.", ALONE)
    for name in ("MASTER_ADDR", "MASTER_PORT") if size > 1 else ():
        if not os.environ.get(name):
            raise SpecError(f"the environment has RANK={rank} of WORLD_SIZE={size} and no {name}.", ALONE)
    if size > 1 and not 0 < _number("MASTER_PORT") < 65536:
        raise SpecError(f"the environment has MASTER_PORT={os.environ['MASTER_PORT']}, which is no port.", ALONE)
    return rank, size


def local_rank() -> int:
    """This process's number on its machine."""
    return _number("LOCAL_RANK") if os.environ.get("LOCAL_RANK") else 0


def local_size() -> int:
    """How many processes of the job run on this machine."""
    return max(_number("LOCAL_WORLD_SIZE"), 1) if os.environ.get("LOCAL_WORLD_SIZE") else 1


def _number(name: str) -> int:
    text = os.environ[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise SpecError(f"the environment has {name}={text}, which is no whole number from 0 on.", ALONE)
    return int(text)
