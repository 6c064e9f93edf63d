"""The Gauss-Newton matrix of a problem as a linear operator: curvature of the loss seen through the output."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.curvature.memory import chunk_size
from hessdiag.errors import ComputeError, LoadError, SpecError
from hessdiag.problem import batch as batches
from hessdiag.problem import loss as losses
from hessdiag.problem.problem import Problem

Products = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sandwich:
    """One batch's part of J' M J.

    Attributes:
        output: z, with the graph that leads to the parameters; J is its Jacobian.
        middle: M times each row of a tensor (k, *z.shape).
        weight: Of this batch in the whole.
    """

    output: Tensor
    middle: Products
    weight: float


class OutputSpaceOperator:
    """J' M J summed over batches: symmetric of shape (N, N), known through its products.

    J v is the derivative, in u, of the vector-Jacobian product u'J: reverse over reverse. Forward mode would be one
    pass fewer, but in torch 2.13 it is wrong through LayerNorm's weights and BatchNorm in training mode.

    Args:
        problem: What is differentiated; it needs a loss of the output.
        sandwich: From the problem, a batch and the batch's weight to its part.

    Raises:
        SpecError: if the problem has an objective, or a loss that the model itself computes.
    """

    def __init__(self, problem: Problem, sandwich: Callable[[Problem, Any, float], Sandwich]) -> None:
        if problem._loss is None:
            raise SpecError(
                "Gauss-Newton and Fisher matrices need a loss of the model's output; an objective has no such split.",
                "--operator hessian, or --loss ce|mse|bce|nll|FILE.py:f",
            )
        self.problem = problem
        self.engine = "batched reverse over reverse"
        self._sandwich = sandwich
        self._chunk: int | None = None
        self._kept: Sandwich | None = None

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
        """G @ v with v of shape (N,), or G @ V with V of shape (N, k).

        Raises:
            ComputeError: if the model has no second derivative, or the result is not finite.
        """
        if vectors.shape[0] != self.shape[1] or vectors.ndim > 2:
            raise ValueError(f"G is {self.shape}: it cannot multiply a tensor of shape {tuple(vectors.shape)}")
        rows = vectors[None] if vectors.ndim == 1 else vectors.T
        products = self._products(rows.to(self.device, self.dtype))
        return products[0] if vectors.ndim == 1 else products.T

    def _products(self, vectors: Tensor) -> Tensor:
        """Rows of `vectors` (k, N) times G, as rows (k, N)."""
        total = torch.zeros_like(vectors)
        for part in self._parts():
            start = 0
            while start < len(vectors):
                wanted = slice(start, start + self.chunk)
                try:
                    total[wanted] += part.weight * self._chunk_products(part, vectors[wanted])
                except RuntimeError as error:
                    if "memory" not in str(error).lower() or self.chunk == 1:
                        raise
                    self._chunk = self.chunk // 2
                    continue
                start = wanted.stop
        if not bool(torch.isfinite(total).all()):
            raise ComputeError(
                "the Gauss-Newton matrix has entries that are NaN or infinite.",
                "--dtype float64, or check the weights for overflow",
            )
        return total

    def _chunk_products(self, part: Sandwich, vectors: Tensor) -> Tensor:
        if len(vectors) > 1 and self.engine == "batched reverse over reverse":
            try:
                return self._pass(part, vectors)
            except RuntimeError as error:
                if "memory" in str(error).lower():
                    raise
                reason = str(error).splitlines()[0][:120]
                self.engine = f"reverse over reverse, one vector at a time ({reason})"
        return torch.cat([self._pass(part, vector[None]) for vector in vectors])

    def _pass(self, part: Sandwich, vectors: Tensor) -> Tensor:
        return self._transposed(part.output, part.middle(self._jacobian(part.output, vectors)))

    def _jacobian(self, output: Tensor, vectors: Tensor) -> Tensor:
        """J v of each row, (k, *output.shape)."""
        parameters = self.problem.parameters
        u = torch.zeros_like(output, requires_grad=True)
        slopes = torch.autograd.grad(output, parameters, u, create_graph=True, allow_unused=True)
        parts = torch.split(vectors, [p.numel() for p in parameters], dim=1)
        pairs = [
            (slope, part.reshape(-1, *p.shape).to(slope.dtype))
            for slope, p, part in zip(slopes, parameters, parts, strict=True)
            if slope is not None and slope.requires_grad
        ]
        if not pairs:
            return torch.zeros(len(vectors), *output.shape, dtype=output.dtype, device=output.device)
        outputs, cotangents = zip(*pairs, strict=True)
        return batched_grad(outputs, [u], cotangents)[0]

    def _transposed(self, output: Tensor, cotangents: Tensor) -> Tensor:
        """J' w of each row, (k, N)."""
        parts = batched_grad([output], list(self.problem.parameters), [cotangents])
        return torch.cat([part.reshape(len(cotangents), -1).to(self.dtype) for part in parts], dim=1)

    def _parts(self) -> Iterator[Sandwich]:
        """Each batch's part. One batch's graph is kept; several are rebuilt, one at a time."""
        weights = self.problem.batch_weights
        if len(weights) == 1:
            if self._kept is None:
                self._kept = self._sandwich(self.problem, self.problem.data[0], weights[0])
            yield self._kept
            return
        for weight, batch in zip(weights, self.problem.data, strict=True):
            yield self._sandwich(self.problem, batch, weight)


