"""Batches: how they split into inputs and target, how many samples they hold, which tensors are in them."""

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hessdiag.errors import LoadError

MOST_CHANNELS = 4  # of images, whose first dimension is not one of samples
TARGET_KEYS = ("labels", "label", "targets", "target", "y")


def split(batch: Any) -> tuple[Any, Any]:
    """Split a batch into the model's inputs and the target.

    Args:
        batch: `(x, y)`, `((x1, x2), y)` or a mapping that holds its target under one of
            `labels`, `label`, `targets`, `target`, `y`.

    Returns:
        Inputs (a tensor, a tuple of tensors or a mapping) and the target (`None` for a mapping without one).

    Raises:
        LoadError: if the batch has another form.

    >>> split({"input_ids": 1, "labels": 2})
    ({'input_ids': 1}, 2)
    """
    if isinstance(batch, Mapping):
        key = next((key for key in TARGET_KEYS if key in batch), None)
        inputs = {name: value for name, value in batch.items() if name != key}
        return inputs, batch[key] if key is not None else None
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    form = f"a {type(batch).__name__}" + (f" of {len(batch)} items" if isinstance(batch, (tuple, list)) else "")
    raise LoadError(
        f"a batch must be (x, y), ((x1, x2), y) or a mapping with a target; this one is {form}.",
        "--objective FILE.py:f, with f(model, batch) -> scalar, takes batches of any form",
    )


def forward(model: torch.nn.Module, inputs: Any) -> Any:
    """Call the model as the form of its inputs asks: see `arguments`."""
    args, keywords = arguments(model, inputs)
    return model(*args, **keywords)


