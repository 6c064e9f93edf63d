"""The exact Hessian of linear layers from one tangent per neuron, instead of one per weight.

A linear layer that sees one vector per sample reaches the loss through its pre-activations a_l alone, and samples do
not mix. So its Hessian blocks are, with weights W_l[i, j],

    H_lm[(i,j), (i',j')] = sum_b h_{l-1}^b[j] ( A_lm^b[i,i'] h_{m-1}^b[j'] + 1{l<m} delta_m^b[i'] C_ml^b[j',i] )

where A is the second derivative of the loss with respect to pre-activations, delta its gradient, and C the Jacobian of
the later layer's inputs. A tangent e_i, the same for all samples, yields row i of A and column i of C for all samples
at once. All rows of one neuron are then one matrix product of inputs (d_{l-1}, B) with (B, N_m). A bias is a constant
input of 1.

Everything is reverse over reverse: forward-mode derivatives of some layers are wrong in torch.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.chains.layer_chain import NotAChainError
from hessdiag.curvature.chains.tangents import ChainTangents
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import NeuronLayer, batched_or_refuse, neuron_layers, shifted, spans
from hessdiag.curvature.pullback import pullback
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.machine import capacity
from hessdiag.machine.pages import large_pages
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.measuring import measuring
from hessdiag.problem.problem import Problem

TANGENT_NUMBERS = 2**24  # numbers that the tangents of one pass may hold
CERTIFIED = {torch.float64: 1e-8, torch.float32: 1e-3}


@dataclass(frozen=True)
class Panel:
    """Entries H[rows, columns]. If `mirrored`, H[columns, rows] is not among the other panels.

    The block has the shape (rows, neurons, columns of each); it lies in a buffer that the next panel overwrites.
    """

    rows: slice
    columns: slice
    block: Tensor
    mirrored: bool


@dataclass(frozen=True)
class Factor:
    """Half of a product: H[rows, weights and biases of neurons] is `right` times the layer's inputs.

    Attributes:
        rows: Places of parameters of one neuron or of several whole ones, or of biases.
        neurons: First neuron, and past the last.
        right: (neurons, rows, samples); it lies in a buffer that the next one overwrites.
        mirrored: As of a `Panel`.
    """

    rows: slice
    neurons: tuple[int, int]
    right: Tensor
    mirrored: bool


class NeuronSpace:
    """Derivatives of a problem's loss in the space of its linear layers' pre-activations.

    Args:
        problem: A problem with at least one linear layer that sees one vector per sample.
        scale: P^(-1/2), (N,), for panels of P^(-1/2) H P^(-1/2); `None` for those of H.

    Attributes:
        layers: The linear layers, in the order of their parameters.
        samples: How many there are in all batches.
        inputs: h_{l-1} of each layer, (d_{l-1}, samples).
        ones: The same with the samples first, and a column of ones where there is a bias.
        cotangents: delta_l of each, (d_l, samples), with the weights of the batches.
        order: The neurons of each layer in the order in which they are taken; `None` as they are.
        scale: As given, by places.

    Raises:
        NotInNeuronSpaceError: if there is no such layer, or an operation cannot be batched.
    """

    def __init__(self, problem: Problem, scale: Tensor | None = None) -> None:
        self.problem = problem
        self.scale = None if scale is None else scale.to(problem.dtype)
        self.layers = neuron_layers(problem)
        self.dtype, self.device = problem.dtype, problem.device
        with measuring(problem.device):
            self._source = _source(problem, self.layers)
        inputs = self._source.inputs
        self.samples = len(inputs[0])
        self.inputs = [h.T.contiguous() for h in inputs]  # samples last, as the matrix products want them
        self.ones = [
            torch.cat([h, h.new_ones(len(h), 1)], dim=1) if neuron.has_bias else h
            for h, neuron in zip(inputs, self.layers, strict=True)
        ]
        self.cotangents = self._source.cotangents
        self._buffers = torch.empty(2, 0, dtype=self.dtype, device=self.device)
        self.order: list[Tensor] | None = None

    def reordered(self, orders: Sequence[Tensor]) -> "NeuronSpace":
        """The same space with the neurons of every layer in another order.

        Places of parameters are then those of `places`, in panels too.
        """
        other = copy.copy(self)
        other.order = [order.to(self.device) for order in orders]
        other.cotangents = [delta[order] for delta, order in zip(self.cotangents, other.order, strict=True)]
        if self.scale is not None:
            other.scale = self.scale[other.places.to(self.device)]
        return other

    @property
    def places(self) -> Tensor:
        """Which parameter each place stands for, (N,)."""
        found = torch.arange(self.problem.n_parameters)
        for neuron, order in zip(self.layers, self.order or [], strict=self.order is not None):
            place, own = neuron.weights(0, neuron.outputs), order.cpu()
            found[place] = found[place].view(neuron.outputs, neuron.inputs)[own].flatten()
            if neuron.has_bias:
                place = neuron.biases(0, neuron.outputs)
                found[place] = found[place][own]
        return found

    @property
    def others(self) -> Tensor:
        """Numbers of the parameters that no neuron layer owns, in order."""
        owned = torch.zeros(self.problem.n_parameters, dtype=torch.bool)
        for neuron in self.layers:
            owned[neuron.layer.start : neuron.layer.stop] = True
        return torch.arange(self.problem.n_parameters)[~owned]

    def panels(self, rank: int = 0, size: int = 1) -> Iterator[Panel]:
        """Every entry between neuron layers once, blocks below the diagonal excepted.

        Args:
            rank: Only the panels of this one of `size` equal parts of every layer's neurons.
            size: See there.
        """
        for lower in range(len(self.layers)):
            neurons = self.layers[lower].outputs
            begin, end = rank * neurons // size, (rank + 1) * neurons // size
            step = self.neurons_per_pass(lower)
            for first, last in spans(begin, end, step):
                yield from self.panels_of(lower, first, last)

    def certificate(self, operator: HessianOperator, seed: int = 0) -> float:
        """Largest relative distance between neuron space and ordinary products, over one random vector per layer."""
        generator = torch.Generator().manual_seed(seed)
        tests = [self.random_neuron(neuron, generator) for neuron in self.layers]
        distances = [0.0]
        for first, last in spans(0, len(tests), operator.chunk):
            products = (operator @ torch.stack([v for _, v in tests[first:last]], dim=1)).to(self.dtype)
            for lower in range(first, last):
                i, v = tests[lower]
                expected, found = products[:, lower - first], torch.zeros_like(v)
                seen = torch.zeros(len(found), dtype=torch.bool)
                for panel in self.panels_of(lower, i, i + 1):
                    block = panel.block.flatten(1)
                    found[panel.rows] += block @ v[panel.columns]
                    seen[panel.rows] = True
                    if panel.mirrored and seen[panel.columns].any():
                        found[panel.columns] += v[panel.rows] @ block
                places = torch.nonzero(seen)[:, 0].to(self.device)
                distances.append(safe_norm((found - expected)[places]) / (safe_norm(expected) or 1.0))
        return float(torch.tensor(distances).max())  # unlike that of Python, it keeps a NaN

    def random_neuron(self, neuron: NeuronLayer, generator: torch.Generator) -> tuple[int, Tensor]:
        """A neuron's number, and a vector (N,) that is random on its parameters and zero elsewhere."""
        i = int(torch.randint(neuron.outputs, (1,), generator=generator))
        v = torch.zeros(self.problem.n_parameters, dtype=torch.float64)
        v[neuron.weights(i, i + 1)] = torch.randn(neuron.inputs, generator=generator, dtype=torch.float64)
        if neuron.has_bias:
            v[neuron.biases(i, i + 1)] = torch.randn(1, generator=generator, dtype=torch.float64)
        return i, v.to(self.device, self.dtype)

    def neurons_per_pass(self, lower: int) -> int:
        """How many tangents of a layer share a pass."""
        numbers = self.samples * sum(other.outputs + other.inputs for other in self.layers[lower:])
        return max(1, TANGENT_NUMBERS // numbers)

    def panels_of(self, lower: int, first: int, last: int, H: Tensor | None = None) -> Iterator[Panel]:
        """Columns of neurons `first` to `last` of one layer against its own later neurons and all layers above.

        Given the whole matrix (N, N), blocks are views of H[columns, rows], where products come: no copy is made of
        them, and what is mirrored is left to do.
        """
        if H is not None:
            yield from self._panels_in(H, lower, first, last)
            return
        own, h = self.layers[lower], self.ones[lower]
        for factor in self.factors_of(lower, first, last):
            right = factor.right
            out = self.buffer(1, *right.shape[:2], h.shape[1])
            torch.mm(right.flatten(0, 1), h, out=out.flatten(0, 1))
            self.rescale(out, lower, factor)
            block = out.transpose(0, 1)
            yield Panel(factor.rows, own.weights(*factor.neurons), block[..., : own.inputs], factor.mirrored)
            if own.has_bias:
                yield Panel(factor.rows, own.biases(*factor.neurons), block[..., own.inputs :], factor.mirrored)

    def _panels_in(self, H: Tensor, lower: int, first: int, last: int) -> Iterator[Panel]:
        own = self.layers[lower]
        for factor in self.factors_of(lower, first, last):
            right = factor.right
            parts = [(own.weights(*factor.neurons), self.inputs[lower])]
            if own.has_bias:
                parts.append((own.biases(*factor.neurons), right.new_ones(1, self.samples)))
            for places, inputs in parts:
                block = H[places, factor.rows]
                out = block.view(len(right), len(inputs), -1)
                torch.bmm(inputs.expand(len(right), *inputs.shape), right.mT, out=out)
                if self.scale is not None:
                    block *= self.scale[places, None]
                    block *= self.scale[factor.rows]
                yield Panel(factor.rows, places, out.permute(2, 0, 1), factor.mirrored)

    def rescale(self, block: Tensor, lower: int, factor: Factor) -> None:
        """Take entries H[columns, rows], (neurons, rows, inputs and bias), into the metric, in place."""
        if self.scale is None:
            return
        own, neurons = self.layers[lower], factor.neurons
        columns = self.scale[own.weights(*neurons)].view(-1, 1, own.inputs)
        block[..., : own.inputs] *= columns
        if own.has_bias:
            block[..., own.inputs] *= self.scale[own.biases(*neurons)].view(-1, 1)
        block *= self.scale[factor.rows].view(1, -1, 1)

    def factors_of(self, lower: int, first: int, last: int) -> Iterator[Factor]:
        """What the layer's inputs are multiplied with in these columns; every factor is used before the next one."""
        A, C = self.tangents(lower, first, last)
        own = self.layers[lower]
        limits = capacity.of(self.device)
        room = max(1, limits.panel_numbers // max(self.samples, own.inputs + own.has_bias))
        for upper, other in enumerate(self.layers[lower:], start=lower):
            for start, stop in spans(first, last, room // (other.outputs * other.inputs)):
                part = slice(start - first, stop - first)
                curvature = A[upper - lower][part]
                slope = C[upper - lower]
                slope = slope[part] if slope is not None else None
                groups = (
                    [(0, other.outputs, True)] if upper > lower else [(start, stop, False), (stop, other.outputs, True)]
                )
                for begin, end, mirrored in groups:
                    for low, high in spans(begin, end, room // (other.inputs * (stop - start))):
                        for left, right in spans(0, other.inputs, room):
                            Y = self._sandwich(upper, curvature, slope, slice(low, high), slice(left, right))
                            rows = other.weights(low, high)
                            if right - left < other.inputs:  # then it is one neuron
                                rows = slice(rows.start + left, rows.start + right)
                            yield Factor(rows, (start, stop), Y.flatten(1, 2), mirrored)
                        if other.has_bias and not limits.gathers:
                            yield Factor(other.biases(low, high), (start, stop), curvature[:, low:high], mirrored)
                    if other.has_bias and limits.gathers:
                        for low, high in spans(begin, end, room // (stop - start)):
                            yield Factor(other.biases(low, high), (start, stop), curvature[:, low:high], mirrored)

    def _sandwich(self, upper: int, A: Tensor, C: Tensor | None, outputs: slice, inputs: slice) -> Tensor:
        """A[i, i'] h[j'] + delta[i'] C[j', i] of each sample, (neurons, outputs, inputs, samples)."""
        h, delta = self.inputs[upper][inputs], self.cotangents[upper][outputs]
        Y = self.buffer(0, len(A), len(delta), len(h), self.samples)
        torch.mul(A[:, outputs, None], h, out=Y)
        if C is not None:
            Y.addcmul_(delta[:, None], C[:, None, inputs])
        return Y

    def buffer(self, index: int, *shape: int) -> Tensor:
        """A part of one of two buffers that all share: fresh memory would cost more than the arithmetic."""
        numbers = math.prod(shape)
        if numbers > self._buffers.shape[1]:
            self._buffers = large_pages(torch.empty(2, numbers, dtype=self.dtype, device=self.device))
        return self._buffers[index, :numbers].view(shape)

    def tangents(self, lower: int, first: int, last: int) -> tuple[list[Tensor], list[Tensor | None]]:
        """A_lm (neurons, d_m, samples) and C_ml (neurons, d_{m-1}, samples) for m >= l, C where h depends."""
        try:
            return self._tangents(lower, first, last)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error) or last - first == 1:
                raise
        middle = (first + last) // 2
        (A, C), (more_A, more_C) = self.tangents(lower, first, middle), self.tangents(lower, middle, last)
        return (
            [torch.cat(halves) for halves in zip(A, more_A, strict=True)],
            [None if c is None or d is None else torch.cat([c, d]) for c, d in zip(C, more_C, strict=True)],
        )

    def _tangents(self, lower: int, first: int, last: int) -> tuple[list[Tensor], list[Tensor | None]]:
        if self.order is None:
            return self._source.tangents(lower, torch.arange(first, last, device=self.device))
        A, C = self._source.tangents(lower, self.order[lower][first:last])
        return [a.index_select(1, order) for a, order in zip(A, self.order[lower:], strict=True)], C


def _source(problem: Problem, layers: list[NeuronLayer]) -> "ChainTangents | _Graphs":
    """What gives tangents: autograd, where the model is no chain of layers."""
    try:
        return ChainTangents(problem, layers)
    except NotAChainError:
        return _Graphs(problem, layers)


class _Graphs:
    """All batches by autograd; attributes and tangents as `ChainTangents` has them."""

    def __init__(self, problem: Problem, layers: list[NeuronLayer]) -> None:
        self._graphs = [
            _Graph(problem, batch, weight, layers)
            for weight, batch in zip(problem.batch_weights, problem.data, strict=True)
        ]
        self.inputs = [torch.cat(parts) for parts in zip(*(graph.inputs for graph in self._graphs), strict=True)]
        deltas = zip(*(graph.cotangents for graph in self._graphs), strict=True)
        self.cotangents = [torch.cat(parts).detach().T.contiguous() for parts in deltas]

    def tangents(self, lower: int, neurons: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """As `NeuronSpace.tangents`, for some neurons."""
        parts = [graph.tangents(lower, neurons) for graph in self._graphs]
        A = [torch.cat(pieces, dim=1).mT.contiguous() for pieces in zip(*(part[0] for part in parts), strict=True)]
        C = [
            torch.cat([piece for piece in pieces if piece is not None], dim=1).mT.contiguous()
            if pieces[0] is not None
            else None
            for pieces in zip(*(part[1] for part in parts), strict=True)
        ]
        return A, C


class _Graph:
    """One batch: inputs and cotangents of every neuron layer, and the graphs that differentiate them again."""

    def __init__(self, problem: Problem, batch: Any, weight: float, layers: list[NeuronLayer]) -> None:
        self.weight = weight
        value, inputs, self.shifts = shifted(layers, batch, lambda: problem.evaluate(batch))
        self.inputs = [h.detach() for h in inputs]
        self.cotangents = torch.autograd.grad(weight * value, self.shifts, create_graph=True, materialize_grads=True)
        # J v by two backward passes: J'u is linear in u, and its derivative along v with respect to u is J v.
        self.duals = [torch.zeros_like(h, requires_grad=True) for h in inputs]
        dependent = [upper for upper, h in enumerate(inputs) if h.requires_grad]
        self.pulled: tuple[Tensor | None, ...] = (None,) * len(layers)
        if dependent:
            outputs, duals = ([tensors[upper] for upper in dependent] for tensors in (inputs, self.duals))
            self.pulled = pullback(outputs, self.shifts, duals, create_graph=True)

    def tangents(self, lower: int, neurons: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """As `NeuronSpace.tangents`, for some neurons, this batch, and with samples in the middle."""
        shift = self.shifts[lower]
        units = shift.new_zeros(len(neurons), *shift.shape)
        units[torch.arange(len(neurons), device=units.device), :, neurons] = 1.0
        return (
            [
                found if found is not None else units.new_zeros(len(neurons), *other.shape)
                for found, other in zip(
                    batched_or_refuse([self.cotangents[lower]], self.shifts[lower:], [units]),
                    self.shifts[lower:],
                    strict=True,
                )
            ],
            batched_or_refuse([self.pulled[lower]], self.duals[lower:], [units]),
        )
