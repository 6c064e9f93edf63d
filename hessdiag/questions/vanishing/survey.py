"""What networks of a depth are like, and what their measurement takes, before any is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hessdiag.problem.layers import Layer
from hessdiag.problem.problem import Problem
from hessdiag.questions.vanishing.network import PROBES
from hessdiag.questions.vanishing.norms import DENSE_PARAMETERS

HESSIAN_WORK = 5e11  # floating-point operations that the Hessian norms of a default run may take
FEWEST_HESSIAN_SEEDS = 2
PRODUCT_TO_FORWARD = 6  # operations of a Hessian-vector product over those of a forward pass


@dataclass(frozen=True)
class Survey:
    """What one network of a depth is like, before any is measured.

    Attributes:
        depth: As the function that builds it takes it.
        layers: Those with parameters, as they are executed.
        depths: How deep each lies; `None` for what is not on the way from the data to the loss.
        parameters: Their number.
        forward: Floating-point operations of one forward pass, roughly.
    """

    depth: int
    layers: Sequence[Layer]
    depths: Sequence[int | None]
    parameters: int
    forward: int

    @property
    def products(self) -> int:
        """Hessian-vector products for the norms of one network."""
        return self.parameters if self.parameters <= DENSE_PARAMETERS else PROBES * len(self.layers)

    @property
    def work(self) -> int:
        """Floating-point operations of the Hessian norms of one network, roughly."""
        return PRODUCT_TO_FORWARD * self.products * self.forward


def survey(problem: Problem, depth: int) -> Survey:
    """Look at one network, by one forward pass."""
    with _Flops() as counter:  # type: ignore[no-untyped-call]
        for batch in problem.data:
            problem.evaluate(batch)
    forward = max(counter.total, problem.n_parameters)  # the counter does not know every operation
    return Survey(depth, problem.executed_layers, problem.depths, problem.n_parameters, forward)


def affordable_networks(surveys: Sequence[Survey]) -> int:
    """How many networks a default run can afford at every depth."""
    total = sum(survey.work for survey in surveys)
    return max(FEWEST_HESSIAN_SEEDS, int(HESSIAN_WORK / total))


def cost(surveys: Sequence[Survey], seeds: int, networks: int) -> str:
    """What so many networks at each depth take, in words, with Hessian norms of some of them."""
    depths = ", ".join(str(survey.depth) for survey in surveys)
    products = networks * sum(survey.products for survey in surveys)
    return (
        f"{seeds:,} networks at depths {depths}, up to {surveys[-1].parameters:,} parameters; "
        f"Hessian norms of {networks:,}: {products:,} products"
    )


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Floating-point operations by torch's formulas. Its own counter cannot look into a derivative inside the model."""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        if count is not None:
            self.total += int(count(*args, **(kwargs or {}), out_val=found))
        return found
