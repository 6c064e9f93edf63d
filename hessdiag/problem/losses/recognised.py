"""What a model's own loss is in its logits: found out by value, gradient and curvature, and never by names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hessdiag.problem.batches import batch as batches
from hessdiag.problem.losses import criteria
from hessdiag.problem.losses.loss import Loss, computed
from hessdiag.problem.once import once

View = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | None]


@dataclass(frozen=True)
class OwnLoss(Loss):
    """A loss that the model computes itself, as a function of its logits.

    Attributes:
        view: From the logits and the labels to what `function` takes of them.
    """

    view: View = lambda logits, labels: (logits, labels)

    def parts(self, model: nn.Module, batch: Any) -> tuple[Any, Any]:
        """What the function takes of a batch. The model is given its labels, too, of which it may make its inputs."""
        logits, labels = _logits(batches.forward(model, batch)), batches.split(batch)[1]
        seen = None if logits is None else self.view(logits, labels)
        if seen is None:
            raise ValueError("the model's logits and labels are not those of the first batch")
        return seen


@dataclass(frozen=True)
class Recognition:
    """The loss as a function of the logits, or why it is none."""

    loss: OwnLoss | None
    missing: str = ""
    what: str = "the loss that the model computes is no known function of its logits"

    @property
    def why_none(self) -> str:
        """Why it is none, in words."""
        return f"{self.what} ({self.missing})" if self.missing else self.what


OF_AN_OBJECTIVE = Recognition(None, what="an objective is no function of the model's output alone")


def recognise(
    model: nn.Module,
    data: Sequence[Any],
    parameters: Sequence[Tensor],
    evaluation: Callable[[], AbstractContextManager[None]],
    *,
    everywhere: Callable[[Sequence["Form"]], Sequence["Form"]] = list,
) -> Recognition:
    """Find out whether a model's own loss is one of torch's, of its logits and labels, on all batches.

    The value, the gradient and one product of the curvature, all in the logits, are compared; and the gradient in the
    parameters with what comes through the logits, for a loss may have terms of another origin.

    Args:
        model: Its output has `.loss` and `.logits`.
        data: Batches with labels.
        parameters: Which are differentiated.
        evaluation: In which the model is to be called.
        everywhere: From forms that suit here to those that suit in every process, each of which has its own samples.

    Returns:
        What was found.
    """
    forms: Sequence[Form] = FORMS
    for batch in data:
        with torch.enable_grad(), evaluation():
            output = batches.forward(model, batch)
            own, logits, labels = computed(output), _logits(output), batches.split(batch)[1]
            if own is None or own.numel() != 1 or logits is None or not isinstance(labels, Tensor):
                return Recognition(None, "it does not come with logits, for labels in the batch")
            if not (own.requires_grad and logits.requires_grad):
                return Recognition(None, "it is not computed from the logits")
            found = _compared(own, logits, labels, parameters, forms)
        forms = everywhere([] if isinstance(found, str) else [form for form, apart in found if apart is None])
        if isinstance(found, str):
            return Recognition(None, found)
        if not forms:
            if any(apart is None for _, apart in found):
                return Recognition(None, "of another process's samples it is no loss that is known")
            shapes = f"logits {tuple(logits.shape)} with labels {tuple(labels.shape)} suit no loss that is known"
            return Recognition(None, "; ".join(f"{form.name} differs: {apart}" for form, apart in found) or shapes)
    form = forms[0]
    definition = f"the model's own loss, which is {form.name}"
    return Recognition(OwnLoss("output", form.function, "mean", definition, form.kind, {}, view=form.view))


@dataclass(frozen=True)
class Form:
    """A loss of torch's of logits and labels, and how it takes them."""

    name: str
    kind: criteria.Kind
    function: Callable[[Tensor, Tensor], Tensor]
    view: View


def _next_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    if not _are_classes(labels) or logits.ndim != 3 or labels.shape != logits.shape[:-1]:
        return None
    return logits[:, :-1].movedim(-1, 1), labels[:, 1:]


