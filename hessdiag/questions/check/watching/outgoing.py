"""What the loss receives of the model, and what it is worth beside chance."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessdiag.errors import LoadError
from hessdiag.problem.batches import batch as batches
from hessdiag.problem.losses.loss import IGNORED
from hessdiag.problem.losses.recognised import FORMS
from hessdiag.problem.problem import Problem
from hessdiag.questions.check.readings import OutputReading
from hessdiag.questions.check.watching.passing import Passing
from hessdiag.questions.check.watching.signals import Signal, known, laid_out, measured, root_mean_square
from hessdiag.questions.common.constant import BINARY, CLASSES, constant_loss, counted_targets

_MOST = 1 << 20  # numbers of an output that are looked at


@dataclass(frozen=True)
class Judged:
    """What the loss of one batch is, as far as it is known.

    Attributes:
        kind: Of `criteria.Kind`; `None` where it is not known.
        received: The tensor of the model's output that it takes.
        output: What it takes of the output, classes second where there are several; `None` where that is not known.
        target: What that is compared with; targets that are ignored are left out of `counted`.
        weighted: Whether classes weigh, or labels are smoothed: chance is then another.
        summed: Whether it is a sum.
        broadcast: Whether output and target have other shapes.
    """

    kind: str | None
    received: Tensor | None
    output: Tensor | None
    target: Tensor | None
    ignored: int = IGNORED
    weighted: bool = False
    summed: bool = False
    broadcast: bool = False


def judged(problem: Problem, batch: Any, output: Any, value: Tensor) -> Judged:
    """What is known of the loss: as it was given, or because its value is that of one of torch's."""
    target = _target(batch)
    criterion = problem.criterion
    try:
        received = None if output is None else batches.output_tensor(output)
    except LoadError:
        received = None
    if received is None or not isinstance(target, Tensor):
        return Judged(None, received, received, target if isinstance(target, Tensor) else None)
    if criterion is not None and criterion.kind is not None:
        options = criterion.options
        weighted = any(options.get(name) is not None for name in ("weight", "pos_weight"))
        return Judged(
            criterion.kind,
            received,
            _second(received, target) if criterion.kind in CLASSES else received,
            target,
            int(options.get("ignore_index", IGNORED)),
            weighted or bool(options.get("label_smoothing")),
            criterion.reduction == "sum",
            not criterion.of_tensor and criterion.kind not in CLASSES and received.shape != target.shape,
        )
    return _recognised(received, target, value)


def _target(batch: Any) -> Any:
    try:
        return batches.split(batch)[1]
    except LoadError:
        return None


def _second(output: Tensor, target: Tensor) -> Tensor:
    """Logits with their classes second."""
    last = output.ndim > 2 and target.shape == output.shape[:-1] and target.shape[1:] != output.shape[2:]
    return output.movedim(-1, 1) if last else output


def _recognised(received: Tensor, target: Tensor, value: Tensor) -> Judged:
    """A loss whose value is that of a known one to rounding is taken for it."""
    allowed = 1e-3 if received.dtype in (torch.float16, torch.bfloat16) else 1e-5
    for form in FORMS:
        try:
            seen = form.view(received.detach().float(), target)
            found = None if seen is None else float(form.function(*seen))
        except (RuntimeError, IndexError, ValueError):
            continue
        if seen is not None and found is not None and abs(found - float(value.detach())) <= allowed * abs(found):
            return Judged(form.kind, received, seen[0], seen[1])
    if received.shape != target.shape and received.is_floating_point() and target.is_floating_point():
        try:
            wide = (received.detach() - target).square().mean()
        except RuntimeError:
            return Judged(None, received, received, target)
        if abs(float(wide) - float(value.detach())) <= allowed * abs(float(wide)):
            return Judged("mse", received, received, target, broadcast=True)
    return Judged(None, received, received, target)


