"""Which modules of a model are units: what is gathered, computed and let go at once.

A unit is an element of a `Sequential`, `ModuleList` or `ModuleDict` that holds parameters, or elsewhere a module with
parameters of its own, with all below it. A module that has some of its own beside children with more is opened: it
runs as it is, with its own ones gathered, and its children are units. Small units are joined to that of their parent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
NEVER_CALLED = (nn.ParameterList, nn.ParameterDict)
JOINED = 2**20  # numbers of units that are joined, at most: more of them would have to be whole at once


@dataclass(frozen=True, eq=False)
class Found:
    """A module that is to be a unit; see `Unit`."""

    path: str
    module: nn.Module
    is_open: bool = False
    is_joined: bool = False


def joined(model: nn.Module, most: int) -> list[Found]:
    """Modules that can be units in place of several smaller ones.

    Args:
        model: The model.
        most: How many numbers a unit may have, so that the largest of all stays as it is.
    """
    return [found for found in _once(_search(model, "", most=min(most, JOINED))) if found.is_joined]


def below(module: nn.Module, path: str) -> list[Found]:
    """The smallest units at or below a module.

    Args:
        module: The module.
        path: Its path in the model.
    """
    return _once(_search(module, path, most=0))


def largest(model: nn.Module) -> int:
    """Numbers of the largest unit that a model would have, about: what is streamed is known once it is sharded.

    >>> largest(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)))
    16
    """
    return max((numbers(found) for found in below(model, "") if not isinstance(found.module, nn.Embedding)), default=0)


def numbers(found: Found) -> int:
    """How many numbers are gathered for a unit."""
    return _own(found.module) if found.is_open else sum(item.numel() for item in found.module.parameters())


def _once(every: Iterable[Found]) -> list[Found]:
    return list({id(found.module): found for found in every}.values())


def _search(module: nn.Module, path: str, *, most: int, listed: bool = False) -> Iterator[Found]:
    """The units at or below a module.

    Args:
        module: The module.
        path: Its path.
        most: Numbers up to which units are joined.
        listed: Whether it is an element of a sequence.
    """
    own, every = _own(module), sum(parameter.numel() for parameter in module.parameters())
    if not every:
        return
    if not isinstance(module, LISTS):
        small = listed and not _has_blocks(module)
        if small or is_parametrized(module) or own >= every - own:
            yield Found(path, module)
            return
    inside = [
        found
        for name, child in module.named_children()
        if not isinstance(child, NEVER_CALLED)
        for found in _search(child, f"{path}.{name}" if path else name, most=most, listed=isinstance(module, LISTS))
    ]
    is_called = not isinstance(module, nn.ModuleList | nn.ModuleDict)
    if len(inside) + bool(own) > 1 and every <= most and is_called and not _watched(module):
        yield Found(path, module, is_joined=True)
        return
    if own:
        yield Found(path, module, is_open=True)
    yield from inside


def with_lists(module: nn.Module) -> tuple[nn.Module, ...]:
    """A module and the lists of parameters that it has, which are modules but never run."""
    lists = (child for child in module.children() if isinstance(child, NEVER_CALLED))
    return (module, *(other for child in lists for other in with_lists(child)))


def _own(module: nn.Module) -> int:
    """How many numbers are in a module's own parameters."""
    every = (item for other in with_lists(module) for item in other.parameters(recurse=False))
    return sum(item.numel() for item in {id(item): item for item in every}.values())


def _watched(module: nn.Module) -> bool:
    """Whether hooks see what modules below it compute: in one unit, what they keep would have no graph."""
    inner = (other for other in module.modules() if other is not module)
    return any(other._forward_hooks or other._forward_pre_hooks for other in inner)


def _has_blocks(module: nn.Module) -> bool:
    """Whether there is a sequence of modules of one kind with parts of their own in it, as the stages of ResNets have.

    Only sequences run all that they hold; which of a list's modules run may hang on the samples.
    """
    for below in module.modules():
        if isinstance(below, nn.Sequential):
            kinds = [type(item) for item in below if not isinstance(item, LISTS) and next(item.children(), None)]
            if len(kinds) > len(set(kinds)):
                return True
    return False