def _classes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Classes last, as in sequences; second, as in images; or labels of another shape for as many rows.

    Models of pixels stretch their logits to the labels' size.
    """
    if not _are_classes(labels) or logits.ndim < 2:
        return None
    if labels.shape == logits.shape[:-1]:
        return logits.movedim(-1, 1), labels
    if labels.shape == logits.shape[:1] + logits.shape[2:]:
        return logits, labels
    if logits.ndim == 4 and labels.ndim == 3:
        return F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False), labels
    rows = logits.flatten(0, -2)
    return (rows, labels.flatten()) if labels.numel() == len(rows) else None


def _elements(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor] | None:
    if labels.numel() != logits.numel():
        return None
    return logits, labels.reshape(logits.shape).to(logits.dtype)


def _are_classes(labels: Tensor) -> bool:
    return not (labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool)


FORMS = (
    Form("cross-entropy of the next tokens", "ce", F.cross_entropy, _next_tokens),
    Form("cross-entropy of its logits", "ce", F.cross_entropy, _classes),
    Form("the squared error of its logits", "mse", F.mse_loss, _elements),
    Form("binary cross-entropy of its logits", "bce", F.binary_cross_entropy_with_logits, _elements),
)


def _logits(output: Any) -> Tensor | None:
    value = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    return value if isinstance(value, Tensor) else None


def _compared(
    own: Tensor, logits: Tensor, labels: Tensor, parameters: Sequence[Tensor], forms: Sequence[Form]
) -> str | list[tuple[Form, str | None]]:
    """Why the loss is no function of the logits; or in what each form that takes them differs from it."""
    slope: Tensor | None = torch.autograd.grad(own, logits, create_graph=True, allow_unused=True)[0]
    if slope is None:
        return "it is not computed from the logits"
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(logits.shape, generator=generator, dtype=torch.float64).to(logits)
    mine = (own.detach(), slope.detach(), _bend(own, slope, logits, u))
    if _comes_another_way(own, logits, mine[1], parameters):
        return "parts of it come from elsewhere than the logits"
    cut = logits.detach().requires_grad_()
    found: list[tuple[Form, str | None]] = []
    for form in forms:
        # Models compute their losses in float32 even if their logits are of half precision.
        seen = form.view(cut.to(torch.promote_types(cut.dtype, torch.float32)), labels)
        if seen is not None:
            found.append((form, next(_differences(mine, form.function(*seen), cut, u), None)))
    return found


def _bend(value: Tensor, slope: Tensor, at: Tensor, u: Tensor) -> Tensor | None:
    """The curvature times u; `None` where the loss can be differentiated only once."""
    if once([value, slope], until=at.grad_fn) is not None:
        return None
    if not slope.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad((slope * u).sum(), at, retain_graph=True, materialize_grads=True)
    return found.detach()


def _comes_another_way(own: Tensor, logits: Tensor, slope: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Whether parameters get another gradient from the loss than through the logits."""
    options: Any = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    whole = torch.autograd.grad(own, parameters, **options)
    through = torch.autograd.grad(logits, parameters, slope, **options)
    pairs = list(zip(whole, through, strict=True))
    apart = sum(float((a - b).double().square().sum()) for a, b in pairs)
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    return not apart <= _tolerance(logits.dtype) ** 2 * size


def _differences(mine: tuple[Any, ...], value: Tensor, at: Tensor, u: Tensor) -> Iterator[str]:
    """In what a loss of the logits differs from the model's own, in words."""
    own, own_slope, own_bend = mine
    allowed = _tolerance(at.dtype)
    if not abs(float(own) - float(value.detach())) <= allowed * abs(float(value.detach())):
        yield f"it is {float(value.detach()):.5g}, not {float(own):.5g}"
    (slope,) = torch.autograd.grad(value, at, create_graph=True)
    for what, found, expected in (
        ("gradient", own_slope, slope.detach()),
        ("curvature", own_bend, _bend(value, slope, at, u)),
    ):
        if found is None or expected is None:  # only once differentiable
            continue
        apart, size = float((found - expected).double().norm()), float(expected.double().norm())
        if not apart <= allowed * size:
            share = f" by {100 * apart / size:.3g} %" if size else ""
            yield f"its {what} in the logits differs{share}"


def _tolerance(dtype: torch.dtype) -> float:
    """What rounding may do: models compute their losses in float32 even if their logits are float64."""
    return max(64 * torch.finfo(torch.float32).eps, 4 * torch.finfo(dtype).eps)
