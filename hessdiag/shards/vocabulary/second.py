"""The second derivative of a cross-entropy in chunks, for one vector or several: see `cross_entropy`."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hessdiag.machine.collectives import summed
from hessdiag.shards.vocabulary.head import Head, Part, Saved

Needs = tuple[bool, ...]


class _Vector:
    """The cotangents u of one vector, and what comes of them.

    Args:
        head: The head.
        needs: What is wanted: derivatives in slopes, hidden states, weight and bias.
        saved: Where they are taken.
        cotangents: Of the derivatives in hidden states, weight and bias; `None` for zeros.
    """

    def __init__(self, head: Head, needs: Needs, saved: Saved, cotangents: Sequence[Tensor | None]) -> None:
        self._head, self._needs = head, needs
        self._for_x, for_weight, self._for_bias = cotangents
        self.along = None if for_weight is None else head.matrix.complete(for_weight)
        self.sums = head.matrix.empty(saved.piece) if needs[2] else None
        self._bias = saved.bias.new_zeros(len(saved.bias)) if saved.bias is not None and needs[3] else None
        self._slopes, self._states = [saved.slope.new_zeros(0)], [saved.x.new_zeros(0, head.matrix.width)]

    def begin(self, chunk: slice, part: Part) -> None:
        """Take up a chunk of tokens."""
        self.x = None if self._for_x is None else self._head.tokens.everyones(self._for_x, chunk)
        self._mean, self._product = torch.zeros_like(part.pull), torch.zeros_like(part.pull)
        self._back = torch.zeros_like(part.x)  # first of all sum_v p_v u_W_v

    def average(self, p: Tensor, first: int, along: Tensor | None) -> None:
        """Add what some rows give to the means."""
        if self._for_bias is not None:
            self._mean += p @ self._for_bias[first : first + p.shape[1]].to(p.dtype)
        if along is not None:
            self._back.addmm_(p.to(along.dtype), along)

    def mean(self, part: Part, of_weight: Tensor) -> Tensor:
        """What this process's rows add to M, once all are gone through."""
        mean = self._mean + (self._back * part.x).sum(1)
        self._back *= part.pull[:, None]
        return mean if self.x is None else mean + (of_weight * self.x).sum(1)

    def add(self, part: Part, p: Tensor, first: int, weight: Tensor, along: Tensor | None, mean: Tensor) -> Tensor:
        """Add what some rows give; h of them is returned."""
        m = self._moved(part, weight, along, first)
        if self._needs[0]:
            self._product += part.targets.product(m, first)
        h = m.sub_(mean[:, None]).mul_(p).mul_(part.pull[:, None]).to(weight.dtype)
        if self._needs[1]:
            self._back.addmm_(h, weight)
            if along is not None:
                part.targets.subtract_rows(self._back, along, first, part.slope)
        if self._bias is not None:
            self._bias[first : first + len(weight)] += h.sum(0)
        return h

    def _moved(self, part: Part, weight: Tensor, along: Tensor | None, first: int) -> Tensor:
        """How fast the logits of some rows move: m."""
        scores, bias = self._head.scores, self._for_bias
        pairs = [(a, b) for a, b in ((self.x, weight), (part.x, along)) if a is not None and b is not None]
        if not pairs:
            zeros = part.pull.new_zeros(len(part.x), len(weight))
            return zeros if bias is None else zeros + bias[first : first + len(weight)]
        m = scores(*pairs[0], bias, first)
        return m.add_(scores(*pairs[1], None, first)) if len(pairs) > 1 else m

    def end(self, chunk: slice, part: Part, mean: Tensor) -> None:
        """Be done with a chunk of tokens."""
        if self._needs[0]:
            total = part.targets.total(self._head.matrix.rows) * mean - summed(self._product)
            self._slopes.append(self._head.of_this(total, chunk))
        if self._needs[1]:
            self._states.append(self._head.tokens.own(self._back, chunk))

    def found(self) -> Iterator[Tensor]:
        """What is wanted, in order."""
        if self._needs[0]:
            yield torch.cat(self._slopes)
        if self._needs[1]:
            yield torch.cat(self._states)
        if self.sums is not None:
            yield self._head.matrix.returned(self.sums)
        if self._bias is not None:
            yield self._bias


def second(head: Head, needs: Needs, saved: Saved, rows: Sequence[Sequence[Tensor | None]]) -> list[list[Tensor]]:
    """The derivatives of first derivatives against cotangents; probabilities are computed once for all vectors.

    Args:
        head: The head.
        needs: What is wanted: derivatives in slopes, hidden states, weight and bias.
        saved: Where they are taken.
        rows: For each vector the cotangents of the derivatives in hidden states, weight and bias; `None` for zeros.

    Returns:
        For each vector what is wanted.
    """
    weights = head.matrix.complete(saved.piece)
    vectors = [_Vector(head, needs, saved, row) for row in rows]
    alongs = [vector.along for vector in vectors]
    sums = [vector.sums for vector in vectors]
    slope = head.tokens.everyones(saved.slope)
    for chunk in head.chunks():
        part = Part(head, chunk, saved, slope)
        for vector in vectors:
            vector.begin(chunk, part)
        of_weight = torch.zeros_like(part.x)  # sum_v p_v W_v
        for first, weight, *along in head.rows(weights, *alongs, tokens=len(part.x)):
            p = part.probabilities(weight, first)
            of_weight.addmm_(p.to(weight.dtype), weight)
            for vector, own in zip(vectors, along, strict=True):
                vector.average(p, first, own)
        means = summed(torch.stack([vector.mean(part, of_weight) for vector in vectors]))
        for first, weight, *others in head.rows(weights, *alongs, *sums, tokens=len(part.x)):
            p = part.probabilities(weight, first)
            along, own_sums = others[: len(vectors)], others[len(vectors) :]
            for vector, own, sum_, mean in zip(vectors, along, own_sums, means, strict=True):
                h = vector.add(part, p, first, weight, own, mean)
                if sum_ is not None:
                    sum_.addmm_(h.T, part.x)
            if needs[2]:
                off = part.off(p, first)
                for vector, sum_ in zip(vectors, own_sums, strict=True):
                    if vector.x is not None:
                        sum_.addmm_(off.T, vector.x)
        for vector, mean in zip(vectors, means, strict=True):
            vector.end(chunk, part, mean)
    return [list(vector.found()) for vector in vectors]
