"""Batches that are mappings, by the names that a model takes: as datasets of samples by name give them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from hessdiag.problem.batches.batch import split, tensors
from hessdiag.problem.loading import own_loss

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def suited(model: nn.Module, batches: Sequence[Any]) -> tuple[list[Any], tuple[str, ...]]:
    """Mappings without what no model takes, and under the names that this one takes; others as they are.

    What holds no tensor (texts, names of files) is left out. Of a model that computes its own loss, so is what its
    forward pass has no argument for, and `label` becomes `labels`. One input under a name that the model does not have
    is given to the one argument that it needs.

    Args:
        model: The model.
        batches: Where the model is.

    Returns:
        The batches, and notes.

    >>> import torch
    >>> suited(nn.Linear(2, 1), [{"image": torch.ones(1, 2), "label": torch.ones(1, 1), "path": ["a.png"]}])[1]
    ('data: path left out, which holds no numbers', 'data: image is the input, label the target')
    """
    notes: dict[str, None] = {}
    return [_one(model, batch, notes) if isinstance(batch, Mapping) else batch for batch in batches], tuple(notes)


def _one(model: nn.Module, batch: Mapping[str, Any], notes: dict[str, None]) -> Any:
    kept = {name: value for name, value in batch.items() if _is_plain(value) or any(True for _ in tensors(value))}
    if left := [str(name) for name in batch if name not in kept]:
        notes[f"data: {', '.join(left)} left out, which holds no numbers"] = None
    needed, named, any_name = _arguments(model)
    if own_loss.takes_labels(model) and named:
        if "labels" in named and "labels" not in kept and "label" in kept:
            kept["labels"] = kept.pop("label")
        if left := [str(name) for name in kept if name not in named]:
            notes[f"data: {', '.join(left)} left out, for which the model has no argument"] = None
        return {name: value for name, value in kept.items() if name in named}
    inputs, target = split(kept)
    names = list(inputs)
    if len(names) == 1 and target is not None and names[0] not in named and len(needed) == 1 and not any_name:
        key = next(name for name in kept if name != names[0])
        notes[f"data: {names[0]} is the input, {key} the target"] = None
        return inputs[names[0]], target
    return kept


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _arguments(model: nn.Module) -> tuple[list[str], list[str], bool]:
    """Names of the arguments that a model must be given, of all, and whether it takes others besides."""
    try:
        found = inspect.signature(model.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return [], [], True
    more = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [one.name for one in found if one.kind not in more]
    needed = [one.name for one in found if one.default is inspect.Parameter.empty and one.kind in _BY_PLACE]
    return needed, names, any(one.kind in more for one in found)
