"""`--data`: batches from files and from the user's code, taken and cut to size."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hessdiag.errors import LoadError, SpecError
from hessdiag.problem.batches import images, streams
from hessdiag.problem.batches.batch import TARGET_KEYS, map_tensors, samples, tensors
from hessdiag.problem.files.arrays import from_numpy
from hessdiag.problem.files.checkpoint import existing, read, sniff
from hessdiag.problem.seeds import seeded

ALL = -1
DEFAULT_BATCH_SIZE = 32

_INPUT_KEYS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features")


def from_file(
    path: str,
    key: str | None,
    *,
    read: Callable[[Path], Any] = read,
    free_form: bool = False,
    reconstructs: bool = False,
) -> Any:
    """Batches in a file.

    Args:
        path: npz, safetensors, a file of `torch.save`, IDX or a batch of CIFAR, known by its content.
        key: Names of the inputs and the target, `x,y`; one name gives one tensor.
        read: Gives what a file holds; by default nothing in it runs.
        free_form: Whether an objective will take batches of any form.
        reconstructs: Whether the model's target is its input; for images only.

    Returns:
        `(x, y)`, a mapping, or what else was saved; `Images`, for images with labels.

    Raises:
        LoadError: if the file cannot be read or has no such arrays.
    """
    file = existing(path)
    idx = sniff(file) == "idx"
    content = None if idx else read(file)
    found = images.from_idx(file, read) if idx else images.from_cifar(content, file)
    if found is not None:
        return images.paired(found, key, path, reconstructs=reconstructs, free_form=free_form)
    if isinstance(content, torch.nn.Module):
        raise LoadError(f"{path} holds a model, not data.", f"{path} as MODEL, with --data batch.npz")
    if key is not None:
        taken = tuple(_named(content, name.strip(), path) for name in key.split(","))
        return taken if len(taken) > 1 else taken[0]
    if not isinstance(content, Mapping) or free_form:
        return content
    for names in (("x", "y"), ("X", "y")):
        if all(name in content for name in names):
            return tuple(content[name] for name in names)
    if any(name in content for name in _INPUT_KEYS):
        return content
    there = list(map(str, content))
    target = next((name for name in there if name in TARGET_KEYS), there[-1] if there else "y")
    inputs = next((name for name in there if name != target), "x")
    raise LoadError(
        f"{path} has no arrays x and y; it has {', '.join(there[:8]) or 'nothing'}.",
        f"--data {path}#{inputs},{target}",
    )


def _named(content: Any, name: str, path: str) -> Any:
    if isinstance(content, Mapping) and name in content:
        return content[name]
    there = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise LoadError(f"{path} has no array {name!r}; there is {there}.")


def as_batches(
    value: Any,
    *,
    batches: int | None = None,
    batch_size: int | None = None,
    free_form: bool = False,
    seed: int = 0,
    cut: Callable[[Any, int], Iterable[Any]] | None = None,
    more: str = "--batches N or all",
) -> tuple[list[Any], tuple[str, ...]]:
    """Normalize whatever holds batches to a list of them.

    A tuple or mapping is one batch; a list is a list of batches (two bare tensors in a list are one batch, as
    a DataLoader yields it); a DataLoader, generator or dataset is iterated.

    Args:
        value: The batch or batches.
        batches: How many to take, `ALL` for all; by default the first of an iterable, all of a list.
        batch_size: Cut batches to at most so many samples.
        free_form: Whether an objective will take batches of any form.
        seed: Of the random numbers that a DataLoader draws; the process's own are left as they are.
        cut: Cuts a batch to parts of at most so many samples; by default along the first dimension.
        more: What takes more batches, for the note that says so.

    Returns:
        Batches of tensors, and notes on how many were taken.

    Raises:
        LoadError: if there are no batches, or they cannot be cut.

    >>> taken, notes = as_batches((torch.zeros(5, 2), torch.zeros(5)), batch_size=2)
    >>> [samples(batch) for batch in taken]
    [2, 2, 1]
    """
    notes: tuple[str, ...] = ()
    size = batch_size or DEFAULT_BATCH_SIZE
    if isinstance(value, _tables()):
        formatted = value if value.format["type"] else value.with_format("torch")  # a transform of theirs stays
        value = DataLoader(formatted, batch_size=size)
        notes = (f"data: the dataset is cut into batches of {size}",)
    if isinstance(value, Dataset):
        value = DataLoader(value, batch_size=size, collate_fn=getattr(value, "collate", None))
        notes = (f"data: the dataset is cut into batches of {size}",)
    loader = streams.Reading(value) if isinstance(value, DataLoader) else None
    stream = _stream(value if loader is None else loader, free_form)
    if stream is None:
        raise LoadError(
            f"data must be a batch, a list of batches or a DataLoader, not a {type(value).__name__}.",
            "return (x, y), [(x, y), ...] or a DataLoader",
        )
    whole = isinstance(value, (tuple, list, Mapping, Tensor))
    wanted = batches if batches is not None else ALL if whole else 1
    whole_batches: Iterator[Any] = (_plain(batch) for batch in stream)
    count = 0 if whole else streams.count_of(value, size)
    if not whole and wanted == ALL:
        whole_batches = streams.within_memory(whole_batches, count)
    divide = cut or _cut
    pieces = (
        piece for batch in whole_batches for piece in ([batch] if batch_size is None else divide(batch, batch_size))
    )
    with contextlib.nullcontext() if loader is None else seeded(seed), contextlib.closing(pieces):
        taken = list(pieces if wanted == ALL else itertools.islice(pieces, wanted))
    if not taken:
        raise LoadError("the data holds no batch.")
    notes += () if loader is None else loader.notes
    if not whole and batches is None:
        of = f" of {count}" if count else ""
        notes += (f"data: the first batch{of} was taken; {more} takes more",)
    elif len(taken) > 1 or wanted not in (ALL, 1):
        notes += (f"data: {len(taken)} batches were taken",)
    return taken, notes


def _tables() -> tuple[Any, ...]:
    """The class of Hugging Face's data sets, which is no Dataset of torch's; where it was imported, for what is one."""
    found = getattr(sys.modules.get("datasets"), "Dataset", None)
    return (found,) if isinstance(found, type) else ()


def given_batches(value: Any, seed: int) -> tuple[Sequence[Any], tuple[str, ...]]:
    """What someone gave as data who wrote Python: sequences of batches as they are, of others the first batch.

    Raises:
        SpecError: if it is text, which names a place and holds no batch.
        LoadError: if it holds none.
    """
    if isinstance(value, (str, Path)):
        name = str(value)
        raise SpecError(
            f"data={name!r} names a place, and holds no batch.",
            f"batches, notes = hessdiag.read_data({name!r}, model), then data=batches, notes=notes",
        )
    if isinstance(value, (Dataset, DataLoader, *_tables())) or not isinstance(value, Sequence):
        return as_batches(value, seed=seed, more="a list of batches")
    if not value:
        raise LoadError("a problem needs at least one batch; none was given.")
    return value, ()


def _stream(value: Any, free_form: bool) -> Iterator[Any] | None:
    if isinstance(value, list):
        one = len(value) == 2 and not free_form and all(isinstance(item, (Tensor, np.ndarray)) for item in value)
        return iter([tuple(value)] if one else value)
    if isinstance(value, (tuple, Mapping, Tensor, np.ndarray)):
        return iter([value])
    return iter(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else None


def _plain(batch: Any) -> Any:
    try:
        return _as_tensors(batch)
    except RecursionError:
        raise LoadError("the data is nested too deep: a list or mapping may hold itself.", "(x, y)") from None


def _as_tensors(batch: Any) -> Any:
    """The batch with numpy arrays as tensors."""
    if isinstance(batch, np.ndarray):
        return from_numpy(batch)
    if isinstance(batch, Tensor):
        kinds = {
            "without values, on the device meta": batch.is_meta,
            "quantized": batch.is_quantized,
            "nested": batch.is_nested and batch.layout is torch.strided,  # its shape cannot be asked for
        }
        if odd := [kind for kind, is_so in kinds.items() if is_so]:
            raise LoadError(f"the data holds a tensor that is {odd[0]}.", "plain tensors, padded where lengths differ")
    if isinstance(batch, Mapping):
        return {key: _as_tensors(item) for key, item in batch.items()}
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        return type(batch)(_as_tensors(item) for item in batch)
    return batch


def _cut(batch: Any, size: int) -> Iterator[Any]:
    """The batch in pieces of at most `size` samples."""
    total = samples(batch)
    if size >= total:
        yield batch
        return
    if any(tensor.ndim == 0 or tensor.shape[0] != total for tensor in tensors(batch)):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(batch))
        raise LoadError(f"--batch-size cannot cut a batch whose tensors have different lengths: {shapes}.")
    for start in range(0, total, size):
        yield map_tensors(itemgetter(slice(start, start + size)), batch)


def plain_numbers(batches: Sequence[Any], *, tokens: bool) -> tuple[list[Any], tuple[str, ...]]:
    """Number types that layers and losses take: whole-number inputs as float, whole-number targets as int64.

    Args:
        batches: Only those of the form `(x, y)` are touched.
        tokens: Whether the model takes whole numbers, as an embedding does.
    """
    notes: set[str] = set()

    def inputs(tensor: Tensor) -> Tensor:
        if tokens or tensor.is_floating_point() or tensor.is_complex():
            return tensor
        notes.add(f"data: {str(tensor.dtype).removeprefix('torch.')} inputs were converted to float, and not scaled")
        return tensor.to(torch.get_default_dtype())

    def target(tensor: Tensor) -> Tensor:
        whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
        return tensor.long() if whole else tensor

    converted = [
        (map_tensors(inputs, batch[0]), map_tensors(target, batch[1]))
        if isinstance(batch, (tuple, list)) and len(batch) == 2
        else batch
        for batch in batches
    ]
    return converted, tuple(sorted(notes))
