"""Modules with parameters of their own beside children with more: they run as they are, with their own ones whole.

What they compute themselves is in the graph, and so are these parameters; what their children compute is recomputed.
"""

from typing import Any

from torch import Tensor
from torch.autograd.function import Function

from hessdiag.shards.units import Forward, Unit
from hessdiag.shards.vocabulary.each import rows, stacked

Flags = tuple[bool, ...]


def opened(unit: Unit) -> Forward | None:
    """The kind of unit that is a module's own parameters alone: its forward pass finds them whole."""
    if not unit.is_open:
        return None

    def forward(*args: Any, **kwargs: Any) -> Any:
        wholes = _Whole.apply(unit, tuple(piece.requires_grad for piece in unit.pieces), *unit.pieces)  # type: ignore[no-untyped-call]
        with unit.opened(wholes):
            return unit.forward(*args, **kwargs)

    return forward


class _Whole(Function):
    """Whole tensors of a unit's pieces, in one exchange; any number of times differentiable."""

    @staticmethod
    def forward(unit: Unit, wanted: Flags, *pieces: Tensor) -> tuple[Tensor, ...]:
        return tuple(whole.clone() for whole in unit.gathered([piece.detach() for piece in pieces])[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.unit, ctx.wanted = inputs[:2]
        ctx.mark_non_differentiable(*(whole for whole, want in zip(output, ctx.wanted, strict=True) if not want))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        kept = [slope for slope, want in zip(slopes, ctx.wanted, strict=True) if want]
        found = iter(_Apart.apply(ctx.unit, ctx.wanted, *kept))  # type: ignore[no-untyped-call]
        return (None, None, *(next(found) if want else None for want in ctx.wanted))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], unit: Unit, wanted: Flags, *pieces: Tensor) -> Any:
        return stacked(unit.gathered(*rows(info.batch_size, pieces, in_dims[2:])))


class _Apart(Function):
    """The adjoint: pieces of the sum over all processes, of the parameters that are trained."""

    @staticmethod
    def forward(unit: Unit, wanted: Flags, *slopes: Tensor) -> tuple[Tensor, ...]:
        return tuple(piece.clone() for piece in unit.scattered([slopes], _indices(wanted))[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.unit, ctx.wanted = inputs[:2]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        given = iter(slopes)
        every = [next(given) if want else piece for want, piece in zip(ctx.wanted, ctx.unit.pieces, strict=True)]
        wholes = _Whole.apply(ctx.unit, ctx.wanted, *every)  # type: ignore[no-untyped-call]
        return (None, None, *(whole for whole, want in zip(wholes, ctx.wanted, strict=True) if want))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], unit: Unit, wanted: Flags, *slopes: Tensor) -> Any:
        return stacked(unit.scattered(rows(info.batch_size, slopes, in_dims[2:]), _indices(wanted)))


def _indices(wanted: Flags) -> list[int]:
    return [index for index, want in enumerate(wanted) if want]
