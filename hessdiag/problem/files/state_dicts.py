"""State dicts in whatever a trainer saved: what is one, where they lie, and what only looks like one."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, SpecError, said
from hessdiag.problem.files.arrays import from_numpy
from hessdiag.problem.files.trust import WHOLE

WRAPPERS = (
    *("state_dict", "model", "model_state_dict", "model_state", "module", "params", "weights"),
    *("net", "network", "net_g", "generator", "backbone", "encoder"),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema", "teacher", "student"),
)

_OF_TRAINING = {  # words in the names of what a trainer keeps beside the model
    *("opt", "optim", "optims", "optimizer", "optimizers", "scheduler", "schedulers", "sched", "scaler", "scalers"),
    *("amp", "callbacks", "loops", "rng", "grad", "grads", "gradients", "momentum", "shadow"),
}
_AVERAGE = ("decay", "num_updates")  # what an exponential moving average says of itself
_DEPTH = 4
_LISTED = 3
_LONGEST = 200
_REGISTERED = ("_parameters", "_buffers")
_HOOKS = tuple(name for name in vars(nn.Module()) if "_hooks" in name)
_LAZY = (nn.UninitializedParameter, nn.UninitializedBuffer)


@dataclass(frozen=True)
class Candidate:
    """A mapping of names to tensors in a file.

    Attributes:
        key: Where it is, with dots; empty for the whole file.
        state: Its tensors, with the versions of modules as torch keeps them.
        others: Names of what is no tensor.
        beside: Whether its place says that it belongs to the training and is no model.
    """

    key: str
    state: "OrderedDict[str, Tensor]"
    others: tuple[str, ...] = ()
    beside: bool = False

    def at(self, where: str) -> str:
        """How a command line names it."""
        return f"{where}#{shown(self.key)}" if self.key else where


def items(mapping: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The entries. A file may give a dict attributes that hide its methods, so those of its class are asked."""
    return list(dict.items(mapping) if isinstance(mapping, dict) else mapping.items())


def is_optimizer(value: Any) -> bool:
    """Whether this is the state of an optimizer: it has groups of parameters, whatever its name."""
    return isinstance(value, dict) and "param_groups" in value and "state" in value


