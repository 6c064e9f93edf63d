"""Products as CUDA graphs, for networks whose kernels run for less time than it takes to launch them one by one."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

EAGER = 2  # products of one kind before a recording can pay: it costs as much as some four of them
WORTH = 0.9  # of the time of the product that it replaces
ROUNDING = 1e3  # in units of the dtype's; atomic additions come in any order

# Autograd would mark a batched gradient as used on a second stream: that on which a leaf was put by another graph.
NO_STORAGE = "Cannot access storage of BatchedTensorImpl"


class OtherGraphError(RuntimeError):
    """A graph of the same parameters is alive that was built on another stream."""


class Product(Protocol):
    """Rows of vectors times a matrix."""

    def __call__(self, vectors: Tensor, out: Tensor | None = None) -> Tensor:
        """The products, in `out` if that is given."""


class Replays:
    """Recordings of the products that recur, one for each kind, made where they save time.

    A recording launches the same kernels on the same memory, so that the numbers do not depend on the clock. It is kept
    only if it repeats what it recorded. All share one pool of memory: no two are replayed at once, and what one leaves
    is copied before the next.
    """

    def __init__(self) -> None:
        self._seen: Counter[object] = Counter()
        self._kept: dict[object, Product | None] = {}

    @property
    def used(self) -> bool:
        """Whether any product is replayed."""
        return any(replay is not None for replay in self._kept.values())

    def run(self, kind: object, product: Product, vectors: Tensor, out: Tensor | None = None) -> Tensor:
        """The product with `vectors`; products of one kind differ in nothing but the numbers in them."""
        self._seen[kind] += 1
        if self._seen[kind] > EAGER and kind not in self._kept:
            self._kept[kind] = self._faster(product, vectors)
        return (self._kept.get(kind) or product)(vectors, out)

    def drop(self) -> None:
        """Let all recordings go, with their memory: what they recorded has changed, or memory is short."""
        self._seen.clear()
        self._kept.clear()

    def _faster(self, product: Product, vectors: Tensor) -> Product | None:
        try:
            replay = record(product, vectors, next((kept for kept in self._kept.values() if kept is not None), None))
            # Other numbers than those recorded: a recording that ignores its input would otherwise look right.
            found = replay(-vectors)
            lasted, expected = seconds(product, vectors)
            scale = expected.abs().max() * torch.finfo(expected.dtype).eps * ROUNDING
            if not bool(((found + expected).abs() <= scale).all()):
                return None
            return replay if seconds(replay, vectors)[0] < WORTH * lasted else None
        except RuntimeError:  # not everything can be recorded: what waits for the GPU cannot, nor what finds no memory
            return None


class Recording:
    """A product, launched as one graph.

    Args:
        graph: Of the kernels.
        pool: Of the memory that they use.
        given: Where they read the vectors.
        result: Where they leave the products.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, pool: Any, given: Tensor, result: Tensor) -> None:
        self.pool = pool
        self._graph, self._given, self._result = graph, given, result

    def __call__(self, vectors: Tensor, out: Tensor | None = None) -> Tensor:
        """The product with other vectors."""
        self._given.copy_(vectors)
        self._graph.replay()
        return self._result.clone() if out is None else out.copy_(self._result)


def record(product: Product, vectors: Tensor, other: Product | None) -> Recording:
    """Record a product on the stream on which everything that it uses was computed.

    Args:
        product: What is recorded.
        vectors: As many as it is for.
        other: A recording whose pool of memory can be shared.

    Raises:
        RuntimeError: if something in it cannot be recorded.
    """
    given = vectors.clone()
    # The name of a pool dies with the last recording in it.
    pool = other.pool if isinstance(other, Recording) else torch.cuda.graph_pool_handle()
    graph = torch.cuda.CUDAGraph()
    with _no_module_runs():
        # Other threads, such as those that watch over collectives, may go on asking the GPU. Unlike `torch.cuda.graph`,
        # this neither waits for the GPU nor gives back what the allocator has cached.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = product(given)
        finally:
            _end(graph, pool, vectors.device)
    return Recording(graph, pool, given, result)


def _end(graph: torch.cuda.CUDAGraph, pool: Any, device: torch.device) -> None:
    """End a recording; where it has failed, finish what torch then leaves undone.

    The allocator would take it for going on, and never give back cached memory again: later, all would run out of it
    early. In some versions so would the generator of random numbers, until a recording succeeds.

    Raises:
        RuntimeError: if it has failed.
    """
    try:
        graph.capture_end()
    except RuntimeError:
        index = torch.cuda.current_device() if device.index is None else device.index
        for name in ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool", "_cuda_releasePool"):
            with suppress(RuntimeError, AttributeError):  # the second is what the first was called before torch 2.8
                getattr(torch._C, name)(index, pool)
        spot = torch.zeros(1, device=device)
        short = torch.cuda.CUDAGraph()
        with suppress(RuntimeError):
            short.capture_begin()
            spot.add_(1.0)
            short.capture_end()
        raise


@contextmanager
def _no_module_runs() -> Iterator[None]:
    """Checkpointed parts of a model run again in every product, on buffers that are gone when it is replayed."""

    def refuse(module: nn.Module, inputs: object) -> None:
        raise RuntimeError("a part of the model runs again in every product")

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def seconds(product: Product | Callable[[Tensor], Tensor], vectors: Tensor) -> tuple[float, Tensor]:
    """Time of a product until the GPU is done, and what it gives."""
    torch.cuda.synchronize(vectors.device)
    started = time.perf_counter()
    found = product(vectors)
    torch.cuda.synchronize(vectors.device)
    return time.perf_counter() - started, found
