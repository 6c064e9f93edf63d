"""What is NaN or infinite, in batches, parameters and outputs: nothing that is computed from it means anything."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError
from hessdiag.problem.batches.batch import stored, tensors

DIVERGED = "weights from before training diverged"
_NAMED = 3  # names in a message


def check_parameters(model: nn.Module, where: str, hint: str) -> None:
    """Refuse a model with a NaN or an infinity in a trainable parameter.

    Others may hold infinities, as masks do.

    Args:
        model: The model.
        where: Where its parameters are from, for the message.
        hint: What would work.

    Raises:
        LoadError: naming the first of these parameters.
    """
    found = described((name, item) for name, item in model.named_parameters() if item.requires_grad)
    if found is not None:
        raise LoadError(f"{where} holds weights that are no numbers: {found}.", hint)


def check_batches(batches: Sequence[Any], where: str = "", hint: str | None = None) -> None:
    """Refuse batches with a NaN or an infinity in them.

    Args:
        batches: The batches.
        where: Where they are from, for the message.
        hint: What would work, if not to clean them.

    Raises:
        LoadError: naming the batch, which of its tensors it is, and how many entries are not finite.
    """
    for index, batch in enumerate(batches):
        for place, part in _parts(batch):
            for tensor in tensors(part):
                bad = [
                    ~torch.isfinite(piece)
                    for piece in stored(tensor)
                    if piece.is_floating_point() and not bool(torch.isfinite(piece).all())
                ]
                if bad:
                    first = f", the first at {bad[0].nonzero()[0].tolist()}" if bad[0].shape == tensor.shape else ""
                    raise LoadError(
                        f"batch {index}{f' of {where}' if where else ''} holds {sum(int(part.sum()) for part in bad)} "
                        f"NaN or infinite of {tensor.numel()} entries in {place} "
                        f"(tensor of shape {tuple(tensor.shape)}{first}): no derivative of it means anything.",
                        hint or "clean the data, for instance with numpy.nan_to_num, and run again",
                    )


def _parts(batch: Any) -> list[tuple[str, Any]]:
    """The parts of a batch with what they are called."""
    if isinstance(batch, Mapping):
        return [(repr(name), value) for name, value in batch.items()]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return [("its inputs", batch[0]), ("its target", batch[1])]
    return [("it", batch)]


def culprits(model: nn.Module) -> str | None:
    """What of a model is not finite, in words, likeliest first: parameters, then buffers; `None` if all is."""
    return described(model.named_parameters()) or described(model.named_buffers())


def described(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first of some tensors that are not finite, in words; `None` if all are.

    >>> described([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("nan")])), ("c", torch.ones(1) / 0)])
    '1 of 2 entries of b is NaN; so are entries of c'
    """
    bad = [(name, tensor) for name, tensor in named if not is_finite(tensor)]
    return said(
        (name, tensor.numel(), int(tensor.detach().isnan().sum()), int(tensor.detach().isinf().sum()))
        for name, tensor in bad
    )


def said(counted: Iterable[tuple[str, int, int, int]]) -> str | None:
    """What is not finite, in words; `None` if all is.

    Args:
        counted: Of each tensor its name, its entries, how many of them are NaN, and how many infinite.
    """
    bad = [(name, numel, nan, infinite) for name, numel, nan, infinite in counted if nan or infinite]
    if not bad:
        return None
    name, numel, nan, infinite = bad[0]
    count, what = nan + infinite, "NaN" if nan else "infinite"
    several = "all" if count == numel > 1 else f"{count:,} of"
    verb = "is" if count == 1 else "are"
    others = [other for other, *_ in bad[1 : 1 + _NAMED]]
    more = f" and {len(bad) - 1 - len(others):,} more" if len(bad) - 1 > len(others) else ""
    rest = f"; so are entries of {', '.join(others)}{more}" if others else ""
    return f"{several} {numel:,} entries of {name} {verb} {what}{rest}"


def is_finite(tensor: Tensor) -> bool:
    """Whether all entries are numbers; what has no entries yet, or whole ones, is."""
    if (
        isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer))
        or tensor.is_meta
        or not _has_infinities(tensor)
    ):
        return True
    values = tensor.detach()
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _has_infinities(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and tensor.layout is torch.strided


def origin(model: nn.Module, call: Callable[[], object]) -> str | None:
    """The module that first makes something that is not finite of what is, in words; `None` if none does.

    Args:
        model: The model.
        call: An evaluation of it.
    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)}

    def look(module: nn.Module, args: Any, output: Any) -> None:
        sound = all(map(is_finite, tensors(args)))
        if not found and sound and not all(map(is_finite, tensors(output))):
            found.append(f"{names[module] or 'the model itself'} ({type(module).__name__})")

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad(), contextlib.suppress(Exception):  # it was evaluated before; nothing new is to be said
            call()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
