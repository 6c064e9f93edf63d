"""Piecewise operations as they are watched: on its own piece, what is held is the operation itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hessdiag.curvature.point.watch import OtherPathError, holding, recording

D = torch.float64
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=D)
Y = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=D)

CALLS = {
    "relu": functional.relu,
    "relu in place": lambda x: functional.relu((2 * x).clone(), inplace=True),
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "prelu": lambda x: functional.prelu(x, torch.tensor([0.1, 0.3, 0.2], dtype=D)),
    "elu": lambda x: functional.elu(x, 0.7),
    "celu": lambda x: functional.celu(x, 0.7),
    "selu": functional.selu,
    "threshold": lambda x: functional.threshold(x, 0.2, -1.0),
    "hardshrink": functional.hardshrink,
    "softshrink": lambda x: functional.softshrink(x, 0.3),
    "clamp": lambda x: x.clamp(-0.5, 0.4),
    "clamp by tensors": lambda x: torch.clamp(x, min=Y),
    "clamp_max": lambda x: x.clamp_max(0.3),
    "hardtanh": functional.hardtanh,
    "relu6": lambda x: functional.relu6(8 * x),
    "hardsigmoid": lambda x: functional.hardsigmoid(4 * x),
    "hardswish": lambda x: functional.hardswish(4 * x),
    "abs": lambda x: x.abs() + abs(x),
    "l1_loss": lambda x: functional.l1_loss(x, Y, reduction="sum"),
    "huber_loss": lambda x: functional.huber_loss(x, Y, delta=0.5),
    "smooth_l1_loss": lambda x: functional.smooth_l1_loss(x, Y, beta=0.6, reduction="none"),
    "smooth_l1_loss of width 0": lambda x: functional.smooth_l1_loss(x, Y, beta=0.0),
    "maximum": lambda x: torch.maximum(x, Y),
    "min of two": lambda x: torch.min(x, Y),
    "max of a dimension": lambda x: x.max(2).values,
    "min, kept": lambda x: x.min(dim=1, keepdim=True)[0],
    "max of all": lambda x: x.max(),
    "amax": lambda x: x.amax((1, 3)),
    "amin": lambda x: x.amin(2, keepdim=True),
    "sort": lambda x: x.sort(dim=2, descending=True).values * torch.arange(6)[:, None],
    "topk": lambda x: x.topk(2, 1).values,
    "median": lambda x: x.median(3).values,
    "median of all": lambda x: x.median(),
    "kthvalue": lambda x: x.kthvalue(2, 2).values,
    "max_pool2d": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "max_pool2d with indices": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "max_pool1d": lambda x: functional.max_pool1d(x[0], 2),
    "adaptive_max_pool2d": lambda x: functional.adaptive_max_pool2d(x, 2),
    "comparison": lambda x: x * (x > Y) + (x >= 0) * x**2,
    "round": lambda x: x * x.round() + torch.floor(x),
    "sign": lambda x: x * torch.sign(x),
}


def _slopes(call, x):
    value = call(x)
    weights = torch.linspace(0.3, 1.7, value.numel(), dtype=D).view(value.shape)
    (slope,) = torch.autograd.grad((weights * value).sum(), x)
    return value.detach(), slope


@pytest.mark.parametrize("name", list(CALLS))
def test_what_is_held_is_the_operation_itself(name):
    call = CALLS[name]
    x = X.clone().requires_grad_()
    with recording(nn.Identity()) as found:
        value, slope = _slopes(call, x)
    assert found.calls
    assert all(bool((margin.values != 0).all()) for seen in found.calls for margin in seen.margins)
    with holding(found.calls):
        held, held_slope = _slopes(call, x)
    rounding = 1e-7 if name in ("celu", "hardsigmoid") else 1e-12  # torch keeps constants of these in float32
    torch.testing.assert_close(held, value, rtol=rounding, atol=rounding / 100)
    torch.testing.assert_close(held_slope, slope, rtol=rounding, atol=rounding / 100)
    far = (X + torch.roll(X, 1, 0)).requires_grad_()  # another piece: there it is another function
    with holding(found.calls):
        held, _ = _slopes(call, far)
    assert not torch.allclose(held, call(far).detach())


def test_pieces_know_where_they_are_and_refuse_another_path():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2), nn.Hardtanh())).double()
    x = torch.ones(4, 2, dtype=D)
    with recording(net) as found:
        net(x)
    assert [(call.module, call.operation) for call in found.calls] == [("1", "relu"), ("2.1", "hardtanh")]
    with pytest.raises(OtherPathError), holding(found.calls):
        torch.abs(net[0](x))
