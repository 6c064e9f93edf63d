"""Exact norms of the layer blocks of linear layers, from pairs of samples: no block is formed.

In neuron space a block is a sum over samples b of h_{l-1}^b (x) (A_lm^b h_{m-1}^b + delta_m^b C_ml^b), so that its
squared norm is a sum over pairs (b, e) of samples of <h_{l-1}^b, h_{l-1}^e> times

    <A^b, A^e> <h_{m-1}^b, h_{m-1}^e> + <delta^b, delta^e> <C^b, C^e> + 2 (h_{m-1}^b)' C^e A^b delta^e

(docs/concepts/block-norms.md). For the Gauss-Newton matrix, A is P_l' B P_m with P the Jacobian of the output, and
there is no C; for the residual, A is the difference of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.curvature.differences import reason
from hessdiag.curvature.gauss_newton import GaussNewtonOperator, gauss_newton
from hessdiag.curvature.neuron_layers import NeuronLayer, NotInNeuronSpaceError, batched_or_refuse, shifted, spans
from hessdiag.curvature.neuron_space import NeuronSpace
from hessdiag.curvature.pullback import pullback
from hessdiag.linalg.tridiagonal import safe_norm
from hessdiag.problem.measuring import measuring
from hessdiag.problem.problem import Problem

PAIR_NUMBERS = 2**24  # numbers of the products of neurons with pairs of samples that are held at a time
CANCELLED = 1e-8  # of a squared norm: rounding in its sum over pairs that is still put up with
NOTHING = 1e-13  # of the Hessian's norm: what is below is rounding anyway


@dataclass(frozen=True)
class LayerBlocks:
    """The blocks of one neuron layer with itself and with the neuron layers above, for K = H, or H, G and H - G.

    Attributes:
        squares: |K_lm|_F^2, (kinds, layers from this one on).
        rounding: Sum of the magnitudes of what was summed for each: times machine precision, the error of `squares`.
        trace: tr H_ll.
        mass: Sum of |H_ii|.
    """

    squares: Tensor
    rounding: Tensor
    trace: float
    mass: float


def refuse_cancelled(squares: Tensor, rounding: Tensor) -> None:
    """Make sure that rounding is small beside each matrix's norm.

    Args:
        squares: Of all blocks, (kinds, L, L).
        rounding: As in `LayerBlocks`, likewise.

    Raises:
        NotInNeuronSpaceError: if the parts of samples nearly cancel.
    """
    error = torch.finfo(torch.float64).eps * rounding.sum((1, 2))
    totals = squares.sum((1, 2))
    if bool((error > (CANCELLED * totals).clamp(min=float(NOTHING**2 * totals[0]))).any()):
        raise NotInNeuronSpaceError("the parts of single samples nearly cancel")


class OutputSpace:
    """The Gauss-Newton matrix in the space of the linear layers' pre-activations.

    Args:
        problem: A problem with a loss of the output.
        layers: Those of its neuron space.

    Raises:
        NotInNeuronSpaceError: if an operation cannot be batched, or the output does not reach every layer.
    """

    def __init__(self, problem: Problem, layers: list[NeuronLayer]) -> None:
        with measuring(problem.device):
            self._graphs = [
                _OutputGraph(problem, batch, weight, layers)
                for weight, batch in zip(problem.batch_weights, problem.data, strict=True)
            ]

    def tangents(self, lower: int, first: int, last: int) -> list[Tensor]:
        """P_l' B P_m for m >= l and some neurons of l, (neurons, d_m, samples)."""
        parts = [graph.tangents(lower, first, last) for graph in self._graphs]
        return [torch.cat(pieces, dim=1).mT.contiguous() for pieces in zip(*parts, strict=True)]


class _OutputGraph:
    """One batch's output, with the graph that leads to the pre-activations."""

    def __init__(self, problem: Problem, batch: Any, weight: float, layers: list[NeuronLayer]) -> None:
        sandwich, _, self._shifts = shifted(layers, batch, lambda: gauss_newton(problem, batch))
        if not sandwich.outputs:
            raise NotInNeuronSpaceError("the loss uses no output")
        self._weight, self._outputs, self._middle = weight, sandwich.outputs, sandwich.middle
        self._duals = [torch.zeros_like(output, requires_grad=True) for output in sandwich.outputs]
        slopes = pullback(self._outputs, self._shifts, self._duals, create_graph=True)
        self._slopes = [
            torch.zeros_like(shift) if slope is None else slope
            for slope, shift in zip(slopes, self._shifts, strict=True)
        ]

    def tangents(self, lower: int, first: int, last: int) -> list[Tensor]:
        """As `OutputSpace.tangents`, with samples in the middle."""
        shift = self._shifts[lower]
        units = shift.new_zeros(last - first, *shift.shape)
        units[:, :, first:last].diagonal(dim1=0, dim2=2).fill_(1.0)
        rest = self._shifts[lower:]
        ahead = batched_or_refuse([self._slopes[lower]], self._duals, [units])
        found: list[Tensor | None] = [None] * len(rest)
        if any(part is not None for part in ahead):
            slopes = [
                dual.new_zeros(last - first, *dual.shape) if part is None else part
                for part, dual in zip(ahead, self._duals, strict=True)
            ]
            found = batched_or_refuse(self._outputs, rest, [self._weight * part for part in self._middle(slopes)])
        return [
            units.new_zeros(last - first, *other.shape) if part is None else part
            for part, other in zip(found, rest, strict=True)
        ]


