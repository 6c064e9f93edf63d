"""DataLoaders as people have them, read in this process, from the same random numbers each time."""

import copy
import itertools
from collections.abc import Iterator
from operator import length_hint
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from hessdiag.errors import HessdiagError, LoadError, first_line
from hessdiag.machine.memory import free_bytes
from hessdiag.problem.batches.batch import tensors
from hessdiag.problem.batches.known import Known
from hessdiag.problem.seeds import drawing

ENDLESS = 100_000  # batches of a source without a length
_SHARE = 0.5  # of the free memory that batches may take: the measurement needs the rest


def count_of(value: Any, size: int | None = None) -> int:
    """How many batches there are, where that is known; 0 where it is not.

    Args:
        value: A loader or another iterable.
        size: Samples in a batch, of a data set that knows more samples than it has read.
    """
    dataset = getattr(value, "dataset", None)
    if isinstance(dataset, Known) and size:
        return -(-(dataset.total or 0) // size)
    if isinstance(dataset, IterableDataset):
        return 0  # its length, where it has one, is a promise
    try:
        return length_hint(value)
    except Exception:  # a length of the user's own may raise anything
        return 0


class Reading:
    """The batches of a loader, each in turn, and what there is to say of how they were read.

    No worker processes are started, no memory is pinned, and the loader's own random generators are put back, so that
    reading once more gives the same batches.

    Args:
        loader: Of torch's kind, or of a class made of it.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.workers = loader.num_workers
        self.draws = False
        self._loader = _here(loader)
        self._generators = _generators(loader)

    def __iter__(self) -> Iterator[Any]:
        states = [generator.get_state() for generator in self._generators]
        try:
            batches = iter(self._loader)
            for sampler in (self._loader.sampler, self._loader.batch_sampler):
                if isinstance(sampler, _Ahead):
                    sampler.look_ahead()
            while True:
                try:
                    batch, drew = drawing(lambda: next(batches))
                except StopIteration:
                    return
                except HessdiagError:
                    raise
                except (TypeError, RuntimeError) as error:
                    if (misfit := _not_stacked(error)) is not None:
                        raise misfit from error
                    raise
                self.draws = self.draws or drew
                yield batch
        finally:
            for generator, state in zip(self._generators, states, strict=True):
                generator.set_state(state)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result must know; asked for once the batches were read."""
        notes = []
        if self.workers:
            notes.append(f"data: read in this process, without the loader's {self.workers} worker processes")
        if self.draws:
            notes.append(
                "data: loading draws random numbers (augmentation, noise?); what is measured is one draw, of the seed"
            )
        return tuple(notes)


def _here(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of a loader that reads in this process and asks its sampler ahead."""
    here = copy.copy(loader)
    own = vars(here)
    own.update(num_workers=0, prefetch_factor=None, pin_memory=False, persistent_workers=False, timeout=0)
    own.update(_iterator=None, _DataLoader__multiprocessing_context=None)
    if type(loader).__iter__ is DataLoader.__iter__ and not isinstance(loader.dataset, IterableDataset):
        name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        own[name] = _Ahead(own[name])
    return here


class _Ahead:
    """A sampler that can be asked for the first indices ahead, so that what it draws is told from what samples draw."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._indices: Iterator[Any] = iter(())
        self._first: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self._indices, self._first = iter(self._sampler), []
        return self._given()

    def look_ahead(self) -> None:
        """Ask for the first indices."""
        self._first = list(itertools.islice(self._indices, 1))

    def _given(self) -> Iterator[Any]:
        yield from self._first
        yield from self._indices

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def _generators(loader: DataLoader[Any]) -> list[torch.Generator]:
    """The random generators that a loader and its samplers have of their own."""
    samplers = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(part, "generator", None) for part in samplers]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def _not_stacked(error: Exception) -> LoadError | None:
    """In other words, that torch cannot make one batch of a loader's samples."""
    text = str(error)
    if "default_collate" in text or "stack expects each tensor to be equal size" in text:
        picture = "PIL." in text
        return LoadError(
            f"the samples of the data cannot be put into one batch: {first_line(error)}",
            "transform=torchvision.transforms.ToTensor(), or a collate_fn that returns tensors"
            if picture
            else "a collate_fn that pads them and returns tensors",
        )
    return None


def within_memory(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """Batches as they come, as long as they fit the memory.

    Args:
        batches: All that there are.
        count: How many those are, 0 if it is not known.

    Raises:
        LoadError: if they would not fit, as soon as that is known, or do not seem to end.
    """
    free, taken = free_bytes(), 0
    for number, batch in enumerate(batches, 1):
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(batch))
        taken += size
        expected = max(taken, size * count if number == 1 else 0)
        if expected > _SHARE * free:
            some = max(int(_SHARE * free) // max(size, 1), 1)
            what = f"{count:,} batches" if count else f"more than {number - 1:,} batches"
            raise LoadError(
                f"{what} of {size / 1e6:.3g} MB each do not fit the memory, of which {free / 1e9:.3g} GB are free.",
                f"--batches {min(some, 100)}",
            )
        if not count and number > ENDLESS:
            raise LoadError(f"the data go on after {ENDLESS:,} batches, and may have no end.", "--batches 100")
        yield batch
