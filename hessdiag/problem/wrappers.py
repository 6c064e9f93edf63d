"""The module behind what others wrap around it: compilers, and trainers on several processes."""

import sys

from torch import nn

from hessdiag.errors import LoadError
from hessdiag.problem.files.trust import WHOLE
from hessdiag.problem.modes import uncompiled

_CONSOLIDATED = f"{WHOLE}; then the model as it is before it is wrapped, with --weights FILE"


def unwrapped(model: nn.Module) -> nn.Module:
    """The module behind `torch.compile`, `DistributedDataParallel` and `DataParallel`, whose parameters are its own.

    Raises:
        LoadError: if its parameters are spread over processes by a trainer, so that no process has their numbers.

    >>> layer = nn.Linear(1, 1)
    >>> unwrapped(nn.DataParallel(layer)) is layer
    True
    """
    while True:
        inner = uncompiled(model)
        if isinstance(inner, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = inner.module
        if inner is model:
            break
        model = inner
    refuse_spread(model)
    return model


def beneath(model: nn.Module) -> nn.Module:
    """The model that a PEFT adapter lies on, which says what it takes; any other model itself."""
    adapted = getattr(sys.modules.get("peft"), "PeftModel", ())
    base = model.get_base_model() if isinstance(model, adapted) else model
    assert isinstance(base, nn.Module)
    return base


def refuse_spread(model: nn.Module) -> None:
    """Refuse models of which each process has a part of every parameter.

    Raises:
        LoadError: with the line that saves whole weights.
    """
    for name, module in model.named_modules() if "torch.distributed.fsdp" in sys.modules else ():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise LoadError(
                f"{name or 'the model'} is wrapped by FullyShardedDataParallel: its parameters are in flat pieces, "
                "one for each process.",
                _CONSOLIDATED,
            )
    for name, parameter in model.named_parameters() if "torch.distributed.tensor" in sys.modules else ():
        if type(parameter).__name__ == "DTensor":
            raise LoadError(
                f"the parameter {name} is a DTensor (fully_shard, or another way to spread it over processes), "
                "of which each process has a part.",
                _CONSOLIDATED,
            )
