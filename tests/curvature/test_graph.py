"""What the graph of a model says about differentiating it again."""

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from hessdiag.curvature.graph import runs_python


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def checkpointed(x):
    return torch.utils.checkpoint.checkpoint(nn.functional.tanh, x, use_reentrant=False)


PLAIN = {
    "mlp": nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)),
    "tensors in lists": lambda x: torch.stack([x[0], x[1].exp()]).index_select(0, torch.tensor([1, 0])),
    "attention": nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    "recurrent": lambda x: nn.LSTM(4, 3)(x)[0],
}
PYTHON = {
    "checkpoint": checkpointed,
    "checkpoint deep inside": lambda x: (checkpointed(x.exp()) * x).sum(),
    "function": lambda x: Doubled.apply(x).sin(),
    "hooks of saved tensors": lambda x: hooked(x),
}


def hooked(x):
    with torch.autograd.graph.save_on_cpu():
        return x.exp()


@pytest.mark.parametrize("name", [*PLAIN, *PYTHON])
@pytest.mark.parametrize("gradient", [False, True])
def test_only_code_in_python_can_run_again(name, gradient):
    x = torch.randn(2, 4, dtype=torch.float32, requires_grad=True)
    y = (PLAIN | PYTHON)[name](x).square().sum()
    if gradient:
        (y,) = torch.autograd.grad(y, x, create_graph=True)
    assert runs_python([y]) == (name in PYTHON)
