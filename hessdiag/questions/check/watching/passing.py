"""Watching a forward pass: which layer takes what, what it puts out, and which nonlinearity that goes through next.

Functions of torch are watched rather than modules: modules call the same ones, and what a model computes by functions
and lone parameters is seen alike. Only a layer whose function torch does not show is read off its module.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from hessdiag.problem.batches.batch import tensors as tensors_of
from hessdiag.questions.check.watching import functions
from hessdiag.questions.check.watching.owned import Owned
from hessdiag.questions.check.watching.seen import Call, Seen, Tag
from hessdiag.questions.check.watching.signals import even_part, laid_out, measured, root_mean_square
from hessdiag.questions.check.watching.units import (
    axis_of_function,
    axis_of_units,
    dead_fraction,
    flat_units,
    saturated_fraction,
)

_CONSTANT = -1  # in place of a layer's number: what is made of buffers


@dataclass
class Passing(TorchFunctionMode):
    """Sees every function that a forward pass calls.

    Attributes:
        layers: Whose parameters are watched for.
        buffers: The model's, which are no data.
        samples: Of the batch.
        seen: What was seen of each layer.
        inputs: What the model receives.
        plain: Modules that may be nonlinearities written by hand.
        order: Numbers of the layers as they were first used.
        drops: Probability and mode of each call of a function that drops.
    """

    layers: Sequence[Owned]
    buffers: Sequence[Tensor]
    samples: int
    inputs: Sequence[Tensor]
    plain: Sequence[nn.Module] = ()
    seen: list[Seen] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    drops: list[tuple[float, bool]] = field(default_factory=list)
    _owners: dict[int, list[int]] = field(default_factory=dict)
    _made_of: Any = field(default_factory=WeakTensorKeyDictionary)
    _tags: Any = field(default_factory=WeakTensorKeyDictionary)
    _measured: Any = field(default_factory=WeakTensorKeyDictionary)
    _inside: list[int] = field(default_factory=list)
    _calls: list[int] = field(default_factory=list)
    _takers: dict[int, tuple[str | None, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.seen = [Seen() for _ in self.layers]
        for index, layer in enumerate(self.layers):
            for parameter in layer.parameters.values():
                self._owners.setdefault(id(parameter), []).append(index)
        for buffer in self.buffers:
            if buffer.is_floating_point():  # whole numbers are places that are looked up
                self._made_of[buffer] = _CONSTANT
        for place, tensor in enumerate(self.inputs):
            self._tags[tensor] = Tag(source=place)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is called within."""
        handles = []
        for index, layer in enumerate(self.layers):
            if not layer.alone and not isinstance(layer.module, torch.jit.ScriptModule):  # which takes no hooks
                handles.append(layer.module.register_forward_pre_hook(self._entered(index)))
                handles.append(layer.module.register_forward_hook(self._left(index)))
        handles += [module.register_forward_hook(self._recognizes) for module in self.plain]
        with ExitStack() as stack:
            for handle in handles:
                stack.callback(handle.remove)
            with self:
                yield

    def made(self, tensor: Tensor) -> str | None:
        """The nonlinearity that made a tensor, where that is known."""
        tag = self._tags.get(tensor)
        return None if tag is None else tag.made

    def taken_by(self, place: int) -> tuple[str | None, bool]:
        """The layer that receives an input first, and whether what receives it normalizes."""
        return self._takers.get(place, (None, False))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = list(tensors_of([list(args), list(kwargs.values())]))
        if not taken:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        with torch._C.DisableTorchFunction():
            call = self._call(name, taken, args, kwargs)
        result = func(*args, **kwargs)
        put = list(tensors_of(result if isinstance(result, tuple) else [result]))
        if put:
            with torch._C.DisableTorchFunction():
                self._passed(call, put)
        return result

    def _call(self, name: str, taken: Sequence[Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """What is known before a function is called, which may write over what it takes."""
        owners = [(tensor, owner) for tensor in taken if (owner := self._owner(tensor)) is not None]
        own = {id(tensor) for tensor, _ in owners}
        data = [tensor for tensor in taken if id(tensor) not in own]
        layers = tuple(dict.fromkeys(owner for _, owner in owners if owner != _CONSTANT))
        tag = self._tags.get(data[0], Tag()) if data else Tag()
        activation, bounds = functions.activation(name, args, kwargs) if data else (None, None)
        call = Call(name, layers, tuple(data), len(taken), tag, activation, bounds)
        if activation is not None and tag.layers and data[0].is_floating_point():
            laid = self._laid(data[0], self._axis(data[0], tag))
            call.flat = None if laid is None else flat_units(activation, laid)
        if "dropout" in name:
            self._drops(args, kwargs)
        if tag.source is not None and call.taken and (layers or functions.NORMS.search(name)):
            normalizes = bool(functions.NORMS.search(name))
            layer = self.layers[layers[0]].layer if layers else None
            self._takers.setdefault(tag.source, (layer, normalizes))
        if layers and data:
            matrix = next((tensor for tensor, _ in reversed(owners) if tensor.ndim > 1), None)
            self._takes(call, matrix, matrix is taken[-1])
        return call

    def _drops(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        drop = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        training = kwargs.get("training", args[2] if len(args) > 2 else True)
        if isinstance(drop, (int, float)) and drop > 0:
            self.drops.append((float(drop), bool(training)))

    def _takes(self, call: Call, matrix: Tensor | None, last: bool) -> None:
        """A function takes data and the parameters of some layers, the matrix among them last or not."""
        call.joins = self._joins(call)
        if call.joins:
            return
        for index in call.layers:
            self.seen[index].calls += 1
            if index not in self.order:
                self.order.append(index)
        if not self._is_step(call):
            return
        first = self.seen[call.layers[0]]
        first.looked_up = "embedding" in call.name
        first.turned = matrix is not None and self._is_turned(call, matrix, last)
        real = next((tensor for tensor in call.data if tensor.is_floating_point()), None)
        first.input = None if real is None else self._measure(real, -1, self._sample_axis(call.name, real))
        first.input_gradient = None
        if real is not None and real.requires_grad and not real.is_leaf:
            _when_it_comes(real, first, "input_gradient")

    def _is_turned(self, call: Call, matrix: Tensor, last: bool) -> bool:
        """Whether a layer's matrix is one of (inputs, units): it is if it stands right of the data, as it is stored."""
        own = [item for item in self.layers[call.layers[0]].parameters.values() if item.ndim == matrix.ndim == 2]
        right = last and call.name in functions.RIGHT_PRODUCTS
        stored = any(item.shape == matrix.shape and item.stride() == matrix.stride() for item in own)
        turned = any(item.T.shape == matrix.shape and item.T.stride() == matrix.stride() for item in own)
        return right if stored or not turned else not right

    def _joins(self, call: Call) -> bool:
        """Whether a parameter is added to what a layer puts out: its bias."""
        return (
            call.name in functions.ADDITIONS
            and len(call.layers) == 1
            and bool(call.tag.layers)
            and not call.tag.past
            and call.tag.made is None
            and (call.layers[0] == call.tag.layers[-1] or self._is_bias(call.layers[0], call.tag))
        )

    def _is_bias(self, index: int, tag: Tag) -> bool:
        layer = self.layers[index]
        sizes = [item.numel() for item in layer.parameters.values()]
        return layer.alone and self.layers[tag.layers[-1]].alone and sizes[0] == self.seen[tag.layers[-1]].units

    def _is_step(self, call: Call) -> bool:
        """Whether a function is what a layer does, and not a token that is put beside data, or a position added."""
        alone = self.layers[call.layers[-1]].alone
        return not alone or bool(functions.PRODUCTS.search(call.name) or functions.NORMS.search(call.name))

    def _passed(self, call: Call, put: Sequence[Tensor]) -> None:
        """A function has put something out."""
        if not call.data:
            for tensor in put:
                self._made_of[tensor] = call.layers[0] if call.layers else _CONSTANT
            return
        if call.activation is not None:
            self._activated(call, put[0])
        if call.layers:
            tag = self._put(call, put[0])
        elif call.activation is not None:
            of = (call.tag.layers[-1], id(call.data[0])) if call.tag.layers else None
            tag = Tag(made=call.activation, of=of)
        elif functions.NORMS.search(call.name):
            self._taken(call.tag, by_norm=True)
            tag = replace(call.tag, past=True, made=None)
        elif functions.FORMS.search(call.name):
            tag = call.tag
        elif call.name in functions.SCALINGS and call.taken == 1:
            tag = replace(call.tag, made=None)
        elif (gated := self._gated(call)) is not None:
            tag = self._passes(gated, "silu", put[0])
        else:
            tag = Tag()
            for tensor in call.data:
                self._taken(self._tags.get(tensor, tag))
        for tensor in put:
            self._tags[tensor] = tag

    def _gated(self, call: Call) -> Tensor | None:
        """What is multiplied by its own sigmoid."""
        if call.name not in functions.SCALINGS or call.name in functions.ADDITIONS or len(call.data) != 2:
            return None
        for own, gate in (call.data, call.data[::-1]):
            tag, by = self._tags.get(own, Tag()), self._tags.get(gate, Tag())
            if tag.layers and by.made == "sigmoid" and by.of == (tag.layers[-1], id(own)):
                return own
        return None

    def _passes(self, taken: Tensor, activation: str, output: Tensor) -> Tag:
        """What was put out went through a nonlinearity that is not one function of torch."""
        tag = self._tags.get(taken, Tag())
        laid = self._laid(taken, self._axis(taken, tag))
        flat = None if laid is None else flat_units(activation, laid)
        self._activated(Call("", (), (taken,), 1, tag, activation, None, flat), output)
        return Tag(made=activation)

    def _put(self, call: Call, output: Tensor) -> Tag:
        """A layer has put something out."""
        normalizes = bool(functions.NORMS.search(call.name))
        if call.joins:
            index, unit, before = call.tag.layers[-1], call.tag.unit, call.tag.layers[:-1]
            own = call.layers[0]
            if own != index and own not in self.seen[index].joined:
                self.seen[index].joined += (own,)
        else:
            index, unit = call.layers[-1], axis_of_function(call.name, output)
            before = call.tag.layers if normalizes else ()
            self._taken(call.tag, by_norm=normalizes)
            for tensor in call.data[1:]:
                self._taken(self._tags.get(tensor, Tag()))
        if not self._is_step(call) and not call.joins:
            return Tag()
        self._emits(index, output, unit, self._sample_axis(call.name, output))
        return Tag((*before, index), unit, made=call.activation)

    def _emits(self, index: int, output: Tensor, unit: int, axis: int | None) -> None:
        seen = self.seen[index]
        seen.output = seen.signal = self._measure(output, unit, axis)
        seen.units = output.shape[unit] if output.ndim else 1
        seen.rows = output.numel() // max(seen.units, 1)
        seen.activation = seen.dead = seen.saturated = seen.output_gradient = None
        if output.requires_grad:
            _when_it_comes(output, seen, "output_gradient")

    def _activated(self, call: Call, output: Tensor) -> None:
        """A nonlinearity has taken what a layer put out."""
        self._taken(call.tag)
        if not call.tag.layers or call.activation is None:
            return
        for index in call.tag.layers:
            self.seen[index].activation = call.activation
        seen = self.seen[call.tag.layers[-1]]
        axis = self._axis(output, call.tag)
        laid = self._laid(output, axis)
        seen.signal = self._measure(output, axis)
        if laid is not None:
            seen.dead = dead_fraction(call.activation, laid, call.flat)
            if (
                laid.numel() < output.numel() and seen.dead is not None and bool(seen.dead > 0)
            ):  # of a part: look at all
                whole = laid_out(output, self.samples, unit=axis, most=output.numel())
                seen.dead = seen.dead if whole is None else dead_fraction(call.activation, whole, call.flat)
            seen.saturated = saturated_fraction(call.activation, laid, call.bounds)

    def _taken(self, tag: Tag, by_norm: bool = False) -> None:
        """Something takes what a layer put out as it is."""
        if tag.layers and not tag.past and tag.made is None:
            seen = self.seen[tag.layers[-1]]
            seen.normed, seen.exposed = seen.normed or by_norm, seen.exposed or not by_norm

    def _owner(self, tensor: Tensor) -> int | None:
        """The layer whose parameter a tensor is or is made of; `None` for data."""
        owners = self._owners.get(id(tensor))
        if owners is None:
            made: int | None = self._made_of.get(tensor)
            return made
        return next((index for index in reversed(self._inside) if index in owners), owners[0])

    def _axis(self, tensor: Tensor, tag: Tag) -> int:
        return axis_of_units(tensor, self.seen[tag.layers[-1]].units, tag.unit)

    def _sample_axis(self, name: str, tensor: Tensor) -> int | None:
        """The dimension of samples where a layer has it second, as recurrent ones and attention have by default."""
        if tensor.ndim != 3:
            return None
        module = self.layers[self._inside[-1]].module if self._inside else None
        second = isinstance(module, nn.RNNBase) and not module.batch_first
        return 1 if (second or name == "multi_head_attention_forward") and tensor.shape[1] == self.samples else None

    def _laid(self, tensor: Tensor, unit: int, axis: int | None = None) -> Tensor | None:
        return laid_out(tensor, self.samples, axis=axis, unit=unit)

    def _measure(self, tensor: Tensor, unit: int, axis: int | None = None) -> Tensor | None:
        """`measured`, once for each tensor."""
        kept = self._measured.get(tensor)
        if kept is not None and kept[0] == tensor._version:
            found: Tensor = kept[1]
            return found
        laid = self._laid(tensor, unit, axis)
        if laid is None:
            return None
        found = measured(laid)
        self._measured[tensor] = (tensor._version, found)
        return found

    def _entered(self, index: int) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            self._inside.append(index)
            self._calls.append(self.seen[index].calls)

        return hook

    def _recognizes(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module without parameters may be a nonlinearity that is written by hand."""
        taken = args[0] if args else None
        if not (isinstance(taken, Tensor) and isinstance(output, Tensor)) or taken.shape != output.shape:
            return
        with torch._C.DisableTorchFunction(), torch.no_grad():
            tag, now = self._tags.get(taken, Tag()), self._tags.get(output, Tag())
            if tag.layers and not now.layers and now.made is None and taken.is_floating_point():
                found = functions.recognised(even_part(taken, 4096), even_part(output, 4096))
                if found is not None:
                    self._tags[output] = self._passes(taken, found, output)

    def _left(self, index: int) -> Any:
        """At the end of a module: read it off what it took and gave, where its functions were not seen."""

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._inside.pop()
            if self.seen[index].calls > self._calls.pop():
                return
            data, put = list(tensors_of(list(args))), list(tensors_of([output]))
            if data and put:
                with torch._C.DisableTorchFunction():
                    call = Call("", (index,), tuple(data), len(data), self._tags.get(data[0], Tag()), None, None)
                    self._takes(call, None, False)
                    tag = self._put(call, put[0])
                    for tensor in put:
                        self._tags[tensor] = tag

        return hook


def _when_it_comes(tensor: Any, seen: Seen, name: str) -> None:
    """Keep the root mean square of the gradient by a tensor, when it is computed."""

    def hook(gradient: Tensor) -> None:
        setattr(seen, name, root_mean_square(even_part(gradient)))

    if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor.register_hook(hook)
