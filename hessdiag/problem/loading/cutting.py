"""`--batch-size`: batches cut along their samples, where value and gradient prove that the parts make the whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from hessdiag.errors import HessdiagError, LoadError, first_line
from hessdiag.machine.shortage import ran_out
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.problem import Problem

# Largest relative difference between value and gradient of the whole and of its parts, by dtype: rounding.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
COARSE = 3e-2  # of other dtypes
WHOLE_NUMBERS = 2**22  # numbers in a batch up to which it is evaluated as one; of larger ones, two parts beside each

_IMPOSSIBLE = (HessdiagError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(frozen=True)
class Cut:
    """Which dimensions of a batch run over samples.

    Attributes:
        target: That of the target.
        inputs: The one of inputs that is looked at first; another of the same length may take its place.
    """

    target: int
    inputs: int

    def length(self, batch: Any) -> int:
        """Samples along the cut; 0 if the batch has no such dimension."""
        target = _target(batch)
        if not isinstance(target, Tensor):
            return batches.samples(batch) if self.target == 0 else 0
        return int(target.shape[self.target]) if target.ndim > self.target else 0

    def parts(self, batch: Any, size: int) -> Iterator[Any]:
        """The batch in parts of at most so many samples; tensors that do not run over samples stay whole in each."""
        n = self.length(batch)
        if n <= size:
            yield batch
            return
        for start in range(0, n, size):
            yield self.rows(batch, slice(start, min(start + size, n)))

    def rows(self, batch: Any, own: slice) -> Any:
        """Some samples of a batch."""
        n = self.length(batch)
        if isinstance(batch, Mapping):
            key = next((key for key in batches.TARGET_KEYS if key in batch), None)
            return {
                name: _rows(value, own, n, self.target if name == key else self.inputs) for name, value in batch.items()
            }
        if _target(batch) is not None:
            x, y = _rows(batch[0], own, n, self.inputs), _rows(batch[1], own, n, self.target)
            return type(batch)(x, y) if hasattr(batch, "_fields") else type(batch)((x, y))
        return _rows(batch, own, n, self.inputs)


CUTS = (Cut(0, 0), Cut(0, 1), Cut(1, 1))  # batch first, as nearly always; inputs of recurrent layers; their targets too


def proven(problem: Problem, size: int) -> Cut:
    """The cut of a problem's only batch whose parts make the whole.

    Parts of at most `size` samples, weighted as batches are, must have the value and the gradient of the whole batch.

    Raises:
        LoadError: with the reason, if no cut does.
    """
    reason = "no dimension of its tensors runs over samples"
    for cut in CUTS:
        if cut.length(problem.data[0]) < 2:
            continue
        try:
            whole = _evaluable(problem, cut, size)
            parts = problem.as_written(data=list(cut.parts(whole.data[0], size)))
            value, slope = _agreement(whole, parts)
            if value and slope:
                return cut
            said = _reason(whole, parts) if not value else "the value comes apart, but its gradient does not"
        except _IMPOSSIBLE as error:
            said = _no_batch(problem, cut, error)
        reason = said if cut is CUTS[0] else reason
    raise LoadError(
        f"--batch-size {size} would change what is measured, for the parts of a batch do not make the whole: {reason}.",
        "no --batch-size, or --data in batches of the size that you train with",
    )


def _evaluable(problem: Problem, cut: Cut, size: int) -> Problem:
    """The whole batch, or, where that is too large to evaluate, as much of it as makes two parts."""
    batch = problem.data[0]
    fewer = problem.as_written(data=[cut.rows(batch, slice(0, min(2 * size, cut.length(batch))))])
    if sum(tensor.numel() for tensor in batches.tensors(batch)) > WHOLE_NUMBERS:
        return fewer
    try:
        problem.evaluate(batch)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return fewer
    return problem.as_written()


def _agreement(whole: Problem, parts: Problem) -> tuple[bool, bool]:
    """Whether value and gradient of the parts are those of the whole, beside the sizes of the parts' own."""
    (expected, _), (found, scale) = _value_and_gradient(whole), _value_and_gradient(parts)
    tolerance = TOLERANCE.get(whole.dtype, COARSE)
    value, slope = (
        float((a - b).norm()) <= tolerance * size for a, b, size in zip(expected, found, scale, strict=True)
    )
    return value, slope