def arguments(model: torch.nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the model is called with: `model(x)`, `model(*xs)`, `model(**mapping)`.

    A list goes to a model that takes one argument as it is, as detectors take images of several sizes.
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    several = isinstance(inputs, (tuple, list)) and not isinstance(inputs, PackedSequence)
    if not several or (isinstance(inputs, list) and len(inputs) > 1 and _takes_one(model)):
        return (inputs,), {}
    return tuple(inputs), {}


def _takes_one(model: torch.nn.Module) -> bool:
    """Whether a model's forward pass has one positional argument."""
    try:
        given = inspect.signature(model.forward).parameters.values()
    except (AttributeError, TypeError, ValueError):
        return False
    kinds = [argument.kind for argument in given if argument.kind != Parameter.KEYWORD_ONLY]
    return kinds in ([Parameter.POSITIONAL_ONLY], [Parameter.POSITIONAL_OR_KEYWORD])


def output_tensor(output: Any) -> Tensor:
    """The tensor that a loss takes: the output itself, its `.logits` or `.last_hidden_state`, or the first of a tuple.

    Raises:
        LoadError: if the model returns something that holds no such tensor.
    """
    if isinstance(output, Tensor):
        return output
    for candidate in (
        getattr(output, "logits", None),
        getattr(output, "last_hidden_state", None),
        output[0] if isinstance(output, (tuple, list)) else None,
    ):
        if isinstance(candidate, Tensor):
            return candidate
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        logits: Tensor = output["logits"]
        return logits
    raise LoadError(
        f"the model returns a {type(output).__name__}, in which no output tensor could be found.",
        "--objective FILE.py:f, with f(model, batch) -> scalar",
    )


def which_output(output: Any) -> str | None:
    """Which of several tensors `output_tensor` takes, in words; `None` where there is one.

    >>> which_output((torch.zeros(2, 3), torch.zeros(2)))
    'the first of 2 tensors, of shape (2, 3)'
    """
    parts = output if isinstance(output, (Mapping, tuple, list)) else getattr(output, "__dict__", {})
    count = len(list(tensors(parts)))
    if isinstance(output, Tensor) or count < 2:
        return None
    taken = output_tensor(output)
    named = taken is getattr(output, "logits", None) or (isinstance(output, Mapping) and taken is output.get("logits"))
    return f"{'.logits, one' if named else 'the first'} of {count} tensors, of shape {tuple(taken.shape)}"


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch, in a fixed order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        for value in batch:
            yield from tensors(value)


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The same batch with `function` applied to each tensor."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, PackedSequence):  # its lengths stay on the CPU, and torch puts it together
        data = function(batch.data)
        orders = {name: getattr(batch, name) for name in ("sorted_indices", "unsorted_indices")}
        moved = {name: order.to(data.device) for name, order in orders.items() if order is not None}
        return batch._replace(data=data, **moved)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, value) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def to(batch: Any, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
    """Move a batch; `dtype` applies to floating-point tensors only."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)

    return map_tensors(move, batch)


def placed(batch: Any, model: torch.nn.Module) -> Any:
    """A batch where the parameters of a model are and, if real, in their dtype."""
    parameter = real_parameter(model)
    return batch if parameter is None else to(batch, parameter.device, parameter.dtype)


def real_parameter(model: torch.nn.Module) -> Tensor | None:
    """The first parameter of a model that is real, if it has any."""
    return next((item for item in model.parameters() if item.is_floating_point()), None)


def samples(batch: Any) -> int:
    """Number of samples: the length of the target, or, without one, that of most tensors (of the last, in a tie).

    Inputs do not tell: recurrent layers take (time, batch, features), graphs begin with edges (2, E).

    >>> samples((torch.zeros(9, 2, 3), torch.zeros(2)))
    2
    >>> samples({"edges": torch.zeros(2, 7), "nodes": torch.zeros(5, 3), "degrees": torch.zeros(5)})
    5
    """
    try:
        _, target = split(batch)
    except LoadError:
        target = None
    found = _lengths(target) or _lengths(batch)
    most = Counter(found)
    return max(reversed(found), key=lambda length: most[length], default=1)


def _lengths(part: Any) -> list[int]:
    """Of each part of a batch, how many samples it seems to hold; nothing for scalars."""
    if isinstance(part, PackedSequence):
        return [int(part.batch_sizes[0])]
    if isinstance(part, Tensor):
        return [part.shape[0]] if part.ndim else []
    if isinstance(part, list) and len(part) > 1 and _is_one_per_sample(part):
        return [len(part)]
    if isinstance(part, Mapping):
        part = list(part.values())
    return [length for item in part for length in _lengths(item)] if isinstance(part, (tuple, list)) else []


def _is_one_per_sample(items: list[Any]) -> bool:
    """Whether a list holds one item for each sample, as detectors take images and boxes, and not one tensor for all."""
    if all(isinstance(item, Mapping) for item in items):
        return True
    if not all(isinstance(item, Tensor) for item in items):
        return False
    shapes = [tuple(item.shape) for item in items]
    if len({len(shape) for shape in shapes}) > 1:
        return False
    images = len(shapes[0]) == 3 and shapes[0][0] <= MOST_CHANNELS and len(set(shapes)) > 1
    return images or len({shape[:1] for shape in shapes}) > 1


def stored(tensor: Tensor) -> Sequence[Tensor]:
    """What a tensor stores: itself, or the indices and values of a sparse one, or the rows of a nested one."""
    if tensor.is_nested:
        return tensor.unbind()
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        whole = tensor.coalesce()
        return whole.indices(), whole.values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor.to_dense(),)


def flat_inputs(batches: Sequence[Any]) -> Tensor | None:
    """All inputs as one float64 matrix (samples, features), or `None` where inputs are not one real-valued tensor."""
    rows = []
    for batch in batches:
        try:
            inputs, _ = split(batch)
        except LoadError:
            return None
        real = [tensor for tensor in tensors(inputs) if tensor.is_floating_point()]
        axis = sample_axis(real[0], samples(batch)) if len(real) == 1 else None
        if axis is None or real[0].ndim < 2:
            return None
        rows.append(real[0].detach().to("cpu", torch.float64).movedim(axis, 0).flatten(1))
    same_width = len({row.shape[1] for row in rows}) == 1
    return torch.cat(rows) if rows and same_width else None


def sample_axis(tensor: Tensor, samples: int) -> int | None:
    """The dimension of a tensor that runs over samples: the first of that length; `None` if there is none.

    >>> sample_axis(torch.zeros(9, 2, 3), 2)
    1
    """
    return next((axis for axis, length in enumerate(tensor.shape) if length == samples), None)


def rows(own: slice, samples: int, tensor: Tensor) -> Tensor:
    """Some samples of a tensor, along its first dimension; one that does not run over samples stays whole.

    >>> rows(slice(1, 3), 4, torch.arange(4)), rows(slice(1, 3), 4, torch.arange(2))
    (tensor([1, 2]), tensor([0, 1]))
    """
    return tensor[own] if tensor.ndim and len(tensor) == samples else tensor


def sha256(batches: Sequence[Any]) -> str:
    """Hash of every tensor's shape, dtype and bytes, in order."""
    return hash_tensors(tensor for batch in batches for tensor in tensors(batch))


def hash_tensors(values: Iterator[Tensor]) -> str:
    """SHA-256 over shape, dtype and bytes of each tensor in turn."""
    digest = hashlib.sha256()
    for tensor in values:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in stored(tensor.detach().to("cpu")):
            flat = part.contiguous().resolve_conj().resolve_neg().reshape(-1)
            if flat.numel():
                digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
