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

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hessdiag.machine.collectives import gathered, summed
from hessdiag.shards.vocabulary.matrix import Matrix, Rows
from hessdiag.shards.vocabulary.tokens import Tokens, tokens

AT_ONCE = 2**20  # logits that are there at one time


@dataclass(frozen=True)
class Targets:
    """What the losses are taken against, for the tokens of one process or of all.

    Attributes:
        labels: The class of each token; any where `at_label` is zero.
        at_label: The target at the label.
        everywhere: The target at every class, in units of `classes`.
        classes: Weights of the classes, in `everywhere`; all are 1 where it is `None`.
    """

    labels: Tensor
    at_label: Tensor
    everywhere: Tensor | None
    classes: Tensor | None

    def of(self, tokens: Tokens, chunk: slice) -> "Targets":
        """Those of a chunk of all tokens."""
        everywhere = None if self.everywhere is None else tokens.pick(self.everywhere, chunk)
        return Targets(tokens.pick(self.labels, chunk), tokens.pick(self.at_label, chunk), everywhere, self.classes)

    def everyones(self, tokens: Tokens) -> "Targets":
        """Those of all processes."""
        everywhere = None if self.everywhere is None else tokens.everyones(self.everywhere)
        return Targets(tokens.everyones(self.labels), tokens.everyones(self.at_label), everywhere, self.classes)

    def total(self, rows: int) -> Tensor:
        """The sum over all classes."""
        if self.everywhere is None:
            return self.at_label
        return self.at_label + self.everywhere * (rows if self.classes is None else self.classes.sum())

    def inside(self, first: int, rows: int) -> tuple[Tensor, Tensor]:
        """The label within some rows, and the target there: zero for a label elsewhere."""
        there = (self.labels >= first) & (self.labels < first + rows)
        return (self.labels - first).clamp(0, rows - 1)[:, None], self.at_label.where(there, 0)[:, None]

    def product(self, z: Tensor, first: int) -> Tensor:
        """Sum over some rows of target times z (tokens, rows)."""
        label, at_label = self.inside(first, z.shape[1])
        found = (z.gather(1, label) * at_label)[:, 0]
        if self.everywhere is not None:
            found = found + self.everywhere * (z.sum(1) if self.classes is None else z @ self._weights(z, first))
        return found

    def subtract(self, z: Tensor, first: int, scale: Tensor) -> Tensor:
        """Take scale x target away from z (tokens, rows), in place."""
        label, at_label = self.inside(first, z.shape[1])
        z.scatter_add_(1, label, -scale[:, None] * at_label)
        if self.everywhere is not None:
            factors = (scale * self.everywhere)[:, None]
            z -= factors if self.classes is None else factors * self._weights(z, first)
        return z

    def _weights(self, z: Tensor, first: int) -> Tensor:
        if self.classes is None:
            raise ValueError("all classes count alike")
        return self.classes[first : first + z.shape[1]]


