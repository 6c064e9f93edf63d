"""How fast this problem is computed here: a few losses, gradients and products, timed, before anything is announced."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from hessdiag.curvature import block_norms
from hessdiag.curvature.checks import examine
from hessdiag.curvature.differences import loss_and_gradient
from hessdiag.curvature.hessian import HessianOperator
from hessdiag.curvature.measurement import measurement
from hessdiag.curvature.neuron_layers import NotInNeuronSpaceError, neuron_layers
from hessdiag.curvature.neuron_space import CERTIFIED, NeuronSpace
from hessdiag.errors import HessdiagError
from hessdiag.linalg.tridiagonal import traffic
from hessdiag.machine import capacity, cost, memory
from hessdiag.problem.measuring import wait
from hessdiag.problem.problem import Problem
from hessdiag.questions import registry
from hessdiag.questions.common.runs.outlay import outlay

DECOMPOSED = 300  # rows of the matrix whose decomposition is timed
MOST = 2.0  # seconds of one timing, about: fewer vectors share a pass where products are dear
PART = 0.05  # and of the time that is left: where that is short, too
ONCE = 0.3  # seconds from which a timing is not repeated
FEW = 4  # vectors that share a pass in questions about probes
TO_GRADIENT = 2.5  # a product over a gradient, where no product was timed


@dataclass(frozen=True)
class Sizes:
    """What the price of a question hangs on.

    Attributes:
        parameters: N.
        layers: With parameters.
        samples: In all batches.
        others: Parameters whose rows take a product each; the others' come from neuron space. `None` where all do.
        pairs: Operations of exact blocks from pairs of samples; `None` where they are dear, or do not serve.
        times_dense: How many times as many rows a matrix may have that is decomposed whole, as on a CPU.
        times_work: How much more than a CPU the device may compute.
    """

    parameters: int
    layers: int
    samples: int
    others: int | None = None
    pairs: float | None = None
    times_dense: int = 1
    times_work: int = 1


@dataclass(frozen=True)
class Pace:
    """Seconds, as measured here and now.

    Attributes:
        loss: Of the loss of all batches.
        gradient: With its gradient.
        product: One product with a single vector.
        few: One of a few that share a pass.
        together: One of as many as share a pass at most.
        cubed: Of the decomposition of a dense matrix, over the cube of its rows.
        vector: To read or write one vector.
        checked: What the check of the point takes, which all questions share; 0 where it is done.
    """

    loss: float
    gradient: float
    product: float
    few: float
    together: float
    cubed: float = 0.0
    vector: float = 0.0
    checked: float = 0.0

    def search(self, products: float) -> float:
        """Seconds of a search for eigenpairs that takes so many products, with the arithmetic beside them."""
        return products * (self.product + self.vector * traffic(int(products // 2)))


def timed(compute: Callable[[], Any], device: torch.device, left: float = math.inf) -> float:
    """Seconds of a computation, to its end: the shorter of two, for the first meets what is not there yet.

    One that takes long, or much of the seconds that are left, is not made again: what it meets is little beside it.
    """
    times = []
    for _ in range(2):
        started = time.perf_counter()
        compute()
        wait(device)
        times.append(time.perf_counter() - started)
        if times[0] > min(ONCE, PART * left):
            break
    return min(times)


@measurement()
def first_pace(problem: Problem, left: float = math.inf) -> Pace:
    """From one loss and one gradient; products are taken for a multiple of it.

    Args:
        problem: What is measured.
        left: Seconds that all questions may still take.
    """
    device = problem.device
    loss = timed(problem.value, device, left)
    gradient = timed(lambda: loss_and_gradient(problem), device, left)
    product = TO_GRADIENT * gradient
    return Pace(loss, gradient, product, product, product, checked=cost.CHECK * product)


@measurement()
def pace(problem: Problem, first: Pace, seed: int, left: float = math.inf) -> Pace:
    """From products, after the check of the point that all questions share.

    Args:
        problem: What is measured.
        first: Its losses and gradients.
        seed: Of the check.
        left: Seconds that all questions may still take.

    Raises:
        ComputeError: if there is no Hessian, or memory does not hold one product.
    """
    operator = HessianOperator(problem, check=False)
    outlay(operator)
    device = problem.device
    examine(operator, seed, squared=True)
    v = torch.randn(problem.n_parameters, 1).to(device, operator.dtype)

    def shared(vectors: int) -> float:
        V = v.repeat(1, max(vectors, 1))
        return timed(lambda: operator @ V, device, left) / V.shape[1]

    product = timed(lambda: operator @ v[:, 0], device, left)
    fitting = min(operator.chunk, int(min(MOST, PART * left) / product))
    few = shared(min(FEW, fitting)) if fitting > 1 else product
    together = shared(fitting) if fitting > FEW else few
    dense = torch.eye(DECOMPOSED, dtype=torch.float64, device=device)
    dense += 1 / (1 + torch.arange(DECOMPOSED, device=device)[:, None] + torch.arange(DECOMPOSED, device=device))
    cubed = timed(lambda: torch.linalg.eigh(dense), device) / DECOMPOSED**3
    return Pace(
        loss=first.loss,
        gradient=first.gradient,
        product=product,
        few=few,
        together=together,
        cubed=cubed,
        vector=memory.pace(problem.n_parameters * operator.dtype.itemsize, device),
    )


def sizes(problem: Problem, *, looked_at: bool) -> Sizes:
    """What prices hang on; where products were looked at, with what needs none.

    Whether neuron space serves is told by the form of the layers: a proof takes as long as some questions do.
    """
    own = capacity.of(problem.device)
    found = Sizes(
        problem.n_parameters,
        len(problem.layer_slices),
        problem.n_samples,
        times_dense=own.times_dense,
        times_work=own.times_work,
    )
    if not looked_at or problem.dtype not in CERTIFIED:
        return found
    operator = HessianOperator(problem, check=False)
    operator.settle()
    if operator.missing is not None:  # it takes differences of gradients
        return found
    try:
        space = NeuronSpace(problem)
    except (NotInNeuronSpaceError, RuntimeError, HessdiagError, MemoryError):
        return found
    pairs = None
    if registry.question("blocks").module("exact").affordable(problem):
        pairs = block_norms.operations(problem, neuron_layers(problem))
    return Sizes(**vars(found) | {"others": len(space.others), "pairs": pairs})
