"""What torch says of a state dict and a model, with and without the words that wrappers put into names."""

import difflib
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.errors import said
from hessdiag.problem.files.state_dicts import Candidate, shown, some, under, with_versions

# What a wrapper, a trainer or a module of two networks puts before the names of the one network that is meant.
_KNOWN = {
    *("module", "_orig_mod", "_forward_module", "model", "net", "network", "generator", "backbone", "encoder"),
    *("student", "teacher", "ema", "ema_model", "model_ema", "online_model"),
}
# What wrappers of single layers put into the middle of names.
_INSIDE = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_MOST_PREFIXES = 8
_LONGEST = 400

_MISMATCH = re.compile(
    r"size mismatch for (.+): copying a param with shape torch\.Size\(\[(.*)\]\) from checkpoint, "
    r"the shape in current model is torch\.Size\(\[(.*)\]\)\."
)


def unwrapped(name: str) -> str:
    """A name without the words that wrappers of single layers put into it.

    >>> unwrapped("layers.0._fsdp_wrapped_module.weight")
    'layers.0.weight'
    """
    return _INSIDE.sub("", name)


@dataclass(frozen=True)
class Report:
    """What torch says of a state dict and a model.

    Attributes:
        missing: Names that the model has, and the file has not.
        unexpected: Names that the file has, and the model has not.
        mismatched: Names of both whose shapes differ, with the shapes of file and model.
        errors: Whatever else torch or the model's own code says.
        tied: Missing names whose values came by another name.
        matched: How many of the model's entries got their values, not counting batch counts.
        entries: How many it has.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, str], ...] = ()
    errors: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    matched: int = 0
    entries: int = 0

    @property
    def complete(self) -> bool:
        """Whether the model got all that it has."""
        return not (self.missing or self.mismatched or self.errors)

    @property
    def fits(self) -> bool:
        """Whether a strict load succeeds."""
        return self.complete and not self.unexpected

    @property
    def problems(self) -> int:
        """How many entries do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched) + len(self.errors)

    def __str__(self) -> str:
        """One line, with close names of the file for those that are missing."""
        parts = (
            ("missing", [_with_near(name, self.unexpected) for name in self.missing[:10]] + [*self.missing[10:]]),
            ("unexpected", self.unexpected),
            ("of another shape", [f"{shown(name)} {shapes}" for name, shapes in self.mismatched]),
        )
        return "; ".join([*(f"{len(names)} {what}: {some(names)}" for what, names in parts if names), *self.errors[:1]])


@dataclass(frozen=True)
class View:
    """A candidate as the model may mean it.

    Attributes:
        candidate: Where the tensors were.
        state: Those under the prefix, by the names that remain.
        prefix: What was stripped, with its last dot.
        inside: Words of wrappers that were taken out of names.
        rest: Names of the candidate without the prefix.
        report: What torch says of it.
    """

    candidate: Candidate
    state: "OrderedDict[str, Tensor]"
    prefix: str = ""
    inside: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()
    report: Report = Report()

    @property
    def named(self) -> Candidate:
        """The candidate by the key that leads here, prefix included."""
        return replace(self.candidate, key=".".join(filter(None, (self.candidate.key, self.prefix.rstrip(".")))))

    def notes(self) -> tuple[str, ...]:
        """What was done to names, and what was left out with them."""
        notes = [f"weights: prefix {self.prefix!r} stripped"] if self.prefix else []
        if self.inside:
            notes.append(f"weights: {', '.join(map(repr, self.inside))} taken out of names")
        if self.rest:
            notes.append(f"weights: {some(self.rest)} outside of {self.prefix!r}, left out")
        return tuple(notes)


class _NoCopies(TorchFunctionMode):
    """Lets `load_state_dict` go through all its motions, and copy nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.copy_ else func(*args, **(kwargs or {}))


def expected_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's own entries by name."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def views(model: nn.Module, candidate: Candidate, expected: Mapping[str, Tensor]) -> list[View]:
    """The candidate under each prefix that may be meant, with torch's report of each; nothing is loaded."""
    forms: list[tuple[OrderedDict[str, Tensor], tuple[str, ...]]] = [(candidate.state, ())]
    if (short := _unwrapped(candidate.state, expected)) is not None:
        forms.append(short)
    found: list[View] = []
    for state, inside in forms:
        for prefix in _prefixes(list(state), expected):
            rest = tuple(name for name in state if not name.startswith(prefix))
            view = View(candidate, under(state, prefix) if prefix else state, prefix, inside, rest)
            if not any(_is_copy(view.state, other.state) for other in found):
                with _NoCopies():
                    found.append(replace(view, report=load(model, view.state, expected)))
    return found


