"""One step of any optimizer, with what it cost: along gradients, or of one that differentiates the loss itself."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.optimizers.closure import ClosureOptimizer
from hessdiag.optimizers.step import Step
from hessdiag.optimizers.update import forget_gradients, stepper
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem
from hessdiag.questions.escape.runs.counting import Calls, Tally
from hessdiag.questions.escape.runs.draws import Draw

Take = Callable[[Draw], Tensor | float]  # takes a step; the loss of its draw before it


class NeedsGraphError(Exception):
    """The optimizer differentiates gradients, which have to come with their graph."""


def along_gradients(
    problem: Problem, model: nn.Module, optimizer: torch.optim.Optimizer, tally: Tally, *, graph: bool
) -> Take:
    """Steps of an optimizer as torch has them.

    Args:
        problem: Gives the objective.
        model: What is trained.
        optimizer: Of its parameters.
        tally: Gets what each step costs.
        graph: Whether gradients come with their graph.
    """
    drawn: list[Draw] = []

    def gradient() -> Tensor:
        forget_gradients(optimizer)
        loss = drawn[0].loss(problem, model)
        loss.backward(create_graph=graph)  # type: ignore[no-untyped-call]
        tally.evaluations += 1
        tally.gradients += 1
        tally.passed += drawn[0].samples
        return loss.detach()

    step = stepper(optimizer, gradient)
    plain = type(optimizer).__module__.startswith(("torch.optim", "hessdiag.optimizers"))

    def take(draw: Draw) -> Tensor:
        drawn[:] = [draw]
        loss = gradient()
        step()
        tally.steps += 1
        tally.drawn += draw.samples
        return loss

    return take if plain and not graph else _watched(take, tally, graph=graph)


def _watched(take: Callable[[Draw], Tensor], tally: Tally, *, graph: bool) -> Take:
    """With the products counted that a foreign optimizer takes by itself."""
    calls = Calls()

    def watched(draw: Draw) -> Tensor:
        gradients, before = tally.gradients, calls.count
        with calls.watched(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of graphs that are kept
            try:
                loss = take(draw)
            except RuntimeError as error:
                if not graph and "does not require grad" in str(error):
                    raise NeedsGraphError from error
                raise
        products = calls.count - before - (tally.gradients - gradients)
        tally.products += products
        tally.passed += products * draw.samples
        return loss

    return watched


def by_itself(
    problem: Problem, model: nn.Module, optimizer: ClosureOptimizer, tally: Tally, *, output: bool, told: list[Step]
) -> Take:
    """Steps of an optimizer that differentiates the loss itself.

    Args:
        problem: Gives the loss.
        model: What is trained.
        optimizer: Of its parameters.
        tally: Gets what each step costs.
        output: Whether it wants the model's output beside the loss.
        told: Gets what each step did.
    """

    def take(draw: Draw) -> float:
        def closure() -> Any:
            return with_output(problem, model, draw) if output else draw.loss(problem, model)

        loss = float(optimizer.step(closure))
        last = optimizer.last
        assert last is not None
        told.append(last)
        tally.steps += 1
        tally.gradients += last.gradients
        tally.products += last.products
        tally.evaluations += last.evaluations
        tally.drawn += draw.samples
        tally.passed += draw.samples * last.backpropagations
        return loss

    return take


def with_output(problem: Problem, model: nn.Module, draw: Draw) -> tuple[Tensor, Tensor]:
    """The loss, and the output that it is computed from; that of several batches in one vector."""
    criterion = problem.criterion
    assert criterion is not None
    pairs = [criterion.parts(model, batch) for _, batch in draw.parts]
    outputs = [batches.output_tensor(received) for received, _ in pairs]
    if len(pairs) == 1:
        return draw.parts[0][0] * criterion.function(outputs[0], pairs[0][1]).reshape(()), outputs[0]
    joined = torch.cat([output.reshape(-1) for output in outputs])
    parts = torch.split(joined, [output.numel() for output in outputs])
    losses = [
        weight * criterion.function(part.view(output.shape), target).reshape(())
        for (weight, _), part, output, (_, target) in zip(draw.parts, parts, outputs, pairs, strict=True)
    ]
    return torch.stack(losses).sum(), joined
