"""State dicts: found inside what wraps them, fitted to a model by the usual prefixes, loaded strictly."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.problem import uncompiled

WRAPPERS = (
    *(
        "state_dict",
        "model",
        "model_state_dict",
        "net",
        "network",
        "params",
        "weights",
        "generator",
        "backbone",
        "encoder",
    ),
    *("state_dict_ema", "model_ema", "ema", "ema_state_dict", "params_ema", "teacher", "student"),
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")

_LISTED = 3


def is_state_dict(value: Any) -> bool:
    """Whether this maps names to tensors, and to nothing nested."""
    return (
        isinstance(value, Mapping)
        and all(isinstance(key, str) and not isinstance(item, (Mapping, nn.Module)) for key, item in value.items())
        and any(isinstance(item, Tensor) for item in value.values())
    )


def describe(state: Mapping[str, Any]) -> str:
    """A state dict in a few words: tensors, parameters, first key."""
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    return (
        f"{len(tensors)} tensors, {count(sum(value.numel() for value in tensors))} parameters; "
        f"first key {next(iter(state))}"
    )


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
    """The part of a file's content under a dotted key; a key may itself have dots.

    Raises:
        LoadError: naming the keys that are there.
    """
    if isinstance(content, Mapping):
        if key in content:
            return content[key]
        for head in content:
            if isinstance(head, str) and key.startswith(f"{head}."):
                return pick(content[head], key[len(head) + 1 :], where)
        raise LoadError(f"{where} has no key {key!r}; it has {_some(list(map(str, content)), 8)}.")
    raise LoadError(f"{where} has no key {key!r}: there is a {type(content).__name__}.")


def find_module(content: Any) -> nn.Module | None:
    """The one module in a file's content, itself or under a key of a mapping."""
    if isinstance(content, nn.Module):
        return content
    modules = [item for item in content.values() if isinstance(item, nn.Module)] if isinstance(content, Mapping) else []
    return modules[0] if len(modules) == 1 else None


def find_state_dict(content: Any, where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in a file's content, and notes on where it was.

    Args:
        content: A module, a state dict, or mappings around one.
        where: The file, for messages.

    Raises:
        SpecError: if several would do: which one is meant changes the result.
        LoadError: if there is none.
    """
    if isinstance(content, nn.Module):
        return dict(content.state_dict()), (f"weights: state_dict of the {type(content).__name__} in {where}",)
    found = dict(_candidates(content))
    usual = {key: state for key, state in found.items() if key.rpartition(".")[2] in WRAPPERS} or found
    if not usual:
        raise LoadError(
            f"{where} holds no state_dict: there is a {_content(content)}.",
            "torch.save(model.state_dict(), FILE)",
        )
    if len(usual) > 1:
        raise SpecError(
            f"{where} holds several state_dicts: {', '.join(usual)}.",
            " or ".join(f"{where}#{key}" for key in usual),
        )
    ((key, state),) = usual.items()
    lightning = (
        ", a Lightning checkpoint" if isinstance(content, Mapping) and "pytorch-lightning_version" in content else ""
    )
    notes = (f"weights: found under {key!r} in {where}{lightning}",) if key else ()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}, notes


def _candidates(content: Any, prefix: str = "", depth: int = 3) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if is_state_dict(content):
        yield prefix, content
    elif isinstance(content, nn.Module):
        yield prefix, content.state_dict()
    elif isinstance(content, Mapping) and depth:
        for key, value in content.items():
            yield from _candidates(value, f"{prefix}.{key}" if prefix else str(key), depth - 1)


def _content(content: Any) -> str:
    kind = type(content).__name__
    return f"{kind} with keys {_some(list(map(str, content)), 8)}" if isinstance(content, Mapping) else kind


def load_into(model: nn.Module, state: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Load a state dict strictly, after the usual prefixes are stripped where that makes keys match.

    Args:
        model: Its parameters and buffers are overwritten.
        state: Names and tensors.
        where: The file, for messages.

    Returns:
        Notes: what was stripped or converted.

    Raises:
        LoadError: naming missing and unexpected keys and shapes that differ.
    """
    model = uncompiled(model)
    expected = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    state, notes = strip(state, expected.keys())
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    tied = {_place(expected[name]) for name in state if name in expected}
    absent = [name for name in missing if _place(expected[name]) not in tied]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(value.shape)} in the file, {tuple(expected[name].shape)} in the model"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (("missing", absent), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise LoadError(
            f"{where} does not fit the model: {'; '.join(problems)}.",
            "build the model as it was trained, or name another part of the file with #KEY",
        )
    if missing:
        notes += (f"weights: {_some(missing)} not in {where}, tied to weights that are",)
    other = sorted({str(value.dtype) for name, value in state.items() if value.dtype != expected[name].dtype})
    if other:
        notes += (f"weights: {', '.join(other)} in {where}, converted to the model's dtype",)
    with torch.no_grad():
        model.load_state_dict(dict(state), strict=False)
    return notes


def strip(state: Mapping[str, Tensor], expected: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Strip the usual prefixes, repeatedly, as long as more names match.

    >>> strip({"module.model.w": torch.ones(1)}, ["w"])
    ({'w': tensor([1.])}, ("weights: prefix 'module.model.' stripped",))
    """
    names = best = list(state)
    stripped = chosen = ""
    while prefix := _common_prefix(names):
        names = [name.removeprefix(prefix) for name in names]
        stripped += prefix
        if len(set(names)) == len(names) and _matches(names, expected) > _matches(best, expected):
            best, chosen = names, stripped
    notes = (f"weights: prefix {chosen!r} stripped",) if chosen else ()
    return dict(zip(best, state.values(), strict=True)), notes


def _common_prefix(names: Sequence[str]) -> str | None:
    """The usual prefix that most names have: a Lightning module's metrics, say, lie outside of `model.`."""
    return next(
        (prefix for prefix in PREFIXES if 2 * sum(name.startswith(prefix) for name in names) > len(names)),
        None,
    )


def _matches(names: Sequence[str], expected: Collection[str]) -> int:
    return len(set(names) & set(expected))


def _place(tensor: Tensor) -> tuple[int, torch.Size]:
    return tensor.data_ptr(), tensor.shape


def _some(names: Sequence[str], most: int = _LISTED) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
