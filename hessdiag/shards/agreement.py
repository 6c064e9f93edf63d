"""What has to be the same in all processes, told by digests before anything is computed from it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.machine.processes import merged, together
from hessdiag.machine.ranks import ranks
from hessdiag.problem.batches.batch import hash_tensors, sha256
from hessdiag.problem.problem import Problem

MODELS = (
    "and each keeps a piece of what should be one.",
    "torch.manual_seed(0) before the model is made, or --weights FILE",
)
DIVIDED = ("and they divide the work on one.", MODELS[1])
BATCHES = (
    "and each is to evaluate its own samples of the same ones.",
    "one seed for all processes (torch.manual_seed(0), a generator with a seed) and no DistributedSampler; "
    "or --data FILE",
)


def all_of(flag: bool, device: torch.device) -> bool:
    """Whether this is so in all processes."""
    return all(merged({ranks()[0]: flag}, device))


def form(item: Tensor) -> str:
    """A tensor's shape and dtype, and whether it is trained.

    >>> form(torch.ones(2, 3))
    '(2, 3) torch.float32 False'
    """
    return f"{tuple(item.shape)} {item.dtype} {item.requires_grad}"


def of_loss(*losses: Any) -> dict[str, str]:
    """What tells one loss or objective from another, by its name: what a module shows, and what functions are called.

    >>> of_loss("ce", None), of_loss(torch.nn.MSELoss(reduction="sum"))
    ({'the loss': "'ce' None"}, {'the loss': 'MSELoss() sum'})
    """

    def told(loss: Any) -> str:
        if isinstance(loss, nn.Module):
            return f"{loss} {getattr(loss, 'reduction', '')}".strip()
        named: str = getattr(loss, "__qualname__", type(loss).__name__)
        return repr(loss) if loss is None or isinstance(loss, str) else named

    return {"the loss": " ".join(map(told, losses))}


def same(digests: Mapping[str, str], otherwise: tuple[str, str], device: torch.device) -> None:
    """Refuse digests that are not the same in all processes, in all of them.

    Args:
        digests: Of each thing by its name; their order counts.
        otherwise: What that leads to, and what would work.
        device: Where the processes compute.

    Raises:
        LoadError: naming the first that differs, and the rank that has another than rank 0.
    """
    if not together():
        return
    everywhere = merged({ranks()[0]: list(digests.items())}, device)
    for rank, other in enumerate(everywhere):
        if other == everywhere[0]:
            continue
        pairs = zip(everywhere[0], other, strict=False)
        name = next((name for (name, one), (_, another) in pairs if one != another), None)
        what = f"the number of {'batches' if otherwise is BATCHES else 'parts'}" if name is None else name
        raise LoadError(f"{what} of rank {rank} is not that of rank 0, {otherwise[0]}", otherwise[1])


def same_problem(problem: Problem, otherwise: tuple[str, str]) -> None:
    """Refuse problems, each whole in its process, that are not the same in all of them.

    Args:
        problem: This process's.
        otherwise: What models that differ lead to, and what would work.

    Raises:
        LoadError: naming the first parameter, buffer or batch that differs.
    """
    if not together():
        return
    named = chain(problem.model.named_parameters(), problem.model.named_buffers())
    digests = {name: f"{form(item)} {hash_tensors(iter([item]))}" for name, item in named}
    same(of_loss(problem.loss, problem.objective) | digests, otherwise, problem.device)
    same_batches(problem.data, problem.device)


def same_batches(batches: Sequence[Any], device: torch.device) -> None:
    """Refuse batches that are not the same in all processes.

    Raises:
        LoadError: naming the first that differs.
    """
    if together():
        same({f"batch {index}": sha256([batch]) for index, batch in enumerate(batches)}, BATCHES, device)
