"""Brute force in float64 that shares no code with the product: differences of plain gradients, J'BJ row by row."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.architectures.case import CASES, F64, Case

STEP = 1e-3


@cache
def built(name: str) -> Case:
    """A case of the table, seeded and kept."""
    return fresh(name)


def fresh(name: str) -> Case:
    """The case built once more, for what may be written to."""
    torch.manual_seed(0)
    return CASES[name]()


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """What is differentiated."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _fresh(name: str) -> tuple[Case, nn.Module]:
    """The case built once more, with its model in the mode that is measured: nothing is written to the tested one."""
    case = fresh(name)
    return case, case.model.train(case.settings.get("train_mode", False))


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().reshape(-1).to(F64) for part in parts])


def _gradient(case: Case, model: nn.Module, create_graph: bool = False) -> list[Tensor]:
    with sdpa_kernel(SDPBackend.MATH):
        value = case.whole(model)
        return list(
            torch.autograd.grad(
                value, trainable(model), create_graph=create_graph, allow_unused=True, materialize_grads=True
            )
        )


@cache
def gradient(name: str) -> Tensor:
    """The gradient of a case, (N,)."""
    return _flat(_gradient(*_fresh(name)))


@cache
def hessian(name: str) -> Tensor:
    """The Hessian of a case, (N, N), symmetrized."""
    H = by_differences(name) if built(name).oracle == "differences" else by_double_backward(name)
    return (H + H.T) / 2


def by_differences(name: str, step: float = STEP) -> Tensor:
    """Fourth-order central differences of the gradient, one entry of the parameters after the other."""
    case, model = _fresh(name)
    rows = []
    for parameter in trainable(model):
        flat = parameter.data.view(-1)
        for index in range(len(flat)):
            kept, row = flat[index].item(), torch.zeros(())
            for side, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                flat[index] = kept + side * step
                row = row + weight / (12 * step) * _flat(_gradient(case, model))
            flat[index] = kept
            rows.append(row)
    return torch.stack(rows)


def by_double_backward(name: str) -> Tensor:
    """Each entry of the gradient differentiated again, with plain autograd and the math kernels."""
    case, model = _fresh(name)
    slopes = torch.cat([part.reshape(-1).to(F64) for part in _gradient(case, model, create_graph=True)])
    return torch.stack(_slopes(slopes, trainable(model)))


@cache
def gauss_newton(name: str) -> Tensor:
    """J'BJ for every tensor that the loss receives, (N, N)."""
    case, model = _fresh(name)
    assert case.received is not None
    with sdpa_kernel(SDPBackend.MATH):
        received = list(case.received(model))
    J = torch.stack([row for tensor in received for row in _slopes(tensor, trainable(model))])
    sizes, shapes = [tensor.numel() for tensor in received], [tensor.shape for tensor in received]

    def value(flat: Tensor) -> Tensor:
        return case.value(*(part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)))

    leaf = torch.cat([tensor.detach().reshape(-1) for tensor in received]).requires_grad_()
    slope = torch.autograd.grad(value(leaf), leaf, create_graph=True)[0]
    B = torch.stack(_slopes(slope, [leaf]))
    return J.T @ B @ J


def _slopes(tensor: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The derivative of each entry of a tensor, flat."""
    if not tensor.requires_grad:
        return [torch.zeros(sum(leaf.numel() for leaf in inputs), dtype=F64)] * tensor.numel()
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    return [_flat(torch.autograd.grad(entry, inputs, **options)) for entry in tensor.reshape(-1)]


def apart(found: Tensor, expected: Tensor) -> float:
    """Distance relative to what is expected, or the distance itself from zero."""
    size = float(expected.norm())
    return float((found.to(expected) - expected).norm()) / (size if size > 1e-12 else 1.0)