def operations(problem: Problem, layers: list[NeuronLayer]) -> float:
    """Floating-point operations that all `layer_blocks` take, to leading order: tangents, and pairs of samples."""
    neurons, samples = sum(layer.outputs for layer in layers), problem.n_samples
    tangents = 24.0 * neurons * samples * problem.n_parameters  # four passes of 6 operations per weight and sample
    return tangents + 7.0 * samples**2 * neurons**2


def sample_products(space: NeuronSpace) -> list[Tensor]:
    """Inner products of all pairs of samples as each layer sees them, (samples, samples) in float64."""
    return [ones.double() @ ones.double().T for ones in space.ones]


def layer_blocks(space: NeuronSpace, outputs: OutputSpace | None, grams: Sequence[Tensor], lower: int) -> LayerBlocks:
    """Squared norms of the blocks of one neuron layer with itself and those above, in float64.

    Args:
        space: Certified.
        outputs: For the split into Gauss-Newton part and residual; `None` for the Hessian alone.
        grams: Of the samples, from `sample_products`.
        lower: Which layer.
    """
    count, layer = len(space.layers) - lower, space.layers[lower]
    squares, rounding = torch.zeros(2, 1 if outputs is None else 3, count, dtype=torch.float64, device=space.device)
    step = min(space.neurons_per_pass(lower), max(1, PAIR_NUMBERS // space.samples**2))
    entries = []
    for first, last in spans(0, layer.outputs, step):
        A, C = space.tangents(lower, first, last)
        G = None if outputs is None else outputs.tangents(lower, first, last)
        for place in range(count):
            upper, mine, slope = lower + place, A[place].double(), C[place]
            slope = None if slope is None else slope.double()
            parts = [(mine, slope)]
            if G is not None:
                smooth = G[place].double()
                parts += [(smooth, None), (mine - smooth, slope)]
            for kind, part in enumerate(parts):
                terms = _terms(space, upper, *part)
                weighted = terms[0] * grams[upper] + terms[1]
                squares[kind, place] += (grams[lower] * weighted).sum()
                size = terms[0].abs() * grams[upper].abs() + terms[2]
                rounding[kind, place] += (grams[lower].abs() * size).sum()
        entries.append(A[0][:, first:last].diagonal().T.double())  # A_ll[i, i] of each sample
    diagonal = torch.cat(entries) @ space.ones[lower].double().square()
    return LayerBlocks(squares.clamp(min=0), rounding, float(diagonal.sum()), float(diagonal.abs().sum()))


def _terms(space: NeuronSpace, upper: int, A: Tensor, C: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """For each pair of samples <A^b, A^e>; what C adds; and the magnitude of that. All (samples, samples)."""
    flat = A.flatten(0, 1)
    inner = flat.T @ flat
    if C is None:
        return inner, torch.zeros_like(inner), torch.zeros_like(inner)
    h, delta = space.inputs[upper].double(), space.cotangents[upper].double()
    flat = C.flatten(0, 1)
    residual = (delta.T @ delta) * (flat.T @ flat)
    mixed = ((h.T @ C) * (A.mT @ delta)).sum(0)
    return inner, residual + 2 * mixed, residual.abs() + 2 * mixed.abs()


def certificate(space: NeuronSpace, outputs: OutputSpace, operator: GaussNewtonOperator, seed: int = 0) -> float:
    """Largest relative distance between `outputs` and ordinary products, over one random neuron of each layer."""
    generator = torch.Generator().manual_seed(seed)
    distances = [0.0]
    for lower, layer in enumerate(space.layers):
        i, v = space.random_neuron(layer, generator)
        expected, found = (operator @ v).double(), torch.zeros(len(v), dtype=torch.float64, device=v.device)
        own = v[layer.weights(i, i + 1)]
        if layer.has_bias:
            own = torch.cat([own, v[layer.biases(i, i + 1)]])
        weight = space.ones[lower] @ own  # (samples,)
        seen = torch.zeros(len(v), dtype=torch.bool, device=v.device)
        for upper, A in enumerate(outputs.tangents(lower, i, i + 1), start=lower):
            other = space.layers[upper]
            block = ((A[0] * weight) @ space.ones[upper]).double()
            place = other.weights(0, other.outputs)
            found[place], seen[place] = block[:, : other.inputs].flatten(), True
            if other.has_bias:
                place = other.biases(0, other.outputs)
                found[place], seen[place] = block[:, other.inputs], True
        distances.append(safe_norm((found - expected)[seen]) / (safe_norm(expected[seen]) or 1.0))
    return float(torch.tensor(distances).max())  # unlike that of Python, it keeps a NaN


def output_space(space: NeuronSpace, operator: GaussNewtonOperator, tolerance: float) -> OutputSpace:
    """The certified Gauss-Newton matrix in neuron space.

    Raises:
        NotInNeuronSpaceError: with the reason, if it disagrees with ordinary products.
    """
    try:
        outputs = OutputSpace(space.problem, space.layers)
        distance = certificate(space, outputs, operator)
    except (RuntimeError, MemoryError) as error:
        raise NotInNeuronSpaceError(reason(error)) from error
    if not distance <= tolerance:
        raise NotInNeuronSpaceError(f"Gauss-Newton products differ by {distance:.1e}")
    return outputs
