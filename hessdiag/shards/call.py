"""One call of a unit: what it is given and gives beside tensors, how it runs first, and how it runs again alike."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.nn.attention import SDPBackend, sdpa_kernel

from hessdiag.errors import ComputeError
from hessdiag.problem.evaluation.guard import idle_checkpoints
from hessdiag.shards.graphs import PLAIN, hidden, marked, refuse_foreign, refuse_hidden
from hessdiag.shards.kept import Kept
from hessdiag.shards.placeholder import OutsideUnitError
from hessdiag.shards.surroundings import Home, Surroundings, watched, with_graphs
from hessdiag.shards.trees import Form, flattened, put_together
from hessdiag.shards.units import Unit

HERE = object()  # where a tensor is in flat arguments or results


class Call:
    """One call of a unit: what is in its arguments and its results beside tensors, and how often it was run.

    Args:
        unit: The unit.
        form: How the arguments are put together.
        static: The flat arguments, with `HERE` for tensors.
        linear: Whether only cotangents are differentiated with respect to, in the end.
    """

    def __init__(self, unit: Unit, form: Form, static: tuple[Any, ...], *, linear: bool) -> None:
        self.unit, self._form, self._static = unit, form, static
        self.inputs = sum(item is HERE for item in static)
        self._results: tuple[Form, list[Any]] | None = None
        self._left: list[tuple[Home, int]] = []  # where it leaves tensors in modules, and which of the outputs they are
        self._found = Surroundings()
        self._sums: list[Tensor] | None = None
        self.kept = Kept(unit)
        self.linear, self._graph = linear, torch.is_grad_enabled()

    def _run(self, tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors among the results, and then those of its inputs that it writes to."""
        waiting = iter(tensors)
        flat = [next(waiting) if item is HERE else item for item in self._static]
        args, kwargs = put_together(flat, self._form)
        # The fused kernels have no second derivative, a checkpoint would run again once the weights are let go, and
        # functions of autograd switch off the forward derivatives that a module may take of itself.
        with self.unit.filled(weights), sdpa_kernel(SDPBackend.MATH), idle_checkpoints(), _set_fwd_grad_enabled(True):
            found, form = flattened(self.unit.forward(*args, **kwargs))
        refuse_hidden(self.unit, found, "returns")
        after, _ = flattened((args, kwargs))
        if len(after) != len(flat) or any(now is not before for now, before in zip(after, flat, strict=True)):
            # It was given a list or a dict of its own, and whoever waits for what it wrote there would not find it.
            name = self.unit.path or "the model"
            raise OutsideUnitError(self.unit.parameters[0], f"{name} changes a list or dict that it is given.")
        self._results = (form, [item if not isinstance(item, Tensor) else HERE for item in found])
        results = [item for item in found if isinstance(item, Tensor)]
        return (*results, *(tensors[index] for index in sorted(self.unit.writes_to)))

    def _with_left(self, outputs: Sequence[Tensor], earlier: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, and what the unit has left in attributes and buffers, where whoever goes on may look for it."""
        places = {id(output): index for index, output in enumerate(outputs)}
        every = list(outputs)
        for home, item in with_graphs(self.unit.module):
            if any(item is other for other in earlier):
                continue
            if id(item) not in places:
                places[id(item)] = len(every)
                every.append(item)
            self._left.append((home, places[id(item)]))
        return tuple(every)

    def _held(self) -> list[tuple[int, int]]:
        """The tensors in objects among its arguments, and how often each was written to."""
        objects = [item for item in self._static if item is not HERE and not isinstance(item, PLAIN)]
        return [(id(tensor), tensor._version) for item in objects for tensor in hidden(item)]

    def first(self, inputs: Sequence[Tensor], pieces: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results without a graph, and what its writing to its inputs does to them."""
        self.unit.meet()
        (weights,) = self.unit.gathered(pieces)
        own = [tensor.detach().clone() for tensor in inputs]
        every = [*own, *(whole.detach() for whole in weights)]
        before = [tensor._version for tensor in own]
        held = self._held()
        with watched(self.unit.module, pieces[0].device) as self._found, torch.set_grad_enabled(self._graph):
            given = marked(self.unit, every, [*inputs, *pieces])
            earlier = [item for _, item in with_graphs(self.unit.module)]  # held, so that no other takes its place
            outputs = self._run(given.tensors[: len(own)], given.tensors[len(own) :])
            outputs = self._with_left(outputs, earlier)
            refuse_foreign(self.unit, outputs, given.mark)
        if self._held() != held:
            raise ComputeError(
                f"{self.unit.path or 'the model'} keeps tensors in an object that it is given, which would be there "
                "when it runs again, as derivatives of sharded models need.",
                "model.config.use_cache = False, or a model that returns what it keeps",
            )
        self.unit.writes_to |= {i for i, tensor in enumerate(own) if tensor._version != before[i]}
        self._sums = [_sums(output) for output in outputs]
        return _apart([output.detach() for output in outputs], own)

    def again(self, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results with a graph that leads to leaves.

        Raises:
            ComputeError: if they are others than the first time.
        """
        written = self.unit.writes_to
        with self._found.put(weights[0].device):
            kept = [(home, name, home.get(name)) for (home, name), _ in self._left]
            outputs = self._run([x.clone() if i in written else x for i, x in enumerate(inputs)], weights)
            more = {place: home[name] for (home, name), place in self._left if place >= len(outputs)}
            outputs = (*outputs, *more.values())
            for home, name, item in kept:
                home[name] = item
        if self._sums is not None:
            sums, self._sums = self._sums, None  # once is enough: the second time is as the first
            if len(sums) != len(outputs) or not all(map(_same, sums, map(_sums, outputs), outputs)):
                raise ComputeError(
                    f"{self.unit.path or 'the model'} gives other numbers when it runs again, as derivatives of "
                    "sharded models need.",
                    "a forward pass without random numbers, and without anything that it keeps for its next run",
                )
        return outputs

    def written(self, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """What has become of the inputs that it writes to."""
        assert self._results is not None
        start = sum(item is HERE for item in self._results[1])
        return outputs[start : start + len(self.unit.writes_to)]

    def result(self, outputs: Sequence[Tensor]) -> Any:
        """What the unit returns; what it leaves in modules is there."""
        assert self._results is not None
        for (home, name), place in self._left:
            home[name] = outputs[place]
        form, static = self._results
        waiting = iter(outputs)
        return put_together([next(waiting) if item is HERE else item for item in static], form)


def _sums(output: Tensor) -> Tensor:
    """By which two runs are compared: the sum of the numbers, and of their sizes."""
    numbers = output.detach()
    if not numbers.is_floating_point():
        numbers = numbers.abs() if numbers.is_complex() else numbers.double()
    wide = torch.promote_types(numbers.dtype, torch.float32)
    return torch.stack([numbers.sum(dtype=wide), torch.linalg.vector_norm(numbers, 1, dtype=wide)])


def _same(before: Tensor, now: Tensor, output: Tensor) -> bool:
    """Whether sums differ by no more than rounding; of what is not finite nothing is known."""
    eps = torch.finfo(output.dtype).eps if varies(output) else 0.0
    return not bool((before - now).abs()[0] > eps**0.75 * before[1])


def varies(output: Tensor) -> bool:
    """Whether there are derivatives of it."""
    return output.is_floating_point() or output.is_complex()


def _apart(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Results that autograd can take for tensors of their own.

    Where another tensor changes with one, an input that is handed through or two results of the same memory, it is a
    view, which may not be changed in place where it leaves a function.
    """
    homes = [tensor.untyped_storage().data_ptr() for tensor in (*outputs, *inputs)]
    return tuple(
        output.view_as(output) if homes.count(home) > 1 else output
        for output, home in zip(outputs, homes, strict=False)
    )