def _value_and_gradient(problem: Problem) -> tuple[tuple[Tensor, Tensor], tuple[float, float]]:
    """Value and gradient in float64, and the sums of their sizes over batches."""
    value = torch.zeros((), dtype=torch.float64)
    gradient: Tensor | float = 0.0
    sizes = [0.0, 0.0]
    for weight, batch in zip(problem.batch_weights, problem.data, strict=True):
        if not weight:  # every target is ignored
            continue
        with problem.evaluation():
            one, slopes = problem.slopes(problem.evaluate, batch)
        own = weight * slopes.cpu().double()
        value += weight * one.cpu().double()
        gradient = gradient + own
        sizes[0] += abs(weight * float(one))
        sizes[1] += float(own.norm())
    return (value, torch.as_tensor(gradient)), (sizes[0], sizes[1])


def _no_batch(problem: Problem, cut: Cut, error: Exception) -> str:
    """Why a part cannot be evaluated."""
    apart = _apart(problem.data[0], cut)
    if apart:
        return f"a tensor of shape {apart[0]} does not run over samples, as edges of a graph do not"
    return f"a part cannot be evaluated ({first_line(error)})"


def _apart(batch: Any, cut: Cut) -> list[tuple[int, ...]]:
    """Shapes of tensors that no dimension of which runs over samples."""
    n = cut.length(batch)
    return [tuple(item.shape) for item in batches.tensors(batch) if batches.sample_axis(item, n) is None and item.ndim]


def _reason(whole: Problem, parts: Problem) -> str:
    """Why the parts do not make the whole."""
    named = list(whole.model.named_modules())
    if not all(_agreement(whole, whole.as_written())):
        return "the forward pass is random: two evaluations of the same batch differ"
    for name, module in named:
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (whole.train_mode or module.running_mean is None):
            return f"{name} normalizes by the statistics of the batch"
    if whole.train_mode and any(isinstance(module, nn.modules.dropout._DropoutNd) for _, module in named):
        return "dropout draws another mask for every part"
    apart = _apart(whole.data[0], CUTS[0])
    if apart:
        return f"samples are connected: a tensor of shape {apart[0]} does not run over them, as edges of a graph do not"
    if whole.criterion is None:
        return "the objective is no mean over samples (in-batch negatives, samples that see each other, a sum)"
    if _same_outputs(whole, parts):
        return f"the loss {whole.loss_name} is no mean over samples (in-batch negatives, rankings, a sum)"
    for name, module in named:
        if isinstance(module, nn.RNNBase) and not module.batch_first:
            return f"the model mixes samples, or its layout is not known ({name} takes time first, and batches second)"
    return "the model mixes samples (attention over the batch, statistics of the batch)"


def _same_outputs(whole: Problem, parts: Problem) -> bool:
    """Whether the model's outputs of the parts are those of the whole."""
    outputs = [
        torch.cat([item.detach().reshape(-1) for item in batches.tensors(_plain(problem.output(batch)))])
        for problem in (whole, parts)
        for batch in problem.data
    ]
    joined = torch.cat(outputs[1:])
    return joined.shape == outputs[0].shape and bool(
        torch.allclose(joined.sort()[0], outputs[0].sort()[0], rtol=1e-4, atol=1e-6)
    )


def _plain(output: Any) -> Any:
    return output if isinstance(output, (Tensor, Mapping, Sequence)) else vars(output)


def _target(batch: Any) -> Any:
    try:
        return batches.split(batch)[1]
    except LoadError:
        return None


def _rows(part: Any, own: slice, n: int, first: int) -> Any:
    """Some samples of a part of a batch whose samples are n, along the dimension `first` if it has that length."""
    if isinstance(part, PackedSequence):
        padded, lengths = pad_packed_sequence(part, batch_first=True)
        kept = lengths[own]
        return pack_padded_sequence(padded[own, : int(kept.max())], kept, batch_first=True, enforce_sorted=False)
    if isinstance(part, Tensor):
        axes = [axis for axis in (first, *range(part.ndim)) if axis < part.ndim and part.shape[axis] == n]
        return part.narrow(axes[0], own.start, own.stop - own.start) if axes else part
    if isinstance(part, Mapping):
        return {name: _rows(value, own, n, first) for name, value in part.items()}
    all_run = isinstance(part, list) and all(isinstance(item, Tensor) and n in item.shape for item in part)
    if isinstance(part, list) and len(part) == n and not all_run:  # one item per sample
        return part[own]
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*(_rows(value, own, n, first) for value in part))
    if isinstance(part, (tuple, list)):
        return type(part)(_rows(value, own, n, first) for value in part)
    return part
