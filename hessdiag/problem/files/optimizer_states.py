"""States of optimizers in whatever a trainer saved: where they lie, and what is one."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.files import checkpoint
from hessdiag.problem.files.state_dicts import is_optimizer, items, pick, shown, some, whole
from hessdiag.problem.spec import parse

_DEPTH = 5


@dataclass(frozen=True)
class SavedGroup:
    """A group of parameters as `torch.optim.Optimizer.state_dict` has it.

    Attributes:
        settings: Learning rate and the like.
        idents: Of its parameters, in order: numbers by position, or names.
        names: `param_names`, where they were saved; as many as `idents`.
    """

    settings: Mapping[str, Any]
    idents: tuple[Any, ...]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Saved:
    """An optimizer's state dict, checked to be one.

    Attributes:
        where: File and key, for messages.
        groups: In order.
        state: What was accumulated, by ident.
    """

    where: str
    groups: tuple[SavedGroup, ...]
    state: Mapping[Any, Mapping[str, Any]]


def is_file(text: str) -> bool:
    """Whether the text of an optimizer names a file, as `ckpt.pt#optimizer`, and neither a class nor code.

    >>> is_file("ckpt.pt#optimizer"), is_file("adam(lr=1e-3)"), is_file("train.py:make"), is_file("torch.optim.AdamW")
    (True, False, False, False)
    """
    text = text.strip()
    if text.startswith("file:") or "#" in text:
        return True
    head = text.partition("(")[0]
    if "torch.optim" in head or head.startswith("optim.") or ("." not in head and "/" not in head and "\\" not in head):
        return False
    try:
        return parse(text).kind == "file"
    except SpecError:
        return False


def read_saved(text: str, *, trust_code: bool = False) -> Saved:
    """The optimizer's state that `PATH[#KEY]` names; without a key, the one that the file holds.

    Args:
        text: As `ckpt.pt#optimizer`, `last.ckpt#optimizer_states.0` or `optimizer.pt`.
        trust_code: Let the file run code where it cannot be loaded without.

    Raises:
        SpecError: if the file holds several.
        LoadError: if it holds none there, or one that is damaged or of one process's shards.
        UntrustedFileError: if it would run code, and is not trusted.
    """
    spec = parse(text if text.startswith("file:") else f"file:{text}")
    content = checkpoint.read(checkpoint.existing(spec.source), trust_code=trust_code)
    return saved_in(content, spec.key, spec.source)


def saved_in(content: Any, key: str | None, where: str) -> Saved:
    """The optimizer's state in a file's content.

    Args:
        content: Of the file.
        key: With dots; places in lists are numbers. It may name what holds the state.
        where: The file, for messages.

    Raises:
        As `read_saved`.
    """
    part = content if key is None else pick(content, key, where)
    found = list(_found(part, key or "", _DEPTH, set()))
    if not found:
        elsewhere = [place for place, _ in _found(content, "", _DEPTH, set())]
        held = f"a dict with keys {some([str(name) for name, _ in items(part)], 8)}" if isinstance(part, dict) else None
        raise LoadError(
            f"{_at(where, key or '')} holds no optimizer's state (state and param_groups): there is "
            f"{held or f'a {type(part).__name__}'}.",
            " or ".join(_at(where, place) for place in elsewhere)
            or "torch.save({'optimizer': optimizer.state_dict(), ...}, FILE)",
        )
    if len(found) > 1:
        places = [_at(where, place) for place, _ in found]
        raise SpecError(f"{_at(where, key or '')} holds the states of {len(found)} optimizers.", " or ".join(places))
    place, state = found[0]
    return _checked(state, _at(where, place))


def _at(where: str, key: str) -> str:
    return f"{where}#{shown(key)}" if key else where


def _found(content: Any, key: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """All states of optimizers in a content, with their keys."""
    if id(content) in seen or not isinstance(content, (Mapping, list, tuple)):
        return
    seen.add(id(content))
    if is_optimizer(content):
        yield key, content
        return
    if not depth:
        return
    pairs = items(content) if isinstance(content, Mapping) else enumerate(content)
    for name, value in pairs:
        yield from _found(value, f"{key}.{name}" if key else str(name), depth - 1, seen)


def _checked(content: Any, where: str) -> Saved:
    """The state dict, if its parts are what they should be: a file may hold anything."""
    groups, state = dict.get(content, "param_groups"), dict.get(content, "state")
    if not isinstance(groups, (list, tuple)) or not isinstance(state, dict):
        raise _damaged(where, "its param_groups are no list, or its state is no dict")
    found = []
    for number, group in enumerate(groups):
        idents = dict.get(group, "params") if isinstance(group, dict) else None
        if not isinstance(idents, (list, tuple)) or not all(isinstance(one, (int, str)) for one in idents):
            raise _damaged(where, f"group {number} lists no parameters")
        settings = {str(name): value for name, value in items(group) if name not in ("params", "param_names")}
        names = dict.get(group, "param_names")
        if names is not None and (
            not isinstance(names, (list, tuple))
            or len(names) != len(idents)
            or not all(isinstance(name, str) for name in names)
        ):
            raise _damaged(where, f"the param_names of group {number} are not those of its {len(idents)} parameters")
        found.append(SavedGroup(settings, tuple(idents), None if names is None else tuple(names)))
    if not any(group.idents for group in found):
        raise _damaged(where, "no group holds a parameter")
    known = {ident for group in found for ident in group.idents}
    held: dict[Any, dict[str, Any]] = {}
    for ident, entry in items(state):
        if not isinstance(entry, dict):
            raise LoadError(
                f"{where} holds a {type(entry).__name__} for parameter {shown(str(ident))} where a dict belongs: "
                "flat shards of one process, perhaps.",
                "the state of the whole optimizer, gathered before it was saved",
            )
        if ident not in known:
            raise _damaged(where, f"it has a state for parameter {shown(str(ident))}, which is in no group")
        held[ident] = _values(entry, f"{where}, parameter {shown(str(ident))}")
    return Saved(where, tuple(found), held)


def _values(entry: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """One parameter's state, its tensors dense and in this process; what is `None` is left out."""
    tensors = OrderedDict((str(name), value) for name, value in items(entry) if isinstance(value, Tensor))
    others = {str(name): value for name, value in items(entry) if not isinstance(value, Tensor) and value is not None}
    return {**others, **whole(tensors, where)}


def _damaged(where: str, why: str) -> LoadError:
    return LoadError(f"the optimizer's state in {where} is damaged: {why}.", "save optimizer.state_dict() again")