def is_state_dict(value: Any) -> bool:
    """Whether this maps names to tensors, and to nothing nested."""
    return (
        isinstance(value, Mapping)
        and all(
            isinstance(key, str) and (_is_extra(key) or not isinstance(item, (Mapping, nn.Module)))
            for key, item in items(value)
        )
        and any(_is_array(item) for _, item in items(value))
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc")


def _is_extra(name: str) -> bool:
    """Whether torch hands the entry to `set_extra_state`: it may be anything."""
    return name.rpartition(".")[2] == "_extra_state"


def candidates(content: Any) -> list[Candidate]:
    """All mappings of names to tensors in a file's content; states of optimizers are none.

    Raises:
        LoadError: if tensors are one process's shards, or cannot be read.
    """
    return list(_candidates(content, "", _DEPTH, False, set()))


def _candidates(content: Any, key: str, depth: int, beside: bool, seen: set[int]) -> Iterator[Candidate]:
    if isinstance(content, nn.Module):
        yield Candidate(key, _tensors(state_of(content)), beside=beside)
    if not isinstance(content, Mapping) or is_optimizer(content) or id(content) in seen:
        return
    seen.add(id(content))
    entries = items(content)
    if any(isinstance(name, str) and _is_array(value) for name, value in entries):
        others = () if not is_state_dict(content) else _others(content)
        # Tensors beside nested mappings may be a state_dict that had more put into it, or a loss: the model decides.
        yield Candidate(key, _tensors(content), others, beside or not is_state_dict(content))
    if depth:
        average = any(isinstance(name, str) and name in _AVERAGE for name, _ in entries)
        for name, value in entries:
            if isinstance(value, (Mapping, nn.Module)) and not _is_extra(str(name)):
                inner = f"{key}.{name}" if key else str(name)
                training = beside or average or not _OF_TRAINING.isdisjoint(re.split(r"[^a-z]+", str(name).lower()))
                yield from _candidates(value, inner, depth - 1, training, seen)


def state_of(module: nn.Module) -> Mapping[str, Any]:
    """A module's `state_dict`.

    Raises:
        LoadError: if it has none: a file may set a module's attributes to anything.
    """
    try:
        state: Mapping[str, Any] = module.state_dict()
    except Exception as error:
        raise LoadError(f"the {type(module).__name__} in the file is damaged: {said(error)}") from error
    return state


def sound(module: nn.Module) -> nn.Module:
    """The module, if its parts are what they should be.

    Raises:
        LoadError: if they are not: no constructor of a pickled module has run, so that a file may set them to anything.
    """
    for part in _layers(module):
        kind = type(part).__name__
        if hidden := [name for name in vars(part) if callable(getattr(type(part), str(name), None))]:
            raise LoadError(f"the {kind} in the file is damaged: it hides its own {shown(str(hidden[0]))}.")
        held = [item for own in _REGISTERED for item in vars(part)[own].values() if item is not None]
        if isinstance(part, nn.RNNBase):
            flat = vars(part).get("_flat_weights", [])
            held += flat if isinstance(flat, list) else [flat]
        if not all(isinstance(item, Tensor) for item in held):
            raise LoadError(f"the {kind} in the file is damaged: it has parameters that are no tensors.")
    state_of(module)
    return module


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all that are in it, each once, by what they hold and by no method that a file may hide.

    Raises:
        LoadError: if one has no place for its parts, or has parts that are none.
    """
    stack, seen = [module], set[int]()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        kind, own = type(part).__name__, vars(part)
        lacks = [name for name in (*_REGISTERED, "_modules") if not isinstance(own.get(name), dict)]
        lacks += [name for name in ("_non_persistent_buffers_set",) if not isinstance(own.get(name), set)]
        if hooks := [name for name in _HOOKS if own.get(name, {}) != {}]:  # only functions of torch.nn could be there
            raise LoadError(f"the {kind} in the file is damaged: it has {hooks[0]}, which no layer of torch.nn has.")
        if lacks or not isinstance(own.get("training"), bool):
            raise LoadError(f"the {kind} in the file is damaged: it has no {' and no '.join(lacks or ['training'])}.")
        inner = [item for item in own["_modules"].values() if item is not None]
        if not all(isinstance(item, nn.Module) for item in inner):
            raise LoadError(f"the {kind} in the file is damaged: it has layers that are none.")
        yield part
        stack.extend(inner)


def _others(mapping: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in items(mapping) if not _is_array(value) and not _is_extra(name))


def _tensors(mapping: Mapping[Any, Any]) -> "OrderedDict[str, Tensor]":
    state = OrderedDict(
        (name, from_numpy(value) if isinstance(value, np.ndarray) and _is_array(value) else value)
        for name, value in items(mapping)
        if isinstance(name, str) and (_is_array(value) or _is_extra(name))
    )
    return with_versions(state, getattr(mapping, "_metadata", None))


def with_versions(state: "OrderedDict[str, Tensor]", versions: Any) -> "OrderedDict[str, Tensor]":
    """The state with what torch calls its `_metadata`: versions of modules, by which they read older files."""
    if isinstance(versions, Mapping):
        kept = {
            name: {"version": value.get("version")}
            for name, value in items(versions)
            if isinstance(name, str) and isinstance(value, dict) and isinstance(value.get("version"), int)
        }
        state._metadata = kept  # type: ignore[attr-defined]
    return state


def whole(state: "OrderedDict[str, Tensor]", where: str) -> "OrderedDict[str, Tensor]":
    """The state with all values in place, dense and in this process.

    Raises:
        LoadError: naming a tensor that is one process's shard, quantized, or without values.
    """
    dense = OrderedDict(
        (name, _dense(value, f"{shown(name)} in {where}") if isinstance(value, Tensor) else value)
        for name, value in state.items()
    )
    return with_versions(dense, getattr(state, "_metadata", None))


def _dense(value: Tensor, name: str) -> Tensor:
    if isinstance(value, _LAZY):
        raise LoadError(
            f"{name} was saved before it had a shape: the model is lazy, and was never called.",
            "the weights of a model that was called",
        )
    tensor = value.detach()
    if type(tensor).__name__ == "DTensor":
        from torch.distributed.tensor import DTensor

        assert isinstance(tensor, DTensor)
        mesh, local = tensor.device_mesh, tensor._local_tensor.detach()
        if mesh.size() > 1 and not all(place.is_replicate() for place in tensor.placements):
            raise LoadError(
                f"{name} is a DTensor: one process's {tuple(local.shape)} of {tuple(tensor.shape)}, "
                f"spread over {mesh.size()} processes.",
                WHOLE,
            )
        tensor = local
    if tensor.is_meta:
        raise LoadError(f"{name} was saved on the device meta: it has a shape, and no values.", "save the real weights")
    if tensor.is_quantized:
        raise LoadError(
            f"{name} is quantized: its steps have no second derivative.", "the weights from before quantization"
        )
    return tensor.to_dense() if tensor.layout is not torch.strided else tensor


def describe(state: Mapping[str, Any]) -> str:
    """A state dict in a few words: tensors, parameters, first key."""
    tensors = [value for _, value in items(state) if isinstance(value, Tensor)]
    parameters = sum(value.numel() for value in tensors if not isinstance(value, _LAZY))
    return f"{len(tensors)} tensors, {count(parameters)} parameters; first key {shown(items(state)[0][0])}"


def count(number: int) -> str:
    """A count for people.

    >>> count(950), count(11_689_512)
    ('950', '11.7 M')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return str(number)


def pick(content: Any, key: str, where: str) -> Any:
    """The part of a file's content under a dotted key, which may itself have dots or be a prefix of names.

    Places in lists are numbers, from 0.

    Raises:
        LoadError: naming the keys that are there.
    """
    if isinstance(content, (list, tuple)):
        head, _, rest = key.partition(".")
        if not head.isdecimal() or int(head) >= len(content):
            raise LoadError(f"{where} has no key {key!r}: there is a list of {len(content)}, counted from 0.")
        return pick(content[int(head)], rest, where) if rest else content[int(head)]
    if isinstance(content, Mapping):
        entries = dict(items(content))
        if key in entries:
            return entries[key]
        for head, value in entries.items():
            if key.startswith(f"{head}."):
                return pick(value, key[len(str(head)) + 1 :], where)
        if any(isinstance(name, str) and name.startswith(f"{key}.") for name in entries):
            return under(_tensors(content), f"{key}.")
        raise LoadError(f"{where} has no key {key!r}; it has {some(list(map(str, entries)), 8)}.")
    raise LoadError(f"{where} has no key {key!r}: there is a {type(content).__name__}.")


def under(state: "OrderedDict[str, Tensor]", prefix: str) -> "OrderedDict[str, Tensor]":
    """The entries whose names have the prefix, without it; versions likewise.

    >>> list(under(OrderedDict({"a.b.c": torch.ones(1), "d": torch.ones(1)}), "a.b."))
    ['c']
    """
    inner = OrderedDict((name[len(prefix) :], value) for name, value in state.items() if name.startswith(prefix))
    versions = getattr(state, "_metadata", {})
    return with_versions(
        inner, {name[len(prefix) :]: value for name, value in versions.items() if f"{name}.".startswith(prefix)}
    )


def find_module(content: Any) -> nn.Module | None:
    """The one module in a file's content, itself or under a key of a mapping."""
    if isinstance(content, nn.Module):
        return content
    modules = (
        [item for _, item in items(content) if isinstance(item, nn.Module)] if isinstance(content, Mapping) else []
    )
    return modules[0] if len(modules) == 1 else None


def find_state_dict(content: Any, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file's content, and notes on where it was, where no model is there to fit.

    Args:
        content: A module, a state dict, or mappings around one.
        where: The file, for messages.

    Raises:
        SpecError: if several would do: which one is meant changes the result.
        LoadError: if there is none.
    """
    if isinstance(content, nn.Module):
        return _tensors(state_of(content)), (f"weights: state_dict of the {type(content).__name__} in {where}",)
    found = candidates(content)
    models = [candidate for candidate in found if not candidate.beside] or found
    usual = [candidate for candidate in models if candidate.key.rpartition(".")[2] in WRAPPERS] or models
    if not usual:
        raise none_found(content, where)
    if len(usual) > 1:
        raise several(usual, where)
    return usual[0].state, found_at(usual[0], content, where)


def none_found(content: Any, where: str) -> LoadError:
    """That there is no state dict, and what there is."""
    return LoadError(
        f"{where} holds no state_dict: there is a {_content(content)}.", "torch.save(model.state_dict(), FILE)"
    )


def several(found: Sequence[Candidate], where: str) -> SpecError:
    """That the user must say which one is meant."""
    return SpecError(
        f"{where} holds several state_dicts: {', '.join(shown(candidate.key) for candidate in found)}.",
        " or ".join(candidate.at(where) for candidate in found),
    )


def found_at(candidate: Candidate, content: Any, where: str) -> tuple[str, ...]:
    """A note on where the state dict was, if it was not the whole file."""
    lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
    kind = ", a Lightning checkpoint" if lightning else ""
    notes: tuple[str, ...] = (
        (f"weights: found under {shown(candidate.key)!r} in {where}{kind}",) if candidate.key else ()
    )
    if candidate.others:
        notes += (f"weights: {some(candidate.others)} in {where} no tensors, left out",)
    return notes


def _content(content: Any) -> str:
    kind = type(content).__name__
    if isinstance(content, Mapping):
        return f"{kind} with keys {some([str(name) for name, _ in items(content)], 8)}"
    if isinstance(content, (list, tuple)) and content and all(_is_array(item) for item in content):
        return f"{kind} of {len(content)} tensors without names"
    return kind


def shown(name: str) -> str:
    r"""A name from a file on one line of a terminal: nothing in it moves the cursor.

    >>> shown("0.weight"), shown("a" + chr(27))
    ('0.weight', "'a\\x1b'")
    """
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
    return short if short.isprintable() and short else repr(short)


def some(names: Sequence[str], most: int = _LISTED) -> str:
    """The first names, and how many there are."""
    return ", ".join(map(shown, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