def read(judged: Judged, value: Tensor, samples: int, passing: Passing, slope: Tensor | None) -> OutputReading:
    """What comes out, and the loss.

    Args:
        judged: What is known of the loss.
        value: The loss.
        samples: Of the batch.
        passing: What was seen on the way.
        slope: Of the loss by the output; `None` where no graph leads there.
    """
    loss = known(float(value.detach()))
    loss = None if loss is None or math.isinf(loss) else loss
    output = judged.output
    classes_second = judged.kind in CLASSES and output is not None and output.ndim > 1
    made = None if judged.received is None else passing.made(judged.received)
    laid = None if output is None else laid_out(output, samples, unit=1 if classes_second else -1, most=_MOST)
    if laid is None or output is None:
        return OutputReading(loss=loss)
    found = Signal(*measured(laid).tolist())
    several = laid.shape[2] > 1 and judged.kind not in ("mse", *BINARY)
    spread = laid.std(-1, correction=0).mean() if several else _over_samples(laid)
    targets = count_of_targets(judged, output)
    return OutputReading(
        loss=loss,
        chance=None if judged.summed else chance(judged),
        uniform=None if judged.summed else uniform(judged),
        rms=known(found.rms),
        mean=known(found.mean),
        variation=known(found.variation),
        spread=None if spread is None else known(float(spread)),
        low=known(float(laid.min())),
        high=known(float(laid.max())),
        probabilities=probabilities(_rows(output, 1 if classes_second else -1), made),
        last=made,
        gradient_rms=None if slope is None else known(float(root_mean_square(slope)) * targets),
        depends_on_output=_depends(judged, slope),
        broadcast=judged.broadcast,
    )


def _depends(judged: Judged, slope: Tensor | None) -> bool:
    """Whether the loss changes with the output: as it does for all that is known where the output has no graph."""
    if slope is not None:
        return bool((slope != 0).any())
    return judged.received is None or not judged.received.requires_grad


def _over_samples(laid: Tensor) -> Tensor | None:
    if len(laid) < 2:
        return None
    spread: Tensor = laid.std(0).mean()
    return spread


def count_of_targets(judged: Judged, output: Tensor) -> int:
    """What the mean of the loss is over; 1 for a sum."""
    if judged.summed:
        return 1
    if judged.target is None:
        return len(output) if output.ndim else 1
    if judged.kind in CLASSES and not judged.target.is_floating_point():
        return int((judged.target != judged.ignored).sum())
    return judged.target.numel()


def counted(judged: Judged) -> Tensor | None:
    """Targets that count, in one row; of classes, whole numbers."""
    if judged.target is None:
        return None
    return (
        counted_targets(judged.target, judged.ignored) if judged.kind in CLASSES else judged.target.detach().reshape(-1)
    )


def chance(judged: Judged) -> float | None:
    """The loss of the best constant output; `None` where it is not known."""
    if judged.weighted or judged.kind is None or judged.target is None:
        return None
    return constant_loss(judged.kind, judged.target, judged.ignored)


def uniform(judged: Judged) -> float | None:
    """The loss of an output that knows nothing."""
    if judged.target is None or judged.output is None or judged.weighted:
        return None
    if judged.kind in CLASSES:
        return math.log(judged.output.shape[1]) if judged.output.ndim > 1 else None
    if judged.kind in BINARY:
        return math.log(2)
    if judged.kind == "mse" and judged.target.numel():
        return float(judged.target.detach().double().square().mean())
    return None


def probabilities(rows: Tensor, last: str | None) -> str | None:
    """Whether outputs (n, classes) are probabilities, or their logarithms.

    What is the same in all rows may sum to 1 by accident, as the logarithms of frequencies that a head starts from do.
    """
    if rows.shape[1] > 1 and bool(rows.isfinite().all()):
        differs = bool((rows != rows[:1]).any())
        for name, values in (("softmax", rows), ("log_softmax", rows.exp())):
            allowed = 1e-2 if last == name else 1e-5 * max(1.0, rows.shape[1] ** 0.5)
            inside = bool((values >= 0).all()) and bool((values <= 1 + allowed).all())
            if inside and (differs or last == name) and bool(((values.sum(-1) - 1).abs() <= allowed).all()):
                return name
    return last if last in ("log_softmax", "sigmoid") else "sigmoid" if last == "hardsigmoid" else None


def _rows(output: Tensor, classes: int) -> Tensor:
    """All classes of some of the outputs, (n, classes), in float64."""
    rows = output.detach().unsqueeze(0) if output.ndim < 2 else output.detach().movedim(classes, -1).flatten(0, -2)
    return rows[:: max(1, rows.numel() // _MOST)].double()
