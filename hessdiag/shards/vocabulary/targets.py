"""What a cross-entropy is taken against, by rows of the head."""

from dataclasses import dataclass

from torch import Tensor

from hessdiag.shards.vocabulary.tokens import Tokens


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

    def subtract_rows(self, sums: Tensor, rows: Tensor, first: int, scale: Tensor) -> None:
        """Take scale x (sum over some rows of target times row) away from sums (tokens, width), in place."""
        label, at_label = self.inside(first, len(rows))
        sums.sub_((scale[:, None] * at_label).to(sums.dtype) * rows[label[:, 0]])
        if self.everywhere is not None:
            total = (
                rows.sum(0) if self.classes is None else self.classes[first : first + len(rows)].to(rows.dtype) @ rows
            )
            sums.addr_((scale * self.everywhere).to(sums.dtype), total, alpha=-1)

    def _weights(self, z: Tensor, first: int) -> Tensor:
        if self.classes is None:
            raise ValueError("all classes count alike")
        return self.classes[first : first + z.shape[1]]
