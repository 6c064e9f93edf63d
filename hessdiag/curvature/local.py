"""Curvature of a loss whose graph the caller holds: of one forward pass, as an optimizer makes it at every step.

`HessianOperator` answers for a `Problem`, looks at the point and keeps within memory. These know a loss and tensors.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.errors import ComputeError
from hessdiag.linalg.algebra import Operator
from hessdiag.machine.shortage import ran_out


def flat(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Tensors as one vector (n,), in the widest of their dtypes unless told otherwise.

    >>> flat([torch.ones(1, 2), torch.zeros(())])
    tensor([1., 1., 0.])
    """
    widest = dtype or _widest(tensors)
    return torch.cat([tensor.reshape(-1).to(widest) for tensor in tensors])


def gradient(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient (n,) of a scalar, where no products are wanted.

    Raises:
        ComputeError: if there is no graph, or none any more.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> gradient(w.square().sum(), [w])
    tensor([2., 4.])
    """
    if not value.requires_grad:
        raise _no_graph()
    try:
        return flat(torch.autograd.grad(value, tuple(parameters), materialize_grads=True), _widest(parameters))
    except RuntimeError as error:
        raise _in_words(error) from error


def like(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """A vector (n,) as tensors of the shapes and dtypes of others: views of it, where the dtype is the same.

    >>> like(torch.arange(3.0), [torch.ones(1, 2), torch.zeros(())])
    [tensor([[0., 1.]]), tensor(2.)]
    """
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


class LocalHessian(Operator):
    """The Hessian (n, n) of a scalar in some tensors, from the graph that computed it.

    The gradient's graph is built once and serves all products (Pearlmutter 1994).

    Args:
        value: The scalar, with its graph; nothing may have gone backward through that.
        parameters: With respect to what; those that the scalar does not depend on have zero rows.

    Attributes:
        gradient: (n,), detached.
        products: With single vectors, so far.

    Raises:
        ComputeError: if there is no graph, or none any more.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> H = LocalHessian(w.pow(3).sum(), [w])
    >>> H.gradient, H @ torch.ones(2), H.products
    (tensor([ 3., 12.]), tensor([ 6., 12.]), 1)
    """

    def __init__(self, value: Tensor, parameters: Sequence[Tensor]) -> None:
        self._parameters = tuple(parameters)
        self._places = _places(self._parameters)
        self._dtype = _widest(self._parameters)
        if not value.requires_grad:
            raise _no_graph()
        try:
            parts = torch.autograd.grad(value, self._parameters, create_graph=True, materialize_grads=True)
        except RuntimeError as error:
            raise _in_words(error) from error
        self._slope = flat(parts, self._dtype)
        self.gradient = self._slope.detach()
        self.products = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self.gradient), len(self.gradient))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors: the widest of the parameters'."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.gradient.device

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """H times v of shape (n,), or V of shape (n, k)."""
        rows = (vectors.T if vectors.ndim > 1 else vectors[None]).to(self.device, self.dtype)
        self.products += len(rows)
        if not self._slope.requires_grad:  # the scalar is linear
            return torch.zeros_like(vectors, dtype=self.dtype)
        try:
            parts = batched_grad([self._slope], self._parameters, [rows])
        except RuntimeError as error:
            raise _in_words(error) from error
        found = _joined(parts, self._parameters, len(rows), self.dtype)
        return found.T if vectors.ndim > 1 else found[0]


class LocalGaussNewton(Operator):
    """The Gauss-Newton matrix J' B J (n, n) of a loss, from the graphs that computed it (Schraudolph 2002).

    J is the Jacobian of the output in the parameters, B the Hessian of the loss in the output. It is positive
    semidefinite where the loss is convex in the output. What the loss owes to the parameters beside the output (a
    penalty) is part of the gradient and not of this matrix.

    Args:
        value: The loss, a scalar, computed from `output`.
        output: What the model put out, with its graph.
        parameters: With respect to what.

    Attributes:
        gradient: Of the loss, (n,), detached.
        products: With single vectors, so far.

    Raises:
        ComputeError: if there is no graph, or none any more.

    >>> w, x = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 1.0])
    >>> z = (w * x).sum()
    >>> LocalGaussNewton(z.square() / 2, z, [w]) @ torch.tensor([1.0, 0.0])
    tensor([9., 3.])
    """

    def __init__(self, value: Tensor, output: Tensor, parameters: Sequence[Tensor]) -> None:
        self._parameters, self._output = tuple(parameters), output
        self._places = _places(self._parameters)
        self._dtype = _widest(self._parameters)
        if not (value.requires_grad and output.requires_grad):
            raise _no_graph()
        try:
            parts = torch.autograd.grad(value, self._parameters, retain_graph=True, materialize_grads=True)
            (slope,) = torch.autograd.grad(value, output, create_graph=True, materialize_grads=True)
            dual = torch.zeros_like(output, requires_grad=True)
            back = pullback([output], self._parameters, [dual], create_graph=True)
        except RuntimeError as error:
            raise _in_words(error) from error
        self.gradient = flat(parts, self._dtype)
        self._slope, self._dual = slope, dual
        self._back = [(part, place) for part, place in zip(back, self._places, strict=True) if part is not None]
        self.products = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self.gradient), len(self.gradient))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors: the widest of the parameters'."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.gradient.device

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """G times v of shape (n,), or V of shape (n, k)."""
        rows = (vectors.T if vectors.ndim > 1 else vectors[None]).to(self.device, self.dtype)
        self.products += len(rows)
        if not self._slope.requires_grad or not self._back:  # the loss is linear in the output
            return torch.zeros_like(vectors, dtype=self.dtype)
        try:
            cotangents = [rows[:, place].view(-1, *part.shape).to(part.dtype) for part, place in self._back]
            (slopes,) = batched_grad([part for part, _ in self._back], [self._dual], cotangents)
            (bent,) = batched_grad([self._slope], [self._output], [slopes]) if slopes is not None else (None,)
            if bent is None:
                return torch.zeros_like(vectors, dtype=self.dtype)
            parts = batched_grad([self._output], self._parameters, [bent])
        except RuntimeError as error:
            raise _in_words(error) from error
        found = _joined(parts, self._parameters, len(rows), self.dtype)
        return found.T if vectors.ndim > 1 else found[0]


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return widest


def _places(tensors: Sequence[Tensor]) -> list[slice]:
    stops = list(accumulate(tensor.numel() for tensor in tensors))
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _joined(parts: Sequence[Tensor | None], shapes: Sequence[Tensor], rows: int, dtype: torch.dtype) -> Tensor:
    return torch.cat(
        [
            shape.new_zeros(rows, shape.numel(), dtype=dtype) if part is None else part.reshape(rows, -1).to(dtype)
            for part, shape in zip(parts, shapes, strict=True)
        ],
        dim=1,
    )


def _no_graph() -> ComputeError:
    return ComputeError(
        "the loss does not depend on any of the parameters.", "a closure that returns the loss and detaches nothing"
    )


def _in_words(error: RuntimeError) -> RuntimeError | ComputeError:
    """What a failure of autograd means for who wrote the closure."""
    if ran_out(error):
        return error
    if "backward through the graph a second time" in str(error):
        return ComputeError(
            "the loss that the closure returned has gone backward already, and its graph is gone.",
            "return loss, without loss.backward(): the optimizer differentiates it itself",
        )
    return ComputeError(f"the loss cannot be differentiated twice: {str(error).splitlines()[0]}")
