"""Labels and ids against what they index, before a kernel that cannot refuse them takes them.

On a GPU an index out of range ends the process's context: every later call fails, whatever it is. So the first
evaluation of each batch is watched there, and what is wrong is said in terms of labels, ids and tables.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hessdiag.errors import LoadError

_watching: ContextVar[bool] = ContextVar("watching", default=False)


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """Watch what a model and its loss look up, where an index out of range would be the end: on a GPU."""
    if not any(parameter.device.type == "cuda" for parameter in model.parameters()):
        yield
        return
    token = _watching.set(True)
    try:
        with Watch(model):
            yield
    finally:
        _watching.reset(token)


def watching() -> bool:
    """Whether indices are watched now: then who looks them up by itself has to look at them first, and wait."""
    return _watching.get()


class Watch(TorchDispatchMode):
    """Looks at the indices of every lookup and of every loss of classes, and refuses those out of range.

    Args:
        model: Whose tables are called by their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        look = _LOOKS.get(func.overloadpacket)
        if look is not None:
            look(self._names, *args)
        return func(*args, **(kwargs or {}))


def _range(ids: Any) -> tuple[int, int] | None:
    """Smallest and largest index; `None` of what holds none."""
    if not isinstance(ids, Tensor) or not ids.numel() or ids.is_meta or ids.is_floating_point():
        return None
    if ids.dtype in (torch.bool, torch.uint8):  # masks
        return None
    least, most = torch.aminmax(ids)
    return int(least), int(most)


def _table(names: Mapping[int, str], weight: Tensor, ids: Tensor, *_: Any) -> None:
    found, rows = _range(ids), len(weight)
    if found is None or (found[0] >= 0 and found[1] < rows):
        return
    name = names.get(id(weight))
    what = f"the table {name} has" if name else "the table that they name has"
    if _are_positions(ids):
        raise LoadError(
            f"the sequence has positions up to {found[1]:,} (from 0), out of bounds: {what} {rows:,} rows.",
            f"sequences of at most {rows:,}",
        )
    raise LoadError(
        f"ids run from {found[0]:,} to {found[1]:,}, out of bounds: {what} {rows:,} rows.",
        f"ids from 0 to {rows - 1:,}, as this model's own tokenizer gives them",
    )


def _are_positions(ids: Tensor) -> bool:
    last = ids.reshape(-1, ids.shape[-1])[0] if ids.ndim else ids.reshape(1)
    return len(last) > 2 and 0 <= int(last[0]) <= 2 and bool((last.diff() == 1).all())  # some models begin at 2


def _targets(
    names: Mapping[int, str], output: Tensor, target: Tensor, weight: Any, reduction: Any, ignored: int
) -> None:
    classes = output.shape[min(1, output.ndim - 1)]
    check_classes(target[target != ignored], classes, f", or {ignored} for those that do not count")


def _margins(names: Mapping[int, str], output: Tensor, target: Tensor, *_: Any) -> None:
    check_classes(target, output.shape[-1])


def check_classes(labels: Tensor, classes: int, others: str = "") -> None:
    """Refuse labels that name none of so many classes.

    Args:
        labels: Those that count.
        classes: How many there are.
        others: Which labels would do besides, for the hint.

    Raises:
        LoadError: if one is out of range.
    """
    found = _range(labels)
    if found is None or (found[0] >= 0 and found[1] < classes):
        return
    if classes == 1:
        hint = "--loss bce or mse, for one output; cross-entropy takes one for each class"
    elif found == (1, classes):
        hint = "labels that count from 0: y - 1"
    else:
        hint = f"labels from 0 to {classes - 1:,}{others}"
    raise LoadError(
        f"labels run from {found[0]:,} to {found[1]:,}, out of bounds: there {'is' if classes == 1 else 'are'} "
        f"{classes:,} {'class' if classes == 1 else 'classes'}.",
        hint,
    )


def _along(names: Mapping[int, str], whole: Tensor, dim: int, index: Tensor, *_: Any) -> None:
    found, size = _range(index), whole.shape[dim] if whole.ndim else 1
    if found is not None and (found[0] < 0 or found[1] >= size):
        raise _beyond(found, size, 0)


def _places(names: Mapping[int, str], whole: Tensor, indices: Any, *_: Any) -> None:
    if len(indices) > whole.ndim or any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices
    ):
        return
    for dim, index in enumerate(indices):
        found, size = _range(index), whole.shape[dim]
        if found is None or (-size <= found[0] and found[1] < size):
            continue
        if dim == 0 and id(whole) in names:
            _table(names, whole, index)
        raise _beyond(found, size, -size)


def _beyond(found: tuple[int, int], size: int, least: int) -> LoadError:
    return LoadError(
        f"the model or the loss looks up places from {found[0]:,} to {found[1]:,}, out of bounds: there are {size:,}.",
        f"labels and ids that lead to places from {least:,} to {size - 1:,}",
    )


_aten = torch.ops.aten
_LOOKS: dict[Any, Callable[..., None]] = {
    _aten.embedding: _table,
    _aten._embedding_bag: _table,
    _aten._embedding_bag_forward_only: _table,
    _aten.nll_loss_forward: _targets,
    _aten.nll_loss2d_forward: _targets,
    _aten.multi_margin_loss: _margins,
    _aten.index: _places,
    _aten.index_put: _places,
    _aten.index_put_: _places,
    **dict.fromkeys(
        (
            *(_aten.gather, _aten.index_select, _aten.index_add, _aten.index_add_, _aten.index_copy, _aten.index_copy_),
            *(_aten.scatter, _aten.scatter_, _aten.scatter_add, _aten.scatter_add_),
            *(_aten.scatter_reduce, _aten.scatter_reduce_),
        ),
        _along,
    ),
}
