"""Cross-entropy of a head's output that is never there: each process has some rows, for the tokens of all.

With logits z = W x + b, l = logsumexp(z), p = exp(z - l) and targets q (a at the label, c k_v at every class v, of
sum s), a token's loss is s l - q'z, and its slope in z is d = s p - q. For slopes g of the losses,

    x <- sum_v g d_v W_v,        W_v <- sum g d_v x,        b_v <- sum g d_v.

These against u_x, u_W, u_b are sum g d_v m_v with m = W u_x + u_W x + u_b, whose own slopes are, with M = p'm,

    h_v = g s p_v (m_v - M):   x <- sum_v h_v W_v + g d_v u_W_v,   W_v <- sum h_v x + g d_v u_x,   b_v <- sum h_v,
    g <- sum_v d_v m_v.

The vocabulary is gone through twice in the second derivative, since M comes before h; M = u_x'(sum_v p_v W_v) +
x'(sum_v p_v u_W_v) + p'u_b, where the second sum is of use for x, too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hessdiag.machine.collectives import gathered
from hessdiag.shards.vocabulary.each import each, no_third, rows, stacked
from hessdiag.shards.vocabulary.head import Head, Part, Saved
from hessdiag.shards.vocabulary.matrix import Matrix
from hessdiag.shards.vocabulary.second import Needs, second
from hessdiag.shards.vocabulary.targets import Targets
from hessdiag.shards.vocabulary.tokens import tokens


def cross_entropy(
    x: Tensor, piece: Tensor, bias: Tensor | None, targets: Targets, matrix: Matrix, dtype: torch.dtype
) -> Tensor:
    """The cross-entropy of each token, differentiable twice.

    Every process has to call it, each for its own tokens. What is sent are hidden states, and no weights.

    Args:
        x: Hidden states (tokens, width).
        piece: What this process has of the head's weight.
        bias: The whole bias, if there is one.
        targets: Of this process's tokens.
        matrix: How the weight lies in pieces.
        dtype: In which probabilities are computed.

    Returns:
        Losses (tokens,).

    >>> targets = Targets(torch.tensor([1]), torch.ones(1), None, None)
    >>> cross_entropy(torch.zeros(1, 2), torch.arange(8.0), None, targets, Matrix(4, 2), torch.float32).exp()
    tensor([4.])
    """
    count = tokens(len(x), matrix.rank, matrix.size, x.device)
    head = Head(matrix, count, targets.everyones(count), dtype)
    losses: Tensor = _Losses.apply(x, piece, bias, head)  # type: ignore[no-untyped-call]
    return losses


class _Losses(Function):
    """From hidden states, weight and bias to losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, piece: Tensor, bias: Tensor | None, head: Head) -> Tensor:
        weights, size = head.matrix.complete(piece), head.matrix.size
        losses, logsumexps = [x.new_zeros(0, dtype=head.dtype)], [x.new_zeros(size, 0, dtype=head.dtype)]
        for chunk in head.chunks():
            everyones, targets = head.tokens.everyones(x, chunk), head.targets.of(head.tokens, chunk)
            logsumexp = x.new_full((len(everyones),), -torch.inf, dtype=head.dtype)
            product = torch.zeros_like(logsumexp)
            for first, weight in head.rows(weights, tokens=len(everyones)):
                z = head.scores(everyones, weight, bias, first)
                product += targets.product(z, first)
                logsumexp = torch.logaddexp(logsumexp, z.logsumexp(1))
            both = gathered(torch.cat([logsumexp, product])).view(size, 2, -1)
            logsumexp, product = both[:, 0].logsumexp(0), both[:, 1].sum(0)
            losses.append(head.of_this(targets.total(head.matrix.rows) * logsumexp - product, chunk))
            logsumexps.append(logsumexp.view(size, -1))
        ctx.save_for_backward(x, piece, bias, torch.cat(logsumexps, 1).flatten())
        ctx.head = head
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        needs = ctx.needs_input_grad[:3]
        found = iter(_Slopes.apply(ctx.head, needs, slope, *ctx.saved_tensors))  # type: ignore[no-untyped-call]
        return *(next(found) if need else None for need in needs), None


class _Slopes(Function):
    """From the losses' slopes to those of hidden states, weight and bias, as far as they are needed."""

    @staticmethod
    def forward(head: Head, needs: Needs, *tensors: Any) -> tuple[Tensor, ...]:
        return _first(head, needs, Saved(*tensors))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.head, ctx.needs = inputs[:2]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        no_third()
        needs = ctx.needs_input_grad[2:6]
        if not any(needs) or all(cotangent is None for cotangent in cotangents):
            return (None,) * 7
        given = iter(cotangents)
        slots = [next(given) if need else None for need in ctx.needs]
        found = iter(_Second.apply(ctx.head, needs, *ctx.saved_tensors, *slots))  # type: ignore[no-untyped-call]
        return (None, None, *(next(found) if need else None for need in needs), None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return each(_Slopes.forward, info, in_dims, *args)


class _Second(Function):
    """The derivative of that, against cotangents."""

    @staticmethod
    def forward(head: Head, needs: Needs, *tensors: Any) -> tuple[Tensor, ...]:
        (found,) = second(head, needs, Saved(*tensors[:5]), [tensors[5:]])
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], head: Head, needs: Needs, *tensors: Any) -> Any:
        cotangents: list[Sequence[Tensor | None]] = [*rows(info.batch_size, tensors[5:], in_dims[7:])]
        return stacked(second(head, needs, Saved(*tensors[:5]), cotangents))


def _first(head: Head, needs: Needs, saved: Saved) -> tuple[Tensor, ...]:
    """Derivatives in hidden states, weight and bias, as far as they are needed."""
    matrix, x, bias = head.matrix, saved.x, saved.bias
    weights, sums = matrix.complete(saved.piece), matrix.empty(saved.piece) if needs[1] else None
    states = [x.new_zeros(0, matrix.width)]
    of_bias = bias.new_zeros(len(bias)) if bias is not None and needs[2] else None
    slope = head.tokens.everyones(saved.slope)
    for chunk in head.chunks():
        part = Part(head, chunk, saved, slope)
        back = torch.zeros_like(part.x)
        for first, weight, sum_ in head.rows(weights, sums, tokens=len(part.x)):
            off = part.off(part.probabilities(weight, first), first)
            if needs[0]:
                back.addmm_(off, weight)
            if sum_ is not None:
                sum_.addmm_(off.T, part.x)
            if of_bias is not None:
                of_bias[first : first + len(weight)] += off.sum(0)
        if needs[0]:
            states.append(head.tokens.own(back, chunk))
    of_x, of_weight = torch.cat(states) if needs[0] else None, None if sums is None else matrix.returned(sums)
    return tuple(found for found in (of_x, of_weight, of_bias) if found is not None)
