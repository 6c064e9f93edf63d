"""Weights of a file into the pieces that this process keeps: torch goes through its motions, and pieces are read."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hessdiag.shards.layout import bounds, share
from hessdiag.shards.mapped import Pages

BLOCK = 2**20  # numbers that are read at a time
UNREAD = ".*copying from a non-meta parameter.*"  # how torch warns of parameters without numbers


@dataclass
class Piece:
    """What this process keeps of a parameter that a file holds.

    Attributes:
        numbers: Flat, padded with zeros.
        wrong: How many of its numbers are NaN, and how many infinite, as the model has them.
        wrong_cast: Likewise in the dtype that was asked for.
    """

    numbers: Tensor
    wrong: tuple[int, int] = (0, 0)
    wrong_cast: tuple[int, int] = (0, 0)


@dataclass
class Pieces:
    """This process's pieces of a model's parameters on the meta device, as a file fills them.

    Attributes:
        rank: Which process this is.
        size: How many there are.
        device: Where pieces go.
        dtype: What they become; by default the model's own.
        pages: Of the file, which are let go of when they were read.
        found: Pieces by the parameter's identity.
        buffers: Identities of what else was filled.
    """

    rank: int
    size: int
    device: torch.device
    dtype: torch.dtype | None = None
    pages: Pages = field(default_factory=lambda: Pages((), {}))
    found: dict[int, Piece] = field(default_factory=dict)
    buffers: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def filling(self, model: nn.Module) -> Iterator[None]:
        """Within, what torch copies into a parameter of the model that is on meta is read into its piece."""
        empty = {id(parameter) for parameter in model.parameters() if parameter.is_meta}
        with warnings.catch_warnings(), _Copies(self, empty):
            warnings.filterwarnings("ignore", UNREAD)
            yield

    def read(self, parameter: Tensor, value: Tensor) -> None:
        """Read this process's numbers of a tensor, and convert them as the model and then the options ask.

        No more than a block, or a row, is held beside the piece.
        """
        start, stop = bounds(value.numel(), self.rank, self.size)
        dtype = self.dtype if self.dtype is not None and parameter.is_floating_point() else parameter.dtype
        piece = Piece(torch.zeros(share(value.numel(), self.size), dtype=dtype, device=self.device))
        for low in range(start, stop, BLOCK):
            high = min(low + BLOCK, stop)
            numbers = run(value.detach(), low, high).to(parameter.dtype)
            cast = numbers.to(dtype)
            piece.wrong = _added(piece.wrong, numbers)
            piece.wrong_cast = _added(piece.wrong_cast, cast)
            piece.numbers[low - start : high - start] = cast.to(self.device)
            self.pages.let_go(value)
        self.found[id(parameter)] = piece


class _Copies(TorchFunctionMode):
    """Sends copies into parameters without numbers to their pieces."""

    def __init__(self, pieces: Pieces, empty: set[int]) -> None:
        super().__init__()
        self.pieces, self.empty = pieces, empty

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.copy_ and id(args[0]) in self.empty:
            self.pieces.read(args[0], args[1])
            return args[0]
        if func is Tensor.copy_:
            self.pieces.buffers.add(id(args[0]))
        return func(*args, **(kwargs or {}))


def run(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Numbers `start:stop` of a flattened tensor; of one that is not contiguous, only the rows that cover them move.

    >>> run(torch.arange(6).reshape(2, 3).T, 1, 3)
    tensor([3, 1])
    """
    if tensor.is_contiguous() or not tensor.ndim:
        return tensor.reshape(-1)[start:stop]
    width = tensor.numel() // len(tensor)
    first = start // width
    return tensor[first : -(-stop // width)].reshape(-1)[start - first * width : stop - first * width]


def _added(before: tuple[int, int], numbers: Tensor) -> tuple[int, int]:
    """Counts of NaN and of infinities, with those of more numbers."""
    if not (numbers.is_floating_point() or numbers.is_complex()) or bool(torch.isfinite(numbers.sum())):
        return before
    return before[0] + int(numbers.isnan().sum()), before[1] + int(numbers.isinf().sum())
