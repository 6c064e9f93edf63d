"""The Hessian of a problem as a linear operator: products with vectors, rows by index, blocks by layer.

The gradient's graph is kept, so that each product pays for the second derivative only (Pearlmutter 1994), and many
vectors share one pass.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.memory import chunk_size
from hessdiag.errors import ComputeError
from hessdiag.problem.problem import Layer, Problem

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class HessianOperator:
    """The Hessian H of a problem, symmetric of shape (N, N), known only through its products.

    Products are exact up to rounding: they are second derivatives by automatic differentiation, not differences.

    Args:
        problem: What is differentiated. Parameters that the loss does not reach have zero rows.

    Example: for half of a squared distance to the origin, H is the identity.

    >>> model = torch.nn.Linear(2, 1, bias=False).double()
    >>> square = lambda model, batch: model.weight.square().sum() / 2
    >>> H = HessianOperator(Problem(model, data=[None], objective=square))
    >>> H @ torch.tensor([3.0, 4.0], dtype=torch.float64)
    tensor([3., 4.], dtype=torch.float64)
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._unbatched: str | None = None  # why vectors go one at a time
        self._notes: list[str] = []
        self._chunk: int | None = None
        self._kept: _GradientGraph | None = None

    @property
    def engine(self) -> str:
        """How products are computed, for the report."""
        one_by_one = f"double backward, one vector at a time ({self._unbatched})"
        return "; ".join(["batched double backward" if self._unbatched is None else one_by_one, *self._notes])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N), N the number of differentiated parameters."""
        return (self.problem.n_parameters, self.problem.n_parameters)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors: that of the parameters, but at least float32."""
        return torch.promote_types(self.problem.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.problem.device

    @property
    def chunk(self) -> int:
        """How many vectors share one pass, from free memory; halved when memory runs out."""
        if self._chunk is None:
            largest = max(_saved_bytes(self.problem, batch) for batch in self.problem.data)
            self._chunk = chunk_size(largest, self.shape[0] * self.dtype.itemsize, self.device)
        return self._chunk

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """H @ v with v of shape (N,), or H @ V with V of shape (N, k).

        Raises:
            ComputeError: if the model has no second derivative, or the result is not finite.
        """
        if vectors.shape[0] != self.shape[1] or vectors.ndim > 2:
            raise ValueError(f"H is {self.shape}: it cannot multiply a tensor of shape {tuple(vectors.shape)}")
        if vectors.ndim == 1:
            return self._products(vectors[None])[0]
        return self._products(vectors.T).T

    def gradient(self) -> Tensor:
        """The gradient of the problem's function, shape (N,)."""
        total = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        for weight, graph in self._graphs():
            total += weight * _flatten(graph.gradient, graph.parameters, self.dtype)
        return total

    def rows(self, indices: Tensor, layer: Layer | None = None) -> Tensor:
        """Rows of H by index, each exact: one product with a unit vector.

        Args:
            indices: Row numbers, shape (k,).
            layer: Only the columns of this layer; the others are not computed.

        Returns:
            Tensor of shape (k, N), or (k, layer.size).
        """
        units = torch.zeros(len(indices), self.shape[0], dtype=self.dtype, device=self.device)
        units[torch.arange(len(indices), device=self.device), indices.to(self.device)] = 1.0
        return self._products(units, layer)

    def _products(self, vectors: Tensor, layer: Layer | None = None) -> Tensor:
        """Rows of `vectors` (k, N) times H, as rows (k, N)."""
        columns = slice(layer.start, layer.stop) if layer is not None else slice(None)
        vectors = vectors.to(self.device, self.dtype)
        total = torch.zeros_like(vectors[:, columns])
        for weight, graph in self._graphs():
            start = 0
            while start < len(vectors):
                part = slice(start, start + self.chunk)
                try:
                    total[part] += weight * self._chunk_products(graph, vectors[part], layer)
                except RuntimeError as error:
                    if not any(sign in str(error).lower() for sign in _OUT_OF_MEMORY) or self.chunk == 1:
                        raise
                    self._chunk = self.chunk // 2
                    self._notes = [f"{self._chunk} vectors a pass, for memory ran out with more"]
                    continue
                start = part.stop
        if not bool(torch.isfinite(total).all()):
            raise ComputeError(
                "the Hessian has entries that are NaN or infinite.",
                "--dtype float64, or check the weights for overflow",
            )
        return total

    def _chunk_products(self, graph: "_GradientGraph", vectors: Tensor, layer: Layer | None) -> Tensor:
        if len(vectors) > 1 and self._unbatched is None:
            try:
                return graph.products(vectors, layer)
            except RuntimeError as error:
                if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
                    raise
                self._unbatched = str(error).splitlines()[0][:120]
        return torch.cat([graph.products(vector[None], layer) for vector in vectors])

    def _graphs(self) -> Iterator[tuple[float, "_GradientGraph"]]:
        """Each batch's weight and gradient graph. One batch's graph is kept; several are rebuilt, one at a time."""
        weights = self.problem.batch_weights
        if len(weights) == 1:
            if self._kept is None:
                self._kept = _GradientGraph(self.problem, self.problem.data[0], self.dtype)
            yield weights[0], self._kept
            return
        for weight, batch in zip(weights, self.problem.data, strict=True):
            yield weight, _GradientGraph(self.problem, batch, self.dtype)


class _GradientGraph:
    """The gradient of one batch's objective, with the graph that differentiates it again."""

    def __init__(self, problem: Problem, batch: Any, dtype: torch.dtype) -> None:
        self.problem = problem
        self.parameters = problem.parameters
        self.dtype = dtype
        value = problem.evaluate(batch)
        if not value.requires_grad:
            raise ComputeError(
                "the loss does not depend on any trainable parameter.",
                "check that the model is used in the objective, and not detached",
            )
        try:
            with problem.evaluation():  # checkpointed parts of the model run again here
                self.gradient = torch.autograd.grad(value, self.parameters, create_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise _no_second_derivative(error) from error

    def products(self, vectors: Tensor, layer: Layer | None) -> Tensor:
        """Hessian rows for each row of `vectors` (k, N): one pass for all."""
        wanted = [index for index, _ in _spans(self.problem, layer)]
        inputs = [self.parameters[index] for index in wanted]
        batched = len(vectors) > 1
        outputs, cotangents, start = [], [], 0
        for parameter, entry in zip(self.parameters, self.gradient, strict=True):
            stop = start + parameter.numel()
            if entry is not None and entry.requires_grad:
                part = vectors[:, start:stop].reshape(-1, *parameter.shape).to(entry.dtype)
                outputs.append(entry)
                cotangents.append(part if batched else part[0])
            start = stop
        if not outputs:
            return torch.zeros(len(vectors), sum(p.numel() for p in inputs), dtype=self.dtype, device=vectors.device)
        try:
            with self.problem.evaluation():
                columns = torch.autograd.grad(
                    outputs, inputs, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=batched
                )
        except RuntimeError as error:
            if not batched and any(sign in str(error) for sign in ("derivative for", "not implemented")):
                raise _no_second_derivative(error) from error
            raise
        flat = [
            torch.zeros(len(vectors), parameter.numel(), dtype=self.dtype, device=vectors.device)
            if column is None
            else column.reshape(len(vectors), -1).to(self.dtype)
            for column, parameter in zip(columns, inputs, strict=True)
        ]
        return torch.cat(flat, dim=1)


def _spans(problem: Problem, layer: Layer | None) -> Iterator[tuple[int, slice]]:
    """Index and place of each parameter tensor that belongs to the layer."""
    start = 0
    for index, parameter in enumerate(problem.parameters):
        stop = start + parameter.numel()
        if layer is None or layer.start <= start < layer.stop:
            yield index, slice(start, stop)
        start = stop


def _flatten(values: Sequence[Tensor | None], parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    parts = [
        torch.zeros(p.numel(), dtype=dtype, device=p.device) if value is None else value.detach().reshape(-1).to(dtype)
        for value, p in zip(values, parameters, strict=True)
    ]
    return torch.cat(parts)


def _saved_bytes(problem: Problem, batch: Any) -> int:
    """Bytes that the forward pass keeps for the backward pass: the scale of what one more vector costs."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        problem.evaluate(batch)
    return sum(seen.values())


def _no_second_derivative(error: RuntimeError) -> ComputeError:
    reason = str(error).strip().splitlines()[0]
    return ComputeError(
        f"an operation of the model has no second derivative: {reason}",
        "replace that operation by its plain PyTorch form (attention: attn_implementation='eager')",
    )
