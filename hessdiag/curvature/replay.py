"""Products as CUDA graphs, for networks whose kernels run for less time than it takes to launch them one by one."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

Product = Callable[[Tensor], Tensor]

EAGER = 8  # products of one kind before a recording can pay: it costs as much as some ten of them
WORTH = 0.9  # of the time of the product that it replaces
ROUNDING = 1e3  # in units of the dtype's; atomic additions come in any order


class Replays:
    """Recordings of the products that recur, one for each kind, made where they save time.

    A recording launches the same kernels on the same memory, so that the numbers do not depend on the clock. It is kept
    only if it repeats what it recorded.

    Args:
        stream: Where everything that the product uses was computed; what ran on another cannot be recorded.
    """

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self._stream = stream
        self._seen: Counter[object] = Counter()
        self._kept: dict[object, Product | None] = {}

    @property
    def used(self) -> bool:
        """Whether any product is replayed."""
        return any(replay is not None for replay in self._kept.values())

    def run(self, kind: object, product: Product, vectors: Tensor) -> Tensor:
        """The product with `vectors`; products of one kind differ in nothing but the numbers in them."""
        self._seen[kind] += 1
        if self._seen[kind] > EAGER and kind not in self._kept:
            self._kept[kind] = self._faster(product, vectors)
        return (self._kept.get(kind) or product)(vectors)

    def _faster(self, product: Product, vectors: Tensor) -> Product | None:
        try:
            replay = record(product, vectors, self._stream)
            expected = product(vectors)
            # Other numbers than those recorded: a recording that ignores its input would otherwise look right.
            found = replay(-vectors)
        except RuntimeError:  # not everything can be recorded: what waits for the GPU cannot
            return None
        scale = expected.abs().max() * torch.finfo(expected.dtype).eps * ROUNDING
        if not bool(((found + expected).abs() <= scale).all()):
            return None
        return replay if seconds(replay, vectors) < WORTH * seconds(product, vectors) else None


def record(product: Product, vectors: Tensor, stream: torch.cuda.Stream | None) -> Product:
    """The same product, launched as one graph.

    Raises:
        RuntimeError: if something in it cannot be recorded.
    """
    given = vectors.clone()
    graph = torch.cuda.CUDAGraph()
    with _no_module_runs(), torch.cuda.graph(graph, stream=stream):
        result = product(given)

    def replay(vectors: Tensor) -> Tensor:
        given.copy_(vectors)
        graph.replay()
        return result.clone()

    return replay


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


def seconds(product: Product, vectors: Tensor) -> float:
    """Least time of three products, until the GPU is done."""
    times = []
    for _ in range(3):
        torch.cuda.synchronize(vectors.device)
        started = time.perf_counter()
        product(vectors)
        torch.cuda.synchronize(vectors.device)
        times.append(time.perf_counter() - started)
    return min(times)