def _is_copy(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(value is right[name] for name, value in left.items())


def load(model: nn.Module, state: "OrderedDict[str, Tensor]", expected: Mapping[str, Tensor]) -> Report:
    """Let torch load what fits, with all hooks of the model, and report."""
    seen: list[Any] = []
    hook = None
    if not isinstance(model, torch.jit.ScriptModule):  # which takes no hooks, and runs none
        hook = model.register_load_state_dict_post_hook(lambda _, keys: seen.append(keys))  # type: ignore[no-untyped-call]
    messages: list[str] = []
    try:
        seen.append(model.load_state_dict(_fresh(state), strict=False))
    except Exception as error:  # of torch, which lists what it could not copy, or of the model's own hooks
        lines = str(error).split("\n\t")[1:] if isinstance(error, RuntimeError) else []
        messages = [line.strip() for line in lines] or [said(error)]
    finally:
        if hook is not None:
            hook.remove()
    keys = next((item for item in reversed(seen) if hasattr(item, "missing_keys")), None)
    missing = list(keys.missing_keys if keys is not None else (name for name in expected if name not in state))
    unexpected = tuple(keys.unexpected_keys if keys is not None else (name for name in state if name not in expected))
    matches = [(message, _MISMATCH.fullmatch(message)) for message in messages]
    mismatched = tuple(
        (found[1], f"{_shape(found[2])} in the file, {_shape(found[3])} in the model") for _, found in matches if found
    )
    errors = tuple(message.splitlines()[0].rstrip(" .")[:_LONGEST] for message, found in matches if not found)
    lacking = {*missing, *(name for name, _ in mismatched)}
    got = {_place(value) for name, value in expected.items() if name not in lacking}
    tied = tuple(name for name in missing if name in expected and _place(expected[name]) in got)
    absent = tuple(name for name in missing if name not in tied and not _is_batch_count(name))
    counted = [name for name in expected if not _is_batch_count(name)]
    matched = 0 if errors else len(set(counted) - lacking)
    return Report(absent, unexpected, mismatched, errors, tied, matched, len(counted))


def _is_batch_count(name: str) -> bool:
    """Whether this is what files from before torch 0.4.1 lack, and what no formula here uses."""
    return name.endswith("num_batches_tracked")


def _fresh(state: "OrderedDict[str, Tensor]") -> "OrderedDict[str, Tensor]":
    """A copy of the mapping: hooks rename entries, and write into the versions."""
    return with_versions(OrderedDict(state), getattr(state, "_metadata", None))


def _shape(numbers: str) -> str:
    return f"({numbers},)" if numbers and "," not in numbers else f"({numbers})"


def _place(tensor: Tensor) -> Any:
    """Where the values are: the same for tied weights."""
    lazy = isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer)
    return id(tensor) if lazy or tensor.is_meta or not tensor.numel() else (tensor.data_ptr(), tensor.shape)


def _unwrapped(
    state: "OrderedDict[str, Tensor]", expected: Collection[str]
) -> tuple["OrderedDict[str, Tensor]", tuple[str, ...]] | None:
    """The state without wrappers' words inside of names; `None` where there are none, or they tell names apart."""
    words = dict.fromkeys(word for name in state for word in _INSIDE.findall(name))
    names = [_INSIDE.sub("", name) for name in state]
    if not words or len(set(names)) < len(names) or any(_INSIDE.search(name) for name in expected):
        return None
    versions = {_INSIDE.sub("", f"{name}.")[:-1]: value for name, value in getattr(state, "_metadata", {}).items()}
    renamed: OrderedDict[str, Tensor] = OrderedDict(zip(names, state.values(), strict=True))
    return with_versions(renamed, versions), tuple(words)


def _prefixes(names: Sequence[str], expected: Collection[str]) -> list[str]:
    """Prefixes that may stand before the model's names, none first: those that make many match, or that all have."""
    found = counts(names, expected)
    most = max(found.values())
    matching = [prefix for prefix, number in found.most_common(_MOST_PREFIXES) if number and 2 * number >= most]
    chain = list(_common(names))  # hooks may rename all that there is, so that nothing matches before them
    allowed = [prefix for prefix in matching if prefix in chain or _KNOWN.issuperset(prefix.split(".")[:-1])]
    return list(dict.fromkeys(["", *sorted(allowed, key=len), *chain]))


def counts(names: Collection[str], expected: Collection[str]) -> Counter[str]:
    """How many names match under each prefix."""
    found: Counter[str] = Counter({"": sum(name in expected for name in names)})
    for name in names:
        for place in (index + 1 for index, letter in enumerate(name[:1000]) if letter == "."):
            if name[place:] in expected:
                found[name[:place]] += 1
    return found


def _common(names: Sequence[str]) -> Iterable[str]:
    """Prefixes that all names have, the shortest first."""
    words = [name.split(".")[:-1] for name in names]
    prefix = ""
    for place in range(min(_MOST_PREFIXES, min(map(len, words), default=0))):
        if len({word[place] for word in words}) > 1:
            return
        prefix += f"{words[0][place]}."
        yield prefix


def _with_near(name: str, others: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, others[:1000], n=1, cutoff=0.75)
    return f"{shown(name)} (the file has {shown(near[0])})" if near else shown(name)