class GaussNewtonOperator(OutputSpaceOperator):
    """The generalized Gauss-Newton matrix G = J' B J of a problem, (N, N), positive semidefinite for convex losses.

    J is the Jacobian of the model's output z in the parameters and B the Hessian of the loss in z (Schraudolph 2002):
    the Hessian without the curvature of the model itself. For cross-entropy, z are the logits. The `nll` loss is linear
    in the log-probabilities that it takes; they are taken for logits, which they are, so that nll and ce agree.

    Args:
        problem: What is differentiated; it needs a loss of the output.

    Raises:
        SpecError: if the problem has an objective, or a loss that the model itself computes.

    Example: a linear model has no curvature of its own, so G is the Hessian.

    >>> model = nn.Linear(2, 1, bias=False).double()
    >>> data = [(torch.tensor([[1.0, 2.0]]).double(), torch.zeros(1, 1).double())]
    >>> GaussNewtonOperator(Problem(model, data=data, loss="mse")) @ torch.eye(2).double()
    tensor([[2., 4.],
            [4., 8.]], dtype=torch.float64)
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, gauss_newton)


def gauss_newton(problem: Problem, batch: Any, weight: float) -> Sandwich:
    """One batch's part of the Gauss-Newton matrix."""
    output, target = output_of(problem, batch)
    curved = logits_loss(problem)
    leaf = output.detach().requires_grad_()
    value = curved(leaf, target)
    slope = torch.autograd.grad(value, leaf, create_graph=True)[0] if value.requires_grad else torch.zeros_like(leaf)

    def middle(vectors: Tensor) -> Tensor:
        if not slope.requires_grad:  # a loss that is linear in the output
            return torch.zeros_like(vectors)
        return batched_grad([slope], [leaf], [vectors])[0]

    return Sandwich(output, middle, weight)


def output_of(problem: Problem, batch: Any) -> tuple[Tensor, Any]:
    """The model's output with its graph, and the target.

    Raises:
        ComputeError: if model and batch do not fit.
        LoadError: if the batch has no target, or the output is no tensor.
    """
    inputs, target = batches.split(batch)
    if target is None:
        raise LoadError("the batch has no target: Gauss-Newton and Fisher matrices need one.", "--operator hessian")
    try:
        with problem.evaluation():
            output = batches.output_tensor(batches.forward(problem.model, inputs))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ComputeError(f"model and batch do not fit: {(str(error).splitlines() or [''])[0]}") from error
    if not output.requires_grad:
        raise ComputeError("the output does not depend on any trainable parameter.")
    return output, target


def logits_loss(problem: Problem) -> Callable[[Any, Any], Tensor]:
    """The problem's loss as a function of what its curvature is measured in: cross-entropy instead of nll."""
    assert problem._loss is not None
    if problem._loss.name == "nll":
        return losses.NAMED["ce"].function
    function = problem._loss.function
    if isinstance(function, nn.NLLLoss):
        return nn.CrossEntropyLoss(function.weight, ignore_index=function.ignore_index, reduction=function.reduction)
    return function


def batched_grad(outputs: Any, inputs: list[Tensor], cotangents: Any) -> list[Tensor]:
    """Vector-Jacobian products for each of k cotangents, with zeros where nothing depends; the graph is kept."""
    k = len(cotangents[0])
    batched = k > 1
    found = torch.autograd.grad(
        outputs,
        inputs,
        [cotangent if batched else cotangent[0] for cotangent in cotangents],
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=batched,
    )
    return [
        torch.zeros(k, *x.shape, dtype=x.dtype, device=x.device) if part is None else part.reshape(k, *x.shape)
        for part, x in zip(found, inputs, strict=True)
    ]


def _saved_bytes(problem: Problem, batch: Any) -> int:
    """Bytes that the forward pass keeps for the backward pass: the scale of what one more vector costs."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output_of(problem, batch)
    return sum(seen.values())
