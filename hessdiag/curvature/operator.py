"""What the matrices of second derivatives have in common: products with many vectors, batch by batch, within memory."""

import copy
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hessdiag.curvature import replay
from hessdiag.curvature.differences import Moved, NoDoubleBackwardError, disagreement, movable
from hessdiag.curvature.metric import uneven
from hessdiag.curvature.point.examine import Examination, examine, known
from hessdiag.curvature.pullback import Graph
from hessdiag.curvature.sharded import vectors as held
from hessdiag.curvature.sharded.examine import examined
from hessdiag.errors import ComputeError, first_line
from hessdiag.linalg.algebra import Operator
from hessdiag.linalg.spread import Spread
from hessdiag.machine import cost
from hessdiag.machine.arithmetic import ieee
from hessdiag.machine.memory import chunk_size, kept_by
from hessdiag.machine.shortage import fewer, ran_out
from hessdiag.problem import measuring
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.shards.problem import ShardedProblem

CPU_FEWEST = 4  # vectors that share a pass on a CPU: with fewer, arranging the batch costs more than it saves

G = TypeVar("G", bound=Graph)
T = TypeVar("T")
S = TypeVar("S", bound="CurvatureOperator[Any]")


class CurvatureOperator(Operator, Generic[G]):
    """A symmetric (N, N) matrix of second derivatives of a problem, known only through its products.

    Products are derivatives by automatic differentiation, exact up to rounding. Only where a model cannot be
    differentiated twice are they central differences; `missing` then says why, and `precision` how far they can be off.

    Args:
        problem: What is differentiated. Parameters that the loss does not reach have zero rows.
        check: Whether to look at the point before the first product (once for a problem and its parameters), to refuse
            products that cannot be trusted and to warn of kinks. Where parameters are changed in place, as an
            optimizer's step does, products are those at the new point, which is looked at likewise; changes by way of
            `.data` are not seen.

    Attributes:
        missing: What has no second derivative, once products have met it; `None` otherwise.
        scale: P^(-1/2), (N,), of the metric P that it is taken in; `None` of the matrix itself.
    """

    matrix: str  # what it is called, for messages
    method: str  # how one product is computed, for the report
    of_outputs = False  # whether what is differentiated is the model's output, and no loss
    differences: str  # how, where double backward is missing
    cpu_fewest = CPU_FEWEST
    second = False  # whether it is the whole second derivative, which differences of gradients can tell from others

    def __init__(self, problem: Problem, *, check: bool = True) -> None:
        self.problem = problem
        self._check = check
        self._settled = False  # whether the point was looked at
        self._versions: tuple[int, ...] = ()  # of the parameters, when it was
        self.batched = False  # whether vectors have shared a pass
        self._sharing = False  # whether few vectors share one, too
        self.unbatched: str | None = None  # why they cannot
        self._notes: list[str] = []
        self._chunk: int | None = None
        self._kept: G | None = None
        self._since = 0.0  # when the last pass ended, or the first began
        self._stream = None if isinstance(problem, ShardedProblem) else measuring.own_stream(problem.device)
        self._beside = False  # whether another graph of the parameters is alive, on the default stream
        self._replays = replay.Replays()
        self.missing: str | None = None
        self._examined = False  # whether the graph was searched for what autograd would pass over in silence
        self._moved: Moved | None = None
        self._error: float | None = None
        self.scale: Tensor | None = None
        self._scaled_rounding: float | None = None

    @property
    def engine(self) -> str:
        """How products are computed, for the report."""
        if self._moved is not None:
            dtype = str(self._moved.problem.dtype).removeprefix("torch.")
            return "; ".join([f"{self.differences} in {dtype}, for {self.missing}", *self._notes])
        passes = f"batched {self.method}" if self.batched else self.method
        if self.unbatched is not None:
            passes = f"{self.method}, one vector at a time ({self.unbatched})"
        if self._replays.used:
            passes += ", replayed as a CUDA graph"
        return "; ".join([passes, *self._notes, *held.heads(self.problem, asked=self.of_outputs)])

    def on(self: S, problem: Problem) -> S:
        """The same matrix of another problem, in the same metric; the point is not looked at anew."""
        other = self.scaled(self.scale)
        other._check, other._settled = False, True
        other.problem = problem
        vars(other).pop("saved_bytes", None)
        return other

    def scaled(self: S, scale: Tensor | None) -> S:
        """The same matrix between two diagonal ones, (N,) each, with a graph of its own; see `in_metric`."""
        other = copy.copy(self)
        other._notes, other._chunk, other._kept = [], None, None
        other._replays = replay.Replays()
        other.scale, other._scaled_rounding = scale, None
        return other

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N), N the number of differentiated parameters."""
        return (self.problem.n_parameters, self.problem.n_parameters)

    @cached_property
    def spread(self) -> Spread:
        """How vectors are spread over processes: of a sharded problem each holds its pieces."""
        return held.spread_over(self.problem)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors: that of the parameters, but at least float32."""
        return torch.promote_types(self.problem.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.problem.device

    @property
    def precision(self) -> float:
        """Relative error of products: rounding in the parameters' dtype; of differences, how far two steps differ."""
        rounding = torch.finfo(self.problem.dtype).eps
        if self.scale is not None:
            if self._scaled_rounding is None:
                self._scaled_rounding = uneven(self)
            rounding = max(rounding, self._scaled_rounding)
        if self._moved is None:
            return rounding
        if self._error is None:
            self._error = disagreement(self, self._moved)
        return max(rounding, self._error)

    @property
    def chunk(self) -> int:
        """How many vectors share one pass, from free memory; halved when memory runs out."""
        size = self.spread.own * self.dtype.itemsize
        if self._chunk is None and isinstance(self.problem, ShardedProblem):
            self._chunk = held.at_once(self.problem, size)
        if self._chunk is None:
            largest = self.saved_bytes
            self._chunk = 1 if largest is None else chunk_size(largest, size, self.device)
        return self._chunk

    @chunk.setter
    def chunk(self, vectors: int) -> None:
        self._chunk = vectors

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The matrix times v of shape (N,), or V of shape (N, k); of a sharded problem, of local vectors (own,).

        Raises:
            ComputeError: if the model has no second derivative, or the result is not finite.
        """
        if vectors.shape[0] != self.spread.own or vectors.ndim > 2:
            raise ValueError(held.unfit(self, vectors))
        return self._products(vectors[None])[0] if vectors.ndim == 1 else self._products(vectors.T).T

    @abstractmethod
    def _forward(self, batch: Any) -> Any:
        """Evaluate what is differentiated on one batch."""

    @abstractmethod
    def _graph(self, batch: Any) -> G:
        """Prepare products with one batch's part of the matrix."""

    def _products(self, vectors: Tensor, layer: Layer | None = None) -> Tensor:
        """Rows of `vectors` (k, N) times the matrix, as rows (k, N), or only the columns of one layer."""
        vectors = vectors.to(self.device, self.dtype).contiguous()
        if not len(vectors):
            return vectors[:, : held.width(held.places(self.problem, layer))]
        self.settle()
        total = self._retried(lambda: self._summed(vectors, layer))
        # A sum is cheaper to look at than every number; it can overflow where no number does.
        looks_finite = bool(self.spread.summed(total.sum()).isfinite())
        cost.enter(0.0, time.perf_counter() - self._since)  # until a GPU was done: so far its launches alone are timed
        if not looks_finite and held.not_finite(total, self.spread):
            where = held.where_not_finite(self.problem, total, layer)
            raise ComputeError(
                f"{self.matrix} has entries that are NaN or infinite{where}.",
                "--dtype float64, or check the weights for overflow"
                if self.problem.dtype != torch.float64
                else "check the weights for overflow, and roots, norms and quotients at exactly zero",
            )
        return total

    def settle(self) -> None:
        """Look at the point, or take over what is known of it; once, and anew where parameters were changed in place.

        Raises:
            NoHessianError: if products cannot be trusted, and `check` was not switched off.
        """
        if self._settled and self._versions != held.versions(self.problem):
            self.forget()
            self._settled, self.missing, self._moved = False, None, None
        if not self._settled:
            self._settled = True
            if self._check:
                self.look().tell()
            elif (found := known(self.problem, self.matrix)) is not None and found.moved is not None:
                self.turn_to(found.moved, found.reason)
            self._versions = held.versions(self.problem)

    def look(self, seed: int = 0) -> Examination:
        """Look at the point, without the metric; where it asks for differences, they are taken from now on."""
        how = examined if isinstance(self.problem, ShardedProblem) else None
        found = examine(self if self.scale is None else self.scaled(None), seed, how)
        if found.moved is not None and self.missing is None:
            self.turn_to(found.moved, found.reason)
        return found

    def raw(self, vectors: Tensor, *, share: bool = False) -> Tensor:
        """The matrix times V (N, k) by autograd, NaN included, without a look; few vectors may `share` a pass."""
        rows = vectors.T.to(self.device, self.dtype).contiguous()
        self._sharing = share
        try:
            found = self._retried(lambda: self._summed(rows, None)).T
        finally:
            self._sharing = False
        measuring.wait(self.device)
        cost.enter(0.0, time.perf_counter() - self._since)
        return found

    def turn_to(self, moved: Moved, why: str) -> None:
        """Take differences on this copy from now on.

        Args:
            moved: The copy.
            why: What autograd lacks, for the report.
        """
        self.missing, self._moved, self._error = why, moved, None
        self.forget()

    @property
    def moved(self) -> Moved | None:
        """The copy that differences are taken on, if they are."""
        return self._moved

    def forget(self) -> None:
        """Drop graphs and recordings, which were made of a model that has changed or is evaluated otherwise."""
        self._kept = None
        self._replays.drop()

    def _retried(self, compute: Callable[[], T]) -> T:
        """What `compute` returns, with differences where double backward turns out to be missing.

        Raises:
            ComputeError: if the model cannot be copied for them.
        """
        try:
            return self._attempted(compute)
        except replay.OtherGraphError:
            self._beside, self._stream = True, None
            self._notes.append("not recorded, for a graph of the same parameters is alive elsewhere")
        self.forget()
        return self._attempted(compute)

    def _attempted(self, compute: Callable[[], T]) -> T:
        beside = self._beside
        with ieee(), measuring.beside_other_graphs(self.device) if beside else measuring.on(self._stream):
            try:
                return compute()
            except NoDoubleBackwardError as missing:
                self.missing = str(missing).rstrip(".")
            try:
                self._moved = movable(self.problem)
            except ComputeError as error:
                raise ComputeError(f"{self.missing}, and for differences {error.what}", error.hint) from error
            self.forget()
            return compute()

    def _summed(self, vectors: Tensor, layer: Layer | None) -> Tensor:
        """Products with all batches; the only way out for them, so that a metric is met here."""
        if self.scale is not None:
            plain = self._plain_sum(vectors * self.scale, layer)
            return plain.mul_(self.scale if layer is None else self.scale[layer.start : layer.stop])
        return self._plain_sum(vectors, layer)

    def _plain_sum(self, vectors: Tensor, layer: Layer | None) -> Tensor:
        """Products with all batches, without a metric."""
        total: Tensor | None = None
        with self.problem.evaluation():  # hooks and checkpointed parts of the model run again in every product
            self._keep_graph()
            self._since = time.perf_counter()
            for weight, graph in self._graphs():
                found = self._rows(graph, vectors, layer)
                if weight != 1:
                    found *= weight
                total = found if total is None else total.add_(found)
        assert total is not None  # a problem has at least one batch
        return total

    def _rows(self, graph: G, vectors: Tensor, layer: Layer | None, out: Tensor | None = None) -> Tensor:
        """One batch's products, as many vectors at a time as memory allows; in `out` if that is given."""
        if len(vectors) > self.chunk:
            rows = self._space(vectors, layer) if out is None else out
            for part, own in zip(torch.split(vectors, self.chunk), torch.split(rows, self.chunk), strict=True):
                self._rows(graph, part, layer, own)
            return rows
        try:
            return self._pass(graph, vectors, layer, out)
        except (RuntimeError, MemoryError) as error:
            replayed = self._replays.used
            beside = isinstance(self.problem, ShardedProblem)  # others are in the same pass
            if not ran_out(error) or beside or (len(vectors) == 1 and not replayed):
                raise
            self._replays.drop()  # recordings hold the memory of larger passes
            if len(vectors) > 1:
                self._chunk = fewer(len(vectors))
                self._notes = [f"{self._chunk} vectors a pass, for memory ran out with more"]
        return self._rows(graph, vectors, layer, out)

    def _space(self, vectors: Tensor, layer: Layer | None) -> Tensor:
        """Where the products come, each written once."""
        width = held.width(held.places(self.problem, layer))
        return torch.empty(len(vectors), width, dtype=self.dtype, device=self.device)

    def _pass(self, graph: G, vectors: Tensor, layer: Layer | None, out: Tensor | None) -> Tensor:
        """Products with all vectors at once, or one by one where the model's operations cannot be batched."""
        pays = self._sharing or self.device.type != "cpu" or isinstance(self.problem, ShardedProblem)
        fewest = 2 if pays else self.cpu_fewest
        if len(vectors) >= fewest and self.unbatched is None:
            try:
                rows = self._together(graph, vectors, layer, out)
                self.batched = True
                return rows
            except RuntimeError as error:
                if ran_out(error):
                    raise
                if self._stream is not None and replay.NO_STORAGE in str(error):
                    raise replay.OtherGraphError from error
                self.unbatched = first_line(error)[:120]
        if len(vectors) == 1:
            return self._together(graph, vectors, layer, out)
        rows = self._space(vectors, layer) if out is None else out
        for vector, row in zip(torch.split(vectors, 1), torch.split(rows, 1), strict=True):
            self._together(graph, vector, layer, row)
        return rows

    def _together(self, graph: G, vectors: Tensor, layer: Layer | None, out: Tensor | None) -> Tensor:
        """Products with all vectors at once, on a GPU from a recording if that is faster; entered in the ledger."""

        def product(vectors: Tensor, out: Tensor | None = None) -> Tensor:
            return held.joined(graph.products(vectors, layer), self.problem, layer, vectors[:, :0], out)

        if self._stream is None or graph is not self._kept or self._moved is not None:
            found = product(vectors, out)
        else:
            found = self._replays.run((len(vectors), layer), product, vectors, out)
        now = time.perf_counter()
        cost.enter(len(vectors) / len(self.problem.batch_weights), now - self._since)
        self._since = now
        return found

    def _graphs(self) -> Iterator[tuple[float, G]]:
        """Each batch's weight and graph. One batch's graph is kept; several are rebuilt, one at a time."""
        weights = self.problem.batch_weights
        kept = self._keep_graph()
        if kept is not None:
            yield weights[0], kept
            return
        for weight, batch in zip(weights, self.problem.data, strict=True):
            yield weight, self._graph(batch)

    def _keep_graph(self) -> G | None:
        """The graph of the only batch; `None` where there are several."""
        if self._kept is None and len(self.problem.batch_weights) == 1:
            self._kept = self._graph(self.problem.data[0])
        return self._kept

    @cached_property
    def saved_bytes(self) -> int | None:
        """What a forward pass of the largest batch keeps for the backward pass; `None` where that cannot be watched.

        It is the scale of what one more vector costs. Parameters are the same for all vectors. On a CPU they are
        counted, for passes as large as that gain nothing; so are pieces, which whoever plans with them subtracts.
        """
        counted = self.device.type == "cpu" or isinstance(self.problem, ShardedProblem)
        common = () if counted else tuple(self.problem.model.parameters())
        try:
            return max(kept_by(partial(self._forward, batch), common) for batch in self.problem.data)
        except ComputeError:  # models that differentiate by torch.func
            return None
