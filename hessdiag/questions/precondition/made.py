"""The preconditioners of one problem, each made when it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hessdiag.curvature.preconditioners import kronecker
from hessdiag.curvature.preconditioners.blocks import blocks_of, diagonal_of
from hessdiag.curvature.preconditioners.form import Preconditioner, diagonal, none
from hessdiag.curvature.preconditioners.moments import Moments
from hessdiag.errors import SpecError
from hessdiag.optimizers.preconditioning import Preconditioning
from hessdiag.problem.problem import Problem
from hessdiag.questions.precondition.system import Pairs

KRONECKER: dict[str, Callable[[Moments], Preconditioner]] = {
    "ggn-diagonal": kronecker.ggn_diagonal,
    "kfac": kronecker.kfac,
    "ekfac": kronecker.ekfac,
    "shampoo": kronecker.shampoo,
    "shampoo-squared": kronecker.shampoo_squared,
    "soap": kronecker.soap,
}


@dataclass
class Made:
    """What there is to make preconditioners of.

    Attributes:
        problem: The problem.
        pairs: Eigenpairs of its Hessian.
        adaptive: What the optimizer divides by.
        seed: Of random gradients, where samples have many outputs.
    """

    problem: Problem
    pairs: Pairs
    adaptive: Preconditioner
    seed: int

    def of(self, name: str, bend: Callable[[Tensor], Tensor]) -> Preconditioner:
        """The preconditioner of a name; one of H's own blocks is bent as H is.

        Raises:
            NoRootError: if it is made of Gauss-Newton gradients, and there are none.
        """
        if name == "none":
            return none()
        if name == "diagonal":
            return diagonal_of(self.pairs.values, self.pairs.vectors, bend)
        if name == "blocks":
            spans = [slice(layer.start, layer.stop) for layer in self.problem.layer_slices]
            return blocks_of(self.pairs.values, self.pairs.vectors, spans, bend)
        return self.adaptive if name == "adam" else KRONECKER[name](self.moments)

    @cached_property
    def moments(self) -> Moments:
        """Of the Gauss-Newton gradients, in one pass over the batches."""
        return Moments(self.problem, self.seed)


def adaptive(problem: Problem, seen: Preconditioning) -> Preconditioner:
    """What an optimizer divides by, as a preconditioner; entries that it does not move have the damping alone.

    Raises:
        SpecError: if it divides by no numbers.
    """
    if seen.diagonal is None or seen.plain:
        raise SpecError(
            f"{seen.optimizer} divides by no second moments, so that there is nothing to compare.",
            "--optimizer adam, or another that keeps squares of gradients, with or without its checkpoint",
        )
    values = seen.diagonal.double()
    values = torch.where(values.isfinite(), values, torch.zeros_like(values)).to(problem.device)
    return diagonal(seen.kind, values, root=True, notes=seen.notes)
