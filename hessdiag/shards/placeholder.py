"""What stands in a module where a parameter was: its shape, and the piece of it that this process keeps."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from hessdiag.errors import LoadError, SpecError, first_line
from hessdiag.machine.meeting import failed
from hessdiag.problem.copies import left_behind
from hessdiag.shards.layout import cut

Slot = tuple[dict[str, Any], str, Any]  # where a module keeps a parameter, or a list of some; and what is there

running: ContextVar[Any] = ContextVar("running", default=None)  # the unit whose forward pass runs
shown: ContextVar[tuple[tuple[Slot, Any], ...]] = ContextVar("shown", default=())  # slots of opened modules, now whole

WHOLE = "an objective that calls the model and no part of it; or without --shard"
OUTSIDE = "a sharded parameter was used outside the module that owns it"


class OutsideUnitError(SpecError):
    """A parameter was used where it is not gathered, or a graph leads past the unit that should hold it.

    Attributes:
        parameter: Of the unit that has to be larger.
        unit: Another that it has to take in; `None` if there is none.
    """

    def __init__(self, parameter: "Placeholder", what: str, unit: Any = None, hint: str = WHOLE) -> None:
        super().__init__(what, hint)
        self.parameter, self.unit = parameter, unit


@contextmanager
def noting() -> Iterator[None]:
    """Let the processes' meeting know of errors of the model within, but of none that enlarge its units."""
    try:
        yield
    except OutsideUnitError:
        raise
    except Exception as error:
        failed(error)
        raise


class Placeholder(nn.Parameter):
    """A parameter on the meta device, of the true shape, whose numbers are spread over processes.

    It answers what can be asked of a parameter without its numbers, and refuses everything else: plain meta tensors
    would let some operations on the CPU return memory that nobody has written to.

    Attributes:
        piece: This process's numbers, flat and padded with zeros: a leaf of its own.
        path: Its name in the model, for messages.
    """

    piece: Tensor
    path: str

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Answer what needs no numbers, and refuse the rest."""
        if func == Tensor.device.__get__:
            return args[0].piece.device
        if func in _ANSWERED:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise outside(_first(args, kwargs or {}), getattr(func, "__name__", str(func)), running.get())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Placeholder":
        """A placeholder for the same piece: only modules are copied."""
        if id(self) not in memo:
            memo[id(self)] = placeholder(self.piece, self.shape, requires_grad=self.requires_grad, path=self.path)
        found: Placeholder = memo[id(self)]
        return found

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Placeholder({self.path or '?'}, {tuple(self.shape)}, {self.dtype})"


def outside(parameter: Placeholder, what: str, unit: Any) -> OutsideUnitError:
    """What is said where a parameter is used outside the unit that owns it, by `unit` or by none."""
    return OutsideUnitError(
        parameter, f"{OUTSIDE}: {what} of {parameter.path or 'one'}, {tuple(parameter.shape)}.", unit
    )


def _getters(*names: str) -> set[Any]:
    """What is called for an attribute of a tensor."""
    return {getattr(Tensor, name).__get__ for name in names if hasattr(Tensor, name)}


_ANSWERED = {
    *_getters("shape", "dtype", "layout", "ndim", "requires_grad", "is_leaf", "grad", "grad_fn", "itemsize", "nbytes"),
    *_getters("is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_nested", "is_meta", "names", "_backward_hooks"),
    *(Tensor.numel, Tensor.nelement, Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.element_size, Tensor.__len__),
    *(Tensor.stride, Tensor.is_contiguous, Tensor.is_complex, Tensor.is_floating_point, Tensor.is_signed),
    *(torch.numel, torch.is_complex, torch.is_floating_point, Tensor.__hash__, Tensor.requires_grad_),
}


def _first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Placeholder:
    """The placeholder among arguments, which may be nested in lists."""
    waiting = [*args, *kwargs.values()]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, Placeholder):
            return item
        if isinstance(item, (list, tuple)):
            waiting.extend(item)
    raise AssertionError("called for a placeholder")


def placeholder(piece: Tensor, shape: Sequence[int], *, requires_grad: bool, path: str = "") -> Placeholder:
    """What takes the place of a parameter of which this process keeps a piece.

    Args:
        piece: Its numbers here, flat and padded, see `layout.cut`. It becomes a leaf.
        shape: The parameter's.
        requires_grad: Whether it is trained.
        path: Its name in the model, for messages.

    >>> stands = placeholder(torch.zeros(3), (2, 3), requires_grad=True, path="weight")
    >>> stands.shape, stands.device, stands.piece.shape
    (torch.Size([2, 3]), device(type='cpu'), torch.Size([3]))
    """
    made = Placeholder(torch.empty(tuple(shape), dtype=piece.dtype, device="meta"), requires_grad=requires_grad)
    made.piece = piece.detach().requires_grad_(requires_grad)
    vars(made.piece)["stands_in"] = ref(made)  # by which a graph that leads here is told from others
    made.path = path
    return made


def hollow(model: nn.Module, rank: int, size: int) -> nn.Module:
    """A copy of a model that has placeholders for parameters: this process's pieces are copied, and no parameter.

    Tied parameters share a placeholder. The model that is given stays as it is, and can be let go.

    Raises:
        LoadError: if the model cannot be copied.
    """
    return with_placeholders(
        model,
        {
            id(parameter): parameter
            if isinstance(parameter, Placeholder)
            else placeholder(
                cut(parameter, rank, size), parameter.shape, requires_grad=parameter.requires_grad, path=name
            )
            for name, parameter in model.named_parameters()
        },
    )


def with_placeholders(model: nn.Module, stand_ins: dict[int, Placeholder]) -> nn.Module:
    """A copy of a model with other parameters.

    Args:
        model: It stays as it is.
        stand_ins: What takes the place of each parameter, by its identity.

    Raises:
        LoadError: if the model cannot be copied.
    """
    earlier = left_behind(model)
    for kept in earlier.values():  # of an earlier forward pass: their graph leads to parameters that are let go
        vars(kept.requires_grad_())["is_of_before"] = True
    memo: dict[int, Any] = {**earlier, **stand_ins}
    try:
        made = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise LoadError(
            f"the model cannot be copied, and a sharded one is a copy without its parameters: {first_line(error)}",
            "a model that copy.deepcopy takes; without --shard it is measured as it is",
        ) from error
    for module in made.modules():
        config: Any = getattr(module, "config", None)
        if config is not None and getattr(config, "use_cache", None):  # what a unit keeps, it would find when run again
            config.use_cache = False
    return made