@dataclass(frozen=True)
class _Head:
    """A head and what its losses are taken against, for the tokens of all processes.

    Attributes:
        matrix: How the weight lies in pieces.
        tokens: How many there are in each process.
        targets: Of all of them.
        dtype: In which probabilities are computed.
    """

    matrix: Matrix
    tokens: Tokens
    targets: Targets
    dtype: torch.dtype

    def scores(self, x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """The logits of some rows, or what is bilinear as they are."""
        z = x @ weight.T if bias is None else torch.addmm(bias[first : first + len(weight)], x, weight.T)
        return z.to(self.dtype)

    def rows(self, *several: Rows | None, tokens: int) -> Any:
        """Some rows of several matrices of the same form at once, with the number of the first: (first, parts...)."""
        most = max(AT_ONCE // tokens, 1)
        there = [rows.chunks(most) for rows in several if rows is not None]
        for together in zip(*there, strict=True):
            parts = iter(part for _, part in together)
            yield together[0][0], *(None if rows is None else next(parts) for rows in several)

    def of_this(self, numbers: Tensor, chunk: slice) -> Tensor:
        """This process's part of what every process has computed for the tokens of all."""
        count, rank = self.tokens.counts[self.tokens.rank], self.tokens.rank
        return numbers.view(len(self.tokens.counts), -1)[rank, : max(count - chunk.start, 0)]


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
    head = _Head(matrix, count, targets.everyones(count), dtype)
    losses: Tensor = _Losses.apply(x, piece, bias, head)  # type: ignore[no-untyped-call]
    return losses


class _Losses(Function):
    """From hidden states, weight and bias to losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, piece: Tensor, bias: Tensor | None, head: _Head) -> Tensor:
        rows = head.matrix.complete(piece)
        losses, logsumexps = [x.new_zeros(0, dtype=head.dtype)], [x.new_zeros(head.matrix.size, 0, dtype=head.dtype)]
        for chunk in head.tokens.chunks(head.matrix.width):
            everyones, targets = head.tokens.everyones(x, chunk), head.targets.of(head.tokens, chunk)
            logsumexp = x.new_full((len(everyones),), -torch.inf, dtype=head.dtype)
            product = torch.zeros_like(logsumexp)
            for first, weight in head.rows(rows, tokens=len(everyones)):
                z = head.scores(everyones, weight, bias, first)
                product += targets.product(z, first)
                logsumexp = torch.logaddexp(logsumexp, z.logsumexp(1))
            both = gathered(torch.cat([logsumexp, product])).view(head.matrix.size, 2, -1)
            logsumexp, product = both[:, 0].logsumexp(0), both[:, 1].sum(0)
            losses.append(head.of_this(targets.total(head.matrix.rows) * logsumexp - product, chunk))
            logsumexps.append(logsumexp.view(head.matrix.size, -1))
        ctx.save_for_backward(x, piece, bias, torch.cat(logsumexps, 1).flatten())
        ctx.head = head
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        needs = ctx.needs_input_grad[:3]
        return *_Slopes.apply(slope, *ctx.saved_tensors, ctx.head, needs), None  # type: ignore[no-untyped-call]


class _Slopes(Function):
    """From the losses' slopes to those of hidden states, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        slope: Tensor,
        x: Tensor,
        piece: Tensor,
        bias: Tensor | None,
        logsumexp: Tensor,
        head: _Head,
        needs: tuple[bool, bool, bool],
    ) -> Any:
        ctx.save_for_backward(slope, x, piece, bias, logsumexp)
        ctx.head = head
        ctx.set_materialize_grads(False)
        matrix = head.matrix
        rows, sums = matrix.complete(piece), matrix.empty(piece) if needs[1] else None
        of_x = [x.new_zeros(0, matrix.width)]
        of_bias = bias.new_zeros(len(bias)) if bias is not None and needs[2] else None
        everyones_slope = head.tokens.everyones(slope)
        for chunk in head.tokens.chunks(matrix.width):
            part = _Part(head, chunk, x, everyones_slope, logsumexp)
            back = torch.zeros_like(part.x)
            for first, weight, sum_ in head.rows(rows, sums, tokens=len(part.x)):
                d = part.off(part.probabilities(weight, bias, first), first)
                d = d.to(x.dtype)
                if needs[0]:
                    back.addmm_(d, weight)
                if sum_ is not None:
                    sum_.addmm_(d.T, part.x)
                if of_bias is not None:
                    of_bias[first : first + len(weight)] += d.sum(0)
            if needs[0]:
                of_x.append(head.tokens.own(back, chunk))
        return torch.cat(of_x) if needs[0] else None, None if sums is None else matrix.returned(sums), of_bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_x: Tensor | None, for_weight: Tensor | None, for_bias: Tensor | None) -> Any:
        slope, x, piece, bias, logsumexp = ctx.saved_tensors
        head: _Head = ctx.head
        matrix, needs = head.matrix, ctx.needs_input_grad[:4]
        rows, sums = matrix.complete(piece), matrix.empty(piece) if needs[2] else None
        along = None if for_weight is None else matrix.complete(for_weight)
        of_slope, of_x = [slope.new_zeros(0)], [x.new_zeros(0, matrix.width)]
        of_bias = bias.new_zeros(len(bias)) if bias is not None and needs[3] else None
        everyones_slope = head.tokens.everyones(slope)
        for chunk in head.tokens.chunks(matrix.width):
            part = _Part(head, chunk, x, everyones_slope, logsumexp)
            along_x = None if for_x is None else head.tokens.everyones(for_x, chunk)
            mean, back = part.mean(rows, along, bias, along_x, for_bias)
            product = torch.zeros_like(mean)
            for first, weight, along_weight, sum_ in head.rows(rows, along, sums, tokens=len(part.x)):
                p = part.probabilities(weight, bias, first)
                m = part.moved(weight, along_weight, along_x, for_bias, first)
                if needs[0]:
                    product += part.targets.product(m, first)
                h = m.sub_(mean[:, None]).mul_(p).mul_(part.pull[:, None]).to(x.dtype)
                if needs[1]:
                    back.addmm_(h, weight)
                    if along_weight is not None:
                        part.subtract_rows(back, along_weight, first)
                if sum_ is not None:
                    sum_.addmm_(h.T, part.x)
                    if along_x is not None:
                        sum_.addmm_(part.off(p, first).to(x.dtype).T, along_x)
                if of_bias is not None:
                    of_bias[first : first + len(weight)] += h.sum(0)
            if needs[0]:
                total = part.targets.total(matrix.rows) * mean - summed(product)
                of_slope.append(head.of_this(total, chunk))
            if needs[1]:
                of_x.append(head.tokens.own(back, chunk))
        of_weight = None if sums is None else matrix.returned(sums)
        of_tokens = [torch.cat(parts) if need else None for parts, need in ((of_slope, needs[0]), (of_x, needs[1]))]
        return *of_tokens, of_weight, of_bias, None, None, None


