"""Curvature of a loss whose graph the caller holds: of one forward pass, as an optimizer makes it at every step.

`HessianOperator` answers for a `Problem`, looks at the point and keeps within memory. These know a loss and tensors.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.errors import ComputeError
from hessdiag.linalg.algebra import Operator
from hessdiag.machine.shortage import ran_out


def flat(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Tensors as one vector (n,), unless told otherwise in the widest of their dtypes, and float32 at least.

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


class _Local(Operator):
    """What both have in common: parameters as one vector, and products with several vectors at once."""

    gradient: Tensor
    products: int

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = tuple(parameters)
        self._dtype = _widest(self._parameters)
        self.products = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (len(self.gradient), len(self.gradient))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of vectors: the widest of the parameters', float32 at least."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Device of vectors."""
        return self.gradient.device

    def __matmul__(self, vectors: Tensor, /) -> Tensor:
        """The matrix times v of shape (n,), or V of shape (n, k)."""
        rows = (vectors.T if vectors.ndim > 1 else vectors[None]).to(self.device, self.dtype)
        self.products += len(rows)
        try:
            found = _joined(self._rows(rows), self._parameters, self.dtype, len(rows))
        except RuntimeError as error:
            raise _in_words(error) from error
        return found.T if vectors.ndim > 1 else found[0]

    @abstractmethod
    def _rows(self, rows: Tensor) -> Sequence[Tensor | None]:
        """Products with rows (k, n), for each parameter; `None` for zero."""


class LocalHessian(_Local):
    """The Hessian (n, n) of a scalar in some tensors, from the graph that computed it.

    The gradient's graph is built once and serves all products (Pearlmutter 1994): one call of autograd for it, and one
    for each product.

    Args:
        value: The scalar, with its graph; nothing may have gone backward through that.
        parameters: With respect to what; those that the scalar does not depend on have zero rows.

    Attributes:
        gradient: (n,), detached.
        gradients: How many times autograd went back to the parameters for it: once.
        products: With single vectors, so far.

    Raises:
        ComputeError: if there is no graph, or none any more.

    >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> H = LocalHessian(w.pow(3).sum(), [w])
    >>> H.gradient, H @ torch.ones(2), H.products
    (tensor([ 3., 12.]), tensor([ 6., 12.]), 1)
    """

    gradients = 1

    def __init__(self, value: Tensor, parameters: Sequence[Tensor]) -> None:
        super().__init__(parameters)
        if not value.requires_grad:
            raise _no_graph()
        try:
            parts = torch.autograd.grad(value, self._parameters, create_graph=True, materialize_grads=True)
        except RuntimeError as error:
            raise _in_words(error) from error
        self._slope = flat(parts, self._dtype)
        self.gradient = self._slope.detach()

    def _rows(self, rows: Tensor) -> Sequence[Tensor | None]:
        if not self._slope.requires_grad:  # the scalar is linear
            return [None] * len(self._parameters)
        return batched_grad([self._slope], self._parameters, [rows])


class LocalGaussNewton(_Local):
    """The Gauss-Newton matrix J' B J (n, n) of a loss, from the graphs that computed it (Schraudolph 2002).

    J is the Jacobian of the output in the parameters, B the Hessian of the loss in the output. It is positive
    semidefinite where the loss is convex in the output. What the loss owes to the parameters beside the output (a
    penalty) is part of the gradient and not of this matrix. A product is three calls of autograd, one for each factor.

    Args:
        value: The loss, a scalar, computed from `output`.
        output: What the model put out, with its graph.
        parameters: With respect to what.

    Attributes:
        gradient: Of the loss, (n,), detached.
        gradients: How many times autograd went back to the parameters to set this up: once, and a second time where the
            loss depends on them beside the output.
        products: With single vectors, so far.

    Raises:
        ComputeError: if there is no graph, or none any more, or the loss was not computed from the output.

    >>> w, x = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([3.0, 1.0])
    >>> z = (w * x).sum()
    >>> LocalGaussNewton(z.square() / 2, z, [w]) @ torch.tensor([1.0, 0.0])
    tensor([9., 3.])
    """

    def __init__(self, value: Tensor, output: Tensor, parameters: Sequence[Tensor]) -> None:
        super().__init__(parameters)
        if not (value.requires_grad and output.requires_grad):
            raise _no_graph()
        try:
            (slope,) = torch.autograd.grad(value, output, create_graph=True, allow_unused=True)
            if slope is None:
                raise _another_output()
            # The output's slope pulled back is the gradient, and as a function of that slope it is J', for products.
            dual = slope.detach().requires_grad_()
            back = pullback([output], self._parameters, [dual], create_graph=True)
            parts: Sequence[Tensor | None] = back
            if beside := _beside(value, output, self._parameters):
                parts = torch.autograd.grad(value, self._parameters, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise _in_words(error) from error
        self.gradient = _joined(parts, self._parameters, self._dtype, 1)[0].detach()
        self.gradients = 1 + beside
        self._output, self._slope, self._dual = output, slope, dual
        places = zip(back, _places(self._parameters), strict=True)
        self._back = [(part, place) for part, place in places if part is not None]

    def _rows(self, rows: Tensor) -> Sequence[Tensor | None]:
        nothing = [None] * len(self._parameters)
        if not self._slope.requires_grad or not self._back:  # the loss is linear in the output
            return nothing
        cotangents = [rows[:, place].view(-1, *part.shape).to(part.dtype) for part, place in self._back]
        (slopes,) = batched_grad([part for part, _ in self._back], [self._dual], cotangents)
        (bent,) = batched_grad([self._slope], [self._output], [slopes]) if slopes is not None else (None,)
        return nothing if bent is None else batched_grad([self._output], self._parameters, [bent])


def _beside(value: Tensor, output: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether a value depends on parameters by another way than through its output: a walk through its graph."""
    ends = {_edge(parameter) for parameter in parameters}
    seen, ahead = {_edge(output)}, [_edge(value)]
    while ahead:
        edge = ahead.pop()
        if edge in seen:
            continue
        if edge in ends:
            return True
        seen.add(edge)
        ahead += [(node, number) for node, number in edge[0].next_functions if node is not None]
    return False


def _edge(tensor: Tensor) -> tuple[Node, int]:
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)


def _places(tensors: Sequence[Tensor]) -> list[slice]:
    stops = list(accumulate(tensor.numel() for tensor in tensors))
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _joined(parts: Sequence[Tensor | None], shapes: Sequence[Tensor], dtype: torch.dtype, rows: int) -> Tensor:
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


def _another_output() -> ComputeError:
    return ComputeError(
        "the loss is not computed from the output that the closure returned beside it.",
        "return the very tensor that the loss function was given",
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
