"""Questions about a sharded problem: what they do not do with one, and how a result says that it was one."""

from hessdiag.errors import SpecError
from hessdiag.machine import capacity, processes
from hessdiag.machine.ranks import ranks
from hessdiag.problem.problem import Problem
from hessdiag.questions.common.provenance import peak_memory_bytes
from hessdiag.questions.common.result import Sharding
from hessdiag.shards.problem import ShardedProblem

WHOLE = "without --shard"


def refuse(problem: Problem, *, metric: object = None, resume: object = None, by: object = None) -> None:
    """End before anything is measured that is not done with pieces.

    Raises:
        SpecError: saying which option it is.
    """
    if not isinstance(problem, ShardedProblem):
        return
    if metric is not None:
        raise SpecError("--metric takes an optimizer's state of whole parameters, and --shard has none.", WHOLE)
    if by is not None:
        raise SpecError(
            "--by looks at rows of the Hessian, and with --shard no process has one.",
            "--shard without --by for norms of layers, or --by without --shard",
        )
    if resume is not None:
        raise SpecError("--resume keeps whole vectors, and with --shard no process has one.", WHOLE)


def formed_up_to(problem: Problem, most: int) -> int:
    """Up to how many parameters the matrix is formed: never where it would be in pieces."""
    return 0 if isinstance(problem, ShardedProblem) else most * capacity.of(problem.device).times_dense


def sharding(problem: Problem) -> Sharding | None:
    """How a problem was spread, and what each process held at its peak so far; `None` for one that is whole."""
    if not isinstance(problem, ShardedProblem):
        return None
    rank, size = ranks()
    peak = peak_memory_bytes(problem.device.type if problem.device.type == "cpu" else str(problem.device))
    largest = 0 if problem.units is None else problem.units.largest
    return Sharding(
        processes=size,
        piece_bytes=sum(piece.numel() * piece.itemsize for piece in problem.pieces),
        largest_unit_bytes=largest * problem.dtype.itemsize,
        peak_memory_bytes=tuple(processes.merged({rank: peak or 0}, problem.device)),
    )


def where(problem: Problem) -> str:
    """The end of a sentence about what will be done: over how many processes.

    >>> import torch
    >>> where(Problem(torch.nn.Linear(1, 1), data=[(torch.ones(1, 1), torch.ones(1, 1))], loss="mse"))
    ''
    """
    if not isinstance(problem, ShardedProblem):
        return ""
    size = ranks()[1]
    return f", sharded over {size:,} processes" if size > 1 else ", sharded in one process"