class _Part:
    """A chunk of the tokens of all processes.

    Attributes:
        x: Hidden states.
        slope: The slopes of the losses.
        pull: The same times the sum of the targets: what pulls at the logsumexp.
        targets: The chunk's.
    """

    def __init__(self, head: _Head, chunk: slice, x: Tensor, slope: Tensor, logsumexp: Tensor) -> None:
        self._head = head
        self.x = head.tokens.everyones(x, chunk)
        self.targets = head.targets.of(head.tokens, chunk)
        self.slope = head.tokens.pick(slope, chunk)
        self.pull = self.slope * self.targets.total(head.matrix.rows)
        self._logsumexp = head.tokens.pick(logsumexp, chunk)[:, None]

    def probabilities(self, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """Probabilities p of some rows."""
        return self._head.scores(self.x, weight, bias, first).sub_(self._logsumexp).exp_()

    def off(self, p: Tensor, first: int) -> Tensor:
        """Slopes g d of the logits of some rows, in the place of p."""
        return self.targets.subtract(p.mul_(self.pull[:, None]), first, self.slope)

    def moved(
        self, weight: Tensor, along_weight: Tensor | None, along_x: Tensor | None, along_bias: Tensor | None, first: int
    ) -> Tensor:
        """How fast the logits of some rows move: m."""
        m = None if along_x is None else self._head.scores(along_x, weight, along_bias, first)
        if along_weight is not None:
            rest = self._head.scores(self.x, along_weight, None if m is not None else along_bias, first)
            m = rest if m is None else m.add_(rest)
        if m is None:
            m = self.pull.new_zeros(len(self.x), len(weight))
            if along_bias is not None:
                m += along_bias[first : first + len(weight)]
        return m

    def mean(
        self,
        rows: Rows,
        along: Rows | None,
        bias: Tensor | None,
        along_x: Tensor | None,
        along_bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The means M; and by the way g s sum_v p_v u_W_v over the rows that are here."""
        of_weight, of_along = torch.zeros_like(self.x), torch.zeros_like(self.x)
        mean = torch.zeros_like(self.pull)
        for first, weight, along_weight in self._head.rows(rows, along, tokens=len(self.x)):
            p = self.probabilities(weight, bias, first)
            if along_bias is not None:
                mean += p @ along_bias[first : first + len(weight)].to(p.dtype)
            p = p.to(self.x.dtype)
            if along_x is not None:
                of_weight.addmm_(p, weight)
            if along_weight is not None:
                of_along.addmm_(p, along_weight)
        if along_x is not None:
            mean += (of_weight * along_x).sum(1)
        mean += (of_along * self.x).sum(1)
        return summed(mean), of_along.mul_(self.pull[:, None])

    def subtract_rows(self, back: Tensor, along_weight: Tensor, first: int) -> None:
        """Take g q_v u_W_v away, for some rows."""
        label, at_label = self.targets.inside(first, len(along_weight))
        back.sub_((self.slope[:, None] * at_label).to(back.dtype) * along_weight[label[:, 0]])
        if self.targets.everywhere is not None:
            classes = self.targets.classes
            sum_ = along_weight.sum(0) if classes is None else classes[first : first + len(along_weight)] @ along_weight
            back.addr_((self.slope * self.targets.everywhere).to(back.dtype), sum_, alpha=-1)
