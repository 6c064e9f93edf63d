"""Hessian products of a chain of linear layers and elementwise functions, by six matrix products for each layer.

With z = W h + b, h of the next layer f(z), and R the derivative along a vector (Pearlmutter 1994), by the product rule:

    R z = W R h + R W h + R b,    R delta = f'(z) (W' R delta + R W' delta) + f''(z) (W' delta) R z,
    R dL/dW = R delta h' + delta R h'

where W', delta and R delta inside the brackets are those of the layer above. Autograd takes as many matrix products,
and as much time again for its nodes, for copies, and for sums of what several nodes contribute.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.curvature.differences import NoDoubleBackwardError, reason
from hessdiag.curvature.neuron_layers import NeuronLayer, NotInNeuronSpaceError, neuron_layers
from hessdiag.curvature.pullback import batched_grad, pullback
from hessdiag.errors import HessdiagError
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.graph import behind
from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem

# What autograd calls functions of one number, applied to each number of a tensor.
ELEMENTWISE = frozenset(
    f"{name}Backward0"
    for name in (
        *("Clone", "Elu", "Gelu", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyRelu", "LogSigmoid", "Mish", "Relu"),
        *("Sigmoid", "Silu", "Sin", "Softplus", "Tanh", "Threshold"),
    )
)


class NotAChainError(Exception):
    """What stands in the way, so that autograd has to differentiate."""


@dataclass(frozen=True)
class Link:
    """A layer of one batch, with the function before it; all for one vector, or expanded for k of them, (k, ..., ...).

    Attributes:
        places: Which of the problem's parameters weight and bias are; the weight alone where no bias is trained.
        inputs: h, (n, inputs).
        weight: W, (outputs, inputs).
        delta: dL/dz, (n, outputs).
        slope: f' of the function that made h of the z before, (n, inputs); `None` of the first layer.
        bend: f'' times what reaches h from above, likewise; `None` where it is zero.
    """

    places: tuple[int, ...]
    inputs: Tensor
    weight: Tensor
    delta: Tensor
    slope: Tensor | None
    bend: Tensor | None

    def along(self, vectors: int) -> "Link":
        """For so many vectors at once, without copies."""
        inputs, weight, delta = (each.expand(vectors, -1, -1) for each in (self.inputs, self.weight, self.delta))
        return replace(self, inputs=inputs, weight=weight, delta=delta)


class LayerChain:
    """One batch's part of the Hessian of a chain.

    Args:
        problem: All of whose parameters belong to linear layers.
        batch: One of its batches.
        dtype: Of vectors.

    Attributes:
        links: Its layers, in the order in which they run.
        output: Of the last of them, a leaf.
        slope: dL/dz there, with its graph.

    Raises:
        NotAChainError: if a layer's input is anything but an elementwise function of the output of the one before, the
            loss depends on parameters by another way, or something alters gradients on theirs.
    """

    def __init__(self, problem: Problem, batch: Any, dtype: torch.dtype) -> None:
        if problem.device.type != "cpu" or problem.dtype != dtype:
            raise NotAChainError("a GPU records what autograd does, and narrow numbers are its affair")
        try:
            layers = neuron_layers(problem)
        except NotInNeuronSpaceError as error:
            raise NotAChainError(str(error)) from error
        if sum(neuron.layer.size for neuron in layers) != problem.n_parameters:
            raise NotAChainError("not all parameters are those of linear layers")
        if any(_watched(neuron.module) for neuron in layers):
            raise NotAChainError("there are hooks")
        self.problem = problem
        value, passed = _opened(problem, batch, layers)
        try:
            self.links, self.output, self.slope = _links(problem, value, passed, dtype)
        except RuntimeError as error:
            if ran_out(error):
                raise
            raise NotAChainError(reason(error)) from error
        self._shapes = [parameter.shape for parameter in problem.parameters]
        self._expanded = {1: self.links}  # by vectors

    @property
    def ends(self) -> list[Tensor]:
        """Tensors whose graphs are differentiated again."""
        return [self.slope]

    def flat_gradient(self) -> Tensor:
        """The gradient, (N,)."""
        found = [torch.empty(0)] * len(self.problem.parameters)
        for link in self.links:
            for place, part in zip(link.places, (link.delta.T @ link.inputs, link.delta.sum(0)), strict=False):
                found[place] = part.flatten()
        return torch.cat(found)

    def products(self, vectors: Tensor, layer: Layer | None) -> list[Tensor | None]:
        """Hessian rows for each row of `vectors` (k, N): one pass for all."""
        count, problem = vectors.shape[0], self.problem
        one = count == 1  # which takes half as long without the detour of a batch of one
        times, add = (torch.mm, Tensor.addmm_) if one else (torch.bmm, Tensor.baddbmm_)
        if count not in self._expanded:
            self._expanded[count] = [link.along(count) for link in self.links]
        links = self._expanded[count]
        parts = [
            part.view(*part.shape[:-1], *shape)
            for part, shape in zip(
                torch.split(vectors[0] if one else vectors, [shape.numel() for shape in self._shapes], -1),
                self._shapes,
                strict=True,
            )
        ]
        ahead: list[tuple[Tensor | None, Tensor]] = []  # R h and R z
        for link in links:
            W, *bias = (parts[place] for place in link.places)
            z, h = times(link.inputs, W.mT), None
            if bias:
                z += bias[0].unsqueeze(-2)
            if link.slope is not None:
                h = ahead[-1][1] * link.slope
                add(z, h, link.weight.mT)
            ahead.append((h, z))
        found: dict[int, Tensor] = {}
        moved = self._of_loss(ahead[-1][1], count)  # R delta
        for index in reversed(range(len(links))):
            link, (h, _) = links[index], ahead[index]
            weight = times(moved.mT, link.inputs)
            if h is not None:
                add(weight, link.delta.mT, h)
            found |= zip(link.places, (weight, moved.sum(-2)), strict=False)
            if h is None or link.slope is None:
                break
            back = times(moved, link.weight)
            add(back, link.delta, parts[link.places[0]])
            back *= link.slope
            if link.bend is not None:
                back.addcmul_(link.bend, ahead[index - 1][1])
            moved = back
        wanted = problem.places(layer)
        return [found[i][None] if one else found[i] for i, p in enumerate(problem.places()) if p in wanted]

    def _of_loss(self, z: Tensor, count: int) -> Tensor:
        """R dL/dz of the last layer, from R z."""
        if not self.slope.requires_grad:  # the loss is linear in it
            return torch.zeros_like(z)
        try:
            (found,) = batched_grad([self.slope], [self.output], [z.view(count, *self.output.shape)])
        except RuntimeError as error:
            if count > 1 or ran_out(error):  # of several vectors, batching may be what fails
                raise
            raise NoDoubleBackwardError(reason(error)) from error
        return torch.zeros_like(z) if found is None else found.reshape(z.shape)


def _watched(module: nn.Linear) -> bool:
    """Whether anything may alter what a layer takes, gives or learns, or another forward pass has taken its place."""
    hooks = [held for name, held in vars(module).items() if name.endswith("_hooks")]
    hooks += [parameter._backward_hooks for parameter in module.parameters()]
    return any(hooks) or "forward" in vars(module)


@dataclass(frozen=True)
class _Passed:
    """What one layer took, when it took it, and gave: a leaf of its own, so that graphs lie between two layers."""

    inputs: Tensor
    version: int
    outputs: Tensor


def _opened(problem: Problem, batch: Any, layers: Sequence[NeuronLayer]) -> tuple[Tensor, dict[NeuronLayer, _Passed]]:
    """The objective, and what passed each layer by order of execution."""
    passed: dict[NeuronLayer, _Passed] = {}

    def cut(neuron: NeuronLayer, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if neuron in passed or len(args) != 1 or type(args[0]) is not Tensor or args[0].layout != torch.strided:
            raise NotAChainError("a layer is used more than once, or its input is no plain tensor")
        passed[neuron] = _Passed(args[0], args[0]._version, output.detach().requires_grad_())
        return passed[neuron].outputs.clone()  # which the model may write over

    with ExitStack() as stack:
        for neuron in layers:
            hook = neuron.module.register_forward_hook(partial(lambda own, _, args, z: cut(own, args, z), neuron))
            stack.callback(hook.remove)
        try:
            value = problem.evaluate(batch)
        except HessdiagError as error:  # of the model itself, which autograd will meet too, or of the cuts
            raise NotAChainError(error.what) from error
    if len(passed) < len(layers):
        raise NotAChainError("the loss does not reach every layer")
    if any(one.inputs._version != one.version for one in passed.values()):
        raise NotAChainError("the model writes over a layer's input")
    return value, passed


def _links(
    problem: Problem, value: Tensor, passed: dict[NeuronLayer, _Passed], dtype: torch.dtype
) -> tuple[list[Link], Tensor, Tensor]:
    """All layers, in their order, the last one's output, and the loss's slope in it, with its graph."""
    inputs, outputs = [one.inputs for one in passed.values()], [one.outputs for one in passed.values()]
    if any(tensor.dtype != dtype for tensor in (*inputs, *outputs)) or inputs[0].requires_grad:
        raise NotAChainError("the first layer's input depends on parameters, or dtypes differ")
    if {node.variable for node in behind([value]) if hasattr(node, "variable")} != {outputs[-1]}:
        raise NotAChainError("the loss depends on more than the last layer's output")
    pairs = list(zip(inputs[1:], outputs, strict=False))
    if not all(h.shape == before.shape and _elementwise(h, before) for h, before in pairs):
        raise NotAChainError("what lies between two layers is not elementwise")
    (slope,) = torch.autograd.grad(value, outputs[-1], create_graph=True)
    slopes: list[Tensor] = []
    if pairs:
        ones = [torch.ones_like(h) for h in inputs[1:]]
        pulled = pullback(inputs[1:], outputs[:-1], ones, create_graph=True)
        slopes = [f for f in pulled if f is not None]  # as each of them is
    deltas: list[Tensor] = [slope.detach()]
    backs: list[Tensor] = []
    for neuron, f in zip(reversed(passed), reversed(slopes), strict=False):
        backs.insert(0, deltas[0] @ neuron.module.weight.detach())
        deltas.insert(0, backs[0] * f.detach())
    bends = _bends(slopes, outputs, backs)
    number: dict[Tensor, int] = {parameter: index for index, parameter in enumerate(problem.parameters)}
    found = []
    flat = [[tensor.detach().flatten(0, -2) for tensor in tensors] for tensors in (inputs, deltas, slopes)]
    curved = [None if bend is None else bend.flatten(0, -2) for bend in bends]
    for neuron, h, delta, curve, bend in zip(passed, flat[0], flat[1], [None, *flat[2]], [None, *curved], strict=True):
        module = neuron.module
        places = [number[module.weight]] + ([number[module.bias]] if neuron.has_bias else [])
        found.append(Link(tuple(places), h, module.weight.detach(), delta, curve, bend))
    return found, outputs[-1], slope


def _bends(slopes: Sequence[Tensor], outputs: Sequence[Tensor], backs: Sequence[Tensor]) -> list[Tensor | None]:
    """Each slope's derivative times what reaches it; `None` where it is zero, as with pieces of straight lines."""
    bent = [index for index, slope in enumerate(slopes) if slope.requires_grad]
    found: list[Tensor | None] = [None] * len(slopes)
    if bent:
        chosen = ([tensors[index] for index in bent] for tensors in (slopes, outputs, backs))
        for index, bend in zip(bent, pullback(*chosen), strict=True):
            found[index] = bend if bend is not None and bool(bend.any()) else None
    return found


def _elementwise(tensor: Tensor, leaf: Tensor) -> bool:
    """Whether a tensor is made of a leaf by functions of one number alone."""
    node: Any = tensor.grad_fn
    while node is not None and node.name() in ELEMENTWISE:
        ((node, _),) = node.next_functions
    return node is not None and getattr(node, "variable", None) is leaf
