"""Tangents of neuron space in a chain of linear layers, by two matrix products for each pair of layers.

A tangent e_i of layer l's pre-activations runs up the chain and, from the loss, down again. With R its derivative,

    R h_m = f'(z_(m-1)) R z_(m-1),    R z_m = W_m R h_m,
    R delta_(m-1) = f' W_m' R delta_m + f'' (W_m' delta_m) R z_(m-1)

so that C_ml is R h_m and A_lm is R delta_m: samples stay last, as neuron space wants them. Autograd, twice backwards,
takes several times as long, for its nodes and for turning what it gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hessdiag.curvature.chains.layer_chain import LayerChain, NotAChainError
from hessdiag.curvature.neuron_layers import NeuronLayer, batched_or_refuse
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem


@dataclass(frozen=True)
class _Link:
    """A layer beyond the first, with the function before it, of all batches; samples last.

    Attributes:
        weight: W, (outputs, inputs).
        slope: f' of the function that made the inputs, (inputs, samples).
        bend: f'' times what reaches the inputs from above, with the weights of the batches, likewise; `None` if zero.
    """

    weight: Tensor
    slope: Tensor
    bend: Tensor | None


class ChainTangents:
    """Derivatives of a chain's loss in the space of its layers' pre-activations.

    Args:
        problem: All of whose parameters belong to linear layers that see one vector per sample.
        layers: They, in the order of their parameters, which is that of their execution.

    Attributes:
        inputs: h_{l-1} of each layer, (samples, d_{l-1}).
        cotangents: delta_l of each, (d_l, samples), with the weights of the batches.

    Raises:
        NotAChainError: if it is no such chain.
    """

    def __init__(self, problem: Problem, layers: Sequence[NeuronLayer]) -> None:
        self._weights = problem.batch_weights
        self._chains = [LayerChain(problem, batch, problem.dtype) for batch in problem.data]
        for chain, batch in zip(self._chains, problem.data, strict=True):
            if [link.places[0] for link in chain.links] != sorted(link.places[0] for link in chain.links):
                raise NotAChainError("layers run in another order than they are registered")
            if chain.output.ndim != 2 or any(len(link.inputs) != batches.samples(batch) for link in chain.links):
                raise NotAChainError("a layer does not see one vector per sample")
        links = list(zip(*(chain.links for chain in self._chains), strict=True))  # by layers, then batches
        self.inputs = [torch.cat([link.inputs for link in parts]) for parts in links]
        self.cotangents = [
            torch.cat([w * link.delta for w, link in zip(self._weights, parts, strict=True)]).T.contiguous()
            for parts in links
        ]
        self._links = []
        for parts in links[1:]:
            bends = [
                w * (torch.zeros_like(link.inputs) if link.bend is None else link.bend)
                for w, link in zip(self._weights, parts, strict=True)
            ]
            slope = torch.cat([link.slope for link in parts if link.slope is not None]).T.contiguous()
            bend = torch.cat(bends).T.contiguous() if any(link.bend is not None for link in parts) else None
            self._links.append(_Link(parts[0].weight, slope, bend))

    def tangents(self, lower: int, neurons: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """A_lm (neurons, d_m, samples) and C_ml (neurons, d_{m-1}, samples) for m >= l, C for m > l.

        Raises:
            NotInNeuronSpaceError: if an operation of the loss cannot be batched.
        """
        links, count = self._links[lower:], len(neurons)
        z = self.cotangents[lower].new_zeros(count, *self.cotangents[lower].shape)
        z[torch.arange(count), neurons] = 1.0
        ahead = [z]  # R z
        C: list[Tensor | None] = [None]  # R h
        for link in links:
            h = ahead[-1] * link.slope
            C.append(h)
            ahead.append(torch.bmm(link.weight.expand(count, -1, -1), h))
        A = [self._of_loss(ahead[-1])]
        for link, z in zip(reversed(links), reversed(ahead[:-1]), strict=True):
            back = torch.bmm(link.weight.T.expand(count, -1, -1), A[-1]).mul_(link.slope)
            A.append(back if link.bend is None else back.addcmul_(link.bend, z))
        return A[::-1], C

    def _of_loss(self, z: Tensor) -> Tensor:
        """R delta of the last layer from its R z, (neurons, outputs, samples)."""
        found, moved = [], torch.split(z.mT, [len(chain.output) for chain in self._chains], dim=1)
        for weight, chain, part in zip(self._weights, self._chains, moved, strict=True):
            (own,) = batched_or_refuse([chain.slope], [chain.output], [part])
            found.append(torch.zeros_like(part) if own is None else weight * own)
        return torch.cat(found, dim=1).mT.contiguous()
