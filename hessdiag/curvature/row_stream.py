"""Statistics of every row of a Hessian that has linear layers, step by step: a run may end after any, or go on later.

Neurons of linear layers go through neuron space, a few at a time; all other parameters have a row by a product each.
What was done first is a sample of all, if neurons come in such an order: some of every layer, then layers together.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.neuron_layers import spans
from hessdiag.curvature.neuron_space import Factor, NeuronSpace
from hessdiag.linalg import diagonals
from hessdiag.machine import capacity, processes

FEW = 5  # neurons that are no sample of more
ENOUGH = 12  # neurons of a wide layer that come before the rest of any
LINE = 8  # numbers to whose multiples the columns of a product are filled up


@dataclass(frozen=True)
class Step:
    """Some neurons of one layer, or some rows of other parameters.

    Attributes:
        layer: Which neuron layer; `None` for rows by products.
        start: First neuron, or first place among the other rows.
        stop: Past the last.
        work: Multiplications, roughly.
    """

    layer: int | None
    start: int
    stop: int
    work: float


@dataclass(frozen=True)
class DoneRows:
    """The rows that are known before all are, as a sample of them.

    An entry between two layers is in the rows of one of them alone, and counts twice there, so that sums over all rows
    are those of the whole matrix.

    Attributes:
        indices: Parameters, (rows,).
        diagonal: H_ii, (rows,).
        sums: Absolute sums over the columns of each layer, (rows, L).
        units: What was drawn: for a row of a linear layer the first weight of its neuron, else the row itself.
    """

    indices: NDArray[np.int64]
    diagonal: NDArray[np.float64]
    sums: NDArray[np.float64]
    units: NDArray[np.int64]


class RowStream:
    """Diagonal and absolute sums of every row, in memory linear in the number of parameters.

    Args:
        operator: The Hessian.
        space: Its certified neuron space.
        others: The parameters outside of it, in the order in which they are taken.
        least: How many of them come before most neurons.

    Attributes:
        steps: All that this process has to do, in order.
        done: How many of them are done.
        diagonal: H_ii of what is done, by the places of `space`, (N,), float64.
        sums: Absolute sums over the columns of each layer, (L, N), float64.
    """

    def __init__(self, operator: HessianOperator, space: NeuronSpace, others: Tensor, least: int = 0) -> None:
        self._operator, self.space, self.others = operator, space, others
        problem = operator.problem
        self._layers = problem.layer_slices
        self._owner = torch.cat([torch.full((layer.size,), index) for index, layer in enumerate(self._layers)])
        self._linear = [neuron.layer for neuron in space.layers]
        self._owners = [self._layers.index(layer) for layer in self._linear]
        self._places = space.places.to(operator.device)
        self._others_there, self._owner_there = others.to(operator.device), self._owner.to(operator.device)
        n, count = problem.n_parameters, len(self._layers)
        self.diagonal = torch.zeros(n, dtype=torch.float64, device=operator.device)
        self.sums = torch.zeros(count, n, dtype=torch.float64, device=operator.device)
        self.steps = self._schedule(least)
        self.done = 0
        # By whether steps are about neurons. All steps are not looked at anew after each: there can be many.
        self._total, self._past = self._work(len(self.steps)), self._work(0)
        self._spent = {True: [0.0, 0.0], False: [0.0, 0.0]}  # seconds and work here, without what was there before

    @property
    def products(self) -> int:
        """Hessian-vector products of what is done in all processes, a neuron's tangents not counted."""
        if self.done == len(self.steps):
            return len(self.others)
        return sum(step.stop - step.start for step in self.steps[: self.done] if step.layer is None)

    @property
    def fraction(self) -> float:
        """How much of the time is over, by what steps of the same kind have taken."""
        rates = {kind: seconds / work if work else 0.0 for kind, (seconds, work) in self._spent.items()}
        known = max(rates.values()) or 1.0
        past, whole = (
            sum((rates[kind] or known) * work for kind, work in works.items()) for works in (self._past, self._total)
        )
        return past / (whole or 1.0)

    def advance(self) -> int:
        """Do the next step; the number of rows that it was about."""
        step, began = self.steps[self.done], time.perf_counter()
        if step.layer is None:
            self._add_rows(step.start, step.stop)
        else:
            self._add_neurons(step.layer, step.start, step.stop)
        self.done += 1
        spent = self._spent[step.layer is not None]
        spent[0] += time.perf_counter() - began
        spent[1] += step.work
        self._past[step.layer is not None] += step.work
        return (step.stop - step.start) * (1 if step.layer is None else self._width(step.layer))

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """What `resume` takes."""
        return {"diagonal": self.diagonal.cpu().numpy(), "sums": self.sums.cpu().numpy()}

    def resume(self, done: int, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        """Go on after so many steps, of a stream of the same problem."""
        self.done, self._past = done, self._work(done)
        self.diagonal.copy_(torch.from_numpy(arrays["diagonal"]))
        self.sums.copy_(torch.from_numpy(arrays["sums"]))

    def finished(self) -> tuple[Tensor, Tensor]:
        """Diagonal (N,) and sums (N, L) of all rows, once every process has done its steps."""
        processes.total(self.diagonal)
        processes.total(self.sums)
        diagonal, sums = torch.empty_like(self.diagonal), torch.empty_like(self.sums)
        diagonal[self._places] = self.diagonal
        sums[:, self._places] = self.sums
        return diagonal.cpu(), sums.T.contiguous().cpu()

    def whole(self) -> Tensor:
        """Which rows have all their entries now, (N,): those by products, and of neurons after all that lie below."""
        found = torch.zeros(len(self._owner), dtype=torch.bool)
        found[self._others_done()] = True
        parameters, below = self._places.cpu(), self.products == len(self.others)
        for index, neuron in enumerate(self.space.layers):
            count = self._neurons_done(index)
            if below:
                found[parameters[neuron.weights(0, count)]] = True
                if neuron.has_bias:
                    found[parameters[neuron.biases(0, count)]] = True
            below = below and count == neuron.outputs
        return found

    def sample(self) -> DoneRows:
        """The rows that are known now. Of one process; what a step that was broken off has added does not matter."""
        rows = np.zeros(0, dtype=np.int64)
        places, units = [rows], [rows]
        factors = [np.zeros((0, len(self._layers)))]
        weights = np.ones(len(self._layers))
        weights[self._owners] = 2.0
        own = self._others_done().numpy()
        places.append(own)
        units.append(own)
        factors.append(np.tile(weights, (len(own), 1)))
        parameters = self._places.cpu().numpy()
        for index, neuron in enumerate(self.space.layers):
            count = self._neurons_done(index)
            if count < beginning(neuron.outputs):
                continue  # no sample yet
            inside = [np.arange(part.start, part.stop) for part in (neuron.weights(0, count), neuron.biases(0, count))]
            inside = inside if neuron.has_bias else inside[:1]
            first = parameters[inside[0]].reshape(count, neuron.inputs)[:, 0]
            weights = np.zeros(len(self._layers))
            weights[self._owners[index]] = 1.0
            weights[self._owners[index + 1 :]] = 2.0
            places += inside
            units += [np.repeat(first, neuron.inputs), first][: len(inside)]
            factors.append(np.tile(weights, (sum(map(len, inside)), 1)))
        place = np.concatenate(places)
        sums = self.sums.cpu().numpy()[:, place].T * np.concatenate(factors)
        return DoneRows(parameters[place], self.diagonal.cpu().numpy()[place], sums, np.concatenate(units))

    def _neurons_done(self, index: int) -> int:
        """How many neurons of a layer are done, from the first one."""
        return max((step.stop for step in self.steps[: self.done] if step.layer == index), default=0)

    def _others_done(self) -> Tensor:
        """Which of the other rows are done."""
        done = [step for step in self.steps[: self.done] if step.layer is None]
        return torch.cat([self.others[:0], *(self.others[step.start : step.stop] for step in done)])

    def _work(self, steps: int) -> dict[bool, float]:
        """Of so many steps, by whether they are about neurons."""
        found = {True: 0.0, False: 0.0}
        for step in self.steps[:steps]:
            found[step.layer is not None] += step.work
        return found

    def _width(self, index: int) -> int:
        """Rows of each neuron of a layer."""
        return self.space.layers[index].inputs + self.space.layers[index].has_bias

    def _schedule(self, least: int) -> list[Step]:
        rank, size = processes.ranks()
        first: list[tuple[float, Step]] = []
        rest: list[tuple[float, Step]] = []
        for index, neuron in enumerate(self.space.layers):
            begin, end = rank * neuron.outputs // size, (rank + 1) * neuron.outputs // size
            together = self.space.neurons_per_pass(index)
            start = min(begin + beginning(neuron.outputs), end)
            first += [(low - begin, self._neurons(index, low, high)) for low, high in spans(begin, start, together)]
            for low, high in spans(start, end, together):
                rest.append(((high - begin) / (end - begin), self._neurons(index, low, high)))
        rows = processes.least(self._operator.chunk, self._operator.device)  # of the same passes each process has some
        early, late = (
            [self._rows(low, high) for low, high in spans(start, stop, rows)]
            for start, stop in ((0, least), (least, len(self.others)))
        )
        for steps in (first, rest):
            steps.sort(key=lambda pair: pair[0])
        mine = {id(step) for index, step in enumerate([*early, *late]) if processes.is_own(index)}
        every = [*(step for _, step in first), *early, *(step for _, step in rest), *late]
        return [step for step in every if step.layer is not None or id(step) in mine]

    def _neurons(self, index: int, start: int, stop: int) -> Step:
        layers, samples = self.space.layers, float(self.space.samples)
        width = self._width(index)
        rows = (layers[index].outputs - start) * width + sum(other.layer.size for other in layers[index + 1 :])
        tangents = 12.0 * sum(other.layer.size for other in layers)
        return Step(index, start, stop, samples * (stop - start) * (width * rows + tangents))

    def _rows(self, start: int, stop: int) -> Step:
        return Step(None, start, stop, 12.0 * self.space.samples * self._operator.shape[0] * (stop - start))

    def _add_neurons(self, index: int, first: int, last: int) -> None:
        """What some neurons have with all later ones of their layer, and with the layers above."""
        if capacity.of(self._operator.device).gathers:
            self._add_sums(index, first, last)
            return
        owner, diagonal, sums = self._owner, self.diagonal, self.sums
        for panel in self.space.panels_of(index, first, last):
            row_layer, column_layer = int(owner[panel.rows.start]), int(owner[panel.columns.start])
            above = panel.rows.start - panel.columns.start
            if not panel.mirrored and 0 <= above < panel.columns.stop - panel.columns.start:
                diagonal[panel.rows] = panel.block.flatten(1).diagonal(above).double()
            block = panel.block.abs_()
            sums[column_layer, panel.rows] += block.sum(2).sum(1)
            if panel.mirrored:
                sums[row_layer, panel.columns] += block.sum(0).flatten()

    def _add_sums(self, index: int, first: int, last: int) -> None:
        """The same by sums of whole panels."""
        own, neuron = self._owners[index], self.space.layers[index]
        for found in panel_sums(self.space, index, first, last):
            rows = found.factor.rows
            self.sums[own, rows] += found.rows
            if found.diagonal is not None:
                place, values = found.diagonal
                self.diagonal[place] = values
            if found.columns is not None:
                other = int(self._owner[rows.start])
                weights = self.sums[other, neuron.weights(*found.factor.neurons)].view(-1, neuron.inputs)
                weights += found.columns[:, : neuron.inputs]
                if neuron.has_bias:
                    self.sums[other, neuron.biases(*found.factor.neurons)] += found.columns[:, neuron.inputs]

    def _add_rows(self, start: int, stop: int) -> None:
        """Diagonal and sums of some rows by products, and what they add to the sums of the linear layers' rows."""
        rows = self._others_there[start:stop]
        block = self._operator.rows(rows)
        self.diagonal[rows] = diagonals.of_rows(block, rows)
        block = block.abs_()
        self.sums[:, rows] = torch.stack([block[:, own.start : own.stop].sum(1) for own in self._layers]).double()
        owners = self._owner_there[rows]
        for owned in sorted(set(self._owner[self.others[start:stop]].tolist())):
            if capacity.of(block.device).gathers:  # an index would wait for how many there are
                mine = (owners == owned).to(block.dtype) @ block
            else:
                mine = block[owners == owned].sum(0)
            for layer in self._linear:
                inside = slice(layer.start, layer.stop)
                self.sums[owned, inside] += mine[self._places[inside]]


def beginning(neurons: int) -> int:
    """How many neurons of a layer come before the rest of any: with fewer, nothing is said of it.

    >>> [beginning(neurons) for neurons in (3, 10, 20, 100)]
    [3, 5, 10, 12]
    """
    return min(neurons, max(FEW, min(ENOUGH, neurons // 2)))


@dataclass(frozen=True)
class PanelSums:
    """Of H[rows, weights and biases of some neurons], in absolute values: sums, and the diagonal.

    Where a panel's traffic takes longer than its arithmetic it is written once and read twice, its absolute values are
    nowhere, and weights and biases of a neuron are columns of one product, filled up to whole lines of memory.

    Attributes:
        factor: Which entries.
        rows: Sums over the columns, (rows,).
        columns: Sums over the rows, (neurons, inputs and bias); `None` where the entries are not mirrored.
        diagonal: Entries of H's diagonal among them, and their places; `None` where there are none.
    """

    factor: Factor
    rows: Tensor
    columns: Tensor | None
    diagonal: tuple[slice, Tensor] | None


def panel_sums(space: NeuronSpace, lower: int, first: int, last: int) -> Iterator[PanelSums]:
    """Of all panels of neurons `first` to `last` of a layer, as `NeuronSpace.panels_of` has them."""
    ones = space.ones[lower]
    width = ones.shape[1]
    filled = torch.nn.functional.pad(ones, (0, -width % LINE))
    for factor in space.factors_of(lower, first, last):
        right = factor.right
        block = space.buffer(1, *right.shape[:2], filled.shape[1])
        torch.mm(right.flatten(0, 1), filled, out=block.flatten(0, 1))
        space.rescale(block, lower, factor)
        columns = torch.linalg.vector_norm(block, 1, dim=1)[:, :width] if factor.mirrored else None
        rows = torch.linalg.vector_norm(block, 1, dim=(0, 2))
        diagonal = _diagonal(space, lower, factor)
        if diagonal is not None and space.scale is not None:
            diagonal = diagonal[0], diagonal[1] * space.scale[diagonal[0]].square()
        yield PanelSums(factor, rows, columns, diagonal)


def _diagonal(space: NeuronSpace, lower: int, factor: Factor) -> tuple[slice, Tensor] | None:
    """H_ii of the factor's rows, where they are rows of its neurons."""
    own, h = space.layers[lower], space.inputs[lower]
    (start, stop), rows = factor.neurons, factor.rows
    count = rows.stop - rows.start
    biases = own.biases(start, stop)
    if biases.start <= rows.start < biases.stop and own.has_bias:
        offset = rows.start - biases.start
        return rows, factor.right[offset : offset + count].diagonal(dim1=0, dim2=1).sum(0)
    weights = own.weights(start, stop)
    if not weights.start <= rows.start < weights.stop:
        return None
    offset, left = divmod(rows.start - weights.start, own.inputs)
    width = min(count, own.inputs)
    neurons = count // width
    right = factor.right[offset : offset + neurons].view(neurons, neurons, width, -1)
    picked = right.diagonal(dim1=0, dim2=1)  # (inputs, samples, neurons)
    return rows, torch.linalg.vecdot(picked, h[left : left + width, :, None], dim=1).T.flatten()
