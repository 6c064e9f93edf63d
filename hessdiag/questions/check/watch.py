"""One pass forward and back, watched: what goes through each layer, and what comes back."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hessdiag.errors import ComputeError, first_line
from hessdiag.machine.shortage import ran_out
from hessdiag.numbers import listed
from hessdiag.problem.as_it_trains import as_it_trains
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.evaluation import guard, kernels
from hessdiag.problem.order import Order, tracing
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.readings import LayerReading, OutputReading, TargetReading
from hessdiag.questions.check.result import Check
from hessdiag.questions.check.stepping.first import Slope
from hessdiag.questions.check.watching import incoming, outgoing, ranges
from hessdiag.questions.check.watching.layers import Gradients, read
from hessdiag.questions.check.watching.modes import Moded
from hessdiag.questions.check.watching.outgoing import Judged
from hessdiag.questions.check.watching.owned import owned, plain_modules
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.common.described import described

TRAINED = 0.7  # of chance: a loss below was learnt


def passed(problem: Problem, *, seed: int) -> tuple[Check, Slope | None]:
    """What one pass over the first batch shows, and the batch itself: all of `Check` but steps and causes.

    Args:
        problem: What is trained; its model is run in its own mode, and left as it was.
        seed: Of the permutations that targets are compared with.

    Returns:
        What was read, and the loss with its gradient; no slope where there is none.

    Raises:
        ComputeError: if model, batch and loss do not fit.
    """
    batch = problem.data[0]
    samples = batches.samples(batch)
    received = [tensor for _, tensor in incoming.named_inputs(batch)]
    with as_it_trains(problem) as model, _settings(problem), torch.enable_grad():
        layers = owned(model)
        passing = Passing(layers, list(model.buffers()), samples, received, plain_modules(model))
        moded = Moded(model)
        outcome = _forward(problem, model, batch, passing, moded)
        loss = outgoing.judged(problem, batch, outcome.output, outcome.value)
        gradients, slope, failure = _backward(outcome, passing, loss.received)
        with torch.no_grad():
            readings = read(passing, gradients, outcome.order)
            output = outgoing.read(loss, outcome.value, samples, passing, slope)
            inputs = incoming.inputs(batch, samples, passing)
            targets = incoming.targets(loss, received, samples, seed)
            modes = moded.readings(passing.drops)
            numbers = ranges.read(problem, model, batch, passing, gradients, outcome.value)
    if outcome.output is not None:
        problem.remember(outcome.output)
    trained = None
    if output.chance is not None and output.loss is not None:
        trained = output.loss < TRAINED * output.chance
    found = Check(
        problem=described(problem),
        trained=trained,
        layers=readings,
        inputs=inputs,
        targets=targets,
        output=output,
        modes=modes,
        numbers=numbers,
        not_looked_at=tuple(_left_out(problem, samples, readings, failure, loss, output, targets)),
    )
    return found, None if failure else _slope(problem, outcome.value, gradients)


def _slope(problem: Problem, value: Tensor, gradients: Gradients) -> Slope | None:
    """The gradient by the problem's parameters, where all of them were among what was watched."""
    if any(id(parameter) not in gradients for parameter in problem.parameters):
        return None
    return Slope(float(value.detach()), tuple(gradients[id(parameter)] for parameter in problem.parameters))


@contextmanager
def _settings(problem: Problem) -> Iterator[None]:
    """What lets layers be seen and a gradient be taken: no way of an encoder around its modules, no compiled graph."""
    with ExitStack() as stack:
        stack.enter_context(kernels.plain_transformer())
        stack.enter_context(guard.plain_checkpoints())
        recurrent = [module for module in problem.model.modules() if isinstance(module, nn.RNNBase)]
        if kernels.uses_cudnn(recurrent, problem.device) and not all(module.training for module in recurrent):
            stack.enter_context(kernels.no_cudnn())  # which goes back in training mode only
        if "torch._dynamo" in sys.modules:  # whoever compiles has loaded it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _left_out(
    problem: Problem,
    samples: int,
    layers: Sequence[LayerReading],
    failure: str,
    loss: Judged,
    output: OutputReading,
    targets: TargetReading,
) -> Iterator[str]:
    """What was not looked at, and why."""
    if failure:
        yield f"gradients: {failure}"
    if any(isinstance(module, torch.jit.ScriptModule) for module in problem.model.modules()):
        yield "what goes through layers of TorchScript: their functions are not seen"
    if len(problem.data) > 1:
        yield f"batches: only the first of {len(problem.data)} was passed through"
    if samples < 2:
        yield "differences between samples: the batch has only one"
    if unused := [layer.layer for layer in layers if not layer.calls]:
        yield f"layers that the forward pass does not use: {listed(unused)}"
    if loss.output is None:
        yield "the output: what the loss receives of the model is not known"
    if output.chance is None:
        yield "the loss against chance: the best constant output is not known of this loss"
    if targets.neighbours_z is None:
        yield "whether targets belong to inputs: it takes 32 samples or more, real inputs and one target each"


@dataclass
class _Outcome:
    """One forward pass.

    Attributes:
        value: The loss.
        output: What the model put out, the last time it was called as a whole; `None` if it was not.
        order: Of the layers.
    """

    value: Tensor
    output: Any
    order: Order


def _forward(problem: Problem, model: nn.Module, batch: Any, passing: Passing, moded: Moded) -> _Outcome:
    """The loss of a batch, and what the model put out, with everything watched on the way."""
    outputs: list[Any] = []
    pairs: dict[int, tuple[int, Tensor]] = {}
    for index, layer in enumerate(passing.layers):
        for parameter in layer.parameters.values():
            pairs.setdefault(id(parameter), (index, parameter))
    trace = tracing(pairs.values(), passing.buffers, batches.tensors(batch))
    with ExitStack() as stack:
        if not isinstance(model, torch.jit.ScriptModule):  # which takes no hooks
            stack.callback(model.register_forward_hook(lambda _, args, output: outputs.append(output)).remove)
        stack.enter_context(moded.watching())
        stack.enter_context(trace)
        stack.enter_context(passing.watching())
        try:
            value = problem.objective_function(model, batch)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if ran_out(error):
                raise
            raise ComputeError(f"model, batch and loss do not fit: {first_line(error)}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ComputeError("the objective must return a scalar.", "average it, as reduction='mean' does")
    value = value.reshape(())
    return _Outcome(value, outputs[-1] if outputs else None, trace.order(len(passing.layers), value))


def _backward(outcome: _Outcome, passing: Passing, received: Tensor | None) -> tuple[Gradients, Tensor | None, str]:
    """Gradients of the loss by all that is trained and by what the loss receives; and why there are none."""
    each = {id(item): item for layer in passing.layers for item in layer.parameters.values() if item.requires_grad}
    nothing: Gradients = dict.fromkeys(each)
    if not outcome.value.requires_grad or not each:
        return nothing, None, "the loss has no graph: it depends on no parameter that is trained"
    wanted = list(each.values())
    asked = [received] if received is not None and received.requires_grad else []
    try:
        found = torch.autograd.grad(outcome.value, [*wanted, *asked], allow_unused=True)
    except RuntimeError as error:
        if ran_out(error):
            raise
        return nothing, None, f"the backward pass fails: {first_line(error)}"
    return dict(zip(each, found[: len(each)], strict=True)), found[len(each)] if asked else None, ""
